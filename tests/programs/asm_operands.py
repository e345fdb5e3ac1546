"""Operands of random instructions, and the bookkeeping of flags: what the parts of asm_kind.py share.

Memory operands point into the arena of asm_runtime.h, some at pages that are not there or read-only. Flags that the
manual leaves undefined are never read, and not compared where a signal handler sees them.
"""
import re

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ALL = CF | PF | AF | ZF | SF | OF
# What each condition reads, in the order of their codes.
CONDITIONS = {"o": OF, "no": OF, "b": CF, "ae": CF, "e": ZF, "ne": ZF, "be": CF | ZF, "a": CF | ZF, "s": SF, "ns": SF,
              "p": PF, "np": PF, "l": SF | OF, "ge": SF | OF, "le": SF | OF | ZF, "g": SF | OF | ZF}
NAMES = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]
PREFIX = {1: "byte ptr ", 2: "word ptr ", 4: "dword ptr ", 8: "qword ptr ", 10: "tbyte ptr ", 16: "xmmword ptr ",
          32: "ymmword ptr ", 0: ""}
ARENA = 0x60000000  # as in asm_runtime.h


class Operands:
    """A function that grows: its text in `out`, the flags that are undefined at its end, registers with a role."""

    def __init__(self, dice, bits, number, whole):
        self.dice, self.bits, self.number, self.whole = dice, bits, number, whole
        self.out, self.undefined, self.budget, self.reserved = [], ALL, dice.randint(30, 160), []
        self.word, self.count = bits // 8, 16 if bits == 64 else 8
        self.rip, self.address_word = ("rip+", "quad") if bits == 64 else ("", "long")
        usable = [n for n in range(self.count) if n != 4]
        self.pointers = dice.sample(usable, 2 if bits == 32 else dice.randint(2, 4))
        self.themes = dice.choices(["integer", "sse", "avx", "x87", "mmx", "string", "stack", "bits", "flags", "misc"],
                                   [10, 4, 4, 3, 1.5, 1.5, 3, 3, 8, 3], k=4) + ["integer"]

    def name(self, n, size, high=False):
        if n >= 8:
            return f"r{n}" + {1: "b", 2: "w", 4: "d", 8: ""}[size]
        if size == 1:
            return (["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"][n] if high or self.bits == 32 else
                    ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"][n])
        return {2: "", 4: "e", 8: "r"}[size] + NAMES[n]

    def any_register(self, written=True):
        """A register that may be written: pointers stay pointers."""
        while True:
            n = self.dice.randrange(self.count)
            if n != 4 and not (written and (n in self.pointers or n in self.reserved)):
                return n

    def free(self, n):
        return n not in self.pointers and n not in self.reserved

    def reg(self, size, written=True):
        """The name of some register."""
        if size == 1 and self.bits == 32:
            while True:
                n = self.dice.randrange(8)
                if not (written and (n & 3 in self.pointers or n & 3 in self.reserved)):
                    return self.name(n, 1)
        return self.name(self.any_register(written), size)

    def mem(self, size):
        dice, kind = self.dice, self.dice.random()
        base = self.name(dice.choice(self.pointers), self.word)
        disp = dice.choice([0, 0, 8, 16, 24, -8, -16, dice.randint(-64, 200), dice.choice([1, 3, 7, 15]), 0x1000])
        if kind < .06:
            return PREFIX[size] + self.absolute(ARENA + dice.randrange(0x10000))
        if kind < .10:
            return f"{PREFIX[size]}{'gs' if self.bits == 64 else 'fs'}:[{dice.randrange(0x2000)}]"
        if kind < .15:
            return f"{PREFIX[size]}[{self.rip}data+{dice.randrange(200)}]"
        if kind < .17 and self.bits == 64:
            return f"{PREFIX[size]}[{self.name(dice.choice(self.pointers), 4)}+{disp}]"
        if kind < .35:
            index = self.any_register()
            self.do(f"and {self.name(index, 4)}, {dice.choice([7, 15, 63, 255])}", undefined=AF, defined=ALL & ~AF)
            return f"{PREFIX[size]}[{base}+{self.name(index, self.word)}*{dice.choice([1, 2, 4, 8])}+{disp}]"
        return f"{PREFIX[size]}[{base}+{disp}]"

    def absolute(self, address):
        return f"ds:0x{address:x}" if self.bits == 32 else f"[0x{address:x}]"

    def mem_plain(self, size):
        """An operand whose address needs no instruction of its own."""
        disp = self.dice.choice([0, 8, 16, -8, self.dice.randint(-64, 200)])
        return f"{PREFIX[size]}[{self.name(self.dice.choice(self.pointers), self.word)}+{disp}]"

    def address(self):
        """One in the arena: of a tame program in the middle of what is there, of others seldom where nothing is."""
        dice = self.dice
        if self.whole["tame"]:
            page = dice.choice([1, 5, 9, 13])
            return ARENA + page * 4096 + dice.choice([0, 0x800, 0x440, 0xff8, 0xffd, dice.randrange(0x1000)])
        page = dice.choice([0, 1, 2, 4, 5, 6, 8, 9, 12, 13, 14, 15, 2, 6, 10, 14])
        if dice.random() < .03:
            page = dice.choice([3, 7, 11, 7])
        offset = dice.choice([dice.randrange(0, 0xf00, 16), dice.randrange(4096), 4096 - dice.randint(1, 40), 0])
        return ARENA + page * 4096 + offset

    def point(self):
        """Moves a pointer."""
        n = self.dice.choice(self.pointers)
        if self.dice.random() < .5 or n in self.reserved:
            self.do(f"mov {self.name(n, 4)}, {self.address()}")
        else:
            how = self.dice.choice(["add", "sub", "lea", "add", "inc", "dec"])
            by = self.dice.choice([1, 4, 8, 16, 32, 24, -8])
            reg = self.name(n, self.word)
            if how in ("inc", "dec"):
                self.do(f"{how} {reg}", 0, ALL & ~CF)
                return
            self.do(f"lea {reg}, [{reg}+{by}]") if how == "lea" else self.do(f"{how} {reg}, {by}", defined=ALL)

    def do(self, text, undefined=0, defined=0, reads=0):
        """One instruction. `undefined`, `defined`: what it does to the flags. False if it would read undefined ones."""
        if reads & self.undefined:
            return False
        self.out.append(f"1: {text}\n2: .pushsection fixes; .{self.address_word} 1b, 2b, {self.undefined}; .popsection")
        before = self.undefined
        self.undefined = before & ~defined | undefined
        if "[" in text or "ds:" in text or "div" in text:
            self.undefined |= before & ALL  # it may have been left out
        return True

    def operands(self, size, written=True):
        how = self.dice.random()
        if how < .45:
            return f"{self.reg(size, written)}, {self.reg(size, False)}"
        if how < .6:
            return f"{self.reg(size, written)}, {self.immediate(size)}"
        if how < .8:
            return f"{self.reg(size, written)}, {self.mem(size)}"
        return f"{self.mem(size)}, {self.dice.choice([self.reg(size, False), self.immediate(size)])}"

    def immediate(self, size):
        top = min(size * 8, 32)
        return str(self.dice.choice([1, -1, 8, 127, -128, self.dice.randint(-2 ** (top - 1), 2 ** (top - 1) - 1)]))

    def size(self):
        return self.dice.choice([1, 2, 4, 4, 4, self.word, self.word])

    def target(self, size):
        return self.mem(size) if self.dice.random() < .3 else self.reg(size)

    def condition(self):
        """One whose flags are defined."""
        some = [c for c, reads in CONDITIONS.items() if not reads & self.undefined]
        if not some:
            self.do(f"test {self.reg(4, False)}, {self.reg(4, False)}", AF, ALL & ~AF)
            some = ["e", "ne", "s", "ns", "b", "l", "g", "be", "p"]
        return self.dice.choice(some)

    def fill_in(self, text):
        """Operands for the letters of a template."""
        dice = self.dice
        vectors = 8 if self.bits == 32 else 16

        def one(match):
            word = match.group(0)
            if word == "X" or word == "Y":
                return f"{word.lower()}mm{dice.randrange(vectors)}"
            if word[:2] in ("XM", "YM"):
                size = int(word[2:] or {"X": 16, "Y": 32}[word[0]])
                return self.mem(size) if dice.random() < .4 else f"{word[0].lower()}mm{dice.randrange(vectors)}"
            if word == "RM4w":
                return self.mem(2) if dice.random() < .3 else self.reg(4, False)
            if word.startswith("RM"):
                return self.mem(4) if dice.random() < .4 else self.reg(4)
            if word == "R4":
                return self.reg(4)
            if word == "NM" and dice.random() < .4:
                return self.mem(8)
            entry = dice.choice([0] * 8 + list(range(12)))
            fixed = {"I": str(dice.randrange(16)), "J": str(dice.randrange(8)), "T": "st",
                     "F": f"st({dice.randrange(8)})", "N": f"mm{dice.randrange(8)}", "NM": f"mm{dice.randrange(8)}",
                     "K": f"[mxcsrs+{4 * entry}]", "W": f"[controls+{2 * entry}]"}
            return fixed[word] if word in fixed else self.mem(int(word[1:]))
        return re.sub(r"\b(XM\d*|YM|X|Y|RM4w|RM4|R4|M\d+|NM|N|I|J|T|F|K|W)\b", one, text)

    def label(self):
        self.whole["labels"] += 1
        return f".Lx{self.whole['labels']}"

    def place(self, label):
        self.out.append(f"{label}:")

    def jcc(self, condition, label):
        """A conditional jump; others of a program that changes itself may invert it."""
        if self.dice.random() < self.whole["patch"]:
            code = list(CONDITIONS).index(condition)
            byte = self.label()
            self.do(f".byte 0x0f; {byte}: .byte 0x{0x80 + code:x}; .long {label} - . - 4")
            self.whole["bytes"].append(byte)
        else:
            self.do(f"j{condition} {label}")
