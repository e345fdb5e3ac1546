/*
 * system.c - system instructions that a kernel executes all the time, done in place: interrupt
 * flag, PUSHF, SWAPGS, bases of FS and GS, reading of control and segment registers.
 *
 * Each is the common case of its semantic function in cpu/sys; any other case goes to the site,
 * where C runs that function. Code of a mode without MODE_USER runs at CPL 0 only (eligible() of
 * run.c), so privilege has been checked when it is entered.
 */
#include "cpu/jit/build.h"
#include "insn_exec.h"
#include "internal/rules.h"

enum { OP_OR = 0x09 };

static bool end(struct build *b, struct cold *site)
{
    flags_clobbered(b);
    site_resume(b, site);
    return true;
}

/* ---- RFLAGS ---------------------------------------------------------------------------------- */

static bool cli(struct build *b)
{
    flags_clobber(b);
    emit_cpu_imm32(&b->e, OP_GRP1_IMM32, GRP1_AND, CPU_AT(rflags), ~(uint32_t)RFLAGS_IF);
    emit_cpu_imm32(&b->e, OP_GRP1_IMM32, GRP1_AND, CPU_AT(attention), ~(uint32_t)CPU_REQ_INTR);
    return true;
}

static bool is_sti(const struct build *b, unsigned i)
{
    return b->insn[i].row->exec == EXEC_sys_sti && !(b->mode & MODE_USER);
}

bool system_in_shadow(const struct build *b)
{
    return b->i && build_goes_on(b, b->i - 1) && is_sti(b, b->i - 1);
}

/* Not before it has been executed: JMP polls at its target, RET asks system_in_shadow(). */
static bool polls_before(const struct build *b, unsigned i)
{
    const struct insn *insn = &b->insn[i];
    bool goes = insn->row->exec == EXEC_jmp && insn->op[0].kind == OPND_REL;
    bool returns = insn->row->exec == EXEC_ret && !b->leader[i];
    bool serializes = insn->row->exec == EXEC_sys_serialize;
    return b->polls[i] || serializes || (insn->row->attr & INSN_BRANCH && !goes && !returns);
}

/*
 * With an interrupt pending C does it, which casts the shadow (SDM vol. 2, STI). Else one can only
 * become pending later, and is noticed by a poll: so that the shadow's instruction must be one
 * that is done before any poll, in this region.
 */
static bool sti(struct build *b)
{
    struct emit *e = &b->e;
    if (!b->flows[b->i] || polls_before(b, b->i + 1) || !build_has_room(b, 16))
        return false;
    struct cold *site = site_begin_spilled(b);
    emit_cpu(e, 4, OP_LOAD, SCRATCH1, CPU_AT(attention));
    emit_ri(e, 4, GRP1_OR, SCRATCH1, CPU_REQ_INTR);
    emit_cpu(e, 4, OP_TEST, SCRATCH1, CPU_AT(request));
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_cpu_imm32(e, OP_GRP1_IMM32, GRP1_OR, CPU_AT(rflags), RFLAGS_IF);
    emit_cpu(e, 4, OP_STORE, SCRATCH1, CPU_AT(attention));
    return end(b, site);
}

/* R11 = RFLAGS as PUSHF stores them: VM and RF are 0 in translated code. Flags are stored. */
static void rflags_image(struct build *b)
{
    struct emit *e = &b->e;
    enum { IN_AH = FLAGS_ARITH & 0xff, OF_SHIFT = 11 };
    emit_cpu_0f(e, 4, OP_0F_MOVZX_BYTE, SCRATCH1, CPU_AT(jx.flags));
    emit_shift(e, 4, SHIFT_DIGIT_SHL, SCRATCH1, OF_SHIFT);
    emit_cpu_0f(e, 4, OP_0F_MOVZX_BYTE, SCRATCH2, CPU_AT(jx.flags) + 1);
    emit_ri(e, 4, GRP1_AND, SCRATCH2, IN_AH);
    emit_rr(e, 4, OP_OR, SCRATCH1, SCRATCH2);
    emit_cpu(e, 4, OP_LOAD, SCRATCH1, CPU_AT(rflags));
    emit_ri(e, 4, GRP1_AND, SCRATCH1, ~(int32_t)FLAGS_ARITH);
    emit_rr(e, 4, OP_OR, SCRATCH1, SCRATCH2);
}

static bool pushf(struct build *b)
{
    const struct insn *insn = build_insn(b);
    if (insn->opsize != b->width)
        return false;
    flags_store(b);
    flags_before_change(b, RSP, true);
    struct cold *site = site_begin(b);
    rflags_image(b);
    emit_cpu_store(&b->e, SCRATCH2, CPU_AT(jx.jump));
    lookup_words(b, -(int32_t)b->width, b->width, ACCESS_WRITE, site);
    emit_cpu_load(&b->e, SCRATCH2, CPU_AT(jx.jump));
    emit_word(b, OP_STORE, SCRATCH2, -(int32_t)b->width);
    flags_clobbered(b);
    emit_rm(&b->e, b->width, OP_LEA, HOST_SP, HOST_SP, -(int32_t)b->width);
    flags_after_change(b, RSP);
    return end(b, site);
}

/* Where it changes arithmetic flags only, as in programs. What it would change beside them, RF and
 * the like included, is for C. */
static bool popf(struct build *b)
{
    enum { XOR_LOAD = 0x33, STORE_BYTE = 0x88, OF_SHIFT = 11 };
    const uint32_t clears = RFLAGS_RF | RFLAGS_VM | RFLAGS_VIF | RFLAGS_VIP;
    struct emit *e = &b->e;
    if (build_insn(b)->opsize != b->width)
        return false;
    flags_before_change(b, RSP, true);
    struct cold *site = site_begin_spilled(b);
    lookup_words(b, 0, b->width, ACCESS_READ, site);
    emit_word(b, OP_LOAD, SCRATCH1, 0);
    emit_cpu(e, 4, OP_LOAD, SCRATCH2, CPU_AT(rflags));
    emit_rr(e, 4, XOR_LOAD, SCRATCH2, SCRATCH1);
    emit_test_imm32(e, SCRATCH2, ~(uint32_t)(FLAGS_ARITH | RFLAGS_FIXED));
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_test_imm32(e, SCRATCH1, clears);
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_cpu(e, 4, STORE_BYTE, SCRATCH1, CPU_AT(jx.flags) + 1);
    emit_shift(e, 4, SHIFT_DIGIT_SHR, SCRATCH1, OF_SHIFT);
    emit_ri(e, 4, GRP1_AND, SCRATCH1, 1);
    emit_cpu(e, 4, STORE_BYTE, SCRATCH1, CPU_AT(jx.flags));
    emit_rm(e, b->width, OP_LEA, HOST_SP, HOST_SP, (int32_t)b->width);
    flags_after_change(b, RSP);
    b->flags = (struct flags_state){.memory = true};
    site_resume(b, site);
    return true;
}

/*
 * AC is part of a region's mode, so code goes on in another region: of the same frame, so that
 * nothing can be wrong with it once it has been found, as with an edge in the page. The table of
 * addresses is the right one as long as it says so. Where AC is as wanted, there is nothing to do.
 */
static bool set_ac(struct build *b, bool on)
{
    struct emit *e = &b->e;
    uint32_t other = b->mode ^ JIT_MODE_AC;
    if (on == !!(b->mode & JIT_MODE_AC))
        return true;
    if (b->cross || b->jit->lockstep || b->off[b->i] + build_insn(b)->len >= (int)PAGE_SIZE)
        return false;
    flags_store(b);
    struct cold *site = site_begin(b);
    struct jit_switch *to = jit_data(b->jit, sizeof *to);
    *to = (struct jit_switch){0};
    site_record(b, site)->switches = true; /* it lies right behind the site */
    emit_rip(e, 8, OP_LOAD, SCRATCH1, &to->code);
    emit_rr(e, 8, OP_TEST, SCRATCH1, SCRATCH1);
    cold_jump(site, emit_jcc_later(e, CC_E));
    emit_rip(e, 8, OP_LOAD, SCRATCH2, &to->pcs);
    emit_rm(e, 4, OP_GRP1_IMM32, GRP1_CMP, SCRATCH2, (int32_t)offsetof(struct jit_pcs, mode));
    emit32(e, other);
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_cpu_imm32(e, OP_GRP1_IMM32, on ? GRP1_OR : GRP1_AND, CPU_AT(rflags),
                   on ? RFLAGS_AC : ~(uint32_t)RFLAGS_AC);
    emit_cpu_imm8(e, OP_STORE_IMM8, 0, CPU_AT(priv), on ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR);
    emit_cpu_store(e, SCRATCH2, CPU_AT(jx.pcs));
    emit_cpu_load(e, RSP, CPU_AT(jx.stack)); /* open calls return to regions of this mode */
    emit_jmp_reg(e, SCRATCH1);
    return end(b, site);
}

/* ---- Registers ------------------------------------------------------------------------------- */

/* The guest's register = what lies in struct cpu; 32 bits of it are zero-extended. */
static void load_register(struct build *b, unsigned reg, unsigned size, int32_t offset)
{
    unsigned to = guest_target(reg, SCRATCH1);
    flags_before_change(b, reg, false);
    emit_cpu(&b->e, size, OP_LOAD, to, offset);
    guest_written(b, reg, to);
    flags_after_change(b, reg);
}

static bool store_selector(struct build *b, unsigned seg)
{
    const struct insn *insn = build_insn(b);
    if (insn->adsize == 2 || !build_easy_segment(b, insn, true))
        return false;
    struct cold *site = site_begin_spilled(b);
    lookup_operand(b, 2, ACCESS_WRITE, 0, site);
    emit_cpu_0f(&b->e, 4, OP_0F_MOVZX_WORD, SCRATCH2, CPU_SELECTOR(seg));
    emit8(&b->e, 0x66);
    emit_rm(&b->e, 4, OP_STORE, SCRATCH2, SCRATCH1, 0);
    return end(b, site);
}

static bool mov_from_sreg(struct build *b)
{
    const struct insn *insn = build_insn(b);
    unsigned seg = insn->op[1].reg;
    if (seg > SEG_GS)
        return false;
    if (insn->op[0].kind == OPND_MEM)
        return store_selector(b, seg);
    unsigned reg = insn->op[0].reg, to = guest_target(reg, SCRATCH1);
    flags_before_change(b, reg, false);
    if (insn->opsize == 2) { /* the rest of the register stays */
        if (abi_is_homed(reg))
            homed_load(b, to, reg);
        emit8(&b->e, 0x66);
        emit_cpu(&b->e, 4, OP_LOAD, to, CPU_SELECTOR(seg));
    } else {
        emit_cpu_0f(&b->e, 4, OP_0F_MOVZX_WORD, to, CPU_SELECTOR(seg));
    }
    guest_written(b, reg, to);
    flags_after_change(b, reg);
    return true;
}

static bool mov_from_cr(struct build *b)
{
    static const int32_t at[16] = {
        [0] = CPU_AT(cr0), [2] = CPU_AT(cr2), [3] = CPU_AT(cr3), [4] = CPU_AT(cr4)};
    const struct insn *insn = build_insn(b);
    unsigned cr = insn->op[1].reg;
    if (cr >= 16 || !at[cr])
        return false;
    load_register(b, insn->op[0].reg, b->width, at[cr]);
    return true;
}

/* To the site unless CR4 has the bit. */
static void require_cr4(struct build *b, uint32_t bit, struct cold *site)
{
    emit_cpu_imm32(&b->e, OP_GRP3, GRP3_TEST, CPU_AT(cr4), bit);
    cold_jump(site, emit_jcc_later(&b->e, CC_E));
}

static bool rdpkru(struct build *b)
{
    flags_before_change(b, RAX, true);
    flags_before_change(b, RDX, true);
    struct cold *site = site_begin_spilled(b);
    require_cr4(b, CR4_PKE, site);
    emit_rr(&b->e, 4, OP_TEST, RCX, RCX);
    cold_jump(site, emit_jcc_later(&b->e, CC_NE));
    flags_clobbered(b);
    emit_cpu(&b->e, 4, OP_LOAD, RAX, CPU_AT(pkru));
    emit_mov_imm32(&b->e, RDX, 0);
    flags_after_change(b, RAX);
    flags_after_change(b, RDX);
    return end(b, site);
}

/* RDTSCP comes behind all earlier loads; RDTSC alone comes when it likes. */
static bool rdtsc(struct build *b, bool aux)
{
    static const uint8_t lfence[] = {0x0f, 0xae, 0xe8};
    struct emit *e = &b->e;
    flags_before_change(b, RAX, true);
    flags_before_change(b, RDX, true);
    if (aux)
        flags_before_change(b, RCX, true);
    struct cold *site = site_begin_spilled(b);
    if (b->mode & MODE_USER) {
        emit_cpu_imm32(e, OP_GRP3, GRP3_TEST, CPU_AT(cr4), CR4_TSD);
        cold_jump(site, emit_jcc_later(e, CC_NE));
    }
    flags_clobbered(b);
    if (aux)
        emit_bytes(e, lfence, sizeof lfence);
    emit_call(e, b->jit->thunks.tsc);
    cold_jump(site, emit_jcc_later(e, CC_B));
    if (aux) {
        emit_cpu(e, 4, OP_LOAD, RCX, CPU_AT(msr_tsc_aux));
        flags_after_change(b, RCX);
    }
    flags_after_change(b, RAX);
    flags_after_change(b, RDX);
    return end(b, site);
}

/* ---- Bases of FS and GS: in 64-bit code seg_base[] is what the segment register has ---------- */

static bool read_base(struct build *b)
{
    const struct insn *insn = build_insn(b);
    flags_before_change(b, insn->op[0].reg, true);
    struct cold *site = site_begin_spilled(b);
    require_cr4(b, CR4_FSGSBASE, site);
    flags_clobbered(b);
    load_register(b, insn->op[0].reg, insn->op[0].size, CPU_SEG_BASE(insn->row->exec_arg));
    return end(b, site);
}

static void set_base(struct emit *e, unsigned seg, unsigned reg)
{
    emit_cpu_store(e, reg, CPU_SEG_BASE(seg));
    emit_cpu_store(e, reg, CPU_SEGMENT(seg) + (int32_t)offsetof(struct segment, base));
}

static bool write_base(struct build *b)
{
    enum { NOT_ADDRESS = 64 - 48 };
    const struct insn *insn = build_insn(b);
    unsigned size = insn->op[0].size;
    struct emit *e = &b->e;
    struct cold *site = site_begin_spilled(b);
    require_cr4(b, CR4_FSGSBASE, site);
    emit_mov(e, size, SCRATCH1, guest_value(b, insn->op[0].reg, SCRATCH1));
    if (size == 8) { /* canonical? */
        emit_mov(e, 8, SCRATCH2, SCRATCH1);
        emit_shift(e, 8, SHIFT_DIGIT_SHL, SCRATCH2, NOT_ADDRESS);
        emit_shift(e, 8, SHIFT_DIGIT_SAR, SCRATCH2, NOT_ADDRESS);
        emit_rr(e, 8, OP_CMP_LOAD, SCRATCH2, SCRATCH1);
        cold_jump(site, emit_jcc_later(e, CC_NE));
    }
    set_base(e, insn->row->exec_arg, SCRATCH1);
    return end(b, site);
}

static bool swapgs(struct build *b)
{
    struct emit *e = &b->e;
    emit_cpu_load(e, SCRATCH1, CPU_AT(msr_kernel_gs_base));
    emit_cpu_load(e, SCRATCH2, CPU_SEG_BASE(SEG_GS));
    set_base(e, SEG_GS, SCRATCH1);
    emit_cpu_store(e, SCRATCH2, CPU_AT(msr_kernel_gs_base));
    return true;
}

/* ---- Ways into the kernel and out of it ------------------------------------------------------ */

/* Which gate the current instruction is; JIT_GATES: none that gates.c does. In 64-bit code. */
static enum jit_gate which_gate(const struct build *b)
{
    bool kernel = !(b->mode & MODE_USER), wide = build_insn(b)->opsize == 8;
    switch (build_insn(b)->row->exec) {
    case EXEC_sys_syscall:
        return kernel ? JIT_GATES : GATE_SYSCALL;
    case EXEC_sys_sysret:
        return kernel && wide ? GATE_SYSRET : JIT_GATES;
    case EXEC_sys_iret:
        return kernel && wide ? GATE_IRET : JIT_GATES;
    default:
        return JIT_GATES;
    }
}

static void ask_rules(struct build *b)
{
    static const _Atomic unsigned none;
    const struct rules *rules = phys_rules(b->cpu->map);
    b->jit->rules_users = rules ? rules_users_word(rules) : &none;
    b->jit->rules_deferred = rules ? rules_deferred_word(rules) : &none;
}

bool system_gate(struct build *b)
{
    enum jit_gate gate = b->code64 ? which_gate(b) : JIT_GATES;
    if (gate == JIT_GATES)
        return false;
    ask_rules(b);
    flags_store(b);
    struct cold *site = site_begin(b);
    emit_mov_imm32(&b->e, SCRATCH1, (uint32_t)(b->off[b->i] + build_insn(b)->len));
    emit_call(&b->e, b->jit->thunks.gate[gate]);
    cold_jump(site, emit_jmp_later(&b->e));
    return true;
}

/* What other processors have done to this one's code is noticed by a poll, and its own stores are
 * always; so the fence is left (SDM vol. 3, 9.3). */
static bool serialize(struct build *b)
{
    static const uint8_t mfence[] = {0x0f, 0xae, 0xf0};
    branch_poll(b);
    emit_bytes(&b->e, mfence, sizeof mfence);
    return true;
}

/* ---- The choice ------------------------------------------------------------------------------ */

bool system_translate(struct build *b)
{
    bool kernel = !(b->mode & MODE_USER);
    switch (build_insn(b)->row->exec) {
    case EXEC_sys_cli:
        return kernel && cli(b);
    case EXEC_sys_sti:
        return kernel && sti(b);
    case EXEC_sys_pushf:
        return pushf(b);
    case EXEC_sys_popf:
        return popf(b);
    case EXEC_sys_stac:
    case EXEC_sys_clac:
        return kernel && set_ac(b, build_insn(b)->row->exec == EXEC_sys_stac);
    case EXEC_sys_mov_from_sreg:
        return mov_from_sreg(b);
    case EXEC_sys_mov_from_cr:
        return kernel && mov_from_cr(b);
    case EXEC_sys_rdpkru:
        return rdpkru(b);
    case EXEC_sys_rdtsc:
        return rdtsc(b, false);
    case EXEC_sys_rdtscp:
        return rdtsc(b, true);
    case EXEC_sys_serialize:
        return serialize(b);
    case EXEC_sys_rdfsbase:
        return b->code64 && read_base(b);
    case EXEC_sys_wrfsbase:
        return b->code64 && write_base(b);
    case EXEC_sys_swapgs:
        return kernel && b->code64 && swapgs(b);
    default:
        return false;
    }
}
