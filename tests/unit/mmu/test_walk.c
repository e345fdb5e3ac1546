/*
 * test_walk.c - the page walk: every mode, page size, fault and error code, reserved bits, A and D.
 * Expected values are from SDM vol. 3, 4.3-4.8, written out by hand.
 */
#include "guest.h"

#define P      PTE_P
#define W      PTE_RW
#define U      PTE_US
#define XD     PTE_XD
#define R_     ACCESS_READ
#define W_     ACCESS_WRITE
#define X_     ACCESS_EXEC
#define S_     MMU_SUPERVISOR
#define AC_    MMU_SUPERVISOR_AC
#define U_     MMU_USER
#define KEY(k) ((uint64_t)(k) << PTE_KEY_SHIFT)

static struct guest *g;
static struct paging p;
static struct walk w;

static void setup(void)
{
    g = guest_new(4 * MIB, 1, NULL);
}
static void teardown(void)
{
    guest_free(g);
}
static void mode(enum paging_mode m)
{
    p = paging_for(m, guest_table(g));
}
static bool walk(uint64_t gva, enum access_kind kind, enum mmu_priv priv)
{
    return mmu_walk(g->map, &p, &KERNEL, gva, kind, priv, false, &w);
}
static uint64_t entry_at(uint64_t at)
{
    uint64_t v = 0;
    phys_read(g->map, &LOADER, at, &v, paging_mode(&p) == PAGING_32 ? 4 : 8);
    return v;
}

/* ---- Where addresses go -------------------------------------------------------------------------
 */

static const struct translation {
    enum paging_mode mode;
    unsigned level;
    uint64_t gva, entry, gpa;
    unsigned shift;
} translations[] = {
    {PAGING_32, 1, 0xbffff123, 0x12345000, 0x12345123, 12},
    {PAGING_32, 1, 0xfffff000, 0xfffff000, 0xfffff000, 12},
    {PAGING_32, 2, 0xc0812345, 0x00c00000 | PTE_PS, 0x00c12345, 22},
    {PAGING_32, 2, 0x00400000, 0x00c00000 | PTE_PS | 0xffull << 13, 0xff00c00000, 22}, /* PSE-36 */
    {PAGING_PAE, 1, 0xbffff123, 0x3412345000, 0x3412345123, 12},
    {PAGING_PAE, 2, 0xc0712345, 0x0000a00000 | PTE_PS, 0x0000b12345, 21},
    {PAGING_4LEVEL, 1, 0xffff8123456789ab, 0xfedcba9000, 0xfedcba99ab, 12},
    {PAGING_4LEVEL, 2, 0x00007fffffffffff, 0x00ffe00000 | PTE_PS, 0x00ffffffff, 21},
    {PAGING_4LEVEL, 3, 0x0000123456789abc, 0x8080000000 | PTE_PS, 0x8096789abc, 30},
};

START_TEST(test_translation)
{
    const struct translation *t = &translations[_i];
    mode(t->mode);
    p.maxphyaddr = 40;
    uint64_t at = guest_map(g, &p, t->gva, t->entry | P | W | U, t->level);
    ck_assert(walk(t->gva, R_, U_));
    ck_assert_uint_eq(w.gpa, t->gpa);
    ck_assert_uint_eq(w.page_shift, t->shift);
    ck_assert_uint_eq(w.levels, paging_levels(t->mode) - t->level + 1);
    ck_assert_uint_eq(w.level[w.levels - 1].gpa, at);
    ck_assert_uint_eq(w.level[w.levels - 1].level, t->level);
    ck_assert_uint_eq(w.level[w.levels - 1].entry, t->entry | P | W | U);
}
END_TEST

START_TEST(test_no_paging_and_a20)
{
    mode(PAGING_NONE);
    ck_assert(walk(0xfff12345, W_, S_));
    ck_assert_uint_eq(w.gpa, 0xfff12345);
    ck_assert_uint_eq(w.levels, 0);
    p.a20 = false;
    ck_assert(walk(0x00112345, W_, S_));
    ck_assert_uint_eq(w.gpa, 0x00012345);
    /* The walker's own addresses pass the gate too: this root is found at 0. */
    p = paging_for(PAGING_32, 0x100000);
    p.a20 = false;
    poke(g, 0, 0x00c00000 | P | PTE_PS, 4);
    ck_assert(walk(0x100123, R_, S_));
    ck_assert_uint_eq(w.gpa, 0x00c00123);
}
END_TEST

/* ---- Rights ---------------------------------------------------------------------------------- */

enum { NO_WP = 1, SMEP = 2, SMAP = 4, PKE = 8, NO_NX = 16, PGE = 32 };

static const struct right {
    enum paging_mode mode;
    uint64_t upper, leaf; /* entry bits besides the address */
    unsigned set;
    uint32_t pkru;
    enum access_kind kind;
    enum mmu_priv priv;
    enum walk_fault fault;
    uint32_t code;
} rights[] = {
    /* not present: P = 0, at either level */
    {PAGING_32, P | W | U, 0, 0, 0, R_, S_, WALK_NOT_PRESENT, 0},
    {PAGING_32, P | W | U, W | U, 0, 0, W_, U_, WALK_NOT_PRESENT, 6},
    {PAGING_32, 0, P | W | U, 0, 0, X_, U_, WALK_NOT_PRESENT, 4}, /* no I without NXE or SMEP */
    {PAGING_32, 0, P | W | U, SMEP, 0, X_, U_, WALK_NOT_PRESENT, 0x14},
    {PAGING_4LEVEL, P | W | U, 0, 0, 0, X_, S_, WALK_NOT_PRESENT, 0x10},
    {PAGING_4LEVEL, P | W | U, 0, NO_NX, 0, X_, S_, WALK_NOT_PRESENT, 0},
    {PAGING_PAE, P | W | U, 0, 0, 0, X_, S_, WALK_NOT_PRESENT, 0x10},
    /* U/S and R/W are ANDed over the levels */
    {PAGING_32, P | W | U, P | W, 0, 0, R_, U_, WALK_USER, 5},
    {PAGING_32, P | W, P | W | U, 0, 0, W_, U_, WALK_USER, 7},
    {PAGING_32, P | W, P | W | U, 0, 0, W_, S_, WALK_OK, 0},
    {PAGING_PAE, P | W | U, P | U, 0, 0, W_, U_, WALK_WRITE, 7},
    {PAGING_4LEVEL, P | U, P | W | U, 0, 0, W_, U_, WALK_WRITE, 7},
    {PAGING_4LEVEL, P | U, P | W | U, 0, 0, R_, U_, WALK_OK, 0},
    /* WP */
    {PAGING_4LEVEL, P | W | U, P | U, 0, 0, W_, S_, WALK_WRITE, 3},
    {PAGING_4LEVEL, P | W | U, P | U, NO_WP, 0, W_, S_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | U, NO_WP, 0, W_, U_, WALK_WRITE, 7},
    /* XD at any level; a data access does not care */
    {PAGING_4LEVEL, P | W | U, P | U | XD, 0, 0, X_, U_, WALK_NX, 0x15},
    {PAGING_4LEVEL, P | W | U | XD, P | U, 0, 0, X_, S_, WALK_NX, 0x11},
    {PAGING_PAE, P | W | U | XD, P | U, 0, 0, X_, S_, WALK_NX, 0x11},
    {PAGING_4LEVEL, P | W | U | XD, P | U, 0, 0, R_, S_, WALK_OK, 0},
    /* SMEP: user means user at all levels */
    {PAGING_4LEVEL, P | W | U, P | U, SMEP, 0, X_, S_, WALK_SMEP, 0x11},
    {PAGING_4LEVEL, P | W | U, P | U, SMEP, 0, X_, AC_, WALK_SMEP, 0x11},
    {PAGING_4LEVEL, P | W, P | U, SMEP, 0, X_, S_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | U, SMEP, 0, X_, U_, WALK_OK, 0},
    {PAGING_32, P | W | U, P | U, SMEP, 0, X_, S_, WALK_SMEP, 0x11},
    /* SMAP and its exception, AC */
    {PAGING_4LEVEL, P | W | U, P | U, SMAP, 0, R_, S_, WALK_SMAP, 1},
    {PAGING_4LEVEL, P | W | U, P | W | U, SMAP, 0, W_, S_, WALK_SMAP, 3},
    {PAGING_4LEVEL, P | W | U, P | W | U, SMAP, 0, W_, AC_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | U, SMAP, 0, W_, AC_, WALK_WRITE, 3},
    {PAGING_4LEVEL, P | W, P | U, SMAP, 0, R_, S_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | U, SMAP, 0, R_, U_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | U, SMAP, 0, X_, S_, WALK_OK, 0},
    /* protection keys: AD 1, WD 2; user pages, data, everybody */
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(3), PKE, 1u << 6, R_, U_, WALK_PKEY, 0x25},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(3), PKE, 1u << 6, R_, S_, WALK_PKEY, 0x21},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(3), PKE, 1u << 6, X_, U_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(3), 0, 1u << 6, R_, U_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | W | KEY(3), PKE, 1u << 6, R_, S_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(15), PKE, 2u << 30, W_, U_, WALK_PKEY, 0x27},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(15), PKE, 2u << 30, R_, U_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(15), PKE, 2u << 30, W_, S_, WALK_PKEY, 0x23},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(15), PKE | NO_WP, 2u << 30, W_, S_, WALK_OK, 0},
    {PAGING_4LEVEL, P | W | U, P | W | U | KEY(15), PKE | NO_WP, 2u << 30, W_, U_, WALK_PKEY, 0x27},
    /* PK is told also where another right is missing */
    {PAGING_4LEVEL, P | W | U, P | U | KEY(1), PKE, 1u << 2, W_, U_, WALK_WRITE, 0x27},
};

START_TEST(test_rights)
{
    const struct right *r = &rights[_i];
    const uint64_t gva = 0x8001234567 & (r->mode == PAGING_4LEVEL ? ~0ull : 0xffffffff);
    mode(r->mode);
    p.cr0 &= r->set & NO_WP ? ~PG_CR0_WP : ~0ull;
    p.cr4 |= (r->set & SMEP ? PG_CR4_SMEP : 0) | (r->set & SMAP ? PG_CR4_SMAP : 0) |
             (r->set & PKE ? PG_CR4_PKE : 0);
    p.efer &= r->set & NO_NX ? ~PG_EFER_NXE : ~0ull;
    p.pkru = r->pkru;
    unsigned size = r->mode == PAGING_32 ? 4 : 8;
    uint64_t leaf_at = guest_map(g, &p, gva, r->leaf | 0x7000, 1);
    uint64_t upper_at = guest_entry(g, &p, gva, 2);
    uint64_t table = entry_at(upper_at) & bits(51, 12);
    poke(g, upper_at, table | r->upper, size);

    ck_assert_int_eq(walk(gva, r->kind, r->priv), r->fault == WALK_OK);
    ck_assert_int_eq(w.fault, r->fault);
    ck_assert_uint_eq(w.error_code, r->code);
    uint64_t leaf = entry_at(leaf_at), upper = entry_at(upper_at);
    if (r->fault == WALK_OK) {
        ck_assert_uint_eq(leaf, r->leaf | 0x7000 | PTE_A | (r->kind == W_ ? PTE_D : 0));
        ck_assert_uint_eq(upper, table | r->upper | PTE_A);
    } else {
        ck_assert_msg(leaf == (r->leaf | 0x7000), "a refused access sets nothing in the leaf");
    }
}
END_TEST

/* ---- Reserved bits --------------------------------------------------------------------------- */

static const struct reserved {
    enum paging_mode mode;
    unsigned level;
    uint64_t entry; /* bits of the entry besides P, W, U */
    unsigned maxphyaddr;
    bool nxe, gib;
    bool faults;
} reserved[] = {
    {PAGING_32, 1, 0xf80, 40, true, true, false},               /* PAT, G, ignored bits */
    {PAGING_32, 2, PTE_PS | 1ull << 12, 40, true, true, false}, /* PAT of a large page */
    {PAGING_32, 2, PTE_PS | 1ull << 21, 40, true, true, true},
    {PAGING_32, 2, PTE_PS | 1ull << 20, 40, true, true, false},
    {PAGING_32, 2, PTE_PS | 1ull << 20, 39, true, true, true},
    {PAGING_32, 2, PTE_PS | 1ull << 13, 32, true, true, true},
    {PAGING_32, 2, PTE_PS | 1ull << 20, 46, true, true, false}, /* never more than 40 bits */
    {PAGING_PAE, 1, 1ull << 40, 40, true, true, true},
    {PAGING_PAE, 1, 1ull << 39, 40, true, true, false},
    {PAGING_PAE, 1, 1ull << 62, 40, true, true, true},
    {PAGING_PAE, 1, 1ull << 52, 52, true, true, true},
    {PAGING_PAE, 1, XD, 40, true, true, false},
    {PAGING_PAE, 1, XD, 40, false, true, true},
    {PAGING_PAE, 2, 1ull << 62, 40, true, true, true},
    {PAGING_PAE, 2, XD, 40, false, true, true},
    {PAGING_PAE, 2, PTE_PS | 1ull << 13, 40, true, true, true},
    {PAGING_PAE, 2, PTE_PS | 1ull << 20, 40, true, true, true},
    {PAGING_PAE, 2, PTE_PS | 1ull << 12, 40, true, true, false},
    {PAGING_4LEVEL, 1, 1ull << 40, 40, true, true, true},
    {PAGING_4LEVEL, 1, 1ull << 51, 40, true, true, true},
    {PAGING_4LEVEL, 1, 1ull << 52, 40, true, true, false}, /* ignored */
    {PAGING_4LEVEL, 1, 1ull << 62, 40, true, true, false}, /* ignored without keys */
    {PAGING_4LEVEL, 1, 1ull << 51, 52, true, true, false},
    {PAGING_4LEVEL, 1, XD, 40, false, true, true},
    {PAGING_4LEVEL, 2, XD, 40, false, true, true},
    {PAGING_4LEVEL, 2, PTE_PS | 1ull << 13, 40, true, true, true},
    {PAGING_4LEVEL, 2, PTE_PS | 1ull << 12, 40, true, true, false},
    {PAGING_4LEVEL, 3, PTE_PS, 40, true, true, false},
    {PAGING_4LEVEL, 3, PTE_PS, 40, true, false, true}, /* no 1-GiB pages */
    {PAGING_4LEVEL, 3, PTE_PS | 1ull << 13, 40, true, true, true},
    {PAGING_4LEVEL, 3, PTE_PS | 1ull << 29, 40, true, true, true},
    {PAGING_4LEVEL, 3, PTE_PS | 1ull << 12, 40, true, true, false},
    {PAGING_4LEVEL, 3, 1ull << 45, 40, true, true, true},
    {PAGING_4LEVEL, 4, PTE_PS, 40, true, true, true},
    {PAGING_4LEVEL, 4, 1ull << 40, 40, true, true, true},
    {PAGING_4LEVEL, 4, XD, 40, false, true, true},
};

START_TEST(test_reserved)
{
    const struct reserved *r = &reserved[_i];
    mode(r->mode);
    p.maxphyaddr = (uint8_t)r->maxphyaddr;
    p.gib_pages = r->gib;
    p.efer &= r->nxe ? ~0ull : ~PG_EFER_NXE;
    unsigned size = r->mode == PAGING_32 ? 4 : 8;
    guest_map(g, &p, 0, P | W | U | PTE_A, 1); /* gives every level an entry */
    uint64_t at = guest_entry(g, &p, 0, r->level), before = entry_at(at);
    if (r->entry & PTE_PS && r->level > 1)
        before = P | W | U; /* maps from address 0, no table */
    poke(g, at, before | r->entry, size);
    ck_assert_int_eq(walk(0, R_, S_), !r->faults);
    if (r->faults) {
        ck_assert_int_eq(w.fault, WALK_RESERVED);
        ck_assert_uint_eq(w.fault_level, r->level);
        ck_assert_uint_eq(w.error_code, PF_P | PF_RSVD);
        ck_assert(!walk(0, W_, U_));
        ck_assert_uint_eq(w.error_code, PF_P | PF_RSVD | PF_W | PF_U);
        ck_assert_uint_eq(entry_at(at), before | r->entry);
        poke(g, at, (before | r->entry) & ~P, size); /* P = 0: nothing is reserved */
        ck_assert(!walk(0, R_, S_));
        ck_assert_int_eq(w.fault, WALK_NOT_PRESENT);
    }
}
END_TEST

/* ---- A, D, G, PS ----------------------------------------------------------------------------- */

START_TEST(test_accessed_is_set_on_the_way)
{
    /* An entry that was used to reach a missing one has been used (SDM 4.8). */
    mode(PAGING_4LEVEL);
    guest_map(g, &p, 0x1000, 0, 1);
    uint64_t pml4e = guest_entry(g, &p, 0x1000, 4), pde = guest_entry(g, &p, 0x1000, 2);
    poke64(g, pml4e, peek64(g, pml4e) & ~PTE_A);
    poke64(g, pde, peek64(g, pde) & ~PTE_A);
    ck_assert(!walk(0x1000, R_, S_));
    ck_assert_uint_eq(w.fault_level, 1);
    ck_assert(peek64(g, pml4e) & PTE_A);
    ck_assert(peek64(g, pde) & PTE_A);
    ck_assert_msg(!(peek64(g, pde) & PTE_D), "D belongs to leaves");
}
END_TEST

START_TEST(test_peek_changes_nothing)
{
    mode(PAGING_4LEVEL);
    uint64_t at = guest_map(g, &p, 0x1000, 0x5000 | P | W, 1);
    ck_assert(mmu_walk(g->map, &p, &KERNEL, 0x1000, W_, S_, true, &w));
    ck_assert_uint_eq(peek64(g, at), 0x5000 | P | W);
    ck_assert(!w.dirty);
}
END_TEST

START_TEST(test_global_needs_pge_and_ps_needs_pse)
{
    mode(PAGING_32);
    guest_map(g, &p, 0x1000, 0x5000 | P | PTE_G, 1);
    ck_assert(walk(0x1000, R_, S_));
    ck_assert(!w.global);
    p.cr4 |= PG_CR4_PGE;
    ck_assert(walk(0x1000, R_, S_));
    ck_assert(w.global);
    uint64_t pde = guest_entry(g, &p, 0x1000, 2);
    poke(g, pde, entry_at(pde) | PTE_PS, 4);
    p.cr4 &= ~PG_CR4_PSE; /* PS is ignored: still a table */
    ck_assert(walk(0x1000, R_, S_));
    ck_assert_uint_eq(w.gpa, 0x5000);
    p.cr4 |= PG_CR4_PSE;
    ck_assert(walk(0x1000, R_, S_) || w.fault == WALK_RESERVED);
    ck_assert_uint_ne(w.gpa, 0x5000);
}
END_TEST

START_TEST(test_pat_and_key)
{
    mode(PAGING_4LEVEL);
    p.cr4 |= PG_CR4_PKE;
    guest_map(g, &p, 0x1000, 0x5000 | P | U | PTE_PAT | PTE_PCD | KEY(9), 1);
    ck_assert(walk(0x1000, R_, S_));
    ck_assert_uint_eq(w.pat, 6);
    ck_assert_uint_eq(w.pkey, 9);
    guest_map(g, &p, 0x200000, P | PTE_PS | PTE_LARGE_PAT | PTE_PWT, 2);
    ck_assert(walk(0x200000, R_, S_));
    ck_assert_uint_eq(w.pat, 5);
    ck_assert_uint_eq(w.gpa, 0);
}
END_TEST

START_TEST(test_tables_in_rom_and_nowhere)
{
    /* ROM: A cannot be set, and the walk must not try for ever. A hole reads all ones: reserved. */
    uint64_t rom[512] = {[0] = P | PTE_PS | W};
    struct error err;
    struct ram_block *block = phys_rom_new(g->map, PAGE_SIZE, rom, sizeof rom, &err);
    ck_assert(block && phys_map_block(g->map, 0xfff00000, PAGE_SIZE, block, 0, "rom", &err) >= 0);
    p = paging_for(PAGING_32, 0xfff00000);
    ck_assert(walk(0x1234, W_, S_));
    ck_assert_uint_eq(peek64(g, 0xfff00000), P | PTE_PS | W);
    p = paging_for(PAGING_4LEVEL, 0x90000000);
    ck_assert(!walk(0x1234, R_, S_));
    ck_assert_int_eq(w.fault, WALK_RESERVED);
}
END_TEST

START_TEST(test_pae_pdptes_are_registers)
{
    mode(PAGING_PAE);
    guest_map(g, &p, 0x40001000, 0x5000 | P, 1);
    poke64(g, p.cr3 + 8, 0); /* memory changes; the register does not */
    ck_assert(walk(0x40001000, R_, S_));
    p.pdpte[1] = 0;
    ck_assert(!walk(0x40001000, R_, S_));
    ck_assert_uint_eq(w.fault_level, 3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("walk");
    TCase *t = tcase_create("walk");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, test_translation, 0, sizeof translations / sizeof *translations);
    tcase_add_test(t, test_no_paging_and_a20);
    tcase_add_loop_test(t, test_rights, 0, sizeof rights / sizeof *rights);
    tcase_add_loop_test(t, test_reserved, 0, sizeof reserved / sizeof *reserved);
    tcase_add_test(t, test_accessed_is_set_on_the_way);
    tcase_add_test(t, test_peek_changes_nothing);
    tcase_add_test(t, test_global_needs_pge_and_ps_needs_pse);
    tcase_add_test(t, test_pat_and_key);
    tcase_add_test(t, test_tables_in_rom_and_nowhere);
    tcase_add_test(t, test_pae_pdptes_are_registers);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
