#!/usr/bin/env python3
"""Random programs whose output is a function of nothing but the processor.

usage: generate.py KIND SEED      prints one, behind the command that compiles it

Kinds: "asm", random instructions in random control flow, where signal handlers look at all state (asm_kind.py); "c",
what compilers and kernels do seldom (c_kind.py); "csmith", programs of csmith's. The same seed makes the same program.
"""
import os
import random
import subprocess
import sys
import tempfile

import asm_kind
import c_kind

HERE = os.path.dirname(os.path.realpath(__file__))
CSMITH = [[], ["--float"], ["--packed-struct", "--max-funcs", "14"], ["--builtins"],
          ["--max-block-depth", "6", "--max-expr-complexity", "14"], ["--no-bitfields", "--max-pointer-depth", "4"],
          ["--max-array-dim", "2", "--jumps", "--float", "--max-funcs", "6"]]
SHORTEST = 600  # lines; csmith makes many programs that do next to nothing
LEVELS_32 = ["-msse2 -mfpmath=sse", "-march=i686", "-march=haswell -mfpmath=sse", "-march=pentium3"]
LEVELS_64 = ["-march=x86-64", "-march=x86-64-v3", "-march=haswell"]


def flags(dice, narrow):
    """A compiler with its options. `narrow`: also for 32-bit programs."""
    compiler = dice.choice(["gcc", "gcc", "clang"])
    words = [compiler, "-w", dice.choice(["-O0", "-O1", "-O2", "-O3", "-Os", "-O2", "-O3"])]
    if narrow and dice.random() < .3:
        words += ["-m32", *dice.choice(LEVELS_32).split()]
    else:
        words += [dice.choice(LEVELS_64)]
    for some, chance in (("-static", .15), ("-fno-omit-frame-pointer", .2), ("-fstack-protector-all", .2),
                         ("-ftrapv", .1), ("-fno-pie -no-pie", .3), ("-funroll-loops", .2),
                         ("-fno-strict-aliasing", .3),
                         ("-mindirect-branch=thunk -fcf-protection=none", .1 if compiler == "gcc" else 0),
                         ("-fwrapv", .3)):
        if dice.random() < chance:
            words += some.split()
    return words


def csmith(dice, seed, narrow):
    words = flags(dice, narrow)
    with tempfile.TemporaryDirectory() as folder:  # csmith leaves a file
        for again in range(20):
            made = subprocess.run(["csmith", "--seed", str(seed * 100 + again), *dice.choice(CSMITH)], cwd=folder,
                                  stdout=subprocess.PIPE, text=True, timeout=20, check=True)
            text = made.stdout
            if text.count("\n") > SHORTEST:
                break
    rounds = f"    for (int round = 0; round < {dice.choice([1, 1, 2, 5, 40])}; round++) func_1();\n"
    return text.replace("    func_1();\n", rounds), words + ["-I/usr/include/csmith"]


def asm(dice, _, narrow):
    bits = 32 if narrow and dice.random() < .35 else 64
    text, changes = asm_kind.source(dice, bits)
    words = ["gcc", "-w", "-O1", f"-m{bits}", "-fno-pie", "-no-pie", "-z", "noexecstack", f"-I{HERE}"]
    return text, (words + (["-static"] if dice.random() < .1 else []) +
                  (["-Wl,--no-warn-rwx-segments"] if changes else []))


def c(dice, _, narrow):
    words = flags(dice, narrow)
    words = ["-msse2" if word in ("-march=i686", "-march=pentium3", "-ftrapv") else word for word in words]
    text = c_kind.source(dice, 32 if "-m32" in words else 64)
    return text, words + ["-fwrapv", "-fno-strict-aliasing", "-pthread", f"-I{HERE}"]


KINDS = {"asm": asm, "c": c, "csmith": csmith}


def program(kind, seed, narrow=True):
    """C source and the words of the command that compiles it, up to the names of files."""
    return KINDS[kind](random.Random(f"{kind} {seed}"), seed, narrow)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    source, command = program(sys.argv[1], int(sys.argv[2]))
    print(f"// {' '.join(command)}\n{source}")
