/*
 * cpuid_max.c - the CPU model max: everything that the host and the program offer (SDM vol. 2,
 * CPUID). The tests are in lib/levels.h.
 *
 * guest options: -cpu max
 */
#define MODEL MAX
#include "levels.h"
