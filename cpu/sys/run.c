/*
 * run.c - the loop that every vCPU thread spends its life in.
 *
 *     requests and pending traps -> halt? -> the interpreter -> again
 *
 * The fast way is interp_run(cpu, false), which returns at a block edge when (request & attention)
 * is not zero. The careful way runs one instruction at a time; it is taken while RFLAGS.TF or RF is
 * set, in an interrupt shadow, and while DR7 enables any breakpoint. cpu_raise() unwinds to the
 * sigsetjmp() in cpu_run(). Between instructions cpu->rip == cpu->next_rip.
 */
#include "cpu/guard.h"
#include "cpu/interp/flags.h"
#include "cpu/mem_internal.h"
#include "cpu/sys/internal.h"
#include "cpu/upcall.h"
#include "insn_exec.h"
#include "internal/exclusive.h"
#include <stdatomic.h>

/* ---- Requests from other threads ------------------------------------------------------------- */

/* The signal goes out under the lock that the sleeper tests `request` under, so none is lost. */
void cpu_request(struct cpu *cpu, uint32_t requests)
{
    atomic_fetch_or_explicit(&cpu->request, requests, memory_order_release);
    atomic_store(&cpu->jx.kick, 1);
    pthread_mutex_lock(&cpu->wake_lock);
    pthread_cond_signal(&cpu->wake);
    pthread_mutex_unlock(&cpu->wake_lock);
}

void cpu_withdraw(struct cpu *cpu, uint32_t requests)
{
    atomic_fetch_and_explicit(&cpu->request, ~(requests & ~(uint32_t)CPU_REQ_DEBUG),
                              memory_order_acq_rel);
}

static void port_raise(void *opaque, uint32_t requests)
{
    cpu_request(opaque, requests);
}

static void port_lower(void *opaque, uint32_t requests)
{
    cpu_withdraw(opaque, requests);
}

static void port_sipi(void *opaque, uint8_t vector)
{
    struct cpu *cpu = opaque;

    /* The second of two finds a CPU that the first has started, though it may not know yet. */
    pthread_mutex_lock(&cpu->wake_lock);
    if (!(atomic_load(&cpu->request) & CPU_REQ_SIPI))
        cpu->sipi_vector = vector;
    pthread_mutex_unlock(&cpu->wake_lock);
    cpu_request(cpu, CPU_REQ_SIPI);
}

struct cpu_port cpu_port(struct cpu *cpu)
{
    return (struct cpu_port){
        .cpu = cpu, .raise = port_raise, .lower = port_lower, .sipi = port_sipi};
}

void cpu_set_a20(struct cpu *cpu, bool enabled)
{
    atomic_store(&cpu->a20_masked, !enabled);
    cpu_request(cpu, CPU_REQ_MMU);
}

static uint32_t due_requests(struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->request, memory_order_acquire) & cpu->attention;
}

/* ---- Serving them ---------------------------------------------------------------------------- */

/* Takes the latched request away; true when it was there. */
static bool take(struct cpu *cpu, uint32_t due, uint32_t request)
{
    if (!(due & request))
        return false;
    cpu_withdraw(cpu, request);
    return true;
}

/* Start-up IPI: only a CPU that waits for it takes notice (SDM vol. 3, 8.4.3). */
static void start_up(struct cpu *cpu)
{
    bool after_init;
    uint8_t vector;

    /* An INIT that has come meanwhile comes first. Its sender is held up by the lock. */
    pthread_mutex_lock(&cpu->wake_lock);
    after_init = atomic_load(&cpu->request) & CPU_REQ_INIT;
    if (!after_init)
        cpu_withdraw(cpu, CPU_REQ_SIPI);
    vector = cpu->sipi_vector;
    pthread_mutex_unlock(&cpu->wake_lock);
    if (after_init || cpu->activity != CPU_WAIT_SIPI)
        return;
    cpu->seg[SEG_CS].selector = (uint16_t)(vector << 8);
    cpu->seg[SEG_CS].base = (uint64_t)vector << 12;
    cpu->rip = cpu->next_rip = 0;
    cpu->activity = CPU_RUNNING;
    cpu_mode_update(cpu);
}

static void serve_memory(struct cpu *cpu, uint32_t due)
{
    if (take(cpu, due, CPU_REQ_EXCLUSIVE) && cpu->exclusive)
        exclusive_poll(cpu->exclusive, cpu->index);
    if (take(cpu, due, CPU_REQ_MMU)) {
        if (cpu->mmu.paging.a20 == atomic_load(&cpu->a20_masked))
            sys_paging_update(cpu);
        mmu_service(&cpu->mmu);
    }
}

static bool deliver_interrupt(struct cpu *cpu)
{
    int vector = -1;

    if (cpu->lapic.acknowledge)
        vector = cpu->lapic.acknowledge(cpu->lapic.lapic);
    else
        cpu_withdraw(cpu, CPU_REQ_INTR);
    if (vector < 0)
        return false;
    cpu->activity = CPU_RUNNING;
    sys_deliver(cpu, EVENT_EXTERNAL, (uint8_t)vector);
    return true;
}

/* Traps of the last instruction, then NMI, then INTR (SDM vol. 3, table 6-2). What MOV SS defers
 * stays pending (6.8.3). */
static bool deliver_pending(struct cpu *cpu, uint32_t due)
{
    if (cpu->debug_pending && !(cpu->shadow & SHADOW_MOVSS)) {
        uint32_t bits = cpu->debug_pending;

        cpu->debug_pending = 0;
        cpu->activity = CPU_RUNNING;
        deliver_debug_trap(cpu, bits);
        return true;
    }
    if (take(cpu, due, CPU_REQ_NMI)) {
        cpu->activity = CPU_RUNNING;
        sys_deliver(cpu, EVENT_NMI, VECTOR_NMI);
        return true;
    }
    return due & CPU_REQ_INTR && deliver_interrupt(cpu);
}

bool sys_service_requests(struct cpu *cpu)
{
    uint32_t due = due_requests(cpu);

    serve_memory(cpu, due);
    if (take(cpu, due, CPU_REQ_INIT)) {
        cpu_reset(cpu, true);
        return true;
    }
    if (due & CPU_REQ_SIPI)
        start_up(cpu);
    if (take(cpu, due, CPU_REQ_SMI))
        LOG(cpu->log, LOG_UNIMP, "cpu%u: SMI ignored: there is no system management mode\n",
            cpu->index);
    if (cpu->activity == CPU_WAIT_SIPI || cpu->activity == CPU_SHUTDOWN) {
        /* An NMI ends a shutdown; its delivery will shut down again if nothing has changed. */
        if (cpu->activity == CPU_WAIT_SIPI || !(due & CPU_REQ_NMI))
            return false;
    }
    if (deliver_pending(cpu, due))
        return true;
    if (!take(cpu, due, CPU_REQ_UPCALL))
        return false;
    upcall_deferred(cpu);
    return true;
}

/* ---- Halts ----------------------------------------------------------------------------------- */

/* Sleeps until something that this state attends to is requested. Outside the guest meanwhile, so
 * exclusive sections and the MMU's mail need not wake it. */
static void idle(struct cpu *cpu)
{
    uint32_t wake = cpu->attention & ~(CPU_REQ_DEBUG | CPU_REQ_EXCLUSIVE | CPU_REQ_MMU);

    if (cpu->exclusive)
        exclusive_leave(cpu->exclusive, cpu->index);
    if (cpu->activity == CPU_SHUTDOWN && cpu->on_shutdown)
        cpu->on_shutdown(cpu->machine, cpu);
    pthread_mutex_lock(&cpu->wake_lock);
    while (!(atomic_load_explicit(&cpu->request, memory_order_acquire) & wake))
        pthread_cond_wait(&cpu->wake, &cpu->wake_lock);
    pthread_mutex_unlock(&cpu->wake_lock);
    if (cpu->exclusive)
        exclusive_enter(cpu->exclusive, cpu->index);
}

/* ---- The careful way ------------------------------------------------------------------------- */

bool sys_peek_insn(struct cpu *cpu, struct insn *insn)
{
    unsigned code = cpu->mode & MODE_CODE64 ? 64 : cpu->mode & MODE_CODE32 ? 32 : 16;
    uint64_t lin = cpu->seg_base[SEG_CS] + cpu->rip;
    uint8_t bytes[15];
    size_t len = sizeof bytes;

    if (code != 64)
        lin = (uint32_t)lin;
    /* Up to the page's end when the next page is not there. */
    if (!mem_peek(cpu, lin, bytes, len)) {
        len = PAGE_SIZE - (lin & ~PAGE_MASK);
        if (len >= sizeof bytes || !mem_peek(cpu, lin, bytes, len))
            return false;
    }
    return insn_decode(bytes, len, code, !in_prot(cpu), &cpu->features, insn) == DECODE_OK;
}

/* False when no REP stands before the opcode. Most of the time that is seen at a glance, and saves
 * an interrupt the page walk and the decoding. */
static bool may_have_rep(const struct cpu *cpu)
{
    uint64_t lin = cpu->seg_base[SEG_CS] + cpu->rip;
    const uint8_t *code = NULL;

    if (in_code64(cpu))
        code = mmu_view_code(&cpu->mmu, mem_cpl_priv(cpu), lin);
    for (uint64_t left = PAGE_SIZE - (lin & ~PAGE_MASK); code && left; left--, code++) {
        switch (__atomic_load_n(code, __ATOMIC_RELAXED)) {
        case 0xf2:
        case 0xf3:
            return true;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x40 ... 0x4f: /* a REX that is not the last prefix means nothing */
        case 0x64 ... 0x67:
        case 0xf0:
            continue;
        default:
            return false;
        }
    }
    return true;
}

bool sys_inside_rep(struct cpu *cpu)
{
    struct insn insn;

    if (!cpu->gpr[RCX] || !may_have_rep(cpu))
        return false;
    if (!sys_peek_insn(cpu, &insn) || !insn.rep || !(insn.row->attr & (INSN_REP | INSN_REPCC)))
        return false;
    return opnd_gpr(cpu, RCX, insn.adsize) != 0;
}

/* Of a Jcc, LOOP or JCXZ that leads to the instruction behind it, by what it has left. */
static bool condition_held(const struct cpu *cpu, const struct insn *insn)
{
    enum { LOOPE = 1, LOOP };
    unsigned arg = insn->row->exec_arg;
    bool zero = opnd_gpr(cpu, RCX, insn->adsize) == 0;

    if (insn->row->exec == EXEC_jcc)
        return cc_test(cpu, arg);
    if (insn->row->exec == EXEC_jcxz)
        return zero;
    return !zero && (arg == LOOP || cc_zero(cpu) == (arg == LOOPE));
}

/* Whether the instruction at `rip` was a taken branch, be it to the next one (CALL $+5). */
static bool has_branched(const struct cpu *cpu, const struct insn *insn, uint64_t rip)
{
    if (!(insn->row->attr & INSN_BRANCH))
        return false;
    if (!(insn->row->attr & INSN_COND) || cpu->rip != rip + insn->len)
        return true;
    return insn->op[0].kind == OPND_REL && insn->imm == 0 && condition_held(cpu, insn);
}

/* DEBUGCTL.BTF: single steps only at taken branches (SDM vol. 3, 17.4.3). */
static void drop_step_without_branch(struct cpu *cpu, const struct insn *before, uint64_t rip)
{
    if (!has_branched(cpu, before, rip))
        cpu->debug_pending &= ~DR6_BS;
}

enum { DEBUGCTL_BTF = 1 << 1 };

/* Whether the next iteration of a REP instruction has to be a step of its own, too. RF alone is no
 * reason: each fault inside one leaves it behind, and who looks at it otherwise, saving the state,
 * asks sys_inside_rep() (exception.c). */
static bool is_watched(const struct cpu *cpu)
{
    return cpu->rflags & RFLAGS_TF || cpu->debug_pending || cpu->code_breakpoints ||
           cpu->data_breakpoints;
}

/* What stands between two instructions: where to go on, and the shadow's age. */
static void settle(struct cpu *cpu)
{
    cpu->rip = cpu->next_rip;
    if (cpu->shadow)
        cpu->shadow = cpu->shadow & SHADOW_FRESH ? cpu->shadow & ~SHADOW_FRESH : 0;
}

/*
 * One instruction, or one iteration of a REP instruction, with everything that can be attached to
 * it. TF as it was before counts (SDM vol. 3, 17.3.1.4), so the trap is noted first: a fault drops
 * it again, and the instructions that are special about TF (INT n, SYSCALL, SYSRET) change it. RF
 * is over when the instruction begins, since only instruction breakpoints, which come first, look
 * at it. Behind MOV SS there are none, as if RF were set (6.8.3).
 */
static void step(struct cpu *cpu, bool guarded)
{
    struct insn before;
    uint64_t rip = cpu->rip;
    bool peeked = cpu->msr_debugctl & DEBUGCTL_BTF && sys_peek_insn(cpu, &before);

    /* What comes back to be guarded has passed its breakpoints. */
    if (!guarded && cpu->code_breakpoints && !(cpu->rflags & RFLAGS_RF) &&
        !(cpu->shadow & SHADOW_MOVSS)) {
        uint64_t lin = cpu->seg_base[SEG_CS] + cpu->rip;
        uint32_t hit = debug_match_code(cpu, in_code64(cpu) ? lin : (uint32_t)lin);

        if (hit)
            cpu_raise_debug(cpu, hit);
    }
    cpu->rflags &= ~(uint64_t)RFLAGS_RF;
    if (cpu->rflags & RFLAGS_TF)
        cpu->debug_pending |= DR6_BS;
    if (guarded)
        guard_step(cpu);
    else
        interp_run(cpu, true);
    settle(cpu);
    if (peeked)
        drop_step_without_branch(cpu, &before, rip);
    if (cpu->rip == rip && is_watched(cpu) && sys_inside_rep(cpu))
        cpu->rflags |= RFLAGS_RF; /* so breakpoints meet the first iteration only, and what is saved
                                     between iterations has RF = 1 (17.3.1.1) */
    sys_attention_update(cpu);
}

/* ---- The loop -------------------------------------------------------------------------------- */

/* One turn; false when asked to stop. */
static bool turn(struct cpu *cpu)
{
    uint32_t due = due_requests(cpu);

    if (cpu->guard_due) { /* before anything else can run in its place */
        cpu->guard_due = false;
        step(cpu, true);
        return true;
    }
    if (due & CPU_REQ_STOP) {
        cpu_withdraw(cpu, CPU_REQ_STOP);
        return false;
    }
    if (due && sys_service_requests(cpu))
        return true;
    if (cpu->activity != CPU_RUNNING) {
        idle(cpu);
    } else if (cpu->attention & CPU_REQ_DEBUG) {
        step(cpu, false);
    } else {
        if (cpu->jit)
            jit_run(cpu);
        else
            interp_run(cpu, false);
        settle(cpu);
    }
    return true;
}

void cpu_run(struct cpu *cpu)
{
    sigjmp_buf here;

    if (cpu->exclusive)
        exclusive_enter(cpu->exclusive, cpu->index);
    cpu->jx.tsc.length = 0; /* the clock may have stood */
    cpu->unwind = &here;
    if (sigsetjmp(here, 0) != 0) {
        cpu->unwind = &here;
        if (cpu->exception.vector < VECTOR_OURS) {
            /* The abandoned instruction's traps go with it; so does the shadow it stood in. */
            cpu->debug_pending = 0;
            cpu->shadow = 0;
            sys_deliver_exception(cpu);
            cpu->unwind = &here;
        } else {
            cpu->guard_due = cpu->exception.vector == VECTOR_RESUME ? upcall_finish(cpu) : true;
        }
    }
    while (turn(cpu))
        ;
    cpu->unwind = NULL;
    if (cpu->exclusive)
        exclusive_leave(cpu->exclusive, cpu->index);
}
