#!/usr/bin/env python3
"""What the protection device costs: a bare-metal guest times itself; targets beside what was measured.

usage: tests/bench/protect.py [--runs N] [--write]

The SIGSEGV + mprotect figure comes from examples/gc in the same run. --write replaces docs/bench/protect.md.
"""
import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
GUEST_LIB = os.path.join(ROOT, "tests/guests/lib")
FLAGS = """-m64 -std=gnu11 -O1 -g -Wall -Wextra -Wno-unused-parameter -ffreestanding -fno-pic -fno-stack-protector
    -fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only -nostdlib -static -no-pie -Wl,--build-id=none
    -Wl,--no-warn-rwx-segments -mno-red-zone -mcmodel=small -Wl,-z,max-page-size=4096""".split()
LINE = re.compile(r"^(\w+) (\d+)$", re.M)


def build(folder):
    image = os.path.join(folder, "protect.elf")
    parts = [os.path.join(GUEST_LIB, name) for name in ("start.S", "smp.S", "real.S", "guest.c")]
    subprocess.run(["gcc", *FLAGS, f"-I{GUEST_LIB}", f"-I{ROOT}/include", "-T", os.path.join(GUEST_LIB, "guest.ld"), *parts,
                    os.path.join(ROOT, "tests/bench/protect.c"), "-o", image], check=True)
    return image


def barrier():
    """examples/gc on Debian's kernel: first writes noticed by SIGSEGV and by upcall."""
    done = subprocess.run([os.path.join(ROOT, "dev"), "example", "gc"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=600)
    signal = re.search(r"^SIGSEGV \+ mprotect +(\d+) ticks", done.stdout, re.M)
    upcall = re.search(r"^upcall +(\d+) ticks", done.stdout, re.M)
    if not signal or not upcall:
        sys.exit(f"examples/gc failed:\n{done.stdout[-2000:]}")
    return {"barrier_signal": int(signal.group(1)), "barrier_upcall": int(upcall.group(1))}


def run(image):
    done = subprocess.run([os.path.join(ROOT, "build/bailey"), "-m", "8G", "-nodefaults", "-display", "none", "-no-reboot",
                           "-kernel", image, "-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0x501,iosize=1"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=600)
    if done.returncode != 1:
        sys.exit(f"the guest failed (exit status {done.returncode}):\n{done.stdout}")
    return {name: int(value) for name, value in LINE.findall(done.stdout)} | barrier()


def table(runs):
    def spread(name, unit=1):
        values = [r[name] / unit for r in runs]
        return f"{min(values):.4g} / {statistics.median(values):.4g} / {max(values):.4g}"

    def ratio(a, b):
        values = [r[a] / r[b] for r in runs]
        return f"{min(values):.3f} / {statistics.median(values):.3f} / {max(values):.3f}"

    rows = [
        ("10 000 rules on pages that the workload does not touch: time with / without", "<= 1.02, or within the spread",
         ratio("workload_10000_rules", "workload_no_rules")),
        ("10^6 pages protected by one command (one region, one rule): add, ms", "",
         spread("add_region_1000000_pages", 1000)),
        ("... set, ms", "<= 100", spread("set_rule_1000000_pages", 1000)),
        ("10^6 regions by one command: add, ms", "", spread("add_1000000_regions", 1000)),
        ("... their rules, ms", "<= 100", spread("set_1000000_rules", 1000)),
        ("logged store with 10^6 regions / with one", "1 (O(1) lookup)",
         ratio("logged_store_1000001_regions", "logged_store")),
        ("store, no rule, ns", "", spread("plain_store")),
        ("logged store, ns", "<= 1000", spread("logged_store")),
        ("skipped store, ns", "<= 1000", spread("skipped_store")),
        ("refused store with the guest's own exception handling, ns", "", spread("refused_store")),
        ("the same handling of a UD2, ns", "", spread("plain_exception")),
        ("upcall and resume, ns", "", spread("upcall_and_resume")),
        ("write barrier on Linux (examples/gc): SIGSEGV + mprotect / upcall", ">= 5",
         ratio("barrier_signal", "barrier_upcall")),
    ]
    lines = ["| what | target | min / median / max |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {a} | {b} | {c} |" for a, b, c in rows])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = build(folder)
        runs = [run(image) for _ in range(args.runs)]
    text = table(runs)
    print(text)
    if args.write:
        model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
        with open(os.path.join(ROOT, "docs/bench/protect.md"), "w") as out:
            out.write(f"# What protection costs\n\nTranslator, {args.runs} runs of `./dev bench protect` on {model}, "
                      f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}. The guest's clock counts host "
                      "nanoseconds.\n\n" + text + "\n")


main()
