#!/usr/bin/env python3
"""Disk throughput under Bailey and under QEMU's TCG, interleaved in one run.

usage: tests/bench/disks.py [--runs N] [--only NAME] [--cache MODE] [--short] [--no-qemu] [--other PROGRAM] [--write]

Each machine has six disks: virtio-blk, IDE and AHCI, each with a raw and a qcow2 image, made anew for
every run. On each of them one kind of access after the other is done in every machine before the next one.
NAME is a controller, a format or a kind of access. Throughput is by the guests' clocks (disks.c), which
count the host's nanoseconds. --other runs another build of Bailey beside this one: what has a change brought?
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "boot"))
import chart  # noqa: E402
import machines as m  # noqa: E402
from boot import PROMPT, Failure, Guest, tool  # noqa: E402

TIMEOUT = 120
OTHER = "Bailey, other build"
CACHES = ("writeback", "none")
CONTROLLERS, FORMATS = ("virtio", "IDE", "AHCI"), ("raw", "qcow2")
DISKS = [(controller, kind) for controller in CONTROLLERS for kind in FORMATS]
AREA = 128  # MiB: what is written again and read
# Title, area (first MiB, MiBs), the share of the time it is given. The order matters: "new" writes come first.
ACCESSES = {
    "write-1m-new": ("write 1 MiB, new clusters", (0, AREA), 20),
    "write-4k-new": ("write 4 KiB, random, new clusters", (AREA, 2 * AREA), 1),
    "read-1m": ("read 1 MiB", (0, AREA), 1),
    "write-1m": ("write 1 MiB", (0, AREA), 1),
    "read-1m-apart": ("read 1 MiB, apart", (0, AREA), 1),
    "write-1m-apart": ("write 1 MiB, apart", (0, AREA), 1),
    "read-256k": ("read 256 KiB", (0, AREA), 1),
    "write-256k": ("write 256 KiB", (0, AREA), 1),
    "read-4k": ("read 4 KiB, random", (0, AREA), 1),
    "write-4k": ("write 4 KiB, random", (0, AREA), 1),
    "read-4k-8": ("read 4 KiB, random, 8 at once", (0, AREA), 1),
    "write-4k-8": ("write 4 KiB, random, 8 at once", (0, AREA), 1),
    "flush-4k": ("write 4 KiB, flush", (0, AREA), 2),
}
MODULES = ("virtio_blk",)
LINE = r"^%s (\d+) (\d+) (\d+)\s*$"


def size_of(number):
    """MiB of disk `number`: by its size the guest knows it."""
    return 3 * AREA + number


def parse(access, text):
    """Bytes a second."""
    match = re.search(LINE % re.escape(access), text, re.M)
    if not match or not int(match.group(1)) or not int(match.group(3)):
        raise Failure(f"no figures; it said: {' '.join(text.split())[-300:]}")
    return int(match.group(2)) / int(match.group(1)) * 1e9


def build(folder):
    """An initrd: the storage tests' one with our program and one driver more."""
    extra = os.path.join(folder, "extra")
    os.mkdir(extra)
    subprocess.run(["gcc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", os.path.join(m.ROOT, "tests/bench/disks.c"), "-o",
                    os.path.join(extra, "disk"), "-lpthread"], check=True)
    names = ["disk"]
    for module in MODULES:
        found = tool("find", os.path.join(m.GUESTS, "kernel-generic/lib"), "-name", module + ".ko").decode().split()
        if not found:
            sys.exit(f"disks.py: Debian's kernel has no module {module}")
        tool("cp", found[0], extra)
        names.append(module + ".ko")
    done = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input="\n".join(names).encode() + b"\n", cwd=extra,
                          stdout=subprocess.PIPE, check=True)
    path = os.path.join(folder, "initrd")
    with open(path, "wb") as out, open(os.path.join(m.GUESTS, "storage.cpio.gz"), "rb") as base:
        out.write(done.stdout + base.read())
    return path


class Machine:
    def __init__(self, command, folder, initrd, cache):
        os.mkdir(folder)
        arguments = ["-device", "ahci,id=sata"]
        for number, (controller, kind) in enumerate(DISKS):
            path = os.path.join(folder, f"{number}.{kind}")
            tool("qemu-img", "create", "-q", "-f", kind, path, f"{size_of(number)}M")
            device = {"virtio": "virtio-blk-pci", "IDE": f"ide-hd,bus=ide.{number % 2}", "AHCI": f"ide-hd,bus=sata.{number % 2}"}
            arguments += ["-drive", f"if=none,id=d{number},file={path},format={kind},cache={cache}",
                          "-device", f"{device[controller]},drive=d{number}"]
        self.guest = Guest(command[0], command[1:] + [
            "-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio", "-kernel",
            os.path.join(m.GUESTS, "vmlinuz-generic"), "-initrd", initrd, "-append", "console=ttyS0 quiet", "-no-reboot", *arguments])
        try:
            self.guest.expect(re.escape(PROMPT), TIMEOUT)
            for module in MODULES:
                self.guest.command(f"insmod /{module}.ko")
            # What memory disks.c gets decides how long a request can be, and must not be left to chance.
            self.guest.command("echo madvise >/sys/kernel/mm/transparent_hugepage/enabled")
            self.devices = self.find()
        except Failure:
            self.guest.kill()
            raise

    def find(self):
        """The guest's name for each disk, once its drivers have found them all."""
        end = time.monotonic() + TIMEOUT
        while True:
            text = self.guest.command("cd /sys/block; grep . */size; cd /")
            sizes = {int(sectors) // 2048: name for name, sectors in re.findall(r"^(\w+)/size:(\d+)\s*$", text, re.M)}
            if all(size_of(n) in sizes for n in range(len(DISKS))):
                return [sizes[size_of(n)] for n in range(len(DISKS))]
            if time.monotonic() > end:
                raise Failure(f"not every disk has been found: {text}")

    def run(self, number, access, milliseconds):
        first, count = ACCESSES[access][1]
        return parse(access, self.guest.command(
            f"/disk /dev/{self.devices[number]} {access} {first} {count} {milliseconds * ACCESSES[access][2]}", TIMEOUT))

    def end(self):
        self.guest.kill()


class Results:
    def __init__(self, labels, accesses, disks):
        self.labels, self.accesses, self.disks = labels, accesses, disks
        self.speeds = {x: {(d, a): [] for d in disks for a in accesses} for x in labels}  # bytes a second
        self.failures = []

    def fail(self, label, disk, access, why):
        self.failures.append(f"{label}, {'/'.join(disk)}, {access}: {why}")
        print("FAILED " + self.failures[-1], file=sys.stderr, flush=True)

    def ratios(self, disk, access, of=m.TRANSLATOR, to=m.QEMU):
        """How many times as fast, run by run; empty unless every run went well."""
        x, y = self.speeds[of][disk, access], self.speeds[to][disk, access]
        return [a / b for a, b in zip(x, y)] if len(x) == len(y) else []


def one_round(results, found, initrd, folder, cache, milliseconds, controller):
    """A controller's disks. Machines of its own for each: a host slows down who has written much before."""
    guests = {}
    try:
        for i, (label, command) in enumerate(found.items()):
            guests[label] = Machine(command, os.path.join(folder, str(i)), initrd, cache)
        for disk in (d for d in results.disks if d[0] == controller):
            for access in ACCESSES:
                # What is not looked at is done all the same where others need what it writes.
                if access not in results.accesses and access != "write-1m-new":
                    continue
                for label, guest in guests.items():
                    os.sync()  # else the host slows one machine down for what another has left to be written
                    try:
                        speed = guest.run(DISKS.index(disk), access, milliseconds)
                    except Failure as failure:
                        results.fail(label, disk, access, str(failure))
                        continue
                    if access in results.accesses:
                        results.speeds[label][disk, access].append(speed)
    finally:
        for guest in guests.values():
            guest.end()
        tool("rm", "-rf", *(os.path.join(folder, str(i)) for i in range(len(found))))


def table(results):
    others = [x for x in results.labels if x != m.TRANSLATOR]
    head = ["disk", "access", *(f"{x}, MB/s" for x in results.labels), *(f"Bailey / {x.removeprefix('Bailey, ')}" for x in others)]
    rows = []
    for disk in results.disks:
        for access in results.accesses:
            row = ["/".join(disk), ACCESSES[access][0]]
            row += [m.spread([v / 1e6 for v in results.speeds[x][disk, access]]) for x in results.labels]
            rows.append(row + [m.spread(results.ratios(disk, access, to=x)) for x in others])
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]) + "\n"


def slower(results):
    """Where Bailey is the slower one in every run: beyond the spread."""
    return [f"{'/'.join(d)}, {ACCESSES[a][0]}: {m.spread(results.ratios(d, a))}" for d in results.disks for a in results.accesses
            if results.ratios(d, a) and max(results.ratios(d, a)) < 1]


def label(access):
    """Short enough for the chart's margin."""
    return ACCESSES[access][0].replace(", random", "").replace(" clusters", "")


def drawing(results):
    """One bar for each access and disk: QEMU is 1."""
    names = [label(a) for a in results.accesses]
    three = lambda v: (min(v), sorted(v)[len(v) // 2], max(v))
    series = {}
    for controller in CONTROLLERS:
        one = {n: three(r) for n, a in zip(names, results.accesses)
               for r in [[x for d in results.disks if d[0] == controller for x in results.ratios(d, a)]] if r}
        if one:
            series[controller] = one
    return chart.bars("Throughput relative to QEMU TCG (1); more is better", names, series) if series else ""


def page(options, found, all_results):
    parts = ["# Disks", m.description(options, found) + " Minimum / median / maximum of the runs; more is better. What is done: "
             "[performance.md](../performance.md)."]
    for cache, results in all_results.items():
        parts += [f"## cache={cache}", table(results)]
        if m.QEMU in found:
            worse = slower(results)
            parts += ["Slower than QEMU in every run:\n\n" + "\n".join("- " + x for x in worse) if worse
                      else "Nothing is slower than QEMU in every run."]
        if results.failures:
            parts += ["Failed:", "\n".join("- " + f.split("\n")[0] for f in results.failures)]
    return "\n\n".join(p.rstrip("\n") for p in parts) + "\n"


def direct_io(folder):
    """Has the images' file system O_DIRECT? cache=none needs it."""
    path = os.path.join(folder, "direct")
    with open(path, "wb"):
        pass
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        return True
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser()
    m.add_options(parser, runs=3)
    parser.add_argument("--cache", action="append", choices=CACHES, help="only this mode; may be repeated")
    parser.add_argument("--short", action="store_true", help="a sixth of a second for each figure")
    parser.add_argument("--other", metavar="PROGRAM", help="another build of Bailey, beside this one")
    options = parser.parse_args()
    only = set(options.only or [])
    unknown = only - set(CONTROLLERS) - set(FORMATS) - set(ACCESSES)
    if unknown:
        parser.error(f"no {', '.join(sorted(unknown))}: {', '.join([*CONTROLLERS, *FORMATS, *ACCESSES])}")
    disks = [d for d in DISKS if (not only & set(CONTROLLERS) or d[0] in only) and (not only & set(FORMATS) or d[1] in only)]
    accesses = [a for a in ACCESSES if not only & set(ACCESSES) or a in only]
    milliseconds = 160 if options.short else 400
    found = m.machines(options)
    if options.other:
        found[OTHER] = [os.path.realpath(options.other), "-accel", "jit"]
    all_results = {}
    with tempfile.TemporaryDirectory(dir=os.path.join(m.ROOT, "build"), prefix="bench-disk-") as folder:
        initrd = build(folder)
        for cache in options.cache or CACHES:
            if cache == "none" and not direct_io(folder):
                print("cache=none is left out: the file system of build/ has no direct I/O", file=sys.stderr)
                continue
            results = all_results[cache] = Results(list(found), accesses, disks)
            for number in range(options.runs):
                start = time.monotonic()
                for controller in dict.fromkeys(d[0] for d in disks):
                    one_round(results, found, initrd, folder, cache, milliseconds, controller)
                print(f"run {number + 1}, cache={cache} ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
    text = page(options, found, all_results)
    print(text)
    if options.write:
        for cache, results in all_results.items():
            svg = drawing(results)
            if svg:
                m.write_page(f"disk-{cache}.svg", svg)
                text += f"\n![cache={cache}](disk-{cache}.svg)\n"
        m.write_page("disk.md", text)
    return 1 if any(r.failures for r in all_results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
