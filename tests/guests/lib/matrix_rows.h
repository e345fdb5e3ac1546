/*
 * matrix_rows.h - the instructions of the protection matrix, a row each: its text, and the accesses
 * that it makes to its operand, in order. matrix_code.h includes it several times, for each code
 * size, with B, S and P defined as the names of RBX and RSI and a prefix for 32-bit addresses, and
 * WS as the size of a push.
 *
 *     ROW(name, text, ACC({kinds, offset, length}, ...), .field = ...)
 *
 * B points to the operand. .si, .di, .sp, .bp = AT(n): that register points n bytes into it, too;
 * else to memory that nobody protects. Neighbouring accesses of one instruction that go on where
 * the last one ended count as one (docs/protection.md).
 */

#undef ENV
#undef XMMS
#undef XMM_END
#undef FS
#undef FX
#define ENV     (CODE_SIZE == 16 ? 14 : 28) /* of the x87 */
#define XMMS    (CODE_SIZE == 64 ? 16 : 8)  /* registers */
#define XMM_END (160 + 16 * XMMS)           /* in an FXSAVE area */
#define FS      (CODE_SIZE == 16 ? 2 : 4)   /* the offset of a far pointer */
#if CODE_SIZE == 16
#define FX "w"
#else
#define FX "l"
#endif

/* ---- MOV and its kind ---- */
ROW(mov_load_8, "movb (" B "), %al", ACC({R, 0, 1}))
ROW(mov_load_16, "movw (" B "), %ax", ACC({R, 0, 2}))
ROW(mov_load_32, "movl (" B "), %eax", ACC({R, 0, 4}))
ROW(mov_store_8, "movb %al, (" B ")", ACC({W, 0, 1}))
ROW(mov_store_16, "movw %ax, (" B ")", ACC({W, 0, 2}))
ROW(mov_store_32, "movl %eax, (" B ")", ACC({W, 0, 4}))
ROW(mov_store_immediate, "movl $0x12345678, (" B ")", ACC({W, 0, 4}))
ROW(movzx_8, "movzbl (" B "), %eax", ACC({R, 0, 1}))
ROW(movsx_16, "movswl (" B "), %eax", ACC({R, 0, 2}))
ROW(movbe_load, "movbe (" B "), %eax", ACC({R, 0, 4}))
ROW(movbe_store, "movbe %eax, (" B ")", ACC({W, 0, 4}))
ROW(movnti, "movnti %eax, (" B ")", ACC({W, 0, 4}))
ROW(cmov, "cmovzl (" B "), %eax", ACC({R, 0, 4}))
ROW(setcc, "setnz (" B ")", ACC({W, 0, 1}))
ROW(xlat, P "xlat", ACC({R, 0, 1}))
ROW(store_segment, "movw %ds, (" B ")", ACC({W, 0, 2}))
ROW(load_segment, "movw (" B "), %es", ACC({R, 0, 2}), .memory = SELECTOR)
ROW(load_far_pointer, "lfsl (" B "), %eax", ACC({R, 0, 6}), .memory = FAR_SELECTOR)
ROW(lea_touches_nothing, "lea (" B "), %ecx", ACC({0, 0, 0}))
ROW(nop_touches_nothing, "nopl (" B ")", ACC({0, 0, 0}))
ROW(prefetch_touches_nothing, "prefetcht0 (" B ")", ACC({0, 0, 0}))

/* ---- Arithmetic ---- */
ROW(add_to_memory, "addl %eax, (" B ")", ACC({RW, 0, 4}))
ROW(add_from_memory, "addl (" B "), %eax", ACC({R, 0, 4}))
ROW(adc_16, "adcw %ax, (" B ")", ACC({RW, 0, 2}))
ROW(cmp_memory, "cmpl %eax, (" B ")", ACC({R, 0, 4}))
ROW(test_memory, "testl %eax, (" B ")", ACC({R, 0, 4}), .undefined = AF)
ROW(or_immediate, "orb $0x5a, (" B ")", ACC({RW, 0, 1}), .undefined = AF)
ROW(not, "notl (" B ")", ACC({RW, 0, 4}))
ROW(neg_8, "negb (" B ")", ACC({RW, 0, 1}))
ROW(inc_8, "incb (" B ")", ACC({RW, 0, 1}))
ROW(dec_32, "decl (" B ")", ACC({RW, 0, 4}))
ROW(shl, "shll $3, (" B ")", ACC({RW, 0, 4}), .undefined = AF | OF)
ROW(rcr, "rcrl $2, (" B ")", ACC({RW, 0, 4}), .undefined = OF)
ROW(shld, "shldl $4, %eax, (" B ")", ACC({RW, 0, 4}), .undefined = AF | OF)
ROW(imul, "imull (" B "), %ecx", ACC({R, 0, 4}), .undefined = SF | ZF | AF | PF)
ROW(mul, "mull (" B ")", ACC({R, 0, 4}), .undefined = SF | ZF | AF | PF)
ROW(popcnt, "popcntl (" B "), %ecx", ACC({R, 0, 4}))
ROW(crc32, "crc32l (" B "), %ecx", ACC({R, 0, 4}))

/* ---- Bits: the access is the one 32-bit word that holds the bit ---- */
ROW(bt_register, "btl %ecx, (" B ")", ACC({R, 4, 4}), .cx = 35, .undefined = OF | SF | AF | PF)
ROW(bts_register, "btsl %ecx, (" B ")", ACC({RW, 4, 4}), .cx = 35, .undefined = OF | SF | AF | PF)
ROW(btc_immediate, "btcl $5, (" B ")", ACC({RW, 0, 4}), .undefined = OF | SF | AF | PF)
ROW(lock_btr, "lock btrl %ecx, (" B ")", ACC({RW, 4, 4}), .cx = 35, .undefined = OF | SF | AF | PF)

/* ---- Locked and exchanging; a compare that fails writes, too ---- */
ROW(lock_add, "lock addl %eax, (" B ")", ACC({RW, 0, 4}))
ROW(lock_inc_8, "lock incb (" B ")", ACC({RW, 0, 1}))
ROW(lock_not_16, "lock notw (" B ")", ACC({RW, 0, 2}))
ROW(xchg, "xchgl %eax, (" B ")", ACC({RW, 0, 4}))
ROW(xchg_8, "xchgb %al, (" B ")", ACC({RW, 0, 1}))
ROW(xadd, "xaddl %eax, (" B ")", ACC({RW, 0, 4}))
ROW(lock_xadd, "lock xaddl %eax, (" B ")", ACC({RW, 0, 4}))
ROW(cmpxchg_fails, "cmpxchgl %ecx, (" B ")", ACC({RW, 0, 4}))
ROW(cmpxchg_succeeds, "cmpxchgl %ecx, (" B ")", ACC({RW, 0, 4}), .memory = LIKE_RAX)
ROW(lock_cmpxchg_fails, "lock cmpxchgl %ecx, (" B ")", ACC({RW, 0, 4}))
ROW(lock_cmpxchg_succeeds, "lock cmpxchgl %ecx, (" B ")", ACC({RW, 0, 4}), .memory = LIKE_RAX)
ROW(cmpxchg8b_fails, "cmpxchg8b (" B ")", ACC({RW, 0, 8}))
ROW(cmpxchg8b_succeeds, "cmpxchg8b (" B ")", ACC({RW, 0, 8}), .memory = LIKE_RDX_RAX)
ROW(lock_cmpxchg8b_fails, "lock cmpxchg8b (" B ")", ACC({RW, 0, 8}))
ROW(lock_cmpxchg8b_succeeds, "lock cmpxchg8b (" B ")", ACC({RW, 0, 8}), .memory = LIKE_RDX_RAX)

/* ---- The stack ---- */
ROW(push, "push %" AX, ACC({W, 0, WS}), .sp = AT(WS))
ROW(push_memory, "push" WX " (" B ")", ACC({R, 0, WS}))
ROW(push_immediate, "push" WX " $5", ACC({W, 0, WS}), .sp = AT(WS))
ROW(pushf, "pushf" WX, ACC({W, 0, WS}), .sp = AT(WS))
ROW(pop, "pop %" CX, ACC({R, 0, WS}), .sp = AT(0))
ROW(pop_memory, "pop" WX " (" B ")", ACC({W, 0, WS}))
ROW(call, "call" WX " 1f; 1:", ACC({W, 0, WS}), .sp = AT(WS))
ROW(call_memory, "call" WX " *(" B ")", ACC({R, 0, WS}), .memory = NEXT)
ROW(jump_memory, "jmp" WX " *(" B ")", ACC({R, 0, WS}), .memory = NEXT)
ROW(ret, "ret" WX, ACC({R, 0, WS}), .sp = AT(0), .memory = NEXT)
ROW(enter, "enter" WX " $16, $0", ACC({W, 0, WS}), .sp = AT(WS))
ROW(enter_nested, "enter" WX " $16, $2", ACC({R, 0, WS}), .bp = AT(WS))
ROW(leave, "leave" WX, ACC({R, 0, WS}), .bp = AT(0))

/* ---- Far transfers to the same privilege; the pointer lies where nobody protects ---- */
#if CODE_SIZE == 64
ROW(far_call, "lcalll *(" S ")", ACC({W, 0, 8}), .sp = AT(8), .far = 1)
ROW(far_ret, "lretq", ACC({R, 0, 16}), .sp = AT(0), .memory = FAR_NEXT)
ROW(far_ret_releases, "lretq $16", ACC({R, 0, 16}), .sp = AT(0), .memory = FAR_NEXT)
ROW(iret, "iretq", ACC({R, 0, 24}, {R, 24, 16}), .sp = AT(0), .memory = IRET_FRAME)
#else
ROW(far_call, "lcall" WX " *(" S ")", ACC({W, 0, 2 * WS}), .sp = AT(2 * WS), .far = 1)
ROW(far_ret, "lret" WX, ACC({R, 0, 2 * WS}), .sp = AT(0), .memory = FAR_NEXT)
ROW(far_ret_releases, "lret" WX " $16", ACC({R, 0, 2 * WS}), .sp = AT(0), .memory = FAR_NEXT)
ROW(iret, "iret" WX, ACC({R, 0, 3 * WS}), .sp = AT(0), .memory = IRET_FRAME)
#endif
ROW(far_call_memory, "lcall" FX " *(" B ")", ACC({R, 0, FS + 2}), .memory = FAR_POINTER)
ROW(far_jump_memory, "ljmp" FX " *(" B ")", ACC({R, 0, FS + 2}), .memory = FAR_POINTER)

/* ---- Strings: each iteration is an access of its own ---- */
ROW(movs_source, P "movsl", ACC({R, 0, 4}), .si = AT(0))
ROW(movs_destination, P "movsl", ACC({W, 0, 4}), .di = AT(0))
ROW(stos, P "stosl", ACC({W, 0, 4}), .di = AT(0))
ROW(lods, P "lodsl", ACC({R, 0, 4}), .si = AT(0))
ROW(cmps, P "cmpsl", ACC({R, 0, 4}), .si = AT(0))
ROW(scas, P "scasl", ACC({R, 0, 4}), .di = AT(0))
ROW(rep_movsb_source, P "rep movsb", ACC({R, 0, 1}, {R, 1, 1}, {R, 2, 1}, {R, 3, 1}), .si = AT(0),
    .cx = 4, .rep = 1)
ROW(rep_movsl_destination, P "rep movsl", ACC({W, 0, 4}, {W, 4, 4}, {W, 8, 4}), .di = AT(0),
    .cx = 3, .rep = 1)
ROW(rep_stosb, P "rep stosb", ACC({W, 0, 1}, {W, 1, 1}, {W, 2, 1}), .di = AT(0), .cx = 3, .rep = 1)
ROW(rep_lodsw, P "rep lodsw", ACC({R, 0, 2}, {R, 2, 2}), .si = AT(0), .cx = 2, .rep = 1)
ROW(repne_scasw, P "repne scasw", ACC({R, 0, 2}, {R, 2, 2}, {R, 4, 2}), .di = AT(0), .cx = 3,
    .rep = 1)
ROW(repne_cmpsl, P "repne cmpsl", ACC({R, 0, 4}, {R, 4, 4}), .si = AT(0), .cx = 2, .rep = 1)
ROW(outs, P "outsb", ACC({R, 0, 1}), .si = AT(0))
ROW(ins, P "insl", ACC({W, 0, 4}), .di = AT(0), .no_value = 1)
ROW(rep_outs, P "rep outsb", ACC({R, 0, 1}, {R, 1, 1}), .si = AT(0), .cx = 2, .rep = 1)
ROW(rep_ins, P "rep insw", ACC({W, 0, 2}, {W, 2, 2}), .di = AT(0), .cx = 2, .rep = 1, .no_value = 1)

/* ---- System registers ---- */
ROW(smsw, "smsw (" B ")", ACC({W, 0, 2}))
ROW(sldt, "sldt (" B ")", ACC({W, 0, 2}))
ROW(str, "str (" B ")", ACC({W, 0, 2}))
ROW(verr, "verr (" B ")", ACC({R, 0, 2}))
ROW(lar, "larl (" B "), %ecx", ACC({R, 0, 2}))
ROW(lmsw, "lmsw (" B ")", ACC({R, 0, 2}), .cpl0 = 1, .memory = MACHINE_STATUS)
ROW(lldt, "lldt (" B ")", ACC({R, 0, 2}), .cpl0 = 1, .memory = ZERO)

/* ---- x87 ---- */
ROW(fld_32, "flds (" B ")", ACC({R, 0, 4}), .vector = SSE)
ROW(fld_64, "fldl (" B ")", ACC({R, 0, 8}), .vector = SSE)
ROW(fld_80, "fldt (" B ")", ACC({R, 0, 10}), .vector = SSE)
ROW(fstp_32, "fstps (" B ")", ACC({W, 0, 4}), .vector = SSE)
ROW(fst_64, "fstl (" B ")", ACC({W, 0, 8}), .vector = SSE)
ROW(fstp_80, "fstpt (" B ")", ACC({W, 0, 10}), .vector = SSE)
ROW(fild_16, "filds (" B ")", ACC({R, 0, 2}), .vector = SSE)
ROW(fild_64, "fildll (" B ")", ACC({R, 0, 8}), .vector = SSE)
ROW(fistp_32, "fistpl (" B ")", ACC({W, 0, 4}), .vector = SSE)
ROW(fisttp_64, "fisttpll (" B ")", ACC({W, 0, 8}), .vector = SSE)
ROW(fbld, "fbld (" B ")", ACC({R, 0, 10}), .vector = SSE, .memory = ZERO)
ROW(fbstp, "fbstp (" B ")", ACC({W, 0, 10}), .vector = SSE)
ROW(fadd, "fadds (" B ")", ACC({R, 0, 4}), .vector = SSE)
ROW(fnstcw, "fnstcw (" B ")", ACC({W, 0, 2}), .vector = SSE)
ROW(fnstsw, "fnstsw (" B ")", ACC({W, 0, 2}), .vector = SSE)
ROW(fldcw, "fldcw (" B ")", ACC({R, 0, 2}), .vector = SSE, .memory = CONTROL_WORD)
ROW(fnstenv, "fnstenv (" B ")", ACC({W, 0, ENV}), .vector = SSE)
ROW(fldenv, "fldenv (" B ")", ACC({R, 0, ENV}), .vector = SSE, .memory = X87_STATE)
ROW(fnsave, "fnsave (" B ")", ACC({W, 0, ENV + 80}), .vector = SSE)
ROW(frstor, "frstor (" B ")", ACC({R, 0, ENV + 80}), .vector = SSE, .memory = X87_STATE)

/* ---- MMX, SSE ---- */
ROW(movq_mmx_load, "movq (" B "), %mm0", ACC({R, 0, 8}), .vector = SSE)
ROW(movq_mmx_store, "movq %mm1, (" B ")", ACC({W, 0, 8}), .vector = SSE, .partial = INTEL)
ROW(movups_load, "movups (" B "), %xmm0", ACC({R, 0, 16}), .vector = SSE)
ROW(movups_store, "movups %xmm1, (" B ")", ACC({W, 0, 16}), .vector = SSE)
ROW(movaps_load, "movaps (" B "), %xmm0", ACC({R, 0, 16}), .vector = SSE, .align = 16)
ROW(movaps_store, "movaps %xmm1, (" B ")", ACC({W, 0, 16}), .vector = SSE, .align = 16)
ROW(movss_load, "movss (" B "), %xmm0", ACC({R, 0, 4}), .vector = SSE)
ROW(movsd_store, "movsd %xmm1, (" B ")", ACC({W, 0, 8}), .vector = SSE)
ROW(movhps_load, "movhps (" B "), %xmm0", ACC({R, 0, 8}), .vector = SSE)
ROW(movlps_store, "movlps %xmm1, (" B ")", ACC({W, 0, 8}), .vector = SSE)
ROW(movntdq, "movntdq %xmm1, (" B ")", ACC({W, 0, 16}), .vector = SSE, .align = 16)
ROW(addps, "addps (" B "), %xmm0", ACC({R, 0, 16}), .vector = SSE, .align = 16)
ROW(cvtsi2sd, "cvtsi2sdl (" B "), %xmm0", ACC({R, 0, 4}), .vector = SSE)
ROW(pinsrw, "pinsrw $1, (" B "), %xmm0", ACC({R, 0, 2}), .vector = SSE)
ROW(pextrb, "pextrb $3, %xmm1, (" B ")", ACC({W, 0, 1}), .vector = SSE)
ROW(pmovzxbw, "pmovzxbw (" B "), %xmm0", ACC({R, 0, 8}), .vector = SSE)
ROW(maskmovdqu, P "maskmovdqu %xmm7, %xmm1", ACC({W, 4, 8}), .vector = SSE, .di = AT(0))
ROW(maskmovq, P "maskmovq %mm7, %mm1", ACC({W, 7, 1}), .vector = SSE, .di = AT(0),
    .partial = INTEL | AMD)
ROW(ldmxcsr, "ldmxcsr (" B ")", ACC({R, 0, 4}), .vector = SSE, .memory = MXCSR)
ROW(stmxcsr, "stmxcsr (" B ")", ACC({W, 0, 4}), .vector = SSE)

/* ---- AVX: elements 1 and 2 are selected by the mask in YMM7; indices in YMM6 ---- */
ROW(vmovups_load, "vmovups (" B "), %ymm0", ACC({R, 0, 32}), .vector = AVX2)
ROW(vmovups_store, "vmovups %ymm1, (" B ")", ACC({W, 0, 32}), .vector = AVX2)
ROW(vbroadcastss, "vbroadcastss (" B "), %ymm0", ACC({R, 0, 4}), .vector = AVX2)
ROW(vinsertf128, "vinsertf128 $1, (" B "), %ymm1, %ymm0", ACC({R, 0, 16}), .vector = AVX2)
ROW(vextractf128, "vextractf128 $1, %ymm1, (" B ")", ACC({W, 0, 16}), .vector = AVX2)
ROW(vmaskmovps_load, "vmaskmovps (" B "), %ymm7, %ymm0", ACC({R, 4, 8}), .vector = AVX2)
ROW(vmaskmovps_store, "vmaskmovps %ymm1, %ymm7, (" B ")", ACC({W, 4, 8}), .vector = AVX2)
ROW(vpmaskmovd_store, "vpmaskmovd %ymm1, %ymm7, (" B ")", ACC({W, 4, 8}), .vector = AVX2)
ROW(vgatherdps, "vgatherdps %ymm7, (" B ",%ymm6,4), %ymm0", ACC({R, 8, 4}, {R, 24, 4}),
    .vector = AVX2, .partial = INTEL | AMD)
ROW(vpgatherdd, "vpgatherdd %xmm7, (" B ",%xmm6,4), %xmm0", ACC({R, 8, 4}, {R, 24, 4}),
    .vector = AVX2, .partial = INTEL | AMD)

ROW(vmovntdq_128, "vmovntdq %xmm1, (" B ")", ACC({W, 0, 16}), .vector = AVX2, .align = 16)
ROW(vmovntdq_256, "vmovntdq %ymm1, (" B ")", ACC({W, 0, 32}), .vector = AVX2, .align = 32)
ROW(vmovntps_256, "vmovntps %ymm1, (" B ")", ACC({W, 0, 32}), .vector = AVX2, .align = 32)
/* 64-bit elements or indices: the mask in YMM4 selects elements 0, 1 and 3, of indices 1, 3, 5, 7
 * in YMM5 or 0, 2, 6, 9 in XMM6. */
ROW(vpgatherqq, "vpgatherqq %ymm4, (" B ",%ymm5,8), %ymm0", ACC({R, 8, 8}, {R, 24, 8}, {R, 56, 8}),
    .vector = AVX2, .partial = INTEL | AMD)
ROW(vgatherqpd, "vgatherqpd %xmm4, (" B ",%xmm5,8), %xmm0", ACC({R, 8, 8}, {R, 24, 8}),
    .vector = AVX2, .partial = INTEL | AMD)
ROW(vpgatherdq, "vpgatherdq %ymm4, (" B ",%xmm6,8), %ymm0", ACC({R, 0, 8}, {R, 16, 8}, {R, 72, 8}),
    .vector = AVX2, .partial = INTEL | AMD)
ROW(vgatherdpd, "vgatherdpd %ymm4, (" B ",%xmm6,8), %ymm0", ACC({R, 0, 8}, {R, 16, 8}, {R, 72, 8}),
    .vector = AVX2, .partial = INTEL | AMD)
ROW(vpgatherqd, "vpgatherqd %xmm7, (" B ",%ymm5,8), %xmm0", ACC({R, 24, 4}, {R, 40, 4}),
    .vector = AVX2, .partial = INTEL | AMD)

/* ---- Register files: only what is stored is written. FXSAVE leaves alone what lies behind the
 * last XMM register; the XSAVE family what EDX:EAX leaves out. XSTATE_BV is read and written, or
 * only written by XSAVEC ---- */
ROW(fxsave, "fxsave (" B ")", ACC({W, 0, XMM_END}), .vector = SSE, .align = 16)
ROW(fxrstor, "fxrstor (" B ")", ACC({R, 0, 512}), .vector = SSE, .align = 16, .memory = VECTORS)
ROW(xsave, "xsave (" B ")", ACC({RW, 512, 8}, {W, 0, XMM_END}, {W, 576, 16 * XMMS}),
    .vector = XSAVE, .align = 64, .ax = 7)
ROW(xsave_x87, "xsave (" B ")", ACC({RW, 512, 8}, {W, 0, 24}, {W, 32, 128}), .vector = XSAVE,
    .align = 64, .ax = 1)
ROW(xsave_sse, "xsave (" B ")", ACC({RW, 512, 8}, {W, 24, 8}, {W, 160, 16 * XMMS}), .vector = XSAVE,
    .align = 64, .ax = 2)
ROW(xsave_avx, "xsave (" B ")", ACC({RW, 512, 8}, {W, 24, 8}, {W, 576, 16 * XMMS}), .vector = XSAVE,
    .align = 64, .ax = 4)
ROW(xsave_nothing, "xsave (" B ")", ACC({RW, 512, 8}), .vector = XSAVE, .align = 64, .ax = 8)
ROW(xsaveopt, "xsaveopt (" B ")", ACC({RW, 512, 8}, {W, 24, 8}, {W, 160, 16 * XMMS}),
    .vector = XSAVEOPT, .align = 64, .ax = 2)
ROW(xsavec, "xsavec (" B ")", ACC({W, 0, 24}, {W, 32, 128}, {W, 576, 16 * XMMS}, {W, 512, 16}),
    .vector = XSAVEC, .align = 64, .ax = 5)
ROW(xrstor_intel, "xrstor (" B ")",
    ACC({R, 512, 64}, {R, 0, 28}, {R, 32, 128 + 16 * XMMS}, {R, 576, 16 * XMMS}), .vector = XSAVE,
    .align = 64, .ax = 7, .memory = VECTORS, .vendor = INTEL)
ROW(xrstor_x87_intel, "xrstor (" B ")", ACC({R, 512, 64}, {R, 0, 24}, {R, 32, 128}),
    .vector = XSAVE, .align = 64, .ax = 1, .memory = VECTORS, .vendor = INTEL)
ROW(xrstor_amd, "xrstor (" B ")", ACC({R, 0, 576 + 16 * XMMS}), .vector = XSAVE, .align = 64,
    .ax = 7, .memory = VECTORS, .vendor = AMD)
ROW(xrstor_x87_amd, "xrstor (" B ")", ACC({R, 0, 576}), .vector = XSAVE, .align = 64, .ax = 1,
    .memory = VECTORS, .vendor = AMD)

#if CODE_SIZE == 64
ROW(mov_load_64, "movq (" B "), %rax", ACC({R, 0, 8}))
ROW(mov_store_64, "movq %rax, (" B ")", ACC({W, 0, 8}))
ROW(mov_store_moffs, "movslq (" B "), %rax", ACC({R, 0, 4}))
ROW(add_to_memory_64, "addq %rax, (" B ")", ACC({RW, 0, 8}))
ROW(lock_xadd_64, "lock xaddq %rax, (" B ")", ACC({RW, 0, 8}))
ROW(cmpxchg16b_fails, "cmpxchg16b (" B ")", ACC({RW, 0, 16}), .align = 16)
ROW(cmpxchg16b_succeeds, "cmpxchg16b (" B ")", ACC({RW, 0, 16}), .align = 16,
    .memory = LIKE_RDX_RAX_64)
ROW(lock_cmpxchg16b_fails, "lock cmpxchg16b (" B ")", ACC({RW, 0, 16}), .align = 16)
ROW(lock_cmpxchg16b_succeeds, "lock cmpxchg16b (" B ")", ACC({RW, 0, 16}), .align = 16,
    .memory = LIKE_RDX_RAX_64)
ROW(sgdt, "sgdt (" B ")", ACC({W, 0, 10}))
ROW(sidt, "sidt (" B ")", ACC({W, 0, 10}))
#else
ROW(sgdt, "sgdt (" B ")", ACC({W, 0, 6}))
ROW(sidt, "sidt (" B ")", ACC({W, 0, 6}))
ROW(bound, "bound %eax, (" B ")", ACC({R, 0, 8}), .memory = BOUNDS)
ROW(pusha, "pusha" WX,
    ACC({W, 7 * WS, WS}, {W, 6 * WS, WS}, {W, 5 * WS, WS}, {W, 4 * WS, WS}, {W, 3 * WS, WS},
        {W, 2 * WS, WS}, {W, WS, WS}, {W, 0, WS}),
    .sp = AT(8 * WS))
ROW(popa, "popa" WX, ACC({R, 0, 8 * WS}), .sp = AT(0), .partial = INTEL | AMD)
#endif
