/*
 * entry.S - where upcalls come in: calls the C handler, stores its verdict to the door.
 *
 * On entry RDI = struct protect_frame *, RSP is 8 below a multiple of 16, as after a CALL. Nothing
 * needs saving: the device keeps the interrupted code's registers, vector registers included, and
 * gives them back when the verdict arrives. There is no way to return otherwise.
 */
    .text
    .globl bailey_entry_points
    .hidden bailey_entry_points
    .hidden bailey_entry_run
    .type bailey_entry_points, @function
    .balign 16
bailey_entry_points:
    .set number, 0
    .rept 8                     /* BAILEY_HANDLERS */
    .balign 16
    movl $number, %esi
    jmp run
    .set number, number + 1
    .endr

run:
    subq $8, %rsp
    xorl %ebp, %ebp             /* the outermost frame to a debugger */
    call bailey_entry_run
    movq %rax, (%rdx)           /* the interrupted code goes on */
    ud2                         /* the time was up, the token is void */
    .size bailey_entry_points, . - bailey_entry_points
    .section .note.GNU-stack, "", @progbits
