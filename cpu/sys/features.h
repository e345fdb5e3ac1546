/*
 * features.h - the CPUID feature bits that exist here, one list: QEMU's flag name, word and bit, who provides it, and
 * which rows of the instruction table it gates (SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
 *
 * HOST: instructions that users run; offered when the host has the bit and the table has the rows, because many of them
 * execute on the host, and because a program that asks the host and the guest should get one answer.
 * SOFT: paging, privilege, timers, identification: made here, whatever the host has.
 * AMD:  SOFT, for AMD's vendor string only.
 * What has no line (AVX-512, MPX, CET, RTM, VMX, SVM, MONITOR, performance counters, LA57 ...) is never offered.
 */
#ifndef CPU_SYS_FEATURES_H
#define CPU_SYS_FEATURES_H

/* clang-format off */
#define CPU_FEATURES(X)                                                                            \
    X("fpu",              1_EDX,  0, HOST, FPU)        X("vme",          1_EDX,  1, SOFT, BASE)     \
    X("de",               1_EDX,  2, SOFT, BASE)       X("pse",          1_EDX,  3, SOFT, BASE)     \
    X("tsc",              1_EDX,  4, SOFT, TSC)        X("msr",          1_EDX,  5, SOFT, MSR)      \
    X("pae",              1_EDX,  6, SOFT, BASE)       X("mce",          1_EDX,  7, SOFT, BASE)     \
    X("cx8",              1_EDX,  8, HOST, CX8)        X("apic",         1_EDX,  9, SOFT, BASE)     \
    X("sep",              1_EDX, 11, SOFT, SEP)        X("mtrr",         1_EDX, 12, SOFT, BASE)     \
    X("pge",              1_EDX, 13, SOFT, BASE)       X("mca",          1_EDX, 14, SOFT, BASE)     \
    X("cmov",             1_EDX, 15, HOST, CMOV)       X("pat",          1_EDX, 16, SOFT, BASE)     \
    X("pse36",            1_EDX, 17, SOFT, BASE)       X("clflush",      1_EDX, 19, HOST, CLFLUSH)  \
    X("mmx",              1_EDX, 23, HOST, MMX)        X("fxsr",         1_EDX, 24, HOST, FXSR)     \
    X("sse",              1_EDX, 25, HOST, SSE)        X("sse2",         1_EDX, 26, HOST, SSE2)     \
    X("ss",               1_EDX, 27, SOFT, BASE)                                                   \
    X("pni",              1_ECX,  0, HOST, SSE3)       X("pclmulqdq",    1_ECX,  1, HOST, PCLMUL)   \
    X("ssse3",            1_ECX,  9, HOST, SSSE3)      X("fma",          1_ECX, 12, HOST, FMA)      \
    X("cx16",             1_ECX, 13, HOST, CX16)       X("pcid",         1_ECX, 17, SOFT, BASE)     \
    X("sse4.1",           1_ECX, 19, HOST, SSE4_1)     X("sse4.2",       1_ECX, 20, HOST, SSE4_2)   \
    X("x2apic",           1_ECX, 21, SOFT, BASE)       X("movbe",        1_ECX, 22, HOST, MOVBE)    \
    X("popcnt",           1_ECX, 23, HOST, POPCNT)     X("tsc-deadline", 1_ECX, 24, SOFT, BASE)     \
    X("aes",              1_ECX, 25, HOST, AESNI)      X("xsave",        1_ECX, 26, HOST, XSAVE)    \
    X("avx",              1_ECX, 28, HOST, AVX)        X("f16c",         1_ECX, 29, HOST, F16C)     \
    X("rdrand",           1_ECX, 30, HOST, RDRAND)     X("hypervisor",   1_ECX, 31, SOFT, BASE)     \
    X("fsgsbase",         7_EBX,  0, SOFT, FSGSBASE)   X("tsc-adjust",   7_EBX,  1, SOFT, BASE)     \
    X("bmi1",             7_EBX,  3, HOST, BMI1)       X("avx2",         7_EBX,  5, HOST, AVX2)     \
    X("smep",             7_EBX,  7, SOFT, BASE)       X("bmi2",         7_EBX,  8, HOST, BMI2)     \
    X("erms",             7_EBX,  9, SOFT, BASE)       X("invpcid",      7_EBX, 10, SOFT, INVPCID)  \
    X("rdseed",           7_EBX, 18, HOST, RDSEED)     X("adx",          7_EBX, 19, HOST, ADX)      \
    X("smap",             7_EBX, 20, SOFT, SMAP)       X("clflushopt",   7_EBX, 23, HOST, CLFLUSHOPT) \
    X("clwb",             7_EBX, 24, HOST, CLWB)       X("sha-ni",       7_EBX, 29, HOST, SHA)      \
    X("umip",             7_ECX,  2, SOFT, BASE)       X("pku",          7_ECX,  3, SOFT, PKU)      \
    X("gfni",             7_ECX,  8, HOST, GFNI)       X("vaes",         7_ECX,  9, HOST, VAES)     \
    X("vpclmulqdq",       7_ECX, 10, HOST, VPCLMUL)    X("rdpid",        7_ECX, 22, SOFT, RDPID)    \
    X("movdiri",          7_ECX, 27, HOST, MOVDIRI)    X("movdir64b",    7_ECX, 28, HOST, MOVDIR64B) \
    X("fsrm",             7_EDX,  4, SOFT, BASE)       X("serialize",    7_EDX, 14, SOFT, SERIALIZE) \
    X("spec-ctrl",        7_EDX, 26, SOFT, BASE)       X("arch-capabilities", 7_EDX, 29, SOFT, BASE) \
    X("bhi-ctrl",       72_EDX,  4, SOFT, BASE)                                                    \
    X("xsaveopt",        D1_EAX,  0, HOST, XSAVEOPT)   X("xsavec",      D1_EAX,  1, HOST, XSAVEC)   \
    X("xgetbv1",         D1_EAX,  2, HOST, XSAVE)      X("xsaves",      D1_EAX,  3, HOST, XSAVES)   \
    X("arat",             6_EAX,  2, SOFT, BASE)                                                   \
    X("lahf-lm",         X1_ECX,  0, SOFT, LAHF64)     X("cr8legacy",   X1_ECX,  4, AMD,  CR8LEGACY) \
    X("abm",             X1_ECX,  5, HOST, LZCNT)      X("misalignsse", X1_ECX, 7, HOST, MISALIGNSSE) \
    X("3dnowprefetch",   X1_ECX,  8, SOFT, PREFETCHW)                                              \
    X("syscall",         X1_EDX, 11, SOFT, SYSCALL)    X("nx",          X1_EDX, 20, SOFT, BASE)     \
    X("pdpe1gb",         X1_EDX, 26, SOFT, BASE)       X("rdtscp",      X1_EDX, 27, SOFT, RDTSCP)   \
    X("lm",              X1_EDX, 29, SOFT, LM)         X("invtsc",      X7_EDX,  8, SOFT, BASE)     \
    X("xsaveerptr",      X8_EBX,  2, AMD,  BASE)       X("ibpb-ret",    X8_EBX, 30, AMD,  BASE)     \
    X("ibpb",            X8_EBX, 12, AMD,  BASE)       X("ibrs",        X8_EBX, 14, AMD,  BASE)     \
    X("amd-no-ssb",      X8_EBX, 26, AMD,  BASE)       X("btc-no",      X8_EBX, 29, AMD,  BASE)     \
    X("no-nested-data-bp", X21_EAX, 0, AMD, BASE)                                                  \
    X("lfence-always-serializing", X21_EAX, 2, AMD, BASE)                                          \
    X("null-sel-clr-base", X21_EAX, 6, AMD, BASE)      X("auto-ibrs",  X21_EAX,  8, AMD,  BASE)     \
    X("srso-no",         X21_EAX, 29, AMD, BASE)       X("srso-user-kernel-no", X21_EAX, 30, AMD, BASE) \
    X("tsa-sq-no",       X21_ECX,  1, AMD, BASE)       X("tsa-l1-no",  X21_ECX,  2, AMD,  BASE)

/* A feature goes when what it needs has gone. */
#define CPU_FEATURE_NEEDS(X)                                                                       \
    X("avx", "xsave") X("xsaveopt", "xsave") X("xsavec", "xsave") X("xgetbv1", "xsave")            \
    X("xsaves", "xsave") X("pku", "xsave") X("avx2", "avx") X("fma", "avx") X("f16c", "avx")        \
    X("vaes", "avx") X("vaes", "aes") X("vpclmulqdq", "avx") X("vpclmulqdq", "pclmulqdq")           \
    X("sse2", "sse") X("pni", "sse2") X("ssse3", "pni") X("sse4.1", "ssse3") X("sse4.2", "sse4.1")  \
    X("misalignsse", "sse")                                                                        \
    X("sse", "fxsr") X("lm", "pae") X("nx", "pae") X("pdpe1gb", "lm") X("pcid", "lm")               \
    X("syscall", "lm") X("lahf-lm", "lm") X("tsc-deadline", "apic") X("x2apic", "apic")
/* clang-format on */

#endif
