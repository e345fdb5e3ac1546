/*
 * protect_system.c - rules on what the processor and devices touch by themselves: descriptors, the
 * IDT, the TSS, delivery stacks, saved register files, instruction bytes, DMA.
 *
 * guest options: -drive file=ZEROS,if=none,id=d,format=raw,snapshot=on
 * guest devices: -device virtio-blk-pci,drive=d
 * guest devices: -device virtio-rng-pci
 */
#include "blk.h"
#include "context.h"
#include "paging.h"
#include "watch.h"

static uint8_t page[2 * 4096] __attribute__((aligned(4096)));
enum { REFUSED_CODE = 1 | 1 << PROTECT_DEFAULT_MARKER };
enum { R = PROTECT_READ, W = PROTECT_WRITE, X = PROTECT_EXEC };

/* ---- Event delivery -----------------------------------------------------------------------------
 */

TEST(idt_read)
{
    watch_begin();
    uint32_t id = watch(&idt[V_BP], 16, PROTECT_EVENT, PROTECT_ALLOW);
    struct trap t = CATCH(asm volatile(LABEL(idt_int3) "int3"));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(watch_head(), 1);
    CHECK_EVENT(1, R, PROTECT_EVENT, 16, &idt[V_BP]);
    CHECK_EQ(event.rip, SYMBOL(idt_int3));
    CHECK_EQ(event.cpl, 0);
    watch_change(id, PROTECT_EVENT, PROTECT_DENY);
    t = CATCH(asm volatile(LABEL(idt_int3_again) "int3"));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, REFUSED_CODE);
    CHECK_EQ(t.cr2, (word)&idt[V_BP]);
    CHECK_EQ(t.rip, SYMBOL(idt_int3_again));
    CHECK_EQ(watch_head(), 2);
    watch_end();
}

TEST(gdt_read_by_delivery)
{
    watch_begin();
    watch(&gdt[SEL_CODE / 8], 8, PROTECT_EVENT, PROTECT_ALLOW);
    CHECK_EQ(CATCH(asm volatile("int3")).vector, V_BP);
    CHECK_EQ(watch_head(), 1);
    CHECK_EVENT(1, R, PROTECT_EVENT, 8, &gdt[SEL_CODE / 8]);
    watch_end();
}

static word user_int3(word x)
{
    asm volatile("int $3");
    return 0;
}
TEST(tss_read_and_stack_pushes)
{
    uint8_t *stack0;
    memcpy(&stack0, (uint8_t *)tss + 4, 8);
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    watch_begin();
    watch((uint8_t *)tss + 4, 8, PROTECT_EVENT, PROTECT_ALLOW);
    uint32_t id = watch(stack0 - 40, 40, PROTECT_EVENT, PROTECT_ALLOW);
    struct trap t = CATCH(call_user(user_int3, 0));
    CHECK_EQ(t.vector, V_BP);
    uint64_t events = watch_head();
    CHECK_EVENT(1, R, PROTECT_EVENT, 8, (uint8_t *)tss + 4);
    CHECK_EQ(event.cpl, 3);
    CHECK_EQ(events, 2); /* the frame is pushed as one */
    CHECK_EVENT(2, W, PROTECT_EVENT, 40, stack0 - 40);
    CHECK_EQ(event.value[0], t.rip);
    CHECK_EQ(event.value[1], SEL_UCODE64);
    /* A refused push: the delivery's own page fault, on a stack that is as bad: a double fault. The
     * handler of that has a stack of its own. */
    uint64_t top = (word)page + 4096;
    memcpy((uint8_t *)tss + 36, &top, 8);
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE, 14, 0, 1);
    watch_change(id, PROTECT_EVENT, PROTECT_DENY);
    t = CATCH(call_user(user_int3, 0));
    CHECK_EQ(t.vector, V_DF);
    CHECK_EQ(t.error, 0);
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE, 14, 0, 0);
    watch_end();
}

TEST(iret_pops)
{
    watch_begin();
    uint64_t *frame = (uint64_t *)(page + 0x100);
    uint64_t rsp, resume;
    watch(frame, 40, PROTECT_OWNER, PROTECT_ALLOW);
    asm volatile("movq %%rsp, %0; leaq 1f(%%rip), %1; movq %1, (%2); movq $0x18, 8(%2);"
                 "movq $2, 16(%2); movq %%rsp, 24(%2); movq $0x10, 32(%2);"
                 "movq %2, %%rsp; iretq; 1:"
                 : "=&r"(rsp), "=&r"(resume)
                 : "r"(frame)
                 : "memory", "cc");
    CHECK_EQ(watch_head(), 7); /* five stores; RIP, CS, RFLAGS; RSP, SS */
    CHECK_EVENT(6, R, PROTECT_OWNER, 24, frame);
    CHECK_EVENT(7, R, PROTECT_OWNER, 16, frame + 3);
    watch_end();
}

/* ---- Descriptors --------------------------------------------------------------------------------
 */

TEST(segment_load)
{
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, (D_DATA & ~1u) | D_PAGES | D_BIG);
    watch_begin();
    uint32_t id = watch(&gdt[FREE(0) / 8], 8, PROTECT_OWNER, PROTECT_ALLOW);
    asm volatile(LABEL(load_es) "movw %w0, %%es" ::"r"(FREE(0)));
    CHECK(watch_head() >= 1 && watch_head() <= 2);
    event = door_event(0, 1);
    CHECK_EQ(event.home, (word)&gdt[FREE(0) / 8]);
    CHECK(event.access & R);
    CHECK_EQ(event.rip, SYMBOL(load_es));
    if (watch_head() == 2) /* the accessed bit */
        CHECK(door_event(0, 2).access & W);
    watch_change(id, PROTECT_OWNER, PROTECT_DENY);
    struct trap t = CATCH(asm volatile("movw %w0, %%es" ::"r"(FREE(0))));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, (word)&gdt[FREE(0) / 8]);
    asm volatile("movw %w0, %%es" ::"r"(SEL_DATA));
    watch_end();
}

TEST(lgdt_reads_ten_bytes)
{
    watch_begin();
    asm volatile("sgdt (%0)" ::"r"(page) : "memory");
    watch(page, 10, PROTECT_OWNER, PROTECT_ALLOW);
    asm volatile("lgdt (%0)" ::"r"(page) : "memory");
    CHECK_EQ(watch_head(), 1);
    CHECK_EVENT(1, R, PROTECT_OWNER, 10, page);
    watch_end();
}

TEST(ltr_reads_and_marks_busy)
{
    uint64_t *d = &gdt[FREE(2) / 8];
    d[0] = descriptor((uint32_t)(word)tss, 103, D_TSS32);
    d[1] = 0;
    watch_begin();
    watch(d, 16, PROTECT_OWNER, PROTECT_ALLOW);
    asm volatile("ltr %w0" ::"r"(FREE(2)));
    uint64_t n = watch_head();
    CHECK(n >= 1 && n <= 2);
    bool wrote = false;
    for (uint64_t i = 1; i <= n; i++)
        wrote |= door_event(0, i).access & W;
    CHECK(wrote);
    watch_end();
    CHECK_EQ(desc_type(FREE(2)), D_TSS32 | D_BUSY);
    gdt[SEL_TSS / 8] &= ~(2ull << 40);
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
}

void far_target(void);
asm(".globl far_target\nfar_target: lretq");
TEST(far_call_through_a_gate)
{
    uint64_t *d = &gdt[FREE(4) / 8];
    word target = (word)far_target;
    d[0] = gate(SEL_CODE, (uint32_t)target, D_CALL32 | D_PRESENT, 0);
    d[1] = target >> 32;
    watch_begin();
    watch(d, 16, PROTECT_OWNER, PROTECT_ALLOW);
    static struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } pointer = {0, FREE(4)};
    asm volatile("lcall *%0" ::"m"(pointer) : "memory");
    CHECK(watch_head() >= 1);
    uint64_t bytes = 0;
    for (uint64_t i = 1; i <= watch_head(); i++) {
        CHECK_EQ(door_event(0, i).access, R);
        bytes += door_event(0, i).length;
    }
    CHECK_EQ(bytes, 16);
    watch_end();
}

/* From CPL 3 through a gate, and back by RET; the inner stack is the TSS's. */
enum { INNER_GATE = FREE(6) };
extern char inner_call[], inner_after[], inner_ret[];
asm(".pushsection .text\ninner_call: lcall *(%rax)\ninner_after: int3\n"
    "inner_ret: lretq\n"
    ".popsection");
static struct trap through_gate(const char *target)
{
    static struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } pointer = {0, INNER_GATE | 3};
    uint64_t *d = &gdt[INNER_GATE / 8];
    d[0] = gate(SEL_CODE, (uint32_t)(word)target, D_CALL32 | D_DPL3, 0);
    d[1] = (word)target >> 32;
    struct context c = context_user((word)inner_call);
    c.rax = (word)&pointer;
    return RUN(c);
}
TEST(call_gate_to_the_inner_stack_and_ret)
{
    uint8_t *stack0;
    memcpy(&stack0, (uint8_t *)tss + 4, 8);
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    watch_begin();
    watch(&gdt[INNER_GATE / 8], 16, PROTECT_OWNER, PROTECT_ALLOW);
    watch((uint8_t *)tss + 4, 8, PROTECT_OWNER, PROTECT_ALLOW);
    watch(stack0 - 32, 32, PROTECT_OWNER, PROTECT_ALLOW);
    struct trap t = through_gate(inner_ret);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rip, (word)inner_after + 1);
    /* The two stores of the gate come first. Then it is read as one, and the frame pushed as one.
     */
    CHECK(watch_head() >= 7);
    CHECK_EVENT(3, R, PROTECT_OWNER, 16, &gdt[INNER_GATE / 8]);
    CHECK_EVENT(4, R, PROTECT_OWNER, 8, (uint8_t *)tss + 4);
    CHECK_EVENT(5, W, PROTECT_OWNER, 32, stack0 - 32);
    CHECK_EQ(event.cpl, 3);
    CHECK_EQ(event.value[0], (word)inner_after);
    CHECK_EQ(event.value[1], SEL_UCODE64);
    CHECK_EVENT(6, R, PROTECT_OWNER, 16, stack0 - 32); /* RET: RIP and CS, then RSP and SS */
    CHECK_EQ(event.cpl, 0);
    CHECK_EVENT(7, R, PROTECT_OWNER, 16, stack0 - 16);
    watch_end();
}
TEST(call_gate_frame_refused)
{
    uint8_t *stack0;
    memcpy(&stack0, (uint8_t *)tss + 4, 8);
    uint64_t elsewhere = (word)page + 2048;
    memset(page, 0x66, sizeof page);
    set_gate(V_PF, (word)trap_stubs + 16 * V_PF, SEL_CODE, 14, 0, 1);
    memcpy((uint8_t *)tss + 36, &stack0, 8);
    memcpy((uint8_t *)tss + 4, &elsewhere, 8);
    watch_begin();
    watch(page + 2048 - 8, 8, PROTECT_OWNER, PROTECT_DENY);
    struct trap t = through_gate(inner_ret);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, REFUSED_CODE | PF_W);
    CHECK_EQ(t.cr2, (word)page + 2048 - 8);
    CHECK_EQ(t.rip, (word)inner_call);
    CHECK_EQ(t.cs, SEL_UCODE64);
    CHECK_EQ(watch_head(), 1);
    CHECK_EVENT(1, W, PROTECT_OWNER, 32, page + 2048 - 8);
    watch_end();
    for (unsigned i = 2048 - 32; i < 2048; i++)
        CHECK_EQ(page[i], 0x66);
    memcpy((uint8_t *)tss + 4, &stack0, 8);
    set_gate(V_PF, (word)trap_stubs + 16 * V_PF, SEL_CODE, 14, 0, 0);
}

/* ---- Register files -----------------------------------------------------------------------------
 */

TEST(fxsave_and_fxrstor)
{
    watch_begin();
    uint32_t id = watch(page + 0x200 + 32, 16, PROTECT_OWNER, PROTECT_ALLOW);
    asm volatile("fxsave (%0)" ::"r"(page + 0x200) : "memory");
    CHECK_EQ(watch_head(), 1);
    event = door_event(0, 1);
    CHECK_EQ(event.access, W);
    CHECK_EQ(event.home, (word)page + 0x200 + 32);
    asm volatile("fxrstor (%0)" ::"r"(page + 0x200) : "memory");
    CHECK_EQ(watch_head(), 2);
    CHECK_EQ(door_event(0, 2).access, R);
    watch_change(id, PROTECT_OWNER, PROTECT_DENY);
    memset(page + 0x400, 0xee, 512);
    struct protect_rule r = door_rule(id);
    r.allow[PROTECT_OWNER] = R;
    r.action[PROTECT_OWNER] = PROTECT_DENY;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    page[0x200] = 0xee; /* would become the control word */
    struct trap t = CATCH(asm volatile("fxsave (%0)" ::"r"(page + 0x200) : "memory"));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, REFUSED_CODE | PF_W);
    CHECK_EQ(t.cr2, (word)page + 0x200 + 32);
    CHECK_EQ(page[0x200], 0xee);
    watch_end();
}

TEST(xsave_touches_what_is_in_use)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] >> 26 & 1)) {
        print("  no XSAVE: skipped\n");
        return;
    }
    write_cr4(read_cr4() | 1u << 18);
    asm volatile("xsetbv" ::"c"(0), "a"(3), "d"(0));
    memset(page, 0, sizeof page);
    watch_begin();
    watch(page + 512, 8, PROTECT_OWNER, PROTECT_ALLOW);     /* XSTATE_BV: read and written */
    watch(page + 1024, 4096, PROTECT_OWNER, PROTECT_ALLOW); /* behind the area: not at all */
    asm volatile("xsave (%0)" ::"r"(page), "a"(3), "d"(0) : "memory");
    CHECK(watch_head() >= 1);
    uint8_t kinds = 0;
    for (uint64_t n = 1; n <= watch_head(); n++) {
        CHECK_EQ(door_event(0, n).home, (word)page + 512);
        kinds |= door_event(0, n).access;
    }
    CHECK(kinds & W);
    watch_end();
}

/* ---- Instruction bytes --------------------------------------------------------------------------
 */

static void put_code(uint8_t *at, const char *bytes, unsigned n)
{
    memcpy(at, bytes, n);
}
ALONE struct trap run_at(const uint8_t *code)
{
    return CATCH(asm volatile("call *%0" ::"r"(code) : "rax", "rcx", "rdx", "memory"));
}

TEST(only_executed_bytes_are_fetched)
{
    /* inc %eax; ret; then bytes that may not be executed, in the same block of code */
    put_code(page, "\x90\xff\xc0\xc3\x90\x90\x90\xc3", 8);
    watch_begin();
    watch(page + 4, 4, PROTECT_OWNER, PROTECT_ALLOW);
    CHECK_EQ(run_at(page).vector, NO_TRAP);
    CHECK_EQ(watch_head(), 0);
    CHECK_EQ(run_at(page + 4).vector, NO_TRAP);
    CHECK_EQ(watch_head(), 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EVENT(1 + i, X, PROTECT_OWNER, 1, page + 4 + i);
    watch_end();
}

TEST(a_protected_byte_inside_an_instruction)
{
    put_code(page, "\xb8\x01\x02\x03\x04\xc3", 6); /* mov $0x04030201, %eax; ret */
    watch_begin();
    uint32_t id = watch(page + 3, 1, PROTECT_OWNER, PROTECT_ALLOW);
    CHECK_EQ(run_at(page).vector, NO_TRAP);
    CHECK_EQ(watch_head(), 1);
    CHECK_EVENT(1, X, PROTECT_OWNER, 5, page + 3);
    CHECK_EQ(event.gva, (word)page + 3);
    struct protect_rule r = door_rule(id);
    r.allow[PROTECT_OWNER] = R | W;
    r.action[PROTECT_OWNER] = PROTECT_SKIP; /* there is nothing to execute instead */
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    struct trap t = run_at(page);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, REFUSED_CODE | PF_I);
    CHECK_EQ(t.rip, (word)page);
    CHECK_EQ(t.cr2, (word)page + 3);
    watch_end();
}

TEST(an_instruction_across_pages)
{
    put_code(page + 4096 - 2, "\xb8\x01\x02\x03\x04\xc3", 6);
    watch_begin();
    uint32_t second = watch(page + 4096, 1, PROTECT_OWNER, PROTECT_ALLOW);
    CHECK_EQ(run_at(page + 4094).vector, NO_TRAP);
    CHECK_EQ(watch_head(), 1);
    CHECK_EVENT(1, X, PROTECT_OWNER, 5, page + 4096);
    watch(page + 4095, 1, PROTECT_OWNER, PROTECT_ALLOW);
    CHECK_EQ(run_at(page + 4094).vector, NO_TRAP);
    CHECK_EQ(watch_head(), 2); /* one access, its lowest byte */
    CHECK_EVENT(2, X, PROTECT_OWNER, 5, page + 4095);
    watch_change(second, PROTECT_OWNER, PROTECT_DENY);
    struct trap t = run_at(page + 4094);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.rip, (word)page + 4094);
    watch_end();
}

TEST(an_undefined_instruction)
{
    put_code(page, "\x0f\x0b", 2); /* ud2 */
    watch_begin();
    watch(page, 1, PROTECT_OWNER, PROTECT_ALLOW);
    CHECK_EQ(run_at(page).vector, V_UD);
    CHECK_EQ(watch_head(), 1);
    CHECK_EQ(door_event(0, 1).access, X);
    CHECK_EQ(door_event(0, 1).home, (word)page);
    watch_end();
}

TEST(code_that_changes_beside_protected_bytes)
{
    put_code(page, "\xb8\x01\x00\x00\x00\xc3", 6);
    watch_begin();
    uint32_t id = door_add(0, session, (word)page + 64, 8, 0, 0);
    struct protect_rule r = door_rule(id);
    r.allow[PROTECT_OWNER] = 0;
    r.action[PROTECT_OWNER] = PROTECT_DENY;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    for (unsigned i = 0; i < 20; i++) {
        word result;
        *(volatile uint8_t *)(page + 1) = (uint8_t)i;
        asm volatile("call *%1" : "=a"(result) : "r"(page) : "memory", "rcx", "rdx");
        CHECK_EQ(result, i);
        struct trap t = CATCH(asm volatile("movb $1, 64(%0)" ::"r"(page) : "memory"));
        CHECK_EQ(t.vector, V_PF);
    }
    CHECK_EQ(watch_head(), 20);
    watch_end();
}

/* ---- DMA ----------------------------------------------------------------------------------------
 */

TEST(disk_into_and_out_of_protected_memory)
{
    static struct virtio disk;
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK(virtio_start(&disk, MODERN, 0));
    uint8_t *buffer = page + 512;
    memset(page, 0x77, sizeof page);
    watch_begin();
    uint32_t id = watch(buffer + 100, 4, PROTECT_DEVICE, PROTECT_ALLOW);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    CHECK_EQ(buffer[100], 0);
    CHECK(watch_head() >= 1);
    event = door_event(0, 1);
    CHECK_EQ(event.access, W);
    CHECK_EQ(event.subject, PROTECT_DEVICE);
    CHECK_EQ(event.home, (word)buffer + 100);
    CHECK(event.device != 0);
    CHECK_EQ(event.rip, 0);
    CHECK_EQ(event.cr3, 0);
    CHECK_EQ(event.preimage[0] & 0xffffffff, 0x77777777);
    memset(page, 0x77, sizeof page);
    watch_change(id, PROTECT_DEVICE, PROTECT_DENY);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_IOERR); /* an error, not a broken device */
    CHECK_EQ(*(volatile uint32_t *)(buffer + 100), 0x77777777);
    uint64_t n = watch_head();
    CHECK_EQ(blk_do(&disk, T_OUT, 1, buffer, SECTOR), S_IOERR); /* nothing leaks to the disk */
    CHECK(watch_head() > n);
    CHECK_EQ(door_event(0, n + 1).access, R);
    watch_end();
    memset(page, 0x55, sizeof page);
    CHECK_EQ(blk_do(&disk, T_IN, 1, buffer, SECTOR), S_OK);
    CHECK_EQ(buffer[0], 0);
}

TEST(entropy_into_protected_memory)
{
    static struct virtio rng;
    CHECK(virtio_open(&rng, VIRTIO_RNG, 0));
    CHECK(virtio_start(&rng, MODERN, 0));
    memset(page, 0, sizeof page);
    watch_begin();
    watch(page + 8, 8, PROTECT_DEVICE, PROTECT_DENY);
    const struct part part = {page, 64, IN};
    virtio_do(&rng, &part, 1);
    CHECK_EQ(*(volatile uint64_t *)(page + 8), 0);
    CHECK(watch_head() >= 1);
    CHECK_EQ(door_event(0, 1).subject, PROTECT_DEVICE);
    watch_end();
}

const struct test guest_tests[] = {T(idt_read),
                                   T(gdt_read_by_delivery),
                                   T(tss_read_and_stack_pushes),
                                   T(iret_pops),
                                   T(segment_load),
                                   T(lgdt_reads_ten_bytes),
                                   T(ltr_reads_and_marks_busy),
                                   T(far_call_through_a_gate),
                                   T(call_gate_to_the_inner_stack_and_ret),
                                   T(call_gate_frame_refused),
                                   T(fxsave_and_fxrstor),
                                   T(xsave_touches_what_is_in_use),
                                   T(only_executed_bytes_are_fetched),
                                   T(a_protected_byte_inside_an_instruction),
                                   T(an_instruction_across_pages),
                                   T(an_undefined_instruction),
                                   T(code_that_changes_beside_protected_bytes),
                                   T(disk_into_and_out_of_protected_memory),
                                   T(entropy_into_protected_memory),
                                   {0, 0}};
