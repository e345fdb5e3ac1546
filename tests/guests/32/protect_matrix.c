/*
 * protect_matrix.c - the protection matrix in protected mode: 32- and 16-bit code, without paging,
 * with two-level and with PAE paging, by the owner and by other user code (lib/matrix.h).
 *
 * guest options: -serial null
 * guest options: -serial null -accel interp
 * guest full options: -serial null -append thorough
 */
#include "matrix.h"
#include "paging32.h"

static uint64_t session;
static uint64_t pae_directory[4][512] __attribute__((aligned(4096)));
static uint64_t pae_pointers[4] __attribute__((aligned(32)));
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
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    set_gate(V_BR, (word)trap_stubs + 16 * V_BR, SEL_CODE, 14, 3, 0);
    gdt[CODE16 / 8] = descriptor((uint32_t)(word)matrix_code, 0xffff, D_CODE);
    gdt[UCODE16 / 8] = descriptor((uint32_t)(word)matrix_code, 0xffff, D_CODE | D_DPL3);
    vectors_init();
    matrix_thorough = thorough();
}

/* ---- Paging modes -------------------------------------------------------------------------------
 */

enum mode { UNPAGED, TWO_LEVELS, PAE };

static void pae_on(void)
{
    for (unsigned i = 0; i < 4; i++) {
        pae_pointers[i] = (word)pae_directory[i] | PG_P;
        for (unsigned n = 0; n < 512; n++)
            pae_directory[i][n] = (uint64_t)(i * 512 + n) << 21 | PG_ALL | PG_PS;
    }
    write_cr4(read_cr4() | 0x20);
    write_cr3((word)pae_pointers);
    write_cr0(read_cr0() | 0x80010000);
}

static void enter(enum mode mode)
{
    set_up();
    if (mode == TWO_LEVELS)
        paging_on();
    if (mode == PAE)
        pae_on();
}
static void leave(void)
{
    paging_off();
    write_cr4(read_cr4() & ~(word)0x30);
    write_cr3(0);
}

/* ---- Stages -------------------------------------------------------------------------------------
 */

static struct stage stage_for(unsigned code, unsigned cpl)
{
    bool wide = code == 32;
    return (struct stage){.rows = wide ? rows_32 : rows_16,
                          .code_size = code,
                          .cpl = cpl,
                          .cs = wide ? (cpl ? SEL_UCODE32 : SEL_CODE32)
                                     : (cpl ? UCODE16 | 3 : CODE16),
                          .data = cpl ? SEL_UDATA : SEL_DATA,
                          .code_base = wide ? 0 : (word)matrix_code,
                          .session = session,
                          .physical = true,
                          .no_stack = !cpl};
}

static void supervisor(enum mode mode, unsigned code, unsigned cpl)
{
    enter(mode);
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
    struct stage s = stage_for(code, cpl);
    s.name = cpl ? "other user" : "owner, supervisor";
    s.subject = cpl ? PROTECT_OTHER_USER : PROTECT_OWNER;
    matrix_run(&s);
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
    leave();
}
TEST(unpaged_owner_32)
{
    supervisor(UNPAGED, 32, 0);
}
TEST(unpaged_other_user_16)
{
    supervisor(UNPAGED, 16, 3);
}
TEST(two_levels_owner_16)
{
    supervisor(TWO_LEVELS, 16, 0);
}
TEST(two_levels_other_user_32)
{
    supervisor(TWO_LEVELS, 32, 3);
}
TEST(pae_owner_32)
{
    supervisor(PAE, 32, 0);
}
TEST(pae_other_user_16)
{
    supervisor(PAE, 16, 3);
}

static word bind_user(word unused)
{
    word status = door_command(1, PROTECT_OP_BIND, 0, 0, 0);
    session = door_result(1);
    return status;
}
static word unbind_user(word unused)
{
    return door_command(1, PROTECT_OP_UNBIND, session, 0, 0);
}
static void user(enum mode mode)
{
    enter(mode);
    CHECK_EQ(call_user(bind_user, 0), PROTECT_OK);
    struct stage s = stage_for(32, 3);
    s.name = "owner, user";
    s.subject = PROTECT_OWNER;
    s.door = 1;
    s.by_user = true;
    s.physical = false;
    matrix_run(&s);
    CHECK_EQ(call_user(unbind_user, 0), PROTECT_OK);
    leave();
}
TEST(two_levels_owner_user_32)
{
    user(TWO_LEVELS);
}
TEST(pae_owner_user_32)
{
    user(PAE);
}

/* There is no address space that a program could be bound to. */
TEST(no_user_context_without_paging)
{
    CHECK_EQ(call_user(bind_user, 0), PROTECT_NOT_NOW);
    print("  %u cases\n", matrix_cases);
}

const struct test guest_tests[] = {T(unpaged_owner_32),
                                   T(unpaged_other_user_16),
                                   T(two_levels_owner_16),
                                   T(two_levels_other_user_32),
                                   T(pae_owner_32),
                                   T(pae_other_user_16),
                                   T(two_levels_owner_user_32),
                                   T(pae_owner_user_32),
                                   T(no_user_context_without_paging),
                                   {0, 0}};
