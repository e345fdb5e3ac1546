#!/usr/bin/env python3
"""Random programs on Linux in Bailey, with the host's processor as the judge.

usage: programs.py [--seed N] [COUNT [KIND...]]      ./dev programs prepares its initramfs and calls it

Each program (generate.py) first runs natively, several times. It is dropped when it takes too long, ends otherwise than
it should or prints something else the next time. The others run on Debian's kernel under each of ENGINES, several at a
time, and must print the same. Of a program that does not, the source is kept in build/programs/SEED, with what the
guest's console has shown; `./dev programs --seed NUMBER 1 KIND` makes the one that is called KIND_NUMBER again. With
VERBOSE=1 in their environment "asm" programs print all that their signal handlers see (asm_runtime.h).
"""
import argparse
import collections
import concurrent.futures
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))
import generate  # noqa: E402
from boot import Failure, Guest  # noqa: E402

BAILEY = os.path.join(ROOT, "build", "bailey")
GUESTS = os.path.join(ROOT, "build", "guests")
FOLDER = os.path.join(ROOT, "build", "programs")
ENGINES = ["jit", "jit,hot=0", "jit,tb-size=8"]
MACHINE = ["-m", "1500", "-smp", "2", "-nographic", "-no-reboot"]
JOBS = 4            # programs at a time in a guest
BATCH = 200         # programs in one initramfs
NATIVE_RUNS = 4
NATIVE_LIMIT = 1    # seconds; a guest may take 120 (programs.init)
COMPILER_LIMIT = 60
ABORTED = "status 134\n"  # -ftrapv


class Dropped(Exception):
    """Why a program is of no use."""


def natively(program):
    """What it prints, and its status as a shell says it."""
    with subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          cwd="/tmp", start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=NATIVE_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # children, too
            process.communicate()
            raise Dropped("slow") from None
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return said.decode(errors="replace") + f"status {status}\n"


def compile_program(words, source, program):
    try:
        done = subprocess.run([*words, source, "-o", program, "-lm"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=COMPILER_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise Dropped("slow to compile") from None
    if done.returncode != 0:
        raise Dropped("not compiled")


def make(folder, kind, number, narrow):
    """Leaves a program and its source in the folder; returns what it prints."""
    name = f"{kind}_{number}"
    text, words = generate.program(kind, number, narrow)
    source, program = os.path.join(folder, "sources", name + ".c"), os.path.join(folder, "programs", name)
    with open(source, "w", encoding="ascii") as file:
        file.write(f"// {' '.join(words)}\n{text}")
    try:
        compile_program(words, source, program)
        said = natively(program)
        if not said.endswith("status 0\n") and not (said.endswith(ABORTED) and "-ftrapv" in words):
            raise Dropped("ended otherwise")
        if any(natively(program) != said for _ in range(NATIVE_RUNS - 1)):
            raise Dropped("not the same twice")
    except Dropped:
        if os.path.exists(program):
            os.remove(program)
        raise
    return said


def make_all(folder, wanted, narrow, dropped):
    """Programs of the wanted (kind, number): what they print, by name. Counts those that are dropped by the reason."""
    expected = {}
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        made = {f"{kind}_{number}": pool.submit(make, folder, kind, number, narrow) for kind, number in wanted}
        for name, result in made.items():
            try:
                expected[name] = result.result()
            except Dropped as reason:
                dropped[str(reason)] += 1
    return expected


def make_initrd(folder):
    """The programs, and behind them the initramfs of ./dev: the archive that is not packed comes first."""
    initrd = os.path.join(folder, "initrd")
    with open(initrd, "wb") as out:
        programs = sorted(os.listdir(os.path.join(folder, "programs")))
        names = "programs\n" + "".join(f"programs/{name}\n" for name in programs)
        subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=folder, input=names.encode(),
                       stdout=out, check=True)
        with open(os.path.join(GUESTS, "programs.cpio.gz"), "rb") as rest:
            shutil.copyfileobj(rest, out)
    return initrd


def in_bailey(initrd, engine, count, log):
    """What the programs print, by name."""
    guest = Guest(BAILEY, [*MACHINE, "-accel", engine, "-kernel", os.path.join(GUESTS, "vmlinuz-cloud"), "-initrd",
                           initrd, "-append", f"console=ttyS0 quiet jobs={JOBS}"], log)
    try:
        printed = guest.expect(r"PROGRAMS-ENDED\n", 120 + 30 * count)
        complaints = guest.expect(r"COMPLAINTS-ENDED\n", 60).strip()
        status = guest.finish()
    finally:
        guest.kill()
    if status != 0 or complaints:
        raise Failure(f"exit status {status}; the kernel's complaints: {complaints or 'none'}")
    parts = re.split(r"^PROGRAM (\w+)\n", printed, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def first_difference(native, emulated):
    native, emulated = native.splitlines(), emulated.splitlines()
    longest = max(len(native), len(emulated))
    native, emulated = (lines + ["(nothing)"] * (longest + 1 - len(lines)) for lines in (native, emulated))
    at = next((at for at in range(longest) if native[at] != emulated[at]), longest)
    return f"line {at + 1}: natively {native[at]!r}, in Bailey {emulated[at]!r}"


def compare(folder, expected, engine, kept):
    """Prints a line for each difference and keeps the sources; returns how many there are."""
    log_name = os.path.join(folder, engine + ".log")
    with open(log_name, "w", encoding="utf-8") as log:
        try:
            printed = in_bailey(os.path.join(folder, "initrd"), engine, len(expected), log)
        except Failure as failure:
            print(f"the machine, {engine}: {failure}", flush=True)
            wrong = list(expected)  # any of them may have done it
        else:
            wrong = [name for name in expected if printed.get(name) != expected[name]]
            for name in wrong:
                print(f"{name}, {engine}: {first_difference(expected[name], printed.get(name, ''))}", flush=True)
    for name in wrong:
        shutil.copy(os.path.join(folder, "sources", name + ".c"), kept)
    if wrong:
        shutil.copy(log_name, os.path.join(kept, f"{sorted(expected)[0]}-{engine}.log"))
    return len(wrong)


def compiles_32_bits():
    text = b"#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n"
    return subprocess.run(["gcc", "-m32", "-x", "c", "-", "-o", "/dev/null"], input=text, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def main():
    parser = argparse.ArgumentParser(prog="./dev programs")
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 7), metavar="N")
    parser.add_argument("count", type=int, nargs="?", default=BATCH, metavar="COUNT")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(generate.KINDS)} (default: all)")
    options = parser.parse_args()
    kinds = options.kinds or list(generate.KINDS)
    unknown = set(kinds) - set(generate.KINDS)
    if unknown:
        parser.error(f"no kind {', '.join(sorted(unknown))}: {', '.join(generate.KINDS)}")
    print(f"seed {options.seed}", flush=True)
    kept, start = os.path.join(FOLDER, str(options.seed)), time.monotonic()
    shutil.rmtree(kept, ignore_errors=True)
    os.makedirs(kept)
    narrow = compiles_32_bits()
    if not narrow:
        print("no 32-bit programs: gcc -m32 makes none (package gcc-multilib)", flush=True)
    wanted = [(kinds[i % len(kinds)], options.seed + i) for i in range(options.count)]
    work = os.path.join(kept, "work")
    dropped, differences, count = collections.Counter(), 0, 0
    for first in range(0, len(wanted), BATCH):
        shutil.rmtree(work, ignore_errors=True)
        for name in ("sources", "programs"):
            os.makedirs(os.path.join(work, name))
        expected = make_all(work, wanted[first:first + BATCH], narrow, dropped)
        count += len(expected)
        print(f"{len(expected)} programs made, {time.monotonic() - start:.0f} s", flush=True)
        make_initrd(work)
        for engine in ENGINES:
            differences += compare(work, expected, engine, kept)
            print(f"{engine}: {time.monotonic() - start:.0f} s", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    if not os.listdir(kept):
        os.rmdir(kept)
    reasons = "".join(f", {number} {reason}" for reason, number in sorted(dropped.items()))
    print(f"seed {options.seed}: {count} programs under {len(ENGINES)} engines, {differences} differences; "
          f"{sum(dropped.values())} dropped{reasons}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
