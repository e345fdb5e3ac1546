#!/usr/bin/env python3
"""What single things cost that programs seldom do: natively, under Bailey and under QEMU's TCG.

usage: tests/bench/odd.py [--runs N] [--only NAME] [--interp] [--no-qemu] [--write]

odd.c runs natively, then in one guest after the other, run after run. It changes nothing of its machine, so
each is booted once for each run.
"""
import argparse
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import machines as m  # noqa: E402
import workloads as w  # noqa: E402

LINE = re.compile(r"^(\w+) (\d+)\s*$", re.M)
NATIVE = "native"


def parse(text):
    """Nanoseconds by name."""
    return {name: int(ps) / 1000 for name, ps in LINE.findall(text)}


def native():
    return parse(subprocess.run([os.path.join(w.BENCH_ROOT, "bin", "odd")], stdout=subprocess.PIPE, text=True, check=True).stdout)


def guest(command):
    machine = w.Machine(command)
    try:
        machine.boot(1, True)
        return parse(machine.guest.command("chroot /bench /bin/odd", w.TIMEOUT))
    finally:
        machine.end(kill=True)


def main():
    parser = argparse.ArgumentParser()
    m.add_options(parser, runs=3)
    options = parser.parse_args()
    w.make_initrd()
    found = m.machines(options)
    times = {label: [] for label in [NATIVE, *found]}
    for number in range(options.runs):
        times[NATIVE].append(native())
        for label, command in found.items():
            times[label].append(guest(command))
            if times[label][-1].keys() != times[NATIVE][0].keys():
                sys.exit(f"{label}: not all operations came to their end: {', '.join(times[label][-1])}")
            print(f"run {number + 1}: {label}", file=sys.stderr, flush=True)
    names = [n for n in times[NATIVE][0] if not options.only or n in options.only]
    missing = set(options.only or []) - set(names)
    if missing:
        sys.exit(f"no operation {', '.join(sorted(missing))}: {', '.join(times[NATIVE][0])}")
    text = ("# Odd things\n\n" + m.description(options, found) + " Nanoseconds for each; minimum / median / maximum of the runs. In "
            "the last column more is better for Bailey. What they are: `tests/bench/odd.c`; of `rep scasb` and `rep cmpsb` a byte is "
            "meant, of `recursion` a call.\n\n" + m.event_table("operation", names, times))
    print(text)
    if options.write:
        m.write_page("odd.md", text)


main()
