"""Random C programs that lean on what compilers and kernels do seldom: source(dice, bits) returns one.

A program is some of the rooms of rooms_language.c and rooms_system.c in random order, with random expressions in them.
"""
import os
import re

HERE = os.path.dirname(os.path.realpath(__file__))
REAL_EXPRESSIONS = ["{a} * {b} + {c}", "({a} - {b}) / ({c} * {c} + 1)", "{a} * {k} - {b} / ({c} + 3)",
                    "({a} > {b} ? {a} - {c} : {b} * {k})", "{a} / {b} * {k} + {c}",
                    "-{a} * {k} + {b} * {c} - {a} * {b}"]
LANES_EXPRESSIONS = ["a + b * c", "(a ^ b) - (c | a)", "(a & ~b) * 3 + c", "(a > b) ^ c", "a * b - c",
                     "(a < c) & b | (a == b)"]
LANE_TYPES = ["uint8_t", "int16_t", "uint32_t", "int64_t", "int8_t", "uint64_t"]
NARROW_TYPES = ["uint8_t", "uint16_t", "u32", "int8_t", "int16_t", "int"]


def rooms():
    """The templates by name."""
    found = {}
    for name in ("rooms_language.c", "rooms_system.c"):
        with open(os.path.join(HERE, name), encoding="ascii") as file:
            parts = re.split(r"^/\* room (\w+): .*\*/\n", file.read(), flags=re.M)
        found.update(zip(parts[1::2], parts[2::2]))
    return found


def expression(dice, names, depth=4):
    """Of unsigned integers; all of it is defined."""
    if depth == 0 or dice.random() < .15:
        return dice.choice([*names, *names, str(dice.randint(0, 99)), hex(dice.getrandbits(32)) + "u",
                            hex(dice.getrandbits(64)) + "u"])

    def part():
        return expression(dice, names, depth - 1)
    how = dice.randrange(7)
    if how == 0:
        return f"({part()} {dice.choice('+-*&|^')} {part()})"
    if how == 1:
        return f"({part()} {dice.choice(['<<', '>>'])} ({part()} & 31))"
    if how == 2:
        return f"({part()} {dice.choice('/%')} ({part()} | 1))"
    if how == 3:
        return f"({part()} {dice.choice(['<', '>', '==', '<=', '&&', '||'])} {part()} ? {part()} : {part()})"
    if how == 4:
        return f"({dice.choice(NARROW_TYPES)}){part()}"
    return f"(~{part()})" if how == 5 else f"((u64){part()} * {part()})"


class Filler:
    """What the words of the templates become."""

    def __init__(self, dice, bits):
        self.dice = dice
        self.lanes_bytes = 16 if bits == 32 else dice.choice([16, 32, 64])

    def number(self, low, high):
        return str(self.dice.randint(int(low), int(high)))

    def expression(self, *names):
        return expression(self.dice, names)

    def real_expression(self, a, b, c):
        return self.dice.choice(REAL_EXPRESSIONS).format(a=a, b=b, c=c, k=self.dice.choice([".5", "3", "1.0625"]))

    def lanes_expression(self, *_):
        return self.dice.choice(LANES_EXPRESSIONS)

    def lane_type(self):
        return self.dice.choice(LANE_TYPES)

    def cases(self, *names):
        dice = self.dice
        return "\n".join(f"    case {n}: {dice.choice(['', 'b += c;', 'a = ~a;'])} "
                         f"{dice.choice(['return', 'return', 'a ^='])} {expression(dice, names)};"
                         for n in sorted(dice.sample(range(45), dice.randint(3, 30))))

    def functions(self):
        dice = self.dice
        first = ["if (a & 8) return b - c;", "while (c > 99) c /= 3;", ""]
        return "\n".join(f"static NOINLINE u64 g{n}(u64 a, u64 b, u64 c) {{ {dice.choice(first)} return "
                         f"{expression(dice, 'abc')}; }}" for n in range(8))

    def fill(self, text):
        words = {"NUMBER": self.number, "EXPRESSION": self.expression, "REAL_EXPRESSION": self.real_expression,
                 "LANES_EXPRESSION": self.lanes_expression, "LANE_TYPE": self.lane_type, "CASES": self.cases,
                 "FUNCTIONS": self.functions, "LANES_BYTES": lambda: str(self.lanes_bytes)}
        return re.sub(r"\b(%s)\(([^()]*)\)" % "|".join(words),
                      lambda match: words[match[1]](*re.findall(r"\w+", match[2])), text)


def source(dice, bits):
    known = rooms()
    names = dice.sample(list(known), dice.randint(3, 7))
    calls = "".join(f'        {name}();\n        printf("{name} %016llx\\n", (unsigned long long)hash);\n'
                    for name in names)
    text = (f'#define SEED {dice.randint(1, 99999999)}\n#include "c_runtime.h"\n\n'
            + "".join(known[name] for name in names)
            + f"int main(void)\n{{\n    for (int i = 0; i < {dice.choice([1, 2, 5])}; i++) {{\n{calls}    }}\n"
            "    return 0;\n}\n")
    return Filler(dice, bits).fill(text)
