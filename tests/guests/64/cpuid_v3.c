/*
 * cpuid_v3.c - the CPU model x86-64-v3: psABI level 3 (SDM vol. 2, CPUID). The
 * tests are in lib/levels.h.
 *
 * guest options: -cpu x86-64-v3
 */
#define MODEL V3
#include "levels.h"
