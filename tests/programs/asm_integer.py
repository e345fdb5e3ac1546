"""Random integer instructions: arithmetic, shifts, bits, and flags that are made, kept and looked at."""
from asm_operands import AF, ALL, CF, OF, PF, SF, ZF, Operands

INTEGER = """add sub cmp adc sbb and or xor test mov mov mov lea movzx movsx cmov set inc dec neg not shift shift rotate
shld imul mul div xchg convert lahf carry bswap xadd cmpxchg lock movbe high moffs adx legacy""".split()
# What the instructions on decimal digits leave undefined, and what they define.
LEGACY = {"daa": (OF, ALL & ~OF), "das": (OF, ALL & ~OF), "aaa": (OF | SF | ZF | PF, AF | CF),
          "aas": (OF | SF | ZF | PF, AF | CF), "aam": (OF | AF | CF, SF | ZF | PF), "aad": (OF | AF | CF, SF | ZF | PF),
          ".byte 0xd6": (0, 0)}  # SALC


class Integer(Operands):
    def integer(self):
        dice, size = self.dice, self.size()
        op = dice.choice(INTEGER)
        if op in ("add", "sub"):
            self.do(f"{op} {self.operands(size)}", 0, ALL)
        elif op == "cmp":
            self.do(f"cmp {self.operands(size, False)}", 0, ALL)
        elif op in ("adc", "sbb"):
            text = self.operands(size)
            self.do(f"{op} {text}", 0, ALL, CF) or self.do("stc", 0, CF)
        elif op in ("and", "or", "xor"):
            self.do(f"{op} {self.operands(size)}", AF, ALL & ~AF)
        elif op == "test":
            one = dice.choice([self.mem(size), self.reg(size, False)])
            self.do(f"test {one}, {dice.choice([self.reg(size, False), self.immediate(size)])}", AF, ALL & ~AF)
        elif op == "mov":
            self.do(f"mov {self.operands(size)}")
        elif op == "lea":
            if dice.random() < .5:
                self.do(f"lea {self.reg(max(size, 2))}, [{self.name(dice.choice(self.pointers), self.word)}+"
                        f"{dice.randint(-99, 300)}]")
            else:
                width = dice.choice([4, self.word, self.word])
                self.do(f"lea {self.reg(dice.choice([4, self.word]))}, [{self.reg(width, False)}+"
                        f"{self.reg(width, False)}*{dice.choice([1, 2, 4, 8])}+{dice.randint(-300, 300)}]")
        elif op in ("movzx", "movsx"):
            small = dice.choice([1, 2])
            source = dice.choice([self.mem(small), self.reg(small, False)])
            self.do(f"{op} {self.reg(dice.choice([4, self.word]))}, {source}")
        elif op == "cmov":
            source = dice.choice([self.mem(4), self.reg(4, False)])
            self.do(f"cmov{self.condition()} {self.reg(4)}, {source}")
        elif op == "set":
            target = self.target(1)
            self.do(f"set{self.condition()} {target}")
        elif op in ("inc", "dec"):
            self.do(f"{op} {self.target(size)}", 0, ALL & ~CF)
        elif op == "neg":
            self.do(f"neg {self.target(size)}", 0, ALL)
        elif op == "not":
            self.do(f"not {self.target(size)}")
        elif op == "shift":
            how = dice.choice(["shl", "shr", "sar"])
            by = dice.choice([1, 1, dice.randint(1, min(31, 8 * size - 1)), "cl"])
            if by == "cl":
                self.do(f"{how} {self.target(size)}, cl", AF | OF | (CF if size < 4 else 0))
            else:
                self.do(f"{how} {self.target(size)}, {by}", AF | (OF if by != 1 else 0), SF | ZF | PF | CF | OF)
        elif op == "rotate":
            how = dice.choice(["rol", "ror", "rcl", "rcr"])
            by = dice.choice([1, dice.randint(1, 8 * size - 1) & 31 or 1, "cl"])
            text = f"{how} {self.target(size)}, {by}"
            self.do(text, OF if by != 1 else 0, 0 if how[1] == "c" or by == "cl" else CF, CF if how[1] == "c" else 0)
        elif op == "shld":
            size = dice.choice([4, self.word])
            by = dice.choice(['cl', dice.randint(1, 31)])
            self.do(f"{dice.choice(['shld', 'shrd'])} {self.target(size)}, {self.reg(size, False)}, {by}", AF | OF)
        elif op == "imul":
            size = max(size, 2)
            source = dice.choice([self.mem(size), self.reg(size, False)])
            self.do(f"imul {self.reg(size)}, {source}" + dice.choice(["", f", {self.immediate(size)}"]),
                    SF | ZF | AF | PF, CF | OF)
        elif op in ("mul", "div"):
            if self.free(0) and self.free(2):
                source = dice.choice([self.mem(size), self.reg(size, False)])
                how = dice.choice(["mul", "imul"] if op == "mul" else ["div", "idiv"])
                if op == "div" and dice.random() < .7:
                    self.do("movzx eax, ax") if how == "idiv" or size < 4 else self.do("xor edx, edx", AF, ALL & ~AF)
                    if how == "idiv":
                        self.do(dice.choice(["cdq", "cdq", "cwd"]))
                self.do(f"{how} {source}", ALL if op == "div" else SF | ZF | AF | PF, 0 if op == "div" else CF | OF)
        elif op == "xchg":
            self.do(f"xchg {dice.choice([self.mem(size), self.reg(size)])}, {self.reg(size)}")
        elif op == "convert":
            if self.free(0) and self.free(2):
                self.do(dice.choice(["cbw", "cwde", "cwd", "cdq"] + ["cdqe", "cqo"] * (self.bits == 64)))
        elif op == "lahf":
            if dice.random() < .4:
                self.free(0) and self.do("sahf", 0, ALL & ~OF)
            elif self.free(0):
                self.do("lahf", reads=ALL & ~OF)
        elif op == "carry":
            self.do(dice.choice(["stc", "clc"]), 0, CF) if dice.random() < .6 else self.do("cmc", reads=CF)
        elif op == "bswap":
            self.do(f"bswap {self.reg(dice.choice([4, self.word]))}")
        elif op == "xadd":
            lock, source = dice.choice(["", "lock "]), self.reg(size)
            self.do(f"{lock}xadd {self.mem(size)}, {source}", 0, ALL)
        elif op == "cmpxchg":
            if self.free(0):
                if dice.random() < .25 and self.free(2):
                    self.do(f"{dice.choice(['', 'lock '])}cmpxchg8b {self.mem(8)}", 0, ZF)
                    return
                self.do(f"{dice.choice(['', 'lock '])}cmpxchg {self.mem(size)}, {self.reg(size, False)}", 0, ALL)
        elif op == "lock":
            how = dice.choice(["add", "sub", "and", "xor", "or", "inc", "dec", "neg", "not", "btc"])
            if how in ("inc", "dec", "neg", "not"):
                self.do(f"lock {how} {self.mem(size)}", 0, {"neg": ALL, "not": 0}.get(how, ALL & ~CF))
            elif how == "btc":
                self.do(f"lock btc {self.mem(4)}, {dice.randint(0, 31)}", OF | SF | AF | PF, CF)
            else:
                self.do(f"lock {how} {self.mem(size)}, {self.reg(size, False)}", 0 if how in ("add", "sub") else AF,
                        ALL if how in ("add", "sub") else ALL & ~AF)
        elif op == "movbe":
            size = max(size, 2)
            self.do(f"movbe {self.reg(size)}, {self.mem(size)}" if dice.random() < .5
                    else f"movbe {self.mem(size)}, {self.reg(size, False)}")
        elif op == "high":
            low = [n for n in self.pointers if n < 8]
            regs = [n for n in range(4) if n not in self.pointers + self.reserved]
            if low and regs:
                high = self.name(dice.choice(regs) + 4, 1, True)
                memory = f"[{self.name(dice.choice(low), self.word)}+{dice.randint(-8, 40)}]"
                how = dice.choice(["add", "sub", "cmp", "mov", "xor", "adc"])
                self.do(f"{how} {high}, {memory}" if dice.random() < .6 else f"{how} {memory}, {high}",
                        AF if how == "xor" else 0, {"mov": 0, "xor": ALL & ~AF}.get(how, ALL),
                        CF if how == "adc" else 0)
        elif op == "moffs":
            if self.free(0):
                where = self.absolute(self.address())
                self.do(dice.choice([f"movabs eax, {where}", f"movabs {where}, al"] if self.bits == 64
                                    else [f"mov eax, {where}", f"mov {where}, ax"]))
        elif op == "adx":
            how, flag = dice.choice([("adcx", CF), ("adox", OF)])
            self.do(f"{how} {self.reg(4)}, {self.reg(4, False)}", 0, flag, flag)
        elif op == "legacy" and self.bits == 32 and self.free(0) and not (self.undefined & (AF | CF)):
            how = dice.choice(list(LEGACY))
            self.do(how, *LEGACY[how])

    def bit_operations(self):
        dice, size = self.dice, self.dice.choice([4, self.word])
        op = dice.choice("bt bt btm bsf count bmi1 shiftx mulx pdep crc bextr bzhi".split())
        source = self.mem(size) if dice.random() < .4 else self.reg(size, False)
        if op == "bt":
            how = dice.choice(["bt", "bts", "btr", "btc"])
            self.do(f"{how} {self.reg(size)}, {dice.choice([self.reg(size, False), str(dice.randrange(32))])}",
                    OF | SF | AF | PF, CF)
        elif op == "btm":
            n = self.any_register()
            self.do(f"movsx {self.name(n, 4)}, {self.name(n, 2)}" if dice.random() < .5
                    else f"and {self.name(n, 4)}, 0x7ff",
                    ALL)
            self.do(f"{dice.choice(['bt', 'bts', 'btr', 'btc', 'lock btc'])} {self.mem(size)}, {self.name(n, size)}",
                    OF | SF | AF | PF, CF)
        elif op == "bsf":
            n = self.any_register(False)
            if n not in self.pointers + self.reserved:
                self.do(f"or {self.name(n, size)}, 16", AF, ALL & ~AF)
            self.do(f"{dice.choice(['bsf', 'bsr'])} {self.reg(size)}, {self.name(n, size)}", ALL & ~ZF, ZF)
        elif op == "count":
            how = dice.choice(["popcnt", "lzcnt", "tzcnt"])
            self.do(f"{how} {self.reg(size)}, {source}", 0 if how == "popcnt" else OF | SF | AF | PF, ALL
                    if how == "popcnt" else CF | ZF)
        elif op == "bmi1":
            how = dice.choice(["andn", "blsi", "blsr", "blsmsk"])
            middle = f"{self.reg(size, False)}, " if how == "andn" else ""
            self.do(f"{how} {self.reg(size)}, {middle}{source}", AF | PF, SF | ZF | OF | CF)
        elif op == "shiftx":
            self.do(f"{dice.choice(['sarx', 'shlx', 'shrx'])} {self.reg(size)}, {source}, {self.reg(size, False)}")
            self.do(f"rorx {self.reg(size)}, {self.reg(size, False)}, {dice.randrange(32)}")
        elif op == "mulx":
            self.do(f"mulx {self.reg(size)}, {self.reg(size)}, {source}")
        elif op == "pdep":
            self.do(f"{dice.choice(['pdep', 'pext'])} {self.reg(size)}, {self.reg(size, False)}, {source}")
        elif op == "crc":
            self.do(f"crc32 {self.reg(4)}, {dice.choice([self.mem(1), self.mem(4), self.reg(2, False)])}")
        elif op == "bextr":
            self.do(f"bextr {self.reg(size)}, {source}, {self.reg(size, False)}", AF | SF | PF, ZF | CF | OF)
        elif op == "bzhi":
            self.do(f"bzhi {self.reg(size)}, {source}, {self.reg(size, False)}", AF | PF, ZF | CF | OF | SF)

    def flags(self):
        """Flags that are made, then something that leaves them alone but not what made them, then looked at."""
        dice, size = self.dice, self.size()
        made = dice.choice(["cmp", "cmp", "test", "add", "sub", "and", "or", "xor", "inc", "dec", "neg",
                            "ucomisd xmm0, XM8",
                         "ucomiss X,XM4", "comisd X,X", "vucomiss X,XM4", "shl", "adc", "sbb"])
        kinds = {"test": ALL & ~AF, "and": ALL & ~AF, "or": ALL & ~AF, "xor": ALL & ~AF, "inc": ALL & ~CF,
                 "dec": ALL & ~CF}
        if " " in made:
            self.do(self.fill_in(made), 0, ALL)
        elif made in ("inc", "dec", "neg", "shl"):
            self.do(f"{made} {self.target(size)}" + (", 1" if made == "shl" else ""), AF if made == "shl" else 0,
                    ALL & ~AF if made == "shl" else kinds.get(made, ALL))
        else:
            text = self.operands(size, made not in ("cmp", "test"))
            if made == "test" and "[" in text.split(",")[1]:
                text = f"{self.mem(size)}, {self.reg(size, False)}"
            self.do(f"{made} {text}", AF if ALL & ~AF == kinds.get(made) else 0, kinds.get(made, ALL),
                    CF if made in ("adc", "sbb") else 0)
        for _ in range(dice.choice([0, 0, 1, 1, 2, 3, 4])):
            size = self.size()
            how = dice.choice(["load", "load", "store", "store", "move", "immediate", "lea", "not", "push", "vector",
                               "jump", "xchg", "rorx", "movzx"])
            if how == "load":
                self.do(f"mov {self.reg(size)}, {self.mem_plain(size)}")
            elif how == "store":
                self.do(f"mov {self.mem_plain(size)}, {self.reg(size, False)}")
            elif how == "move":
                self.do(f"mov {self.reg(size)}, {self.reg(size, False)}")
            elif how == "immediate":
                self.do(f"mov {self.reg(size)}, {self.immediate(size)}")
            elif how == "lea":
                self.do(f"lea {self.reg(self.word)}, [{self.reg(self.word, False)}+{dice.randint(-9, 9)}]")
            elif how == "not":
                self.do(f"not {self.reg(size)}" if dice.random() < .5 else f"not {self.mem_plain(size)}")
            elif how == "push":
                self.do(f"push {self.reg(self.word, False)}")
                self.do(f"pop {self.reg(self.word)}")
            elif how == "vector":
                self.do(f"movups xmm{dice.randrange(8)}, {self.mem_plain(16)}" if dice.random() < .6
                        else f"pxor xmm{dice.randrange(8)}, xmm{dice.randrange(8)}")
            elif how == "jump":
                label = self.label()
                self.do(f"jmp {label}")
                self.place(label)
            elif how == "xchg":
                self.do(f"xchg {self.reg(4)}, {self.reg(4)}")
            elif how == "rorx":
                self.do(f"rorx {self.reg(4)}, {self.mem_plain(4)}, 7")
            else:
                self.do(f"movzx {self.reg(4)}, {self.mem_plain(1)}")
        for _ in range(dice.choice([1, 1, 2])):
            how = dice.choice(["set", "cmov", "adc", "snap", "if", "if", "lahf"])
            if how == "set":
                self.do(f"set{self.condition()} {self.reg(1)}")
            elif how == "cmov":
                self.do(f"cmov{self.condition()} {self.reg(4)}, {self.reg(4, False)}")
            elif how == "adc":
                self.do(f"adc {self.reg(4)}, {self.immediate(4)}", 0, ALL, CF)
            elif how == "snap":
                self.do("ud2") if dice.random() < .2 else self.do(f"mov {self.reg(4)}, {self.mem_plain(4)}")
            elif how == "lahf":
                self.free(0) and self.do("lahf", reads=ALL & ~OF)
            else:
                label = self.label()
                self.jcc(self.condition(), label)
                before = self.undefined
                self.do(f"add {self.reg(4)}, {self.immediate(4)}", 0,
                        ALL) if dice.random() < .5 else self.do(f"mov {self.reg(4)}, {self.mem_plain(4)}")
                self.undefined |= before
                self.place(label)
