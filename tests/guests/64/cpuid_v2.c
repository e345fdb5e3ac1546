/*
 * cpuid_v2.c - the CPU model x86-64-v2: psABI level 2 (SDM vol. 2, CPUID). The
 * tests are in lib/levels.h.
 *
 * guest options: -cpu x86-64-v2
 */
#define MODEL V2
#include "levels.h"
