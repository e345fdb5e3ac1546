"""The machines that the benchmarks compare, and how their figures are written.

    add_options(parser); machines(options)     names and command lines
    spread([1, 2, 3])                          "1.00 / 2.00 / 3.00": minimum, median, maximum
"""
import math
import os
import platform
import statistics
import subprocess

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
GUESTS = os.path.join(ROOT, "build", "guests")
BAILEY = os.path.join(ROOT, "build", "bailey")
SOURCES = ("cpu", "devices", "firmware", "include", "mmu", "src")  # what the program is made of
TRANSLATOR, INTERPRETER, QEMU = "Bailey, translator", "Bailey, interpreter", "QEMU TCG"


def add_options(parser, runs):
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--interp", action="store_true", help="Bailey's interpreter too (slow)")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--write", action="store_true", help="replace the pages in docs/bench")


def machines(options):
    found = {TRANSLATOR: [BAILEY, "-accel", "jit"]}
    if not options.no_qemu:
        found[QEMU] = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"]
    if options.interp:
        found[INTERPRETER] = [BAILEY, "-accel", "interp"]
    return found


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    return " / ".join(number(f(values)) for f in (min, statistics.median, max)) if values else "—"


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values))


def first_line(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.splitlines()[0].strip() if done.stdout else "?"


def description(options, found):
    """Where and when: a paragraph for the head of a page."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    revision = first_line("git", "-C", ROOT, "log", "-1", "--format=%h", "--", *SOURCES)
    if subprocess.run(["git", "-C", ROOT, "diff", "--quiet", "HEAD", "--", *SOURCES]).returncode:
        revision += " with changes"
    text = (f"Host: {model}, {os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}, load {os.getloadavg()[0]:.1f} "
            f"at the end. Bailey {revision}")
    if QEMU in found:
        text += ", " + first_line("qemu-system-x86_64", "--version").replace(" version", "")
    return text + f". {options.runs} run{'s' if options.runs > 1 else ''}, interleaved."


def event_table(title, names, times):
    """Of each name: the spreads of times[label], one dictionary for each run, which may lack it; nanoseconds."""
    values = lambda label, name: [one[name] for one in times[label] if name in one]
    head = [title, *times] + (["QEMU / translator"] if QEMU in times else [])
    rows = []
    for name in names:
        row = [name.replace("_", " ")] + [spread(values(x, name)) for x in times]
        if QEMU in times:
            row.append(spread([a / b for a, b in zip(values(QEMU, name), values(TRANSLATOR, name))]))
        rows.append(row)
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]) + "\n"


def write_page(name, text):
    folder = os.path.join(ROOT, "docs", "bench")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        out.write(text)
