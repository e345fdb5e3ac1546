"""Random instructions that are seldom: strings, the stack in odd ways, code that changes, traps, system calls."""
from asm_operands import AF, ALL, ARENA, CF, OF, PF, PREFIX, SF, ZF, Operands


class Rare(Operands):
    def misc(self):
        """What compilers emit seldom."""
        dice, word = self.dice, self.word
        how = dice.choice(["nop", "fx", "segment", "cx16", "gather", "gather", "push16", "retn", "jcxz", "xlat",
                           "trap32", "lar", "nop87", "addr", "loope"])
        if how == "nop":
            self.do(dice.choice(["pause", "lfence", "mfence", "sfence", f"prefetcht0 {self.mem(1)}",
                                 f"clflush {self.mem(1)}", f"nop {self.mem(4)}", "endbr64", "xchg ax, ax",
                                 ".byte 0x66, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0", f"prefetchw {self.mem(1)}"]))
        elif how == "fx":
            wide = "64" if self.bits == 64 and dice.random() < .5 else ""
            self.do(f"{dice.choice(['fxsave', 'fxrstor'])}{wide} [fxarea]")
        elif how == "segment":
            self.do(dice.choice([f"mov {self.reg(dice.choice([2, 4, word]))}, {dice.choice(['ds', 'es', 'ss', 'cs'])}",
                                 f"mov {self.mem(2)}, {dice.choice(['ds', 'es', 'ss'])}"]))
            if dice.random() < .3 and self.free(0):
                self.do("mov eax, 0x2b")
                self.do("mov es, eax")
        elif how == "cx16" and self.bits == 64 and self.free(0) and self.free(2):
            self.do(f"{dice.choice(['', 'lock '])}cmpxchg16b {self.mem(16)}", 0, ZF)
        elif how == "gather":
            n = 8 if self.bits == 32 else 16
            dest, index, mask = dice.sample(range(n), 3)
            wide = dice.choice("xy")
            self.do(f"vpcmpeqd {wide}mm{mask}, {wide}mm{mask}, {wide}mm{mask}" if dice.random() < .6
                    else f"vmovdqu {wide}mm{mask}, {self.mem(16 if wide == 'x' else 32)}")
            quad = dice.random() < .4
            self.do(f"vpsrl{'q' if quad else 'd'} {wide}mm{index}, {wide}mm{index}, {56 if quad else 25}")
            op = dice.choice(["vpgatherqq", "vgatherqpd"] if quad else ["vpgatherdd", "vgatherdps"])
            self.do(f"{op} {wide}mm{dest}, [{self.name(dice.choice(self.pointers), word)}+{wide}mm{index}*"
                    f"{dice.choice([1, 2, 4, 8])}+{dice.randint(-8, 64)}], {wide}mm{mask}")
        elif how == "push16":
            if not self.reserved:
                self.do(f"push {self.reg(2, False)}")
                self.do(f"push {self.reg(2, False)}")
                self.do(f"mov {self.reg(2)}, word ptr [{self.name(4, word)}+2]")
                self.do(f"pop {self.reg(2)}")
                self.do(f"pop {self.reg(2)}")
        elif how == "retn" and not self.reserved:
            for _ in range(2):
                self.do(f"push {self.reg(word, False)}")
            self.do("call retn", ALL)
        elif how == "jcxz":
            label = self.label()
            self.do(f"{dice.choice(['jecxz', 'jrcxz' if self.bits == 64 else 'jcxz'])} {label}")
            before = self.undefined
            self.do(f"xor {self.reg(4)}, {self.immediate(4)}", AF, ALL & ~AF)
            self.undefined |= before
            self.place(label)
        elif how == "xlat" and self.free(0) and self.free(3):
            self.do(f"mov ebx, {self.address()}")
            self.do("xlatb")
        elif how == "trap32" and self.bits == 32:
            if dice.random() < .5:
                self.do("into", reads=OF)
                self.do("nop")
            else:
                self.do(f"bound {self.reg(4, False)}, {self.mem(8)}")
        elif how == "lar" and self.free(0):
            self.do(f"mov eax, {dice.choice([0x2b, 0x33, 0x23, 0, 0xfff8])}")
            self.do(f"{dice.choice(['verr ax', 'verw ax', 'lar eax, eax', 'lsl eax, eax'])}", 0, ZF)
        elif how == "nop87":
            n = dice.choice([n for n in range(8) if n != 4])
            self.do(f".byte 0x87, 0x{0xc0 + 9 * n:x}")
        elif how == "addr":
            self.do(f".byte {dice.choice(['0x2e', '0x3e', '0x26', '0x36'])}; mov {self.reg(4)}, {self.mem_plain(4)}")
        elif how == "loope" and self.free(1):
            label = self.label()
            self.do(f"mov ecx, {dice.choice([1, 2, 5])}")
            self.place(label)
            self.undefined = ALL
            self.do(f"cmp {self.reg(4, False)}, {self.mem_plain(4)}", 0, ALL)
            self.do(f"test {self.reg(1, False)}, {dice.choice([1, 3, 64])}", AF, ALL & ~AF)
            self.do(f"{dice.choice(['loope', 'loopne'])} {label}")

    def string(self):
        dice = self.dice
        if not (self.free(1) and all(n not in self.reserved for n in (6, 7))):
            return
        down = dice.random() < .2
        source = self.address()
        near = source + dice.choice([1, 2, 4, 8, 16, 64, -1, -8, -16, 4096])  # the two overlap
        self.do(f"mov {self.name(6, 4)}, {source}")
        somewhere = ARENA + 0x4000 + dice.randrange(0x3000)
        self.do(f"mov {self.name(7, 4)}, {dice.choice([self.address(), near, somewhere])}")
        self.do(f"mov ecx, {dice.choice([0, 1, 2, 3, dice.randrange(70), dice.randrange(400), dice.randrange(6000)])}")
        if down:
            self.do("std")
        size = dice.choice("bbwd" + "q" * (self.bits == 64))
        op = dice.choice(["rep movs", "rep stos", "rep stos", "rep movs", "movs", "stos", "repe cmps", "repne cmps",
                          "repne scas", "repe scas", "cmps", "scas", "lods", "rep lods"])
        if "lods" not in op or self.free(0):
            compares = "cmps" in op or "scas" in op
            before = self.undefined
            self.do(op + size, 0, ALL if compares else 0)
            self.undefined |= before
        if down:
            self.do("cld")

    def stack(self):
        dice, word = self.dice, self.word
        how = dice.choice(["pairs", "pairs", "flags", "window", "window", "enter", "memory", "deep", "ret", "callpop",
                           "pusha"])
        if how == "pairs":
            pushed = [self.any_register(False) for _ in range(dice.randint(1, 8))]
            for n in pushed:
                self.do(f"push {self.name(n, word)}")
                if dice.random() < .2:
                    self.simple(["integer"])
            for n in reversed(pushed):
                self.do(f"pop {self.name(n if n in self.pointers + self.reserved else self.any_register(), word)}")
        elif how == "flags":
            sp = self.name(4, word)
            value = dice.choice([CF, OF, ZF | SF, AF | PF, CF | PF | AF | ZF | SF | OF, 0]) | 0x202
            if dice.random() < .5:
                self.do(f"push {value}")
                self.do("popf", 0, ALL)
            elif not self.undefined:
                self.do("pushf")
                self.do(f"and {PREFIX[word]}[{sp}], 0x8d5", AF, ALL & ~AF)
                self.do(f"pop {self.reg(word)}")
        elif how == "window":  # the stack in the arena, where PUSH and POP may fault anywhere
            save, sp = f"{self.rip}saved_{self.number}", self.name(4, word)
            self.do(f"mov [{save}], {sp}")
            self.do(f"mov {self.name(4, 4)}, {self.address() & ~(0 if dice.random() < .3 else word - 1)}")
            for _ in range(dice.randint(2, 12)):
                what = dice.choice(["push", "push", "push", "pop", "pushm", "popm", "pushi", "other", "other", "call",
                                    "popsp", "leave"])
                if what == "push":
                    self.do(f"push {self.name(dice.randrange(self.count), word)}")
                elif what == "pop":
                    self.do(f"pop {self.reg(word)}")
                elif what == "pushm":
                    self.do(f"push {dice.choice([self.mem(word), f'{PREFIX[word]}[{sp}+{dice.randrange(0, 64, 8)}]'])}")
                elif what == "popm":
                    self.do(f"pop {dice.choice([self.mem(word), f'{PREFIX[word]}[{sp}+{dice.randrange(0, 64, 8)}]'])}")
                elif what == "pushi":
                    self.do(f"push {self.immediate(4)}")
                elif what == "call":
                    self.do(f"call leaf{dice.randrange(3)}", ALL)
                elif what == "popsp" and dice.random() < .3:
                    self.do(f"push {self.address()}")
                    self.do(f"pop {sp}")
                elif what == "leave" and self.free(5):
                    self.do(f"mov ebp, {self.address()}")
                    self.do("leave")
                else:
                    self.simple(["integer"])
            self.do(f"mov {sp}, [{save}]")
        elif how == "enter" and self.free(5):
            self.do(f"enter {dice.choice([0, 8, 64, 200])}, {dice.choice([0, 0, 0, 1, 2])}")
            self.simple(["integer"])
            self.reserved.append(5)
            self.simple(["integer", "bits"])
            self.reserved.remove(5)
            self.do("leave")
        elif how == "memory":
            self.do(f"push {self.mem(word)}")
            self.do(f"pop {self.mem(word)}")
            self.do(f"mov {self.name(4, word)}, [{self.rip}frame_{self.number}]")
        elif how == "deep" and self.free(1):
            self.do(f"mov ecx, {dice.choice([3, 30, 400, 900])}")
            self.do("call deep", ALL)
        elif how == "ret":
            label = self.label()
            n = self.name(self.any_register(), word)
            self.do(f"lea {n}, [rip+{label}]" if self.bits == 64 else f"lea {n}, {label}")
            self.do(f"push {n}")
            self.do("ret")
            self.place(label)
        elif how == "callpop":
            label = self.label()
            self.do(f"call {label}")
            self.place(label)
            self.do(f"pop {self.reg(word)}")
        elif how == "pusha" and self.bits == 32:
            self.do("pusha")
            self.simple(["integer"])
            self.do("popa")

    def patch(self):
        """Code that changes: an immediate operand, or the condition of a jump somewhere."""
        if self.dice.random() < .5:
            label = self.label()
            if self.free(0):
                self.do(f".byte 0x05; {label}: .long {self.dice.randrange(2 ** 31)}", 0, ALL)
                self.whole["immediates"].append(label)
        elif self.dice.random() < .5:
            where = f"[{self.rip}@IMMEDIATE@]"
            how = self.dice.choice(["mov", "mov", "xchg", "add", "lock xadd", "movd", "rep", "push"])
            if how == "movd":
                self.do(f"movd dword ptr {where}, xmm{self.dice.randrange(8)}")
            elif how == "rep":
                if self.free(1) and not {6, 7} & set(self.reserved):
                    self.do(f"mov {self.name(6, 4)}, {self.address()}")
                    self.do(f"lea {self.name(7, self.word)}, {where}")
                    self.do("mov ecx, 4")
                    self.do("rep movsb")
            elif how == "push":
                self.do(f"push {self.reg(self.word, False)}")
                self.do(f"mov byte ptr {where}, 5")
                self.do(f"pop {self.reg(self.word)}")
            else:
                self.do(f"{how} dword ptr {where}, {self.reg(4, how in ('xchg', 'lock xadd'))}", 0,
                        ALL if how in ("add", "lock xadd") else 0)
        else:
            self.do(f"xor byte ptr [{self.rip}@BYTE@], 1", AF, ALL & ~AF)

    def odd(self):
        """Rare things: breakpoints, single steps, system calls, #AC."""
        dice = self.dice
        how = dice.choice(["int3", "trace", "syscall", "ac", "cpl"])
        if how == "int3":
            self.out.append("nop")
            self.do("int3")
            self.do("nop")
        elif how == "trace" and self.whole["trace"]:
            self.do("push 0x302")
            self.do("popf", 0, ALL)
        elif how == "syscall" and self.free(0) and (self.bits == 32 or self.free(1) and self.free(11)):
            self.do(f"mov eax, {24 if self.bits == 64 else 158}")
            self.out.append("syscall" if self.bits == 64 else "int 0x80")
            if self.bits == 64:
                self.out.append("mov r11d, 0")
        elif how == "ac":
            self.do("push 0x40202")
            self.do("popf", 0, ALL)
            for _ in range(3):
                self.simple(["integer"])
            self.do("push 0x202")
            self.do("popf", 0, ALL)
        elif how == "cpl":
            self.do(dice.choice(["hlt", "cli", "in al, dx", "mov eax, cr0", "invd"] if self.bits == 32
                                else ["hlt", "cli", "in al, dx", "mov rax, cr0", "wrmsr"]))
