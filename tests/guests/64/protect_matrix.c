/*
 * protect_matrix.c - the protection matrix in long mode: 64-bit code, and 32- and 16-bit code in
 * compatibility mode, by the owner, by other user code, by the kernel; with upcalls (lib/matrix.h).
 *
 * guest options: -serial null
 * guest options: -serial null -accel interp
 * guest full options: -serial null -append thorough
 */
#include "matrix.h"

static uint64_t session;
static struct protect_handler handler;
static unsigned upcall_door;

/* ---- Setting up ---------------------------------------------------------------------------------
 */

static uint8_t trap_stack[8192] __attribute__((aligned(16)));

/* Traps arrive on a stack of their own: the one of the instruction may be what is tested. */
static void traps_elsewhere(void)
{
    uint64_t top = (word)trap_stack + sizeof trap_stack;
    memcpy((uint8_t *)tss + 36, &top, 8); /* IST1 */
    for (unsigned v = 0; v < 32; v++)
        set_gate(v, (word)trap_stubs + 16 * v, SEL_CODE, 14, v == V_BP || v == V_BR ? 3 : 0, 1);
}

enum { CODE16 = FREE(0), UCODE16 = FREE(1) };

static bool thorough(void)
{
    const uint32_t *info = (const uint32_t *)(word)start_info; /* PVH: cmdline_paddr at 24 */
    const char *text = (const char *)(word)info[6];
    for (; text && *text; text++)
        if (!memcmp(text, "thorough", 8))
            return true;
    return false;
}

static void set_up(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    traps_elsewhere();
    gdt[CODE16 / 8] = descriptor((uint32_t)(word)matrix_code, 0xffff, D_CODE);
    gdt[UCODE16 / 8] = descriptor((uint32_t)(word)matrix_code, 0xffff, D_CODE | D_DPL3);
    vectors_init();
    matrix_thorough = thorough();
}

/* ---- Contexts -----------------------------------------------------------------------------------
 */

static void bind_supervisor(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
}
static void unbind_supervisor(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
}

static __attribute__((used)) void handle(struct protect_frame *f)
{
    upcall_seen.count++;
    upcall_seen.frame = *f;
    f->substitute = SUBSTITUTE_VALUE;
    DOOR(upcall_door)->resume = PROTECT_RESUME(f->token, upcall_verdict);
    guest_exit(1); /* it must not come back */
}
static word bind_user(word with_handler)
{
    if (door_command(1, PROTECT_OP_BIND, 0, 0, 0) != PROTECT_OK)
        return 1;
    session = door_result(1);
    upcall_door = 1;
    handler = (struct protect_handler){.rip = (word)handle};
    return with_handler ? door_command(1, PROTECT_OP_SET_HANDLER, session, (word)&handler, 0) : 0;
}
static word unbind_user(word unused)
{
    return door_command(1, PROTECT_OP_UNBIND, session, 0, 0);
}

/* ---- The stages ---------------------------------------------------------------------------------
 */

static const struct {
    const struct row *rows;
    unsigned size, cs[2];
    bool based;
} codes[] = {{rows_64, 64, {SEL_CODE64, SEL_UCODE64}, false},
             {rows_32, 32, {SEL_CODE32, SEL_UCODE32}, false},
             {rows_16, 16, {CODE16, UCODE16 | 3}, true}};

static struct stage stage_for(unsigned code, unsigned cpl)
{
    return (struct stage){.rows = codes[code].rows,
                          .code_size = codes[code].size,
                          .cpl = cpl,
                          .cs = codes[code].cs[cpl == 3],
                          .data = cpl == 3 ? SEL_UDATA : SEL_DATA,
                          .code_base = codes[code].based ? (word)matrix_code : 0,
                          .session = session,
                          .physical = true};
}

static void supervisor(unsigned code, unsigned cpl)
{
    set_up();
    bind_supervisor();
    struct stage s = stage_for(code, cpl);
    s.name = cpl ? "other user" : "owner, supervisor";
    s.subject = cpl ? PROTECT_OTHER_USER : PROTECT_OWNER;
    matrix_run(&s);
    unbind_supervisor();
}
TEST(owner_supervisor_64)
{
    supervisor(0, 0);
}
TEST(owner_supervisor_32)
{
    supervisor(1, 0);
}
TEST(owner_supervisor_16)
{
    supervisor(2, 0);
}
TEST(other_user_64)
{
    supervisor(0, 3);
}
TEST(other_user_32)
{
    supervisor(1, 3);
}
TEST(other_user_16)
{
    supervisor(2, 3);
}

static void user(unsigned code, bool with_handler)
{
    set_up();
    CHECK_EQ(call_user(bind_user, with_handler), 0);
    struct stage s = stage_for(code, 3);
    s.name = with_handler ? "owner, user, upcalls" : "owner, user";
    s.subject = PROTECT_OWNER;
    s.door = 1;
    s.by_user = true;
    s.handler = with_handler;
    s.physical = false;
    matrix_run(&s);
    CHECK_EQ(call_user(unbind_user, 0), PROTECT_OK);
}
TEST(owner_user_64)
{
    user(0, false);
}
TEST(owner_user_32)
{
    user(1, false);
}
TEST(owner_user_upcalls)
{
    user(0, true);
}

static void kernel(uint32_t grants)
{
    set_up();
    CHECK_EQ(call_user(bind_user, 0), 0);
    door_put(&ADMIN->grant, 1 | grants << 8);
    CHECK_EQ(ADMIN->grant, PROTECT_OK);
    struct stage s = stage_for(0, 0);
    s.name = "kernel";
    s.subject = PROTECT_KERNEL;
    s.door = 1;
    s.by_user = true;
    s.hidden = !(grants & PROTECT_GRANT_OBSERVE);
    s.physical = grants & PROTECT_GRANT_PHYSICAL;
    matrix_run(&s);
    CHECK_EQ(call_user(unbind_user, 0), PROTECT_OK);
}
TEST(kernel_seen_by_user)
{
    kernel(PROTECT_GRANT_KERNEL);
}
TEST(kernel_observed_by_user)
{
    kernel(PROTECT_GRANT_KERNEL | PROTECT_GRANT_OBSERVE | PROTECT_GRANT_PHYSICAL);
    print("  %u cases\n", matrix_cases);
}

const struct test guest_tests[] = {
    T(owner_supervisor_64), T(owner_supervisor_32), T(owner_supervisor_16),     T(other_user_64),
    T(other_user_32),       T(other_user_16),       T(owner_user_64),           T(owner_user_32),
    T(owner_user_upcalls),  T(kernel_seen_by_user), T(kernel_observed_by_user), {0, 0}};
