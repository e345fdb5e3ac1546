"""Random instructions in random control flow: source(dice, bits) returns a C program around them (asm_runtime.h).

Every instruction has an entry in the section `fixes`: its address, where to go on when it raises something, and which
flags are undefined before it. So random addresses may fault, anywhere.
"""
import re

from asm_integer import Integer
from asm_operands import AF, ALL, ARENA, CF
from asm_rare import Rare
from asm_vectors import MMX, VECTOR, WIDE, X87, Vectors

TEMPLATES = {"sse": VECTOR, "avx": WIDE, "x87": X87, "mmx": MMX}
MXCSRS = [0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9fc0, 0x1fc0, 0xff80, 0x1d80, 0x0f80, 0x1f00, 0x1b80, 0x1f80]
CONTROLS = [0x37f, 0x27f, 0x7f, 0x77f, 0xb7f, 0xf7f, 0x37f, 0x37b, 0x37e, 0x35f, 0x37f, 0xe7f]


class Function(Integer, Vectors, Rare):
    """`whole` is what the functions of a program share; each calls only those of higher numbers."""

    def simple(self, themes=None):
        theme = self.dice.choice(themes or self.themes)
        self.budget -= 1
        if self.dice.random() < .15:
            self.point()
        if theme in TEMPLATES:
            for _ in range(self.dice.randint(1, 5) if theme == "x87" else 1):
                self.vector(TEMPLATES[theme])
        elif theme == "bits":
            self.bit_operations()
        elif theme != "stack" or not self.reserved:
            getattr(self, theme)()

    def block(self, depth, length):
        dice = self.dice
        for _ in range(length):
            if self.budget < 0:
                return
            chances = {"simple": 10, "branch": 2, "loop": .7 if depth < 2 else 0, "short_loop": 1 if depth < 3 else 0,
                       "switch": .5, "call": .5 if depth < 2 else .05, "pad": .3, "snap": .25,
                       "patch": 3 * self.whole["patch"], "odd": .15}
            what = dice.choices(list(chances), list(chances.values()))[0]
            if what in ("branch", "loop", "switch"):
                getattr(self, what)(depth)
            else:
                getattr(self, what)()

    def branch(self, depth):
        otherwise, end = self.label(), self.label()
        self.jcc(self.condition(), otherwise)
        before = self.undefined
        self.block(depth, self.dice.randint(1, 4))
        two = self.dice.random() < .5
        if two:
            self.do(f"jmp {end}")
        after, self.undefined = self.undefined, before
        self.place(otherwise)
        if two:
            self.block(depth, self.dice.randint(1, 4))
            self.place(end)
        self.undefined |= after

    def loop(self, depth):
        head, counter = self.label(), f"{self.rip}counters+{8 * self.whole['counters']}"
        self.whole["counters"] += 1
        self.do(f"mov dword ptr [{counter}], {self.dice.randint(2, [30, 6][depth])}")
        self.place(head)
        self.undefined = ALL
        self.block(depth + 1, self.dice.randint(2, 7))
        self.do(f"dec dword ptr [{counter}]", 0, ALL & ~CF)
        self.undefined = CF  # counters do not fault
        self.do(f"jnz {head}")

    def short_loop(self):
        dice, head = self.dice, self.label()
        choices = [n for n in range(self.count) if n != 4 and self.free(n)]
        if len(choices) < 3 or len(self.reserved) > 1:
            return
        n = dice.choice(choices)
        how = dice.choice(["dec", "sub", "cmp", "cmp", "loop"])
        n = 1 if how == "loop" and self.free(1) else n
        how = "dec" if how == "loop" and n != 1 else how
        self.reserved.append(n)
        times = dice.choice([1, 2, 3, 10, dice.randint(2, 60), 200])
        self.do(f"mov {self.name(n, 4)}, {0 if how == 'cmp' else times}")
        self.place(head)
        self.undefined = ALL
        for _ in range(dice.randint(1, 7)):
            self.simple([t for t in self.themes if t != "stack"])
        if dice.random() < .5:
            self.point()
        if how == "loop":
            self.do(f"loop {head}")
        elif how == "cmp":
            self.do(f"add {self.name(n, 4)}, 1", 0, ALL)
            self.do(f"cmp {self.name(n, 4)}, {times}", 0, ALL)
            self.do(f"{dice.choice(['jb', 'jne', 'jl'])} {head}")
        else:
            if how == "dec":
                self.do(f"dec {self.name(n, 4)}", 0, ALL & ~CF)
            else:
                self.do(f"sub {self.name(n, self.word)}, 1", 0, ALL)
            self.do(f"jnz {head}")
        self.reserved.remove(n)

    def switch(self, depth):
        dice, table, end, ways = self.dice, self.label(), self.label(), self.dice.choice([2, 4, 8])
        n = self.any_register()
        word = self.name(n, self.word)
        self.do(f"and {self.name(n, 4)}, {ways - 1}", AF, ALL & ~AF)
        if dice.random() < .5 and self.bits == 64:
            self.do(f"jmp [{table}+{word}*8]")
        else:
            self.do(f"mov {word}, [{table}+{word}*{self.word}]")
            self.do(f"jmp {word}")
        self.undefined = before = ALL
        labels = [self.label() for _ in range(ways)]
        self.out.append(f".pushsection .data; {table}: .{self.address_word} {', '.join(labels)}; .popsection")
        for label in labels:
            self.place(label)
            self.undefined = before
            self.block(depth + 1, dice.randint(1, 3))
            if dice.random() < .8:
                self.do(f"jmp {end}")
        self.place(end)
        self.undefined = ALL

    def call(self):
        if self.number + 1 >= self.whole["functions"] or self.reserved:
            return
        to = self.dice.randrange(self.number + 1, self.whole["functions"])
        how = self.dice.choice(["direct", "direct", "memory", "register", "tail"])
        if how == "memory":
            self.do(f"call [functions+{to * self.word}]")
        elif how == "register":
            n = self.name(self.any_register(), self.word)
            self.do(f"mov {n}, [functions+{to * self.word}]")
            self.do(f"call {n}")
        else:
            self.do(f"call f{to}")
        self.undefined = ALL
        for n in self.pointers:
            self.do(f"mov {self.name(n, 4)}, {self.address()}")

    def pad(self):
        """The code goes on elsewhere, sometimes over a page's end."""
        label = self.label()
        self.do(f"jmp {label}")
        self.out.append(self.dice.choice([f".skip {self.dice.randint(1, 2000)}, 0xcc", ".balign 64, 0xcc",
                                          f".balign 4096, 0xcc; .skip {4096 - self.dice.randint(1, 30)}, 0xcc"]))
        self.place(label)

    def snap(self):
        """The signal handler looks at everything."""
        self.do("ud2")

    def make(self):
        """The function's text."""
        sp = self.name(4, self.word)
        for n in self.pointers:
            self.do(f"mov {self.name(n, 4)}, {self.address()}")
        self.do(f"mov [{self.rip}frame_{self.number}], {sp}")
        while self.budget > 0:
            self.block(0, 8)
        self.do("ud2")
        self.do(f"mov {sp}, [{self.rip}frame_{self.number}]")
        self.do("ret")
        for name in ("frame", "saved"):
            self.out.append(f".pushsection .data; {name}_{self.number}: .quad 0; .popsection")
        return f".globl f{self.number}\nf{self.number}:\n" + "\n".join(self.out)


def frame(bits):
    """enter(function, registers) of asm_runtime.h, and small functions that many call."""
    word, address_word = bits // 8, "quad" if bits == 64 else "long"
    if bits == 64:
        sp, function, seeds = "rsp", "rdi", "rsi"
        saved = ["rbx", "rbp", "r12", "r13", "r14", "r15"]
        order = ["rax", "rcx", "rdx", "rbx", "rbp", "rdi"] + [f"r{i}" for i in range(8, 16)]
    else:
        sp, function, seeds = "esp", "eax", "edx"
        saved = ["ebx", "ebp", "esi", "edi"]
        order = ["eax", "ecx", "ebx", "ebp", "esi", "edi"]
    out = [".globl enter", "enter:"] + [f"push {n}" for n in saved]
    if bits == 32:
        out += ["mov eax, [esp+20]", "mov edx, [esp+24]"]
    out += [f"mov [outer], {sp}", f"mov [target], {function}", "cld", "fninit", "ldmxcsr [mxcsrs]",
            "mov esp, 0x7001f000"]
    for i in range(16 if bits == 64 else 8):
        where = ARENA + 32 * i
        out.append(f"vmovdqu ymm{i}, " + (f"[0x{where:x}]" if bits == 64 else f"ds:0x{where:x}"))
    out += ["fxsave [fxarea]"]  # not before: what the C library has left in vectors depends on the processor
    out += [f"mov {n}, [{seeds}+{word * i}]" for i, n in enumerate(order)] + [f"mov {seeds}, [{seeds}+{word * 15}]"]
    out += ["call [target]", f"1: ud2\n2: .pushsection fixes; .{address_word} 1b, 2b, {ALL}; .popsection",
            f"mov {sp}, [outer]", "push 0x202", "popf", "cld", "fninit", "ldmxcsr [mxcsrs]", "vzeroupper"]
    out += [f"pop {n}" for n in reversed(saved)] + ["ret"]
    out += ["leaf0: lea eax, [eax+3]\nret", f"leaf1: push {saved[0]}\npop {saved[0]}\nret", "leaf2: call leaf0\nret",
            f"retn: ret {2 * word}"]
    out += ["deep: sub ecx, 1", "jz 1f", "call deep", "add eax, ecx", "1: ret"]
    return "\n".join(out)


def data(bits, functions, counters):
    return f""".data
.balign 64
data: .fill 256, 1, 0x5a
counters: .fill {counters + 1}, 8, 0
mxcsrs: .long {', '.join(map(str, MXCSRS))}
controls: .short {', '.join(map(str, CONTROLS))}
.balign 64
fxarea: .fill 512, 1, 0
outer: .quad 0
target: .quad 0
.globl functions
functions: .{"quad" if bits == 64 else "long"} {', '.join(f'f{n}' for n in range(functions))}, 0
"""


def source(dice, bits):
    """The program, and whether it changes its own code."""
    functions, changes = dice.randint(2, 6), dice.random() < .3
    whole = {"labels": 0, "counters": 0, "functions": functions, "patch": dice.choice([.1, .4]) if changes else 0,
             "bytes": [], "immediates": [], "tame": dice.random() < .4, "trace": dice.random() < .2}
    code = "\n".join([Function(dice, bits, n, whole).make() for n in range(functions)])
    for what, some in (("IMMEDIATE", whole["immediates"] or ["data"]), ("BYTE", whole["bytes"] or ["data"])):
        code = re.sub(f"@{what}@", lambda m, some=some: dice.choice(some), code)
    section = '.section .changing,"awx",@progbits\n.balign 64' if changes else ".text\n.balign 4096"
    variables = data(bits, functions, whole["counters"])
    if changes and dice.random() < .3:  # data among the code
        variables = variables.replace(".data", section, 1)
    text = (f'.intel_syntax noprefix\n.section fixes,"a",@progbits\n{variables}\n{section}\n{code}\n{frame(bits)}\n'
            ".att_syntax prefix\n.text\n")
    lines = "\n".join(f'"{line}\\n"' for line in text.replace('"', '\\"').split("\n"))
    rounds = dice.choice([3, 8, 16, 24, 24, 150 if whole["tame"] else 8])
    microseconds = 0 if whole["trace"] else dice.choice([0, 0, 900, 3000])
    return (f'#include "asm_runtime.h"\n__asm__(\n{lines}\n);\nint main(void)\n{{\n'
            f"    return run({dice.randrange(2 ** 32)}, {rounds}, {microseconds});\n}}\n"), changes
