#!/usr/bin/env python3
"""Debian's own kernels, unmodified, on Bailey.

usage: linux.py BAILEY GUESTS-DIRECTORY [NAME...]
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
from boot import PROMPT, Failure, Guest, run, tool, usage_guard  # noqa: E402

usage_guard(sys.argv)
BAILEY, GUESTS = sys.argv[1], sys.argv[2]
STRESS_SECONDS = int(os.environ.get("STRESS_SECONDS", "60"))


def path(name):
    return os.path.join(GUESTS, name)


def boot(kernel, *options, initrd="test.cpio.gz", append="console=ttyS0"):
    return Guest(BAILEY, [*options, "-kernel", path(kernel), "-initrd", path(initrd), "-append", append,
                          "-nographic", "-no-reboot"])


def shell_session(kernel, *options, check=None, limit=180):
    """Boots to the busybox shell, looks around, powers off through ACPI; exit status must be 0."""
    guest = boot(kernel, *options)
    try:
        guest.expect(re.escape(PROMPT), limit)
        seconds = guest.elapsed()
        if "Linux" not in guest.command("uname -a"):
            raise Failure("uname says nothing of Linux")
        said = guest.command("echo $((6 * 7))")
        # The kernel may have something to say meanwhile: its clock is calibrated a second after the boot.
        if [line for line in said.split("\n") if line.strip() and not re.match(r"\[ *\d+\.\d+\] ", line)] != ["42"]:
            raise Failure(f"the shell cannot multiply: {said!r}")
        guest.command("ls -l / /dev | wc -l; dmesg | tail -n 3; sleep 1; true")
        if check:
            check(guest)
        status = guest.finish("poweroff -f")
        if status != 0:
            raise Failure(f"exit status {status} after power-off")
        print(f"     {kernel} {' '.join(options)}: shell after {seconds:.1f} s")
    finally:
        guest.kill()


def memory_at_least(mib):
    def check(guest):
        total = int(re.search(r"MemTotal:\s+(\d+)", guest.command("grep MemTotal /proc/meminfo")).group(1))
        if total < mib * 1024:
            raise Failure(f"the guest sees {total} KiB, expected at least {mib} MiB")
    return check


def cpus(n):
    def check(guest):
        if guest.command("nproc").strip() != str(n):
            raise Failure(f"the guest does not see {n} processors")
        # every processor runs something
        for cpu in range(n):
            guest.command(f"taskset -c {cpu} sh -c 'echo $((1 + {cpu}))'")
    return check


def cloud_512():
    shell_session("vmlinuz-cloud", "-m", "512")


def cloud_lockstep():
    """Both engines, compared region by region, from the first instruction to the power-off."""
    shell_session("vmlinuz-cloud", "-m", "512", "-accel", "lockstep", limit=900)


def generic_512():
    shell_session("vmlinuz-generic", "-m", "512")


def memory_128():
    shell_session("vmlinuz-cloud", "-m", "128", check=memory_at_least(80))


def memory_6g():
    shell_session("vmlinuz-cloud", "-m", "6G", check=memory_at_least(5700))


def smp_4():
    shell_session("vmlinuz-cloud", "-m", "512", "-smp", "4", check=cpus(4), limit=300)


# One line of shell: rounds of compressing, comparing, adding up, sorting and forking, each checked.
STRESS = " ".join([
    "worker() { n=0; while [ -e /tmp/go ]; do",
    "head -c 300000 /dev/urandom > /tmp/f$1;",
    "gzip -c /tmp/f$1 | gunzip -c | cmp - /tmp/f$1 || { echo CORRUPT; rm /tmp/go; };",
    "s=$(seq 1 400 | awk '{t+=$1} END {print t}'); [ \"$s\" = 80200 ] || { echo WRONG-SUM $s; rm /tmp/go; };",
    "head -n 2000 /proc/kallsyms | sort -n | md5sum > /dev/null; (exit 3); [ $? = 3 ] || echo WRONG-STATUS;",
    "n=$((n+1)); done; echo worker $1 rounds $n; }",
])


def smp_2_stress():
    guest = boot("vmlinuz-cloud", "-m", "512", "-smp", "2")
    try:
        guest.expect(re.escape(PROMPT), 240)
        guest.send(STRESS + "\n")
        guest.expect(re.escape(PROMPT), 30)
        guest.command("touch /tmp/go")
        out = guest.command(f"(worker 1 & worker 2 & worker 3 & worker 4 & sleep {STRESS_SECONDS}; rm -f /tmp/go; wait)",
                            STRESS_SECONDS + 300)
        rounds = [int(n) for n in re.findall(r"worker \d rounds (\d+)", out)]
        if re.search("CORRUPT|WRONG", out) or len(rounds) != 4 or min(rounds) < 1:
            raise Failure("the stress found something:\n" + out[-2000:])
        trouble = re.search("BUG|Oops|lockup|stall|segfault|WARNING|hung", guest.command("dmesg"))
        if trouble:
            raise Failure(f"the kernel complains: {trouble.group(0)}\n" + guest.command("dmesg | tail -n 60")[-3000:])
        if guest.finish("poweroff -f") != 0:
            raise Failure("exit status after power-off")
        print(f"     {STRESS_SECONDS} s, {sum(rounds)} rounds")
    finally:
        guest.kill()


def with_profile(work, *options, items="jit-profile"):
    """Boots with -d jit-profile, works in the shell, powers off; returns what finds a number in the report, and seconds."""
    with tempfile.NamedTemporaryFile() as log:
        guest = boot("vmlinuz-cloud", "-m", "512", "-accel", *options, "-d", items, "-D", log.name)
        try:
            guest.expect(re.escape(PROMPT), 180)
            work(guest)
            if guest.finish("poweroff -f") != 0:
                raise Failure("exit status after power-off")
            seconds = guest.elapsed()
        finally:
            guest.kill()
        report = log.read().decode()

    def number(pattern):
        found = re.search(pattern, report)
        if not found:
            raise Failure(f"no {pattern!r} in the report:\n{report}")
        return int(found[1])
    return number, seconds


def small_cache():
    """A cache of translated code that holds a small part of what a boot runs: it is emptied all the time."""
    def work(guest):
        guest.command("dmesg -n 1")  # what the kernel says must not stand in what a command says
        out = guest.command("seq 1 3000 | awk '{t += $1} END {print t}'")
        if out.strip() != "4501500":
            raise Failure(f"a wrong sum: {out!r}")
        guest.command("head -c 200000 /dev/urandom > /tmp/a; gzip -c /tmp/a | gunzip -c | cmp - /tmp/a")
    number, seconds = with_profile(work, "jit,tb-size=4")
    flushes, used, size = number(r"emptied (\d+) times"), number(r"at most (\d+) of"), number(r"at most \d+ of (\d+)")
    if flushes < 50 or not 0 < used <= size <= 4 << 20:
        raise Failure(f"emptied {flushes} times, {used} of {size} bytes")
    print(f"     emptied {flushes} times in {seconds:.1f} s")


# More processes than the MMU has views (32), all alive in a ring of pipes; each adds its part to what comes round. A view is
# that of a PCID, of which Linux uses few and gives them to other processes again and again, or, without PCIDs, of a process.
RING, ROUNDS = 48, 60
RING_SHELL = f"""
mkdir /tmp/ring; cd /tmp/ring; for i in $(seq 0 {RING}); do mkfifo p$i; done
member() {{ exec < p$1 > p$(($1 + 1)); while read n x; do echo $((n + 1)) $(((x * 31 + $1) % 1000003)); done; }}
for i in $(seq 0 {RING - 1}); do member $i & done
exec 8> p0 9< p{RING}; x=1
for round in $(seq 1 {ROUNDS}); do echo 0 $x >&8; read n x <&9; [ $n = {RING} ] || echo LOST $n; done
echo RESULT $x ALIVE $(ls -d /proc/[0-9]*/fd/1 | while read f; do readlink $f; done | grep -c ^/tmp/ring/p)
exec 8>&- 9<&-; wait
"""


def many_processes():
    want = 1
    for _ in range(ROUNDS):
        for i in range(RING):
            want = (want * 31 + i) % 1000003

    def work(guest):
        guest.command("stty cols 400; dmesg -n 1")  # so that the echo is one line
        for line in RING_SHELL.strip().splitlines():
            guest.command(f"echo '{line}' >> /tmp/ring.sh")
        out = guest.command("sh /tmp/ring.sh", 120)
        if f"RESULT {want} ALIVE {RING}\n" not in out or "LOST" in out:
            raise Failure(f"not {want} of {RING} processes:\n{out}")
    for model, least in (("max", 0), ("max,-pcid", RING * ROUNDS // 2)):
        number, seconds = with_profile(work, "jit", "-cpu", model)
        switches, evicted = number(r"view_switches (\d+)"), number(r"views_evicted (\d+)")
        if switches < RING * ROUNDS or evicted < least:
            raise Failure(f"{model}: only {switches} switches, {evicted} of them to a view that had to be made")
        print(f"     {model}: {switches} switches, {evicted} views evicted, {seconds:.1f} s")


def profile_kaslr():
    """Symbols of one boot name the functions of another, whose kernel has put itself elsewhere."""
    with tempfile.NamedTemporaryFile("w", suffix=".map") as table:
        bases = []

        def note(guest):
            guest.command("stty cols 400; dmesg -n 1")  # so that echoes are one line
            guest.command("echo 0 > /proc/sys/kernel/kptr_restrict")
            bases.append(guest.command("grep ' T _text$' /proc/kallsyms"))

        def first(guest):
            note(guest)
            names = "entry_SYSCALL_64|io_serial_out|io_serial_in"
            table.write(guest.command(f"grep -A1 -E ' ({names})$' /proc/kallsyms | grep -v ^--"))
            table.flush()

        with_profile(first, "jit")
        number, _ = with_profile(note, "jit", items=f"jit-profile,symbols={table.name}")
        if number(r"(\d+)  out +0xf\S+ io_serial_out\+0x\S+: out dx, al") < 1000:
            raise Failure("no OUT in io_serial_out()")
        print(f"     {bases[0].strip()} and {bases[1].strip()}")


def debian_session(disk, work):
    """An untouched Debian initramfs mounts the image's ext4 root; `work` is done in its shell."""
    guest = boot("vmlinuz-debian", "-m", "512", "-drive", f"file={disk},if=virtio,format=raw",
                 initrd="initrd-debian", append="root=/dev/vda rw console=ttyS0 init=/bin/sh")
    try:
        guest.expect(r"(?m)^# ", 240)
        guest.send("PS1='TEST# '\n")
        guest.expect(r"(?m)^TEST# ", 30)
        work(guest)
        guest.command("sync; mount -o remount,ro /")
        if guest.finish("echo o > /proc/sysrq-trigger") not in (0,):
            raise Failure("exit status after power-off")
    finally:
        guest.kill()


def debian_root():
    with tempfile.TemporaryDirectory(dir=GUESTS) as folder:
        disk = os.path.join(folder, "disk")
        subprocess.run(["cp", "--sparse=always", path("debian.ext4"), disk], check=True)

        def first(guest):
            guest.command("mount -t proc proc /proc")
            if "ext4" not in guest.command("grep ' / ' /proc/mounts"):
                raise Failure("the root is not ext4")
            guest.command("dpkg -l | wc -l; perl -e 'print 1+1' ; md5sum /bin/* > /root/sums", 240)
            guest.command("seq 1 100000 > /root/written; echo kept > /root/note")

        def second(guest):
            guest.command("mount -t proc proc /proc")
            if guest.command("cat /root/note").strip() != "kept":
                raise Failure("the file of the first boot is gone")
            guest.command("seq 1 100000 | cmp - /root/written; md5sum --quiet -c /root/sums", 240)

        debian_session(disk, first)
        debian_session(disk, second)
        tool("e2fsck", "-f", "-n", disk)


TESTS = {f.__name__: f for f in (cloud_512, cloud_lockstep, generic_512, memory_128, memory_6g, smp_4, small_cache,
                                 many_processes, profile_kaslr, debian_root, smp_2_stress)}
sys.exit(run(TESTS, sys.argv[3:]))
