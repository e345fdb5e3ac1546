/*
 * cpuid_qemu64.c - the CPU model qemu64: what it shows is there, and nothing else (SDM vol. 2,
 * CPUID). The tests are in lib/levels.h.
 *
 * guest options: -cpu qemu64
 */
#define MODEL QEMU64
#include "levels.h"
