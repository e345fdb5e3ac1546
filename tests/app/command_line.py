"""command_line.py - runs the program bailey and checks what a user sees: one line per error, exit
statuses, help, signals, files.

    python3 command_line.py BAILEY MANUAL
"""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

BAILEY, MANUAL = sys.argv[1], sys.argv[2]
DEBUG_EXIT = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
LOOP = b"\xeb\xfe"
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


def bailey(*args, timeout=60):
    return subprocess.run([BAILEY, *args], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=timeout)


def expect_error(args, status, text):
    """One line on standard error, nothing on standard output."""
    p = bailey(*args)
    message = p.stderr.decode()
    name = " ".join(args)
    expect(p.returncode == status, f"{name}: status {p.returncode}, not {status}")
    expect(p.stdout == b"", f"{name}: wrote to standard output")
    expect(re.fullmatch(r"bailey: [^\n]*\n", message), f"{name}: not one line: {message!r}")
    expect(text in message, f"{name}: {message!r} does not contain {text!r}")


def check_errors(directory):
    short = os.path.join(directory, "short")
    with open(short, "wb") as f:
        head = bytearray(0x400)
        head[0x1fe:0x200] = b"\x55\xaa"
        head[0x202:0x206] = b"HdrS"
        head[0x206:0x208] = b"\x0f\x02"
        head[0x1f1] = 30
        f.write(head)
    expect_error(["-foo"], 2, "-foo: unknown option; did you mean -")
    expect_error(["-accel", "kvm"], 2, "'kvm' is not available; the nearest is 'jit'")
    expect_error(["--kernel"], 2, "--kernel: needs an argument")
    expect_error(["disk.img"], 2, "disk.img: No such file or directory")
    expect_error(["-cpu", "pentium"], 2, "pentium")
    expect_error(["-kernel", "/nonexistent"], 1, "/nonexistent': No such file or directory")
    expect_error(["-kernel", directory], 1, "Is a directory")
    expect_error(["-kernel", short], 1, "truncated")
    expect_error(["-hda", "/nonexistent"], 1, "/nonexistent")
    expect_error(["-m", "1000000G"], 1, "this host has only")
    expect_error(["-kernel", BAILEY, "-m", "2"], 1, "larger than the guest's memory")
    expect_error(["-kernel", BAILEY], 1, "neither a PVH note")
    expect_error(["-D", "/nonexistent/log"], 1, "/nonexistent/log")
    expect_error(["-protect", "path"], 2, "-protect")
    expect_error(["-protect", "socket=/nonexistent/socket"], 1, "-protect: could not open the folder")
    expect_error(["-protect", f"socket={short}"], 1, "there is a file of that name")


def check_information():
    p = bailey("-help")
    expect(p.returncode == 0 and p.stderr == b"", "-help: status or noise")
    options = re.findall(r"^  -([a-zA-Z-]+)", p.stdout.decode(), re.M)
    expect(len(options) > 25, "-help: too few options")
    with open(MANUAL) as f:
        manual = f.read().replace("\\-", "-")
    for option in options:
        expect(f"-{option}" in manual, f"the manual page lacks -{option}")
    expect(bailey("-version").stdout.startswith(b"Bailey "), "-version")
    for what in ("-device", "-cpu", "-machine", "-accel", "-d"):
        p = bailey(what, "help")
        expect(p.returncode == 0 and len(p.stdout) > 20, f"{what} help")


def check_demo():
    p = bailey("-nographic")
    text = p.stdout.decode()
    expect(p.returncode == 0, f"demo: status {p.returncode}")
    for words in ("This is Bailey", "1 x ", "#PF, CR2 = 0x4000000000, error code 0x0",
                  "error code 0x3 (present, write)", "before: no fault",
                  "guarded by the device: #PF", "error code 0x8003 (present, write, a rule)",
                  "who it was: processor 0, CPL 0", "read of it: no fault", "ticks at 100 Hz", "Goodbye"):
        expect(words in text, f"demo: {words!r} is missing")
    expect("did not power off" not in text, "demo: went on after power-off")
    expect("unexpected" not in text, "demo: exception")
    text = bailey("-nographic", "-smp", "4", "-m", "64").stdout.decode()
    expect("4 x " in text and "0x003ffffff" in text, "demo: -smp 4 -m 64")
    text = bailey("-nographic", "-machine", "protect=off").stdout.decode()
    expect("no protection device" in text and "Goodbye" in text, "demo: -machine protect=off")


def check_exit_status(directory):
    program = os.path.join(directory, "exit")
    for value in (0, 1, 0x10, 0x7f):
        with open(program, "wb") as f:
            f.write(bytes([0xb0, value, 0xe6, 0xf4, 0xf4]))
        status = bailey("-kernel", program, "-nodefaults", *DEBUG_EXIT).returncode
        expect(status == (value << 1) | 1, f"isa-debug-exit {value}: status {status}")


def check_signals(directory):
    program = os.path.join(directory, "loop")
    with open(program, "wb") as f:
        f.write(b"\xb0A\xba\xf8\x03\xee" + LOOP)  # a sign of life on the serial port, then loop
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = subprocess.Popen([BAILEY, "-kernel", program, "-serial", "stdio"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        expect(p.stdout.read(1) == b"A", "no sign of life")
        p.send_signal(number)
        _, noise = p.communicate(timeout=60)
        expect(p.returncode == 0, f"signal {number}: status {p.returncode}")
        expect(f"ended by signal {number}".encode() in noise, f"signal {number}: {noise!r}")


def check_ignored_signals(directory):
    """nohup, and background jobs of a shell without job control."""
    program = os.path.join(directory, "loop")
    for number in (signal.SIGHUP, signal.SIGINT):
        p = subprocess.Popen([BAILEY, "-kernel", program, "-serial", "stdio"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
        expect(p.stdout.read(1) == b"A", "no sign of life")
        p.send_signal(number)
        p.send_signal(signal.SIGTERM)
        _, noise = p.communicate(timeout=60)
        expect(b"ended by signal 15" in noise, f"signal {number} is ignored, but: {noise!r}")


def check_signals_at_the_start(directory):
    """While the machine is being made, which waits here for somebody to write into the FIFO."""
    fifo = os.path.join(directory, "fifo")
    os.mkfifo(fifo)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = subprocess.Popen([BAILEY, "-kernel", fifo, "-nodefaults"], stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        try:
            p.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            p.send_signal(number)
        try:
            expect(p.wait(timeout=30) == -number, f"signal {number} at the start: status {p.returncode}")
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            expect(False, f"signal {number} at the start does not end Bailey")


def check_image_lock(directory):
    program, image = os.path.join(directory, "loop"), os.path.join(directory, "disk")
    with open(image, "wb") as f:
        f.truncate(1 << 20)
    p = subprocess.Popen([BAILEY, "-kernel", program, "-serial", "stdio", "-hda", image],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
    expect(p.stdout.read(1) == b"A", "no sign of life with a disk")
    expect_error(["-kernel", program, "-nodefaults", "-hda", image], 1, image)
    p.terminate()
    p.wait(timeout=60)


def read_until(fd, text, seconds=60):
    seen, end = b"", time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if select.select([fd], [], [], 1)[0]:
            try:
                seen += os.read(fd, 4096)
            except OSError:  # the other side is gone
                break
    return seen


def check_terminal(directory):
    """Ctrl-A x on a terminal; the terminal's modes are put back."""
    import termios
    program = os.path.join(directory, "loop")
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    p = subprocess.Popen([BAILEY, "-kernel", program, "-nographic"], stdin=slave, stdout=slave,
                         stderr=slave)
    expect(b"A" in read_until(master, b"A"), "no sign of life on the terminal")
    expect(termios.tcgetattr(slave)[3] & termios.ICANON == 0, "the terminal is not raw")
    os.write(master, b"\x03\x01x")  # Ctrl-C is the guest's; Ctrl-A x is Bailey's
    try:
        expect(p.wait(timeout=60) == 0, "Ctrl-A x: status")
    except subprocess.TimeoutExpired:
        p.kill()
        expect(False, "Ctrl-A x does not end Bailey")
    expect(termios.tcgetattr(slave) == before, "the terminal was not put back")
    os.close(master)
    os.close(slave)


def main():
    with tempfile.TemporaryDirectory() as directory:
        check_errors(directory)
        check_information()
        check_demo()
        check_exit_status(directory)
        check_signals(directory)
        check_ignored_signals(directory)
        check_signals_at_the_start(directory)
        check_image_lock(directory)
        check_terminal(directory)
    return 1 if failures else 0


sys.exit(main())
