"""Drives a guest's serial console as a person would: wait for text, type, look at what comes.

    guest = Guest(["-m", "512", ...])
    guest.expect("TEST# ", 60)
    guest.command("uname -a")          # returns the output; fails on a non-zero status
    status = guest.finish("poweroff -f")
"""
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

PROMPT = "TEST# "


class Failure(Exception):
    pass


def tool(*words, ok=(0,)):
    """Runs a program of the host's, also from /sbin; returns its output (bytes)."""
    found = shutil.which(words[0], path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    if not found:
        raise Failure(f"{words[0]} is not installed")
    done = subprocess.run([found, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode not in ok:
        raise Failure(f"{' '.join(words)}: status {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return done.stdout


class Guest:
    def __init__(self, bailey, arguments, log=None):
        master, slave = pty.openpty()
        self.start = time.monotonic()
        self.process = subprocess.Popen([bailey] + arguments, stdin=slave, stdout=slave,
                                        stderr=subprocess.STDOUT, close_fds=True,
                                        start_new_session=True)
        os.close(slave)
        self.master = master
        self.seen = ""  # all output
        self.mark = 0   # what expect() has consumed
        self.log = log

    def elapsed(self):
        return time.monotonic() - self.start

    def pump(self, timeout):
        """Reads what there is; False at the end of the output."""
        ready, _, _ = select.select([self.master], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        if not data:
            return False
        text = data.decode("utf-8", "replace").replace("\r", "")
        self.seen += text
        if self.log:
            self.log.write(text)
            self.log.flush()
        return True

    def expect(self, pattern, timeout):
        """Waits for a regular expression in the output that no earlier expect() consumed."""
        end = time.monotonic() + timeout
        regex = re.compile(pattern)
        while True:
            match = regex.search(self.seen, self.mark)
            if match:
                before = self.seen[self.mark:match.start()]
                self.mark = match.end()
                return before
            if "Kernel panic" in self.seen[self.mark:]:
                raise Failure("the guest's kernel panicked:\n" + self.seen[-3000:])
            left = end - time.monotonic()
            if left <= 0:
                raise Failure(f"no {pattern!r} within {timeout} s; last output:\n{self.seen[-3000:]}")
            if not self.pump(min(left, 1)):
                raise Failure(f"the machine ended (status {self.process.wait()}) before {pattern!r}; "
                              f"last output:\n{self.seen[-3000:]}")

    def send(self, text):
        os.write(self.master, text.encode())

    def command(self, line, timeout=60, status=0):
        """Types one shell command; returns its output. The echo of the command is not in it."""
        self.send(line + "; echo STATUS=$?\n")
        self.expect(r"echo STATUS=\$\?\n", timeout)
        output = self.expect(r"STATUS=(\d+)\n", timeout)
        got = int(re.search(r"STATUS=(\d+)\n$", self.seen[:self.mark]).group(1))
        if got != status:
            raise Failure(f"`{line}` ended with status {got}, expected {status}:\n{output}")
        self.expect(re.escape(PROMPT), timeout)
        return output

    def finish(self, line=None, timeout=60):
        """Types a last command (power-off) and returns the machine's exit status."""
        if line:
            self.send(line + "\n")
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise Failure(f"still running {timeout} s after the end was asked for:\n{self.seen[-2000:]}")
            if not self.pump(0.2):
                self.process.wait(max(1, end - time.monotonic()))
        return self.process.returncode

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.master)


def run(tests, names):
    """Runs the named tests (all without names); exit status for sys.exit()."""
    failed = 0
    for name, test in tests.items():
        if names and name not in names:
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok   {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Failure as failure:
            failed += 1
            print(f"FAIL {name}: {failure}", flush=True)
    return 1 if failed else 0


def usage_guard(arguments):
    if len(arguments) < 3:
        sys.exit("usage: TEST.py BAILEY GUESTS-DIRECTORY [NAME...]")
