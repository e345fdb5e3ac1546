#!/usr/bin/env python3
"""Whole workloads natively, under Bailey and under QEMU's TCG, interleaved in one run.

usage: tests/bench/workloads.py [--runs N] [--only NAME] [--interp] [--no-qemu] [--write]

All machines are booted, then each workload runs natively and in every guest before the next one does: the
others wait idle. Times are taken inside (workloads.c). A workload that fails or gets another checksum than
the native run is reported, left out of the means, and makes the exit status 1.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "boot"))
import chart  # noqa: E402
import machines as m  # noqa: E402
from boot import PROMPT, Failure, Guest  # noqa: E402

BENCH_ROOT = os.path.join(m.GUESTS, "bench.root", "bench")
BOOT, ONE_THREAD, TWO_THREADS = "boot", "one-thread", "two-threads"
ONE_CPU = {"fork-exec", "pipe"}  # natively on one processor, as in the guest with one
TIMEOUT = 180
LINE = r"^%s (\d+) ([0-9a-f]+)\s*$"
TITLES = {"boot": "boot to shell", "compile": "compile (cc1 -O2)", "gzip": "compress (gzip -6)", "xz": "compress (xz -1)",
          "hash": "hash", "sort-tree": "sort, tree", "perl": "Perl", "sqlite": "SQL (SQLite)", "float": "floating point",
          "matrix": "matrix, vector (AVX2)", "copy": "memory copy", "fork-exec": "fork + exec", "pipe": "pipe ping-pong",
          "page-faults": "page faults", "mmap": "mmap", "syscalls": "system calls", "one-thread": "1 thread of 2 vCPUs",
          "two-threads": "2 threads on 2 vCPUs"}


def parse(name, text):
    match = re.search(LINE % re.escape(name), text, re.M)
    if not match:
        raise Failure(f"no time; it said: {' '.join(text.split())[-300:]}")
    return int(match.group(1)), match.group(2)


def make_initrd():
    """Of what ./dev has built. The archive comes first, as it is a multiple of 512 bytes long."""
    with open(os.path.join(m.GUESTS, "bench-initrd"), "wb") as out:
        for part in ("bench.cpio", "test.cpio.gz"):
            with open(os.path.join(m.GUESTS, part), "rb") as source:
                out.write(source.read())


def native(name):
    root = ["chroot"] if os.geteuid() == 0 else ["unshare", "-r", "chroot"]
    cpus = os.sched_getaffinity(0)
    bind = lambda: os.sched_setaffinity(0, {min(cpus)} if name in ONE_CPU else cpus)
    done = subprocess.run(root + [BENCH_ROOT, "/bin/workloads", name], stdout=subprocess.PIPE, text=True, preexec_fn=bind,
                          check=True)
    return parse(name, done.stdout)


class Machine:
    """One emulator with a guest that is booted when it is first needed and again after a failure."""

    def __init__(self, command):
        self.command, self.guest, self.cpus = command, None, 0

    def boot(self, cpus, bench):
        self.end()
        initrd = [os.path.join(m.GUESTS, "bench-initrd" if bench else "test.cpio.gz")]
        self.guest = Guest(self.command[0], self.command[1:] + [
            "-m", "1024", "-smp", str(cpus), "-kernel", os.path.join(m.GUESTS, "vmlinuz-cloud"), "-initrd", *initrd,
            "-append", "console=ttyS0 quiet", "-nographic", "-no-reboot"])
        self.guest.expect(re.escape(PROMPT), TIMEOUT)
        self.cpus = cpus
        return self.guest.elapsed()

    def run(self, name):
        cpus = 2 if name in (ONE_THREAD, TWO_THREADS) else 1
        if not self.guest or self.cpus != cpus:
            self.boot(cpus, True)
        try:
            return parse(name, self.guest.command(f"chroot /bench /bin/workloads {name}", TIMEOUT))
        except (Failure, OSError):
            self.end(kill=True)
            raise

    def end(self, kill=False):
        if not self.guest:
            return
        guest, self.guest = self.guest, None
        try:
            if not kill:
                guest.finish("poweroff -f")
        finally:
            guest.kill()


class Results:
    def __init__(self, names, found):
        self.names, self.machines = names, found
        self.native = {name: [] for name in names}                      # seconds
        self.seconds = {x: {name: [] for name in names} for x in found}
        self.failures = []

    def fail(self, machine, name, why):
        self.failures.append(f"{machine}, {name}: {why}")
        print(f"FAILED {machine}, {name}: {why}", file=sys.stderr, flush=True)

    def ratios(self, machine, name):
        """To native, run by run; empty unless every run went well."""
        mine, other = self.seconds[machine][name], self.native[name]
        return [a / b for a, b in zip(mine, other)] if len(mine) == len(other) else []

    def between(self, a, b, name):
        x, y = self.seconds[a][name], self.seconds[b][name]
        return [p / q for p, q in zip(x, y)] if len(x) == len(y) else []

    def mean(self, get, names):
        """The geometric mean over the workloads, of each run."""
        columns = [get(name) for name in names if get(name)]
        return [m.geometric_mean(run) for run in zip(*columns)]


def one_round(results, number):
    found = {name: Machine(command) for name, command in results.machines.items()}
    try:
        for name in results.names:
            start = time.monotonic()
            if name != BOOT:
                ns, right = native(name)
                results.native[name].append(ns / 1e9)
            for label, machine in found.items():
                try:
                    if name == BOOT:
                        results.seconds[label][name].append(machine.boot(1, False))
                        machine.end()
                        continue
                    ns, checksum = machine.run(name)
                    if checksum != right:
                        raise Failure(f"computed {checksum}, natively {right}")
                    results.seconds[label][name].append(ns / 1e9)
                except Failure as failure:
                    results.fail(label, name, str(failure))
            print(f"run {number + 1}: {name} ({time.monotonic() - start:.1f} s)", file=sys.stderr, flush=True)
    finally:
        for machine in found.values():
            machine.end(kill=True)


def table(results):
    names = [n for n in results.names if n != BOOT]
    labels = list(results.machines)
    with_qemu = m.QEMU in labels
    head = ["workload", "native, s", *labels] + (["QEMU / translator"] if with_qemu else [])
    rows = []
    for name in names:
        row = [TITLES[name], f"{statistics.median(results.native[name]):.3f}"]
        row += [m.spread(results.ratios(x, name)) if results.ratios(x, name) else "**failed**" for x in labels]
        rows.append(row + ([m.spread(results.between(m.QEMU, m.TRANSLATOR, name))] if with_qemu else []))
    whole = [n for n in names if n != ONE_THREAD and all(results.ratios(x, n) for x in labels)]
    row = ["**geometric mean**", ""] + [m.spread(results.mean(lambda n, x=x: results.ratios(x, n), whole)) for x in labels]
    rows.append(row + ([m.spread(results.mean(lambda n: results.between(m.QEMU, m.TRANSLATOR, n), whole))] if with_qemu else []))
    if BOOT in results.names:
        row = [TITLES[BOOT] + ", s", "—"] + [m.spread(results.seconds[x][BOOT]) for x in labels]
        rows.append(row + ([m.spread(results.between(m.QEMU, m.TRANSLATOR, BOOT))] if with_qemu else []))
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]) + "\n"


def speed_up(results):
    """What a second vCPU brings: the time of one thread over that of two, the same work."""
    def row(label, seconds):
        one, two = seconds[ONE_THREAD], seconds[TWO_THREADS]
        return f"| {label} | {m.spread([a / b for a, b in zip(one, two)])} |"
    lines = ["| machine | 1 thread / 2 threads |", "| --- | --- |", row("native", results.native)]
    return "\n".join(lines + [row(x, results.seconds[x]) for x in results.machines]) + "\n"


def page(options, results):
    """The Markdown page, without its chart."""
    parts = ["# Workloads", m.description(options, results.machines) + " Times relative to native; minimum / median / maximum of "
             "the runs; lower is better. In the last column more is better for Bailey. Boots are in seconds. What the workloads "
             "do: [performance.md](../performance.md).", table(results)]
    if ONE_THREAD in results.names and TWO_THREADS in results.names:
        parts += ["What a second vCPU brings (`-smp 2`), the same work by one thread and by two:", speed_up(results)]
    if results.failures:
        parts += ["Failed:", "\n".join("- " + f.split("\n")[0] for f in results.failures) + "\n"]
    return "\n\n".join(p.rstrip("\n") for p in parts) + "\n"


def drawing(results):
    three = lambda values: (min(values), statistics.median(values), max(values))
    names = [n for n in results.names if n != BOOT]
    series = {x: {TITLES[n]: three(results.ratios(x, n)) for n in names if results.ratios(x, n)} for x in results.machines}
    series = {x: one for x, one in series.items() if one}
    return chart.bars("Time relative to native (1); less is better", [TITLES[n] for n in names], series) if series else ""


def main():
    parser = argparse.ArgumentParser()
    m.add_options(parser, runs=3)
    options = parser.parse_args()
    unknown = set(options.only or []) - set(TITLES)
    if unknown:
        parser.error(f"no workload {', '.join(sorted(unknown))}: {', '.join(TITLES)}")
    make_initrd()
    results = Results([n for n in TITLES if not options.only or n in options.only], m.machines(options))
    for name in results.names:
        if name != BOOT:
            native(name)  # so that the host has its files in memory
    for number in range(options.runs):
        one_round(results, number)
    text = page(options, results)
    print(text)
    if options.write:
        svg = drawing(results)
        m.write_page("workloads.md", text + ("\n![Chart of the table](workloads.svg)\n" if svg else ""))
        if svg:
            m.write_page("workloads.svg", svg)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
