"""screen.py - a floppy disk that boots by SeaBIOS, with keys pressed and the display looked at from outside.

    python3 screen.py BAILEY BAILEYCTL

Needs Debian's package seabios.
"""
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib

BAILEY, CTL = sys.argv[1:3]
HERE = os.path.dirname(os.path.abspath(__file__))
SIZE = 1474560


def expect(condition, what):
    if not condition:
        sys.exit(f"screen.py: {what}")


def wait_until(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < end, what)
        time.sleep(0.05)


def make_disk(folder, size=SIZE):
    """The boot sector, and a text in the last sector."""
    obj, sector, path = (os.path.join(folder, name) for name in ("floppy.o", "sector", "disk"))
    subprocess.run(["as", "--32", "-o", obj, os.path.join(HERE, "floppy.S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00", "-o", sector, obj], check=True)
    with open(sector, "rb") as f:
        boot = f.read()
    expect(len(boot) == 512, f"the boot sector has {len(boot)} bytes")
    with open(path, "wb") as f:
        f.write(boot.ljust(size - 512, b"\0") + b"Hello from track 79".ljust(512, b"\0"))
    return path


def read_png(path):
    """Width, height, and rows of (r, g, b), of an image with 8 bits a colour and without interlacing."""
    with open(path, "rb") as f:
        data = f.read()
    expect(data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG file")
    at, idat = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        expect(zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], "CRC")
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", body[:10])
        if kind == b"IDAT":
            idat += body
        at += 12 + length
    expect((depth, color) == (8, 2), "not 8 bits of RGB")
    raw, rows, previous = zlib.decompress(idat), [], bytearray(3 * width)
    for y in range(height):
        line = bytearray(raw[y * (3 * width + 1):(y + 1) * (3 * width + 1)])
        method, line = line[0], line[1:]
        for i in range(3 * width):
            a, b, c = (line[i - 3] if i > 2 else 0), previous[i], (previous[i - 3] if i > 2 else 0)
            if method == 1:
                line[i] = line[i] + a & 255
            elif method == 2:
                line[i] = line[i] + b & 255
            elif method == 3:
                line[i] = line[i] + (a + b) // 2 & 255
            elif method == 4:
                p = a + b - c
                nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                line[i] = line[i] + nearest & 255
        rows.append(line)
        previous = line
    return width, height, [[tuple(r[3 * x:3 * x + 3]) for x in range(width)] for r in rows]


class Machine:
    def __init__(self, folder, *arguments):
        self.folder = folder
        self.socket = os.path.join(folder, "socket")
        self.process = subprocess.Popen(
            [BAILEY, "-m", "64", "-display", "none", "-serial", "none", "-protect", f"socket={self.socket}", *arguments],
            stdin=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.socket), "the machine does not start")

    def ctl(self, *args, status=0):
        p = subprocess.run([CTL, "--socket", self.socket, *args], capture_output=True, text=True, timeout=60)
        expect(p.returncode == status, f"{args}: status {p.returncode}: {p.stderr}")
        return p.stderr if status else p.stdout

    def wait_text(self, text):
        def there():
            p = subprocess.run([CTL, "--socket", self.socket, "screen"], capture_output=True, text=True, timeout=60)
            return text in p.stdout
        wait_until(there, f"'{text}' does not appear")

    def wait_picture(self, width, height, condition, what):
        path = os.path.join(self.folder, f"{what}.png")

        def there():
            self.ctl("screendump", path)
            w, h, rows = read_png(path)
            return (w, h) == (width, height) and condition(rows)
        wait_until(there, f"no picture of {width} x {height}: {what}")

    def stop(self):
        self.ctl("stop")
        expect(self.process.wait(timeout=60) == 0, "the machine ends with an error")


def session(folder):
    disk = make_disk(folder)
    m = Machine(folder, "-boot", "a", "-fda", disk)
    m.wait_text("Hello from track 79")
    m.wait_text("ready")
    m.ctl("sendkey", "shift-b")
    m.ctl("sendkey", "kp_add")
    m.wait_text("ready B+")
    m.wait_picture(720, 400, lambda rows: rows[399].count((0, 0, 0)) == 720, "text")
    m.ctl("sendkey", "1")
    m.wait_picture(640, 400, lambda r: r[0][8] == (170, 0, 0) and r[5][2] == (0, 170, 170)
                   and r[399][639] == (170, 85, 0) and r[0][20] == r[1][21], "mode-13h")
    expect("FAILED" in m.ctl("screen", status=1), "a graphics mode has characters")
    m.ctl("sendkey", "2")
    m.wait_picture(800, 600, lambda r: r[0][0] == (0, 255, 0) == r[40][767] and r[40][768] == (0, 0, 0), "vbe")
    m.ctl("sendkey", "3")
    m.wait_picture(640, 480, lambda r: r[0][319] == (170, 0, 0) and r[0][320] == (0, 0, 0) == r[1][0], "mode-12h")
    m.ctl("sendkey", "t")
    m.wait_text("ready")
    m.ctl("sendkey", "ctrl-alt-delete")
    m.wait_text("Hello from track 79")
    m.stop()
    with open(disk, "rb") as f:
        f.seek(SIZE - 1024)
        expect(f.read(20) == b"Iello from track 79\0", "the sector was not written")


def read_only(folder):
    disk = make_disk(folder)
    m = Machine(folder, "-boot", "a", "-drive", f"if=floppy,file={disk},readonly=on,format=raw")
    m.wait_text("disk error")
    m.stop()


with tempfile.TemporaryDirectory() as work:
    session(work)
    if len(sys.argv) > 3:  # keep the pictures
        subprocess.run(f"cp {work}/*.png {sys.argv[3]}", shell=True, check=True)
with tempfile.TemporaryDirectory() as work:
    read_only(work)
