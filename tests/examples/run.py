#!/usr/bin/env python3
"""The examples do what their pages say: each runs, attacks and defence, and its output is checked.

usage: run.py BAILEY GUESTS-DIRECTORY EXAMPLES-DIRECTORY [NAME...]
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "boot"))
from boot import PROMPT, Failure, Guest, run  # noqa: E402

if len(sys.argv) < 4:
    sys.exit(__doc__)
BAILEY, GUESTS, BIN = sys.argv[1:4]
SECRET = b"the combination is 38-12-57"


def tool(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


def expect(text, *patterns):
    """Each regular expression must be found, in that order."""
    at = 0
    for pattern in patterns:
        match = re.compile(pattern, re.M).search(text, at)
        if not match:
            raise Failure(f"no {pattern!r} in the output, or not in its place:\n{text}")
        at = match.end()


# ---- The bare machine ----------------------------------------------------------------------------------

def kernel(name, append=""):
    """Runs a kernel; its output and the code that it gave to isa-debug-exit."""
    done = subprocess.run(
        [BAILEY, "-m", "64", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel",
         os.path.join(BIN, name + ".elf"), "-append", append, "-device", "isa-debug-exit,iobase=0x501,iosize=1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    output = done.stdout.replace("\r", "")
    if not done.returncode & 1:
        raise Failure(f"exit status {done.returncode}:\n{output}")
    return output, done.returncode >> 1


def symbols(name):
    """Name -> (start, size) of a program's functions and variables."""
    table = {}
    for line in tool("nm", "-S", os.path.join(BIN, name)).splitlines():
        fields = line.split()
        if len(fields) == 4:
            table[fields[3]] = (int(fields[0], 16), int(fields[1], 16))
    return table


def inside(table, function, address):
    start, size = table[function]
    if not start <= address < start + size:
        raise Failure(f"{address:#x} is not in {function}() ({start:#x}, {size} bytes)")


def freestanding():
    """The object for kernels needs nothing from outside."""
    undefined = tool("nm", "-u", os.path.join(BIN, "bailey-guest.o")).split()
    if undefined:
        raise Failure(f"the library is not freestanding: {undefined}")


def bare_metal():
    output, code = kernel("bare-metal")
    table = symbols("bare-metal.elf")
    page = table["page"][0]
    # #PF, error code: P and W, and the marker that the rule did not choose: bit 15 (protect.h)
    expect(output, "^before: the write works", f"^the page at {page:x} is protected",
           rf"^after: the write faults: vector 14, error code 8003, CR2 {page + 100:x}; the byte is 0$")
    event = re.search(r"^event 1: access 2 of 1 byte at (\w+) by CPL 0, RIP (\w+)$", output, re.M)
    if not event or code != 0:
        raise Failure(f"code {code}:\n{output}")
    if int(event.group(1), 16) != page + 100:
        raise Failure(f"the event's address is not the byte's:\n{output}")
    inside(table, "write_to_page", int(event.group(2), 16))


ATTACKS = {"writes to code": "write_code", "writes to code by REP MOVSB": "write_string",
           "writes to code through another mapping": "write_alias",
           "switches CR0.WP off and writes to code": "write_without_wp",
           "maps the code once more and writes to it": "edit_page_table",
           "loads page tables of its own and writes to code": "use_own_tables"}


def unsealed_kernel():
    output, code = kernel("sealed-kernel", "unsealed")
    for attack in ATTACKS:
        expect(output, f"^malware {attack}: done$")
    if code != 6:
        raise Failure(f"{code} of 6 attacks succeeded without the device:\n{output}")


def sealed_kernel():
    output, code = kernel("sealed-kernel")
    table = symbols("sealed-kernel.elf")
    for attack, function in ATTACKS.items():
        match = re.search(rf"^malware {attack}: #PF, error code 8003, CR2 (\w+)\n    event \d+: the owner \(vcpu 0, cpl 0, "
                          r"rip (\w+)\): write, (?:1 byte|8 bytes), at (\w+)(?: through (\w+))?: refused$", output, re.M)
        if not match:
            raise Failure(f"'{attack}' is not refused and reported:\n{output}")
        cr2, rip, home, through = match.groups()
        inside(table, function, int(rip, 16))
        inside(table, "page_directories" if function == "edit_page_table" else "is_allowed", int(home, 16))
        if cr2 != (through or home):
            raise Failure(f"'{attack}': CR2 and the event disagree:\n{output}")
    sealed = "the context is sealed against this"
    expect(output, f"weaker rule: {sealed}", f"removal: {sealed}", f"end: {sealed}", "another door: done",
           r"^0 of 6 attacks succeeded; is_allowed\(1000\) = 0$")
    if code != 0:
        raise Failure(f"code {code}:\n{output}")


# ---- Programs on Debian's kernel -------------------------------------------------------------------------

class Linux:
    """Debian's kernel with the examples, at a shell."""

    def __init__(self, *options):
        path = [os.path.join(GUESTS, name) for name in ("vmlinuz-cloud", "examples.cpio.gz")]
        for name in path:
            if not os.path.exists(name):
                raise Failure(f"{name} is missing; ./dev guests makes it")
        self.guest = Guest(BAILEY, ["-m", "512", *options, "-kernel", path[0], "-initrd", path[1], "-append",
                                    "console=ttyS0", "-nographic", "-no-reboot"])

    def __enter__(self):
        self.guest.expect(re.escape(PROMPT), 240)
        return self.guest

    def __exit__(self, kind, value, trace):
        try:
            if kind is None and self.guest.finish("poweroff -f") != 0:
                raise Failure("exit status after power-off")
        finally:
            self.guest.kill()


def vault(mode):
    """The output, and what is on the disk afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        disk = os.path.join(folder, "disk")
        with open(disk, "wb") as image:
            image.truncate(1 << 20)
        with Linux("-drive", f"file={disk},if=virtio,format=raw") as guest:
            output = guest.command(f"vault {mode}", 240)
        with open(disk, "rb") as image:
            return output, image.read()


def vault_open():
    output, disk = vault("open")
    expect(output, *[f'^{re.escape(name)} *got "{SECRET.decode()}"$' for name in
                     ("another process, shared memory", "process_vm_readv()", "ptrace(PTRACE_PEEKDATA)", "/proc/kcore",
                      "a disk, by DMA")], "^5 of 5 attacks got the secret")
    if SECRET not in disk:
        raise Failure("the attack through the disk has not reached the disk")


def vault_guarded():
    output, disk = vault("guarded")
    stars = "[*]" * len(SECRET)
    expect(output, "^another process, shared memory +killed: Segmentation fault$", f'^process_vm_readv.. +got "{stars}"$',
           f'^ptrace.PTRACE_PEEKDATA. +got "{stars}"$', f'^/proc/kcore +got "{stars}"$', "^a disk, by DMA +Input/output error$",
           "^0 of 5 attacks got the secret; its owner reads it as ever$")
    # Who it was: the subject of each attack, and for the kernel that the address is in its copying code.
    expect(output, "^  another process, shared memory\n    another process .*cpl 3, rip .*read, 1 byte.*: refused$",
           "^  process_vm_readv..\n    the kernel .*cpl 0, rip f.*: given something else .*copy",
           "^  ptrace.PTRACE_PEEKDATA.\n    the kernel .*cpl 0, rip f.*: given something else",
           "^  /proc/kcore\n    the kernel .*cpl 0, rip f.*: given something else .*copy",
           "^  a disk, by DMA\n    a device 00:0[0-9a-f].0: read, .*: refused")
    if SECRET in disk:
        raise Failure("the secret is on the disk")


def demo():
    """What `./dev demo` begins with."""
    image = os.path.join(GUESTS, "demo.cpio.gz")
    guest = Guest(BAILEY, ["-m", "512", "-kernel", os.path.join(GUESTS, "vmlinuz-cloud"), "-initrd", image, "-append",
                           "console=ttyS0 quiet demo=batch", "-nographic", "-no-reboot"])
    try:
        status = guest.finish(timeout=240)
        expect(guest.seen, "^another process, shared memory +killed: Segmentation fault$", "^process_vm_readv.. +got \"[*]+\"$",
               "^0 of 2 attacks got the secret; its owner reads it as ever$", "^    another process .*: refused$",
               "^    the kernel .*: given something else", r"^6 \* 7 = 42$")
        if status != 0:
            raise Failure(f"exit status {status} after power-off")
    finally:
        guest.kill()


def gc():
    with Linux() as guest:
        output = guest.command("gc", 300)
    expect(output, r"^SIGSEGV \+ mprotect +\d+ ticks a first write", r"^upcall +\d+ ticks a first write")
    print("     " + re.search(r"^the upcall is .*$", output, re.M).group(0))


# What each mistake is reported as, and the function of buggy.c that makes it.
MISTAKES = {
    "overrun": ("write of 1 byte by {}, 0 behind a block of 13 bytes", "overrun"),
    "underrun": ("write of 1 byte by {}, 1 before a block of 13 bytes", "underrun"),
    "read-overrun": ("read of 1 byte by {}, 0 behind a block of 13 bytes", "read_overrun"),
    "use-after-free": ("write of 1 byte by {}, 5 into a block of 13 bytes", "use_after_free"),
    "double-free": ("free of 0x[0-9a-f]+ by {}, a block of 13 bytes", "double_free"),
    "in-child": ("write of 1 byte by {}, 0 behind a block of 13 bytes", "in_child"),
    "system-call": (r"write of \d+ bytes? by a system call, 0 behind a block of 13 bytes", None),
}


def heap_bugs():
    table = symbols("buggy")
    with Linux() as guest:
        for mistake, (report, function) in MISTAKES.items():
            output = guest.command(f"heap buggy {mistake}", 60)
            expect(output, f"^{mistake}: the program goes on$")
            match = re.search("^heap: " + report.format(r"program\+0x([0-9a-f]+)") + r", allocated by program\+", output, re.M)
            if not match:
                raise Failure(f"{mistake} is not reported as {report!r}:\n{output}")
            if output.count("heap:") != 1 and mistake != "system-call":
                raise Failure(f"{mistake} is reported more than once:\n{output}")
            if function:
                inside(table, function, int(match.group(1), 16))
            without = guest.command(f"buggy {mistake} || true", 60)
            if mistake != "double-free" and f"{mistake}: the program goes on" not in without:
                raise Failure(f"without the guarded heap {mistake} is noticed, too:\n{without}")
        stopped = guest.command("BAILEY_HEAP=stop heap buggy overrun", 60, status=139)  # 128 + SIGSEGV
        if "goes on" in stopped:
            raise Failure("BAILEY_HEAP=stop does not stop:\n" + stopped)
        output = guest.command("heap buggy none", 60)
        if "heap:" in output or "twelve chars, 12 characters" not in output:
            raise Failure("a report without a mistake:\n" + output)


def heap_unmodified():
    """Debian's mawk, which knows nothing of all this and makes no mistakes, works as ever."""
    program = r'''BEGIN { for (i = 0; i < 300; i++) word[i % 7 "-" i] = sprintf("%s:%d", word[i % 7 "-" (i - 7)], i);
for (w in word) { n++; sum += length(word[w]) }; print n, sum, toupper(substr("unmodified", 1, 2)) }'''.replace("\n", " ")
    words = {}
    for i in range(300):
        before = words.setdefault(f"{i % 7}-{i - 7}", "")  # to look is to make one, in awk
        words[f"{i % 7}-{i}"] = f"{before}:{i}"
    expected = f"{len(words)} {sum(map(len, words.values()))} UN"
    with Linux() as guest:
        output = guest.command(f"heap mawk '{program}'", 240)
    if "heap:" in output or expected not in output:
        raise Failure(f"expected {expected} and no reports:\n{output}")


# ---- Outside ------------------------------------------------------------------------------------------

def outside():
    """Another process guards the kernel: by symbol, by what runs, through an alias, and by a fault."""
    script = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "outside", "run")
    expect(tool(script, os.path.dirname(BAILEY), GUESTS),
           r"^guest# echo /tmp/evil >/proc/sys/kernel/modprobe; cat /proc/sys/kernel/modprobe\n/sbin/modprobe$",
           r"^guest# sysctl -w kernel.modprobe=/sbin/kmod; .*\nkernel.modprobe = /sbin/kmod\n/sbin/kmod$",
           r"^guarding modprobe_path, 256 bytes at 0xf{8}\w{8}$",
           r"^'sh' on cpu 0, in proc_dostring\+0x\w+, writes to modprobe_path\+0x0: dropped$",
           r"^'sysctl' on cpu 0, in proc_dostring\+0x\w+, writes to modprobe_path\+0x0: allowed$",
           r"^guest# echo 1 >/proc/sys/kernel/sched_schedstats; .*\n1$",
           r"kernel \(cpu 0, CPL 0, CR3 0x\w+\) at 0x\w+ <(memcpy|text_poke)\S*> writes 1 byte at 0x0*[0-7]\w{0,11}, "
           r"which is 0xf{8}\w{8} <\w*\S+>, value cc, before \w\w: let through$",
           r"^context \d+ session 0x\w+ region 0: 0x\w+ <modprobe_path\+0x0>, 256 bytes$",
           r"^Killed\n/sbin/kmod$", r"BUG: unable to handle page fault", r"error_code\(0x8003\)", r"Comm: sh ",
           r"RIP: 0010:proc_dostring", r"^the machine's exit status: 0$")


TESTS = {f.__name__: f for f in (freestanding, bare_metal, unsealed_kernel, sealed_kernel, vault_open, vault_guarded,
                                 heap_bugs, heap_unmodified, gc, outside, demo)}
sys.exit(run(TESTS, sys.argv[4:]))
