/*
 * tiny.h - what the bare-metal examples stand on: a console, faults that can be caught, an end.
 *
 * An example is one C file with kernel_main(), linked with start.S and tiny.c; an ELF file for
 * `bailey -kernel`. All memory below 4 GiB is mapped to itself, writable and executable.
 */
#ifndef TINY_H
#define TINY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void kernel_main(const char *command_line);

/* %s, %d (unsigned), %x (without 0x), %lx; to the first serial port. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the machine through `-device isa-debug-exit,iobase=0x501` with exit status 2 * code + 1. */
_Noreturn void exit_machine(unsigned code);

struct fault {
    uint64_t vector, error, rip, cr2;
};
extern struct fault caught; /* the last one */
/* Runs code(argument); true when a fault ended it, which is then in `caught`. */
bool attempt(void (*code)(void *), void *argument);

/* From the linker script and start.S: the kernel's parts. */
extern char text_start[], text_end[], data_end[];
extern uint64_t pml4[512], pdpt[512], page_directories[4 * 512];
extern char page_tables_end[];

static inline uint64_t read_cr0(void)
{
    uint64_t v;
    __asm__ volatile("mov %%cr0, %0" : "=r"(v));
    return v;
}
static inline void write_cr0(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory");
}
static inline void write_cr3(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}
static inline void invlpg(uint64_t address)
{
    __asm__ volatile("invlpg (%0)" ::"r"(address) : "memory");
}

#endif
