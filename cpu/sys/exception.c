/*
 * exception.c - raising exceptions, and what becomes of one that meets another (SDM vol.
 * 3, 6.12-6.15).
 *
 * cpu_raise*() abandon the instruction and unwind. Delivery itself may raise: sys_deliver() catches
 * that with an unwind point of its own and applies table 6-5 until something has been delivered or
 * the CPU shuts down. deliver_long.c, deliver_prot.c and deliver_real.c do the delivering; each
 * commits nothing before its last possible fault.
 */
#include "cpu/guard.h"
#include "cpu/sys/internal.h"

/* ---- Raising --------------------------------------------------------------------------------- */

static _Noreturn void raise_now(struct cpu *cpu, enum vector vector, bool has_error, uint32_t error)
{
    cpu->exception.vector = (uint8_t)vector;
    cpu->exception.has_error = has_error;
    cpu->exception.error_code = error;
    siglongjmp(*cpu->unwind, 1);
}

void cpu_raise(struct cpu *cpu, enum vector vector)
{
    raise_now(cpu, vector, false, 0);
}

void cpu_raise_error(struct cpu *cpu, enum vector vector, uint32_t error_code)
{
    raise_now(cpu, vector, true, error_code);
}

/* CR2 changes here: also a page fault that ends in a double fault has its address there. */
void cpu_raise_page_fault(struct cpu *cpu, uint64_t cr2, uint32_t error_code)
{
    cpu->cr2 = cr2;
    raise_now(cpu, VECTOR_PF, true, error_code);
}

void cpu_raise_debug(struct cpu *cpu, uint64_t dr6_bits)
{
    cpu->exception.dr6 = dr6_bits;
    raise_now(cpu, VECTOR_DB, false, 0);
}

/* ---- Two at once (SDM vol. 3, tables 6-4 and 6-5) -------------------------------------------- */

enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum severity classify(const struct event *event)
{
    if (event->kind != EVENT_EXCEPTION)
        return BENIGN;
    switch (event->vector) {
    case VECTOR_DE:
    case VECTOR_TS:
    case VECTOR_NP:
    case VECTOR_SS:
    case VECTOR_GP:
    case VECTOR_CP:
        return CONTRIBUTORY;
    case VECTOR_PF:
        return PAGE_FAULT;
    case VECTOR_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

static void shut_down(struct cpu *cpu)
{
    LOG(cpu->log, LOG_INT | LOG_GUEST_ERRORS, "cpu%u: triple fault at %04x:%016llx\n", cpu->index,
        cpu->seg[SEG_CS].selector, (unsigned long long)cpu->rip);
    cpu->activity = CPU_SHUTDOWN;
    sys_attention_update(cpu);
}

/* RF in the saved image: 1 for faults, but not for instruction breakpoints, which are the only #DB
 * faults without DR6.BD (SDM vol. 3, 17.3.1.1). */
static uint64_t fault_image(struct cpu *cpu, uint8_t vector)
{
    bool code_breakpoint = vector == VECTOR_DB && !(cpu->exception.dr6 & DR6_BD);

    return cpu_rflags(cpu) | (code_breakpoint ? 0 : RFLAGS_RF);
}

/* INT1's #DB included (SDM vol. 3, 17.2.4, 17.4.1). */
static void stop_debugging(struct cpu *cpu)
{
    if (cpu->dr[7] & DR7_GD) {
        cpu->dr[7] &= ~(uint64_t)DR7_GD;
        debug_registers_changed(cpu);
    }
    cpu->msr_debugctl &= ~3ull; /* LBR and BTF */
}

static void enter_debug_handler(struct cpu *cpu, uint64_t bits)
{
    cpu->dr[6] = (cpu->dr[6] & ~(uint64_t)0xf) | bits;
    stop_debugging(cpu);
}

/* cpu->exception as the event that follows `first` (NULL: an instruction's fault). False: shutdown.
 */
static bool next_event(struct cpu *cpu, const struct event *first, struct event *event)
{
    uint8_t vector = cpu->exception.vector;
    enum severity one = first ? classify(first) : BENIGN, two;

    *event = (struct event){
        .kind = EVENT_EXCEPTION,
        .vector = vector,
        .has_error = cpu->exception.has_error,
        .error = cpu->exception.error_code,
        .rip = cpu->rip,
        .rflags = fault_image(cpu, vector),
    };
    /* EXT: met while delivering something that is not the program's own INT n. */
    if (first && first->kind != EVENT_SOFTWARE && vector >= VECTOR_TS && vector <= VECTOR_GP)
        event->error |= 1;
    if (vector == VECTOR_DB)
        enter_debug_handler(cpu, cpu->exception.dr6);
    two = classify(event);
    if (one == DOUBLE_FAULT)
        return false;
    if ((one == CONTRIBUTORY && two == CONTRIBUTORY) ||
        (one == PAGE_FAULT && (two == CONTRIBUTORY || two == PAGE_FAULT))) {
        event->vector = VECTOR_DF;
        event->has_error = true;
        event->error = 0;
    }
    return true;
}

/* ---- Delivering ------------------------------------------------------------------------------ */

void deliver_event(struct cpu *cpu, const struct event *event)
{
    if (in_long(cpu))
        deliver_long(cpu, event);
    else if (cpu->cr0 & CR0_PE)
        deliver_prot(cpu, event);
    else
        deliver_real(cpu, event);
}

static void log_event(struct cpu *cpu, const struct event *event)
{
    static const char *const kinds[] = {"exception", "int", "icebp", "intr", "nmi"};

    LOG(cpu->log, LOG_INT,
        "cpu%u: %s %02x error %08x cpl %u rip %04x:%016llx rflags %08llx rsp %04x:%016llx cr2 "
        "%016llx\n",
        cpu->index, kinds[event->kind], event->vector, event->error, cpu->cpl,
        cpu->seg[SEG_CS].selector, (unsigned long long)event->rip,
        (unsigned long long)event->rflags, cpu->seg[SEG_SS].selector,
        (unsigned long long)cpu->gpr[RSP], (unsigned long long)cpu->cr2);
}

static void count_event(struct cpu *cpu, const struct event *event)
{
    struct rules *rules = phys_rules(cpu->map);

    if (rules && event->kind == EVENT_EXCEPTION && event->vector == VECTOR_PF && cpu->cpl == 3)
        rules_count_page_fault(rules, cpu->cr3);
    if (rules && event->kind == EVENT_SOFTWARE && event->vector == 0x80 && cpu->cpl == 3)
        rules_count_system_call(rules, cpu->cr3); /* the 32-bit way into Linux */
}

void note_event(struct cpu *cpu, const struct event *event)
{
    count_event(cpu, event);
    log_event(cpu, event);
}

static void deliver_guarded(struct cpu *cpu, const void *event)
{
    deliver_event(cpu, event);
}

/* The event, and whatever exceptions its delivery brings, one after another. */
static void deliver_with_nested(struct cpu *cpu, struct event event)
{
    sigjmp_buf here, *outer = cpu->unwind;
    volatile struct event current;
    volatile bool down = false, guarded = false;

    current = event;
    if (event.kind == EVENT_NMI)
        cpu->nmi_blocked = true; /* also when it is not delivered in the end (SDM vol. 3, 27.1) */
    if (sigsetjmp(here, 0) != 0) {
        if (cpu->exception.vector == VECTOR_GUARD) {
            guarded = true; /* the same event, as a whole */
        } else {
            struct event first = current, next;

            down = !next_event(cpu, &first, &next);
            current = next;
            guarded = false;
        }
    }
    cpu->unwind = &here;
    if (!down) {
        struct event now = current;

        if (guarded) {
            guard_deliver(cpu, deliver_guarded, &now);
        } else {
            note_event(cpu, &now);
            deliver_event(cpu, &now);
        }
        cpu->rip = cpu->next_rip;
        cpu->shadow = 0;
        sys_attention_update(cpu);
    } else {
        shut_down(cpu);
    }
    cpu->unwind = outer;
}

void sys_deliver(struct cpu *cpu, enum event_kind kind, uint8_t vector)
{
    struct event event = {
        .kind = kind,
        .vector = vector,
        .rip = kind == EVENT_SOFTWARE || kind == EVENT_ICEBP ? cpu->next_rip : cpu->rip,
        .rflags = cpu_rflags(cpu),
    };

    if (kind == EVENT_EXCEPTION) {
        sys_deliver_exception(cpu);
        return;
    }
    if (kind == EVENT_ICEBP)
        stop_debugging(cpu);
    /* Between iterations of a REP instruction the saved image has RF = 1 (17.3.1.1). */
    if ((kind == EVENT_EXTERNAL || kind == EVENT_NMI) && sys_inside_rep(cpu))
        event.rflags |= RFLAGS_RF;
    deliver_with_nested(cpu, event);
}

void sys_deliver_exception(struct cpu *cpu)
{
    struct event event;

    cpu->next_rip = cpu->rip;
    next_event(cpu, NULL, &event);
    deliver_with_nested(cpu, event);
}

void deliver_debug_trap(struct cpu *cpu, uint32_t bits)
{
    struct event event = {
        .kind = EVENT_EXCEPTION, .vector = VECTOR_DB, .rip = cpu->rip, .rflags = cpu_rflags(cpu)};

    enter_debug_handler(cpu, bits);
    deliver_with_nested(cpu, event);
}
