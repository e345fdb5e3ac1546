#!/usr/bin/env python3
"""kill -9 in the middle of a guest's writes, a hundred times, on a raw and on a qcow2 image at once.

    kills.py BAILEY GUESTS [COUNT [SEED]]

The guest (kills.c) writes patterns and says on its console what it has flushed. After each kill, from outside: qemu-img finds no
error in the qcow2 image (clusters that leaked are allowed, and counted); on both disks each sector holds the last thing that
was flushed to it or something written to it since; sectors that were not written to are as they were. The next machine goes
on with the same images; every tenth gets new ones, a copy of random bytes and an overlay of them.
"""
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from boot import Failure, Guest, run, tool

BAILEY, GUESTS = sys.argv[1:3]
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 100
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else int(time.time())
SIZE = 64 << 20
# As in kills.c.
SECTOR, BLOCK, HOLE, EXTENTS, LONGEST = 512, 4096, 65536, 12, 24
LATER = 3  # generations after the last one reported that may have been begun: the report comes after the flush
PER_IMAGE = 10


def writes(number, run_number, generation):
    """What a generation writes, in its order: (sector, its new content)."""
    state = run_number << 40 | number << 32 | generation

    def next_random():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        return state >> 33
    for _ in range(EXTENTS):
        first = next_random() % (SIZE // BLOCK - LONGEST) * (BLOCK // SECTOR)
        for sector in range(first, first + (1 + next_random() % LONGEST) * (BLOCK // SECTOR)):
            yield sector, b"".join(n.to_bytes(4, "little") for n in (run_number, generation, sector, number)) * (SECTOR // 16)
    hole = next_random() % (SIZE // HOLE) * (HOLE // SECTOR)
    for sector in range(hole, hole + HOLE // SECTOR):
        yield sector, bytes(SECTOR)


def compare(before, after, number, run_number, flushed):
    """Fails unless every sector is what it may be. The contents of the disk before and after, the last generation reported."""
    flushed_state, maybe = {}, {}
    for generation in range(1, flushed + 1):
        flushed_state.update(writes(number, run_number, generation))
    for generation in range(flushed + 1, flushed + 1 + LATER):
        for sector, data in writes(number, run_number, generation):
            maybe.setdefault(sector, set()).add(data)
    expected = bytearray(before)
    for sector in flushed_state.keys() | maybe.keys():
        at = sector * SECTOR
        is_now = after[at:at + SECTOR]
        if is_now != flushed_state.get(sector, before[at:at + SECTOR]) and is_now not in maybe.get(sector, ()):
            raise Failure(f"disk {number}, run {run_number}, {flushed} generations flushed: sector {sector} holds "
                          f"{is_now[:16].hex()}..., flushed was {flushed_state.get(sector, before[at:])[:16].hex()}...")
        expected[at:at + SECTOR] = is_now
    if expected != after:
        sector = next(at for at in range(0, SIZE, SECTOR) if expected[at:at + SECTOR] != after[at:at + SECTOR]) // SECTOR
        raise Failure(f"disk {number}, run {run_number}: sector {sector}, to which nothing was written, has changed")


def content(path):
    with open(path, "rb") as f:
        return f.read()


class Images:
    def __init__(self, folder, dice):
        self.base, self.raw, self.qcow2, self.copy = (os.path.join(folder, name) for name in ("base", "raw", "qcow2", "copy"))
        for path in (self.raw, self.qcow2):
            if os.path.exists(path):
                os.unlink(path)
        with open(self.base, "wb") as f:
            f.write(dice.randbytes(SIZE // 2))
            f.truncate(SIZE)
        shutil.copy(self.base, self.raw)
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.base, "-F", "raw", self.qcow2)
        self.contents = [content(self.base)] * 2

    def look(self, run_number, flushed):
        """After a kill; returns how many clusters leaked."""
        lines = tool("qemu-img", "check", "--output=json", self.qcow2, ok=(0, 2, 3)).decode()
        report = json.loads(lines[lines.index("{"):])  # behind a line for each leak
        if report.get("corruptions") or report.get("check-errors"):
            raise Failure(f"run {run_number}: qemu-img check:\n{lines[-3000:]}")
        tool("qemu-img", "convert", "-O", "raw", self.qcow2, self.copy)
        for number, path in enumerate((self.raw, self.copy)):
            now = content(path)
            compare(self.contents[number], now, number, run_number, flushed[number])
            self.contents[number] = now
        return report.get("leaks", 0)


def write_and_die(images, run_number, wait):
    """Kills a machine so many seconds after both disks' first flush; returns the last generations that it has reported."""
    options = ["-m", "128", "-nographic", "-no-reboot", "-kernel", os.path.join(GUESTS, "vmlinuz-cloud"), "-initrd",
               os.path.join(GUESTS, "kills.cpio.gz"), "-append", f"console=ttyS0 quiet run={run_number}"]
    for path, form in ((images.raw, "raw"), (images.qcow2, "qcow2")):
        options += ["-drive", f"file={path},if=virtio,format={form},discard=unmap"]
    guest = Guest(BAILEY, options)
    try:
        guest.expect(r"(?s)FLUSHED 0 \d+\n.*FLUSHED 1 \d+\n|FLUSHED 1 \d+\n.*FLUSHED 0 \d+\n", 120)
        end = time.monotonic() + wait
        while time.monotonic() < end and guest.pump(max(0, end - time.monotonic())):
            pass
        if guest.process.poll() is not None:
            raise Failure("the machine ended by itself:\n" + guest.seen[-2000:])
        guest.process.kill()
        guest.process.wait()
        while guest.pump(1):  # what it had printed, up to the end
            pass
    finally:
        guest.kill()
    return [max(int(n) for n in re.findall(rf"FLUSHED {number} (\d+)\n", guest.seen)) for number in (0, 1)]


def killed_100_times():
    dice, leaks, generations = random.Random(SEED), 0, [0, 0]
    print(f"     seed {SEED}", flush=True)
    with tempfile.TemporaryDirectory(dir=GUESTS) as folder:
        for run_number in range(1, COUNT + 1):
            if run_number % PER_IMAGE == 1:
                images = Images(folder, dice)
                before = 0
            flushed = write_and_die(images, run_number, dice.random() * 0.5)
            leaked = images.look(run_number, flushed)
            leaks, before = leaks + max(0, leaked - before), leaked
            generations = [sum(pair) for pair in zip(generations, flushed)]
    print(f"     {COUNT} kills; flushed before them: {generations[0]} generations on raw, {generations[1]} on qcow2; "
          f"{leaks} clusters leaked")


sys.exit(run({"killed_100_times": killed_100_times}, []))
