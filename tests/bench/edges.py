#!/usr/bin/env python3
"""What each kind of control transfer and memory access costs natively, under Bailey and under QEMU's TCG.

usage: tests/bench/edges.py [--runs N] [--only NAME] [--interp] [--no-qemu] [--write]

edges.c as a program for the host and as a bare-metal guest, machine after machine, run after run.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import machines as m  # noqa: E402

GUEST_LIB = os.path.join(m.ROOT, "tests/guests/lib")
SOURCE = os.path.join(m.ROOT, "tests/bench/edges.c")
FLAGS = """-m64 -std=gnu11 -O1 -g -Wall -Wextra -Werror -Wno-unused-parameter -ffreestanding -fno-pic -fno-stack-protector
    -fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only -nostdlib -static -no-pie -Wl,--build-id=none
    -Wl,--no-warn-rwx-segments -mno-red-zone -mcmodel=small -Wl,-z,max-page-size=4096""".split()
HOSTED = "-DHOSTED -O1 -Wall -Wextra -Werror -static -no-pie -mno-red-zone -fcf-protection=none".split()
LINE = re.compile(r"^(\w+) (\d+)$", re.M)
NATIVE = "native"


def build(folder):
    image, program = os.path.join(folder, "edges.elf"), os.path.join(folder, "edges")
    parts = [os.path.join(GUEST_LIB, name) for name in ("start.S", "smp.S", "real.S", "guest.c")]
    subprocess.run(["gcc", *FLAGS, f"-I{GUEST_LIB}", f"-I{m.ROOT}/include", "-T", os.path.join(GUEST_LIB, "guest.ld"), *parts,
                    SOURCE, "-o", image], check=True)
    subprocess.run(["gcc", *HOSTED, SOURCE, "-o", program], check=True)
    return image, program


def run(command, right_status, timeout=300):
    """Nanoseconds by name."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=timeout)
    if done.returncode != right_status:
        sys.exit(f"{command[0]}: exit status {done.returncode}\n{done.stdout[-2000:]}")
    return {name: int(ps) / 1000 for name, ps in LINE.findall(done.stdout)}


def main():
    parser = argparse.ArgumentParser()
    m.add_options(parser, runs=3)
    options = parser.parse_args()
    found = m.machines(options)
    times = {label: [] for label in [NATIVE, *found]}
    with tempfile.TemporaryDirectory() as folder:
        image, program = build(folder)
        for _ in range(options.runs):
            times[NATIVE].append(run([program], 0))
            for label, command in found.items():
                times[label].append(run(command + [
                    "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", image, "-debugcon", "stdio",
                    "-device", "isa-debug-exit,iobase=0x501,iosize=1"], 1))
    missing = set(options.only or []) - set(times[m.TRANSLATOR][0])
    if missing:
        sys.exit(f"no edge {', '.join(sorted(missing))}: {', '.join(times[m.TRANSLATOR][0])}")
    names = [n for n in times[m.TRANSLATOR][0] if not options.only or n in options.only]
    text = ("# Edges\n\n" + m.description(options, found) + " Nanoseconds per event; minimum / median / maximum of the runs. "
            "What needs privilege has no native figure. What the events are: [performance.md](../performance.md).\n\n"
            + m.event_table("event", names, times))
    print(text)
    if options.write:
        m.write_page("edges.md", text)


main()
