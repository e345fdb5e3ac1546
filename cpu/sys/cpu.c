/*
 * cpu.c - the life of a vCPU: making it, RESET and INIT (SDM vol. 3, 9.1, table 9-1), and its text
 * dump.
 */
#include "cpu/guard.h"
#include "cpu/sys/internal.h"
#include "internal/clock.h"
#include "internal/error.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static void hook_code_stale(void *opaque, uint64_t gpa, uint64_t len)
{
    interp_code_stale(opaque, gpa, len);
    jit_code_stale(opaque, gpa, len);
}

static void hook_kick(void *opaque)
{
    cpu_request(opaque, CPU_REQ_MMU);
}

struct cpu *cpu_new(const struct cpu_config *config, struct error *err)
{
    struct cpu_model *model = (struct cpu_model *)cpu_model_parse(config->model, err);
    struct mmu_cpu_hooks hooks = {.code_stale = hook_code_stale, .kick = hook_kick};
    struct cpu *cpu;

    if (!model)
        return NULL;
    model->vcpus = config->vcpus ? config->vcpus : 1;
    cpu = jit_cpu_new(config->jit_cache);
    if (!cpu) {
        cpu_model_free(model);
        error_set(err, "no memory for vCPU %u", config->index);
        return NULL;
    }
    cpu->model = model;
    cpu->index = config->index;
    cpu->bsp = config->index == 0;
    cpu->map = config->map;
    cpu->io = config->io;
    cpu->clock = config->clock;
    cpu->exclusive = config->exclusive;
    cpu->log = config->log;
    cpu->machine = config->machine;
    cpu->on_shutdown = config->on_shutdown;
    cpu_model_features(model, &cpu->features);
    atomic_init(&cpu->request, CPU_REQ_DEBUG);
    atomic_init(&cpu->a20_masked, false);
    pthread_mutex_init(&cpu->wake_lock, NULL);
    pthread_cond_init(&cpu->wake, NULL);
    hooks.cpu = cpu;
    if (!mmu_cpu_init(&cpu->mmu, cpu->map, cpu->exclusive, cpu->index, &hooks, cpu->log, err)) {
        cpu_free(cpu);
        return NULL;
    }
    if (!interp_init(cpu, err)) {
        cpu_free(cpu);
        return NULL;
    }
    if (config->jit_cache && !jit_init(cpu, config->jit_cache, config->jit_hot, config->lockstep, err)) {
        cpu_free(cpu);
        return NULL;
    }
    if (!guard_init(cpu)) {
        cpu_free(cpu);
        error_set(err, "no memory for vCPU %u", config->index);
        return NULL;
    }
    cpu_reset(cpu, false);
    return cpu;
}

void cpu_free(struct cpu *cpu)
{
    if (!cpu)
        return;
    if (cpu->blocks || cpu->vectors)
        interp_fini(cpu);
    jit_fini(cpu);
    guard_fini(cpu);
    if (cpu->mmu.priv)
        mmu_cpu_fini(&cpu->mmu);
    pthread_cond_destroy(&cpu->wake);
    pthread_mutex_destroy(&cpu->wake_lock);
    cpu_model_free(cpu->model);
    jit_cpu_free(cpu);
}

/* ---- RESET and INIT -------------------------------------------------------------------------- */

static void reset_segments(struct cpu *cpu)
{
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[i] = (struct segment){.limit = 0xffff, .attr = ATTR_REAL_MODE};
    cpu->seg[SEG_CS].selector = 0xf000;
    cpu->seg[SEG_CS].base = 0xffff0000;
    cpu->ldtr = (struct segment){.limit = 0xffff, .attr = SEG_ATTR_P | SYS_LDT};
    cpu->tr = (struct segment){.limit = 0xffff, .attr = SEG_ATTR_P | SYS_TSS32_BUSY};
    cpu->gdtr = cpu->idtr = (struct table_register){.limit = 0xffff};
}

/* What INIT leaves as it is. */
static void reset_kept_by_init(struct cpu *cpu)
{
    memset(cpu->ymm, 0, sizeof cpu->ymm);
    memset(&cpu->x87, 0, sizeof cpu->x87);
    cpu->x87.fcw = 0x40;
    cpu->x87.ftw = 0x5555;
    cpu->mxcsr = 0x1f80;
    cpu->xcr0 = 1;
    cpu->pkru = 0;
    cpu->retired = 0;
    cpu->tsc_offset = 0;
    cpu->cr0 = CR0_CD | CR0_NW;
}

void cpu_reset(struct cpu *cpu, bool init)
{
    if (!init)
        reset_kept_by_init(cpu);
    memset(cpu->gpr, 0, sizeof cpu->gpr);
    memset(cpu->dr, 0, sizeof cpu->dr);
    cpu->gpr_zero = 0;
    cpu->gpr[RDX] = cpu->model->signature;
    cpu->rip = cpu->next_rip = 0xfff0;
    cpu->rflags = RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
    cpu->cpl = 0;
    cpu->shadow = 0;
    cpu->debug_pending = 0;
    cpu->nmi_blocked = false;
    cpu->cr0 = (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
    cpu->dr[6] = DR6_ONES;
    cpu->dr[7] = DR7_ONES;
    reset_segments(cpu);
    msr_reset(cpu, init);
    cpu->activity = cpu->bsp ? CPU_RUNNING : CPU_WAIT_SIPI;
    if (!init)
        cpu_withdraw(cpu, CPU_REQ_NMI | CPU_REQ_SMI | CPU_REQ_INIT | CPU_REQ_SIPI | CPU_REQ_INTR);
    debug_registers_changed(cpu);
    mmu_set_cr3(&cpu->mmu, 0, false, NULL);
    sys_paging_update(cpu);
    mmu_flush_all(&cpu->mmu);
    if (cpu->lapic.cpu_reset)
        cpu->lapic.cpu_reset(cpu->lapic.lapic, init);
    if (LOG_ON(cpu->log, LOG_CPU_RESET)) {
        log_printf(cpu->log, "cpu%u: %s\n", cpu->index, init ? "INIT" : "RESET");
        cpu_dump(cpu, cpu->log->out);
    }
}

/* ---- Dump ------------------------------------------------------------------------------------ */

static void dump_segment(FILE *out, const char *name, const struct segment *s)
{
    fprintf(out, "%-3s %04x base %016" PRIx64 " limit %08x attr %04x\n", name, s->selector, s->base,
            s->limit, s->attr);
}

static void dump_vectors(struct cpu *cpu, FILE *out)
{
    fprintf(out, "fcw %04x fsw %04x ftw %04x mxcsr %08x\n", cpu->x87.fcw, cpu->x87.fsw,
            cpu->x87.ftw, cpu->mxcsr);
    for (unsigned i = 0; i < 16; i++)
        fprintf(out, "ymm%-2u %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\n", i,
                cpu->ymm[i].q[3], cpu->ymm[i].q[2], cpu->ymm[i].q[1], cpu->ymm[i].q[0]);
}

void cpu_dump(struct cpu *cpu, FILE *out)
{
    static const char *const gprs[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const segs[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    static const char *const activities[] = {"running", "halted", "waiting for SIPI", "shut down"};
    uint64_t flags = cpu_rflags(cpu);

    for (unsigned i = 0; i < 16; i++)
        fprintf(out, "%-3s %016" PRIx64 "%c", gprs[i], cpu->gpr[i], i % 4 == 3 ? '\n' : ' ');
    fprintf(out, "rip %016" PRIx64 " rflags %08" PRIx64 " [", cpu->rip, flags);
    for (int i = 11; i >= 0; i--) {
        char letter = "c-p-a-zstido"[i];

        if (letter != '-')
            fputc(flags >> i & 1 ? letter - 'a' + 'A' : '-', out);
    }
    fprintf(out, "] cpl %u %s%s\n", cpu->cpl, activities[cpu->activity],
            cpu->nmi_blocked ? ", NMI blocked" : "");
    for (unsigned i = 0; i < 6; i++)
        dump_segment(out, segs[i], &cpu->seg[i]);
    dump_segment(out, "ldt", &cpu->ldtr);
    dump_segment(out, "tr", &cpu->tr);
    fprintf(out, "gdt %016" PRIx64 " %04x idt %016" PRIx64 " %04x\n", cpu->gdtr.base,
            cpu->gdtr.limit, cpu->idtr.base, cpu->idtr.limit);
    fprintf(out,
            "cr0 %08" PRIx64 " cr2 %016" PRIx64 " cr3 %016" PRIx64 " cr4 %08" PRIx64
            " efer %04" PRIx64 "\n",
            cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4, cpu->efer);
    fprintf(out,
            "dr0 %016" PRIx64 " dr1 %016" PRIx64 " dr2 %016" PRIx64 " dr3 %016" PRIx64
            " dr6 %08" PRIx64 " dr7 %08" PRIx64 "\n",
            cpu->dr[0], cpu->dr[1], cpu->dr[2], cpu->dr[3], cpu->dr[6], cpu->dr[7]);
    dump_vectors(cpu, out);
}
