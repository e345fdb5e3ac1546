"""baileyctl.py - runs the program baileyctl against a machine and checks what a user sees: output, one line per
error, exit statuses, handlers, the manual page.

    python3 baileyctl.py BAILEY BAILEYCTL MANUAL
"""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

BAILEY, CTL, MANUAL = sys.argv[1:4]
# Adds 1 to the byte at 600h whenever the one at 500h is set, and then clears that:
# l: cmp byte [500h], 0; je l; inc byte [600h]; mov byte [500h], 0; jmp l
GUEST = bytes([0x80, 0x3e, 0x00, 0x05, 0x00, 0x74, 0xf9, 0xfe, 0x06, 0x00, 0x06,
               0xc6, 0x06, 0x00, 0x05, 0x00, 0xeb, 0xee])
RIP = 0x7c07  # of the INC
SYMBOLS = "0000000000000500 D bell\n0000000000000600 D counter\n0000000000000610 D behind\n0000000000000640 D end\n0000000000007c00 T loop\n"
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


class Machine:
    def __init__(self, directory):
        self.directory = directory
        self.socket = os.path.join(directory, "socket")
        self.symbols = os.path.join(directory, "symbols")
        kernel = os.path.join(directory, "kernel")
        with open(kernel, "wb") as f:
            f.write(GUEST)
        with open(self.symbols, "w", encoding="ascii") as f:
            f.write(SYMBOLS)
        self.process = subprocess.Popen([BAILEY, "-kernel", kernel, "-nodefaults", "-m", "4", "-protect",
                                         f"socket={self.socket}"], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE)
        wait_until(lambda: os.path.exists(self.socket), "no socket")

    def command(self, *args):
        return [CTL, "--socket", self.socket, "--symbols", self.symbols, *args]

    def ctl(self, *args, status=0):
        p = subprocess.run(self.command(*args), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        expect(p.returncode == status, f"{args}: status {p.returncode}, not {status}: {p.stderr}")
        if status:
            expect(re.fullmatch(r"baileyctl: [^\n]*\n", p.stderr), f"{args}: not one line: {p.stderr!r}")
        else:
            expect(p.stderr == "", f"{args}: {p.stderr!r}")
        return p.stderr if status else p.stdout

    def start(self, *args):
        return subprocess.Popen(self.command(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def byte(self, address):
        return int(self.ctl("read", "--physical", str(address), "1").split()[1], 16)

    def ring(self):
        """Makes the guest add 1, and waits until it has tried."""
        self.ctl("write", "--physical", "bell", "01")
        wait_until(lambda: self.byte(0x500) == 0, "the guest does not answer the bell")

    def bind(self, *args):
        """protect, with the context and session it printed."""
        out = self.ctl("protect", "--physical", *args)
        match = re.match(r"context (\d+) session (0x[0-9a-f]+) region 0: 0x", out)
        expect(match, f"protect printed {out!r}")
        return match.groups()


def wait_until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"FAILED: {what} within {seconds} s")
        time.sleep(0.01)


def check_memory(m):
    m.ctl("write", "--physical", "0x800", "00112233445566778899aabbccddeeff41")
    out = m.ctl("read", "--physical", "0x800", "18")
    expect(out == "0000000000000800  00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff  ..\"3DUfw........\n"
                  "0000000000000810  41 00" + 42 * " " + "  A.\n", f"read: {out!r}")
    m.ctl("read", "0x800", "1")  # paging is off: virtual is physical
    raw = subprocess.run(m.command("read", "--raw", "0x800", "2"), capture_output=True, timeout=60).stdout
    expect(raw == b"\x00\x11", f"read --raw: {raw!r}")
    big = subprocess.run(m.command("read", "--raw", "0", "0x30001"), capture_output=True, timeout=60).stdout
    expect(len(big) == 0x30001 and big[0x800:0x802] == b"\x00\x11", "read in several pieces")
    expect("NOT_MEMORY" in m.ctl("read", "--physical", "0x400000", "1", status=1), "read beyond the memory")


def check_protection(m):
    before = m.byte(0x600)
    m.ring()
    expect(m.byte(0x600) == before + 1, "the guest does not count")
    context, session = m.bind("counter", "1", "--action", "skip")
    m.ring()
    expect(m.byte(0x600) == before + 1, "skip does not skip")
    out = m.ctl("list")
    expect(re.search(rf"^context {context}  host .*regions 1 .*skipped 1", out, re.M), f"list: {out!r}")
    out = m.ctl("list", context)
    expect(out.startswith("region 0  base 0x600 <counter+0x0>  length 0x1  flags physical") and
           "kernel -w- skip" in out and "device -w- deny" in out, f"list {context}: {out!r}")
    m.ctl("protect", "--physical", "--context", context, "--session", session, "behind", "end")
    expect("region 1  base 0x610 <behind+0x0>  length 0x30 " in m.ctl("list", context), "protect --context adds no region")
    m.ctl("seal", context, session, "remove,weaken")
    expect("SEALED" in m.ctl("destroy", context, status=1), "destroy of a sealed context")
    other, _ = m.bind("0x900", "1")
    m.ctl("destroy", other)
    expect("NOT_BOUND" in m.ctl("destroy", other, status=1), "destroy twice")
    expect("NOT_BOUND" in m.ctl("grant", "3", "users,observe", status=1), "grant without a context")
    expect("NOT_BOUND" in m.ctl("revoke", "3", "users", status=1), "revoke without a context")


def check_watch(m):
    """--watch: the rule ends with the program. --json: the line as it came."""
    p = m.start("protect", "--physical", "0x700", "2", "--watch", "--subject", "host", "--cookie", "0x99")
    first = p.stdout.readline()
    context = re.match(r"context (\d+) ", first).group(1)
    j = m.start("watch", "--json")
    wait_until(lambda: "REFUSED" in m.ctl("write", "--physical", "0x701", "aa", status=1), "no refusal", 1)
    line = p.stdout.readline()
    expect(line == f"context {context} region 0: host writes 1 byte at 0x701 <end+0xc1>, value aa, before 00: refused\n",
           f"watch: {line!r}")
    # watch --json may have begun later: refuse until it has heard of one
    heard = []
    while not heard:
        m.ctl("write", "--physical", "0x701", "ab", status=1)
        if select_readable(j.stdout):
            heard = [json.loads(j.stdout.readline())]
    event = heard[0]["event"]
    expect((event["subject"], event["cookie"], event["context"]) == ("host", "0x99", int(context)), f"json: {event}")
    p.kill()
    wait_until(lambda: f"context {context} " not in m.ctl("list"), "the rule outlives its --watch")
    m.ctl("write", "--physical", "0x701", "00")
    p.communicate()
    return j


def select_readable(stream):
    import select
    return bool(select.select([stream], [], [], 0.2)[0])


def check_serve(m):
    context, _ = m.bind("0x602", "1", "--action", "ask")
    del context
    handler = os.path.join(m.directory, "handler")
    log = os.path.join(m.directory, "log")
    with open(handler, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nread line\necho \"$line\" >>" + log + "\n"
                "echo $BAILEY_ACCESS $BAILEY_SUBJECT $BAILEY_ADDRESS_SYMBOL $BAILEY_RIP_SYMBOL $BAILEY_RIP \"$@\" >>" + log +
                "\n. " + os.path.join(m.directory, "verdict") + "\n")
    os.chmod(handler, 0o755)

    def verdict(text):
        with open(os.path.join(m.directory, "verdict"), "w", encoding="ascii") as f:
            f.write(text)

    # a fresh machine: in the other one the counter is sealed
    context, _ = m.bind("counter", "1", "--deny", "w", "--action", "ask", "--fault", "general")
    verdict("echo let")
    p = m.start("serve", "--context", context, "--timeout", "60000", handler, "--json", "arg")
    wait_until(lambda: "handled_outside true" in m.ctl("list"), "serve does not register")
    before = m.byte(0x600)
    m.ring()
    expect(m.byte(0x600) == before + 1, "serve: let")
    verdict("echo drop")
    m.ring()
    expect(m.byte(0x600) == before + 1, "serve: drop")
    verdict("echo give 0x41")  # INC reads 41h, and its write is dropped
    m.ring()
    expect(m.byte(0x600) == before + 1, "serve: give")
    with open(log, encoding="ascii") as f:
        lines = f.read().splitlines()
    event = json.loads(lines[0])["ask"]["event"]
    expect(event["subject"] == "kernel" and int(event["rip"], 16) == RIP, f"serve: {event}")
    expect(lines[1] == f"rw kernel counter+0x0 loop+0x7 {RIP:#x} --json arg", f"serve: environment {lines[1]!r}")
    verdict("echo perhaps")  # refused: #GP through an empty vector table, so the guest is lost
    m.ctl("write", "--physical", "bell", "01")
    line = p.stderr.readline()
    expect(line == f"baileyctl: {handler} gave no verdict but: perhaps; refused\n", f"serve: {line!r}")
    m.ctl("stop")
    expect(p.wait(timeout=60) == 0, "serve does not end with its machine")
    expect(m.process.wait(timeout=60) == 0, "stop")
    p.communicate()


def check_slow_handler(m):
    """One that is too slow is killed, with what it has started, and the access refused."""
    context, _ = m.bind("counter", "1", "--action", "ask", "--fault", "general")
    marker = os.path.join(m.directory, "marker")
    p = m.start("serve", "--context", context, "--timeout", "300", "sh", "-c", f"(sleep 1; touch {marker}) & sleep 1000")
    wait_until(lambda: "handled_outside true" in m.ctl("list"), "serve does not register")
    m.ctl("write", "--physical", "bell", "01")
    line = p.stderr.readline()
    expect(line == "baileyctl: sh took too long; refused\n", f"slow: {line!r}")
    time.sleep(2)
    expect(not os.path.exists(marker), "what a slow handler has started lives on")
    expect("BUSY" in m.ctl("serve", "--context", context, "true", status=1), "two handlers")
    m.process.kill()  # without a word
    expect(p.wait(timeout=60) == 3, "serve: a machine that was killed")
    p.communicate()


def check_machine(m, watcher):
    expect(m.ctl("status") == "running, 1 processor\n", "status")
    before = json.loads(m.ctl("--json", "counters"))["counters"]
    m.ring()
    after = json.loads(m.ctl("--json", "counters"))["counters"]
    expect(len(before) == 1 and before[0]["mmu"]["walks"] > 0, f"counters: {before}")
    expect(all(after[0]["mmu"][k] >= n for k, n in before[0]["mmu"].items()), f"counters go back: {before} {after}")
    expect(re.search(r"^cpu0 mmu  walks \d+  fills \d+ ", m.ctl("counters"), re.M), "counters for people")
    m.ctl("pause")
    expect(m.ctl("status") == "paused, 1 processor\n", "status after pause")
    m.ctl("write", "--physical", "bell", "01")
    time.sleep(0.2)
    expect(m.byte(0x500) == 1, "a paused guest runs")
    m.ctl("continue")
    wait_until(lambda: m.byte(0x500) == 0, "the guest does not go on")
    expect(json.loads(m.ctl("--json", "status"))["vcpus"] == 1, "status --json")
    m.ctl("stop")
    expect(m.process.wait(timeout=60) == 0, "stop: exit status")
    expect(not os.path.exists(m.socket), "the socket is left behind")
    rest = watcher.communicate(timeout=60)[0]
    states = [json.loads(line)["machine"]["state"] for line in rest.splitlines() if "machine" in json.loads(line)]
    expect(states == ["paused", "running"], f"watch: states {states}")
    expect(watcher.returncode == 0, "watch does not end with its machine")


def check_wrong_use(m):
    for args, text in [
            ([], "no command"), (["frobnicate"], "no command 'frobnicate'"), (["--frob", "list"], "no option --frob"),
            (["-x", "list"], "no option -x"), (["protect"], "usage: protect ADDRESS"), (["read", "0x800"], "usage: read"),
            (["list", "x"], "'x' is no context"), (["protect", "0x800"], "how many bytes"),
            (["--deny", "z", "list"], "--deny cannot be 'z'"), (["--subject", "me", "list"], "--subject cannot be"),
            (["--action", "maybe", "list"], "--action cannot be"), (["list", "--socket"], "--socket needs a value"),
            (["--json=1", "list"], "--json takes no value"), (["--timeout", "60001", "list"], "--timeout cannot be"),
            (["write", "0", "0"], "hexadecimal"), (["serve", "true"], "--context"), (["grant", "1", "all"], "'all' is no list"),
            (["seal", "64", "1", ""], "no list"), (["read", "0", "0x10000000"], "at most 64 MiB")]:
        expect(text in m.ctl(*args, status=2), f"{args}: does not say {text!r}")
    for args, text in [(["protect", "nothing"], "no symbol 'nothing'"), (["protect", "counter+x"], "not an address"),
                       (["protect", "behind", "counter"], "does not lie behind"),
                       (["--symbols", "/nonexistent", "list"], "/nonexistent"),
                       (["serve", "--context", "80", "true"], "BAD_ARGUMENT"),
                       (["--vcpu", "1", "protect", "0x800", "1"], "BAD_ARGUMENT")]:
        expect(text in m.ctl(*args, status=1), f"{args}: does not say {text!r}")
    count = len(m.ctl("list").splitlines())
    m.ctl("protect", "--physical", "0x400000", "1", status=1)
    expect(len(m.ctl("list").splitlines()) == count, "a failed protect leaves its context behind")


def check_full_output(m):
    """What could not be written is said, also when the last piece of it left nothing in the buffer."""
    with open("/dev/full", "w", encoding="ascii") as full:
        for args in (["status"], ["read", "--physical", "--raw", "0", "65536"], ["read", "--physical", "0", "65536"],
                     ["protect", "--physical", "0x900", "1"], ["protect", "--physical", "0x900", "1", "--watch"]):
            p = subprocess.run(m.command(*args), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                               text=True, timeout=60)
            expect(p.returncode == 1 and p.stderr == "baileyctl: could not write to standard output\n",
                   f"{args} >/dev/full: status {p.returncode}, {p.stderr!r}")


def check_no_machine(directory):
    def run(*args, env=None):
        return subprocess.run([CTL, *args], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "BAILEY_SOCKET": "", **(env or {})} if env is not None else
                              {k: v for k, v in os.environ.items() if k != "BAILEY_SOCKET"})
    p = run("list")
    expect(p.returncode == 2 and "BAILEY_SOCKET" in p.stderr, "no socket at all")
    nowhere = os.path.join(directory, "nowhere")
    p = run("list", env={"BAILEY_SOCKET": nowhere})
    expect(p.returncode == 3 and re.fullmatch(r"baileyctl: [^\n]*No such file[^\n]*\n", p.stderr), f"nobody: {p.stderr!r}")
    for reply in (b"SSH-2.0-OpenSSH\r\n", b"{\"QMP\": {}}\n", b"{\"bailey\":{\"protocol\":99}}\n", b""):
        path = os.path.join(directory, "other")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        client = subprocess.Popen([CTL, "--socket", path, "list"], stderr=subprocess.PIPE, text=True)
        peer, _ = server.accept()
        peer.sendall(reply)
        peer.close()
        text = client.communicate(timeout=60)[1]
        expect(client.returncode == 3 and re.fullmatch(r"baileyctl: [^\n]*\n", text), f"{reply}: {text!r}")
        server.close()
        os.unlink(path)


def check_information():
    p = subprocess.run([CTL, "--help"], capture_output=True, text=True, timeout=60)
    expect(p.returncode == 0 and p.stderr == "", "--help")
    options = re.findall(r"^  --([a-z0-9]+)", p.stdout, re.M)
    commands = re.findall(r"^  ([a-z]+)", p.stdout, re.M)
    expect(len(options) > 15 and len(commands) > 12, "--help: too little")
    with open(MANUAL, encoding="utf-8") as f:
        manual = f.read().replace("\\-", "-")
    for option in options:
        expect(f"--{option}" in manual, f"the manual page lacks --{option}")
    for command in commands:
        expect(re.search(rf"^\.BR? .*\b{command}\b", manual, re.M), f"the manual page lacks {command}")
    p = subprocess.run([CTL, "--version"], capture_output=True, text=True, timeout=60)
    expect(p.returncode == 0 and p.stdout.startswith("baileyctl "), "--version")
    with open("/dev/full", "w", encoding="ascii") as full:
        for option in ("--help", "--version"):
            expect(subprocess.run([CTL, option], stdout=full, timeout=60).returncode == 1, f"{option} >/dev/full")


def main():
    check_information()
    with tempfile.TemporaryDirectory() as directory:
        check_no_machine(directory)
        m = Machine(directory)
        check_wrong_use(m)
        check_memory(m)
        check_full_output(m)
        check_protection(m)
        check_machine(m, check_watch(m))
    for check in (check_serve, check_slow_handler):
        with tempfile.TemporaryDirectory() as directory:
            check(Machine(directory))
    return 1 if failures else 0


sys.exit(main())
