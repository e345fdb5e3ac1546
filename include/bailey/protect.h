/*
 * protect.h - the protection interface: a virtual device through which a program protects its own
 * memory, with no operating system in between. The ABI, shared by guest, host and device.
 *
 * Freestanding: it needs <stdint.h> only. All values are little-endian; all structures have no
 * padding of their own and grow only at their end, with PROTECT_VERSION's minor part. What a field
 * called `reserved` holds must be zero, else the command is refused.
 *
 * In one paragraph: a program binds a *door* (a page of registers and a page of events) and so gets
 * a *context*. Into it go *regions* (bytes to protect) and for each region a *rule*: which kinds of
 * access each kind of *subject* may still make, and what happens otherwise (the *action*). Every
 * access that the guest's page tables allow is then checked against the rules of all contexts;
 * rules only take away, never grant. docs/protection.md explains it with diagrams, limits first.
 *
 *     volatile struct protect_door *door = (void *)PROTECT_DOOR_ADDRESS(0);   // bare metal, CPL 0
 *     door->command[0].op = PROTECT_OP_BIND;      // 64-bit stores; see "Commands"
 *     door->doorbell = 0;                         // executes slot 0 before the next instruction
 *     uint64_t session = door->command[0].result;
 */
#ifndef BAILEY_PROTECT_H
#define BAILEY_PROTECT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Where it is --------------------------------------------------------------------------------
 *
 * PCI function 1b36:0b41, class 0880h (other system peripheral): BAR0 the admin page, BAR2 all
 * doors, one after another, BAR4 MSI-X (vector = door index modulo 16). The same registers are at a
 * fixed physical address, reserved in the memory map, for code that has no PCI driver.
 */
#define PROTECT_PCI_VENDOR 0x1b36u
#define PROTECT_PCI_DEVICE 0x0b41u
#define PROTECT_PCI_CLASS  0x088000u
#define PROTECT_ID         0x59454c42u /* "BLEY", the first register of the admin page and of each door */
#define PROTECT_VERSION                                                                            \
    0x00010000u /* major << 16 | minor; a major that you do not know: go away                      \
                 */

#define PROTECT_ADMIN_ADDRESS   0xfef00000ull
#define PROTECT_ADMIN_SIZE      0x1000u
#define PROTECT_DOORS_ADDRESS   0xfef10000ull
#define PROTECT_DOOR_SIZE       0x2000u /* page 0: registers and commands; page 1: events */
#define PROTECT_DOORS           64u
#define PROTECT_DOOR_ADDRESS(n) (PROTECT_DOORS_ADDRESS + (uint64_t)(n)*PROTECT_DOOR_SIZE)

/* ---- Accesses, subjects, actions ----------------------------------------------------------------
 */

/* Kinds of access, bits. A read-modify-write is READ | WRITE. */
enum protect_access { PROTECT_READ = 1, PROTECT_WRITE = 2, PROTECT_EXEC = 4 };
#define PROTECT_ALL 7u

/* Who makes an access: the index into a rule's arrays. */
enum protect_subject {
    PROTECT_OWNER, /* user code in the context's address space; for a supervisor context: CPL 0-2 */
    PROTECT_OTHER_USER, /* other code at CPL 3 */
    PROTECT_KERNEL,     /* instructions at CPL 0-2 that are not the owner */
    PROTECT_WALKER,     /* the processor's page walk: reading entries, setting A and D */
    PROTECT_EVENT,      /* the processor's event delivery: IDT, GDT and TSS reads, pushes */
    PROTECT_DEVICE,     /* DMA */
    PROTECT_HOST,       /* a client outside the machine */
    PROTECT_DEBUGGER,   /* gdb and the monitor */
    PROTECT_SUBJECTS
};

/* What becomes of an access that a rule does not allow. When several contexts object, the one that
 * comes first in this list wins; among equals the lowest context. */
enum protect_action {
    PROTECT_DENY,       /* refuse: a fault for instructions, an error for devices and clients */
    PROTECT_UPCALL,     /* ask the context's handler (user contexts: code at CPL 3 of the owner);
                           another subject's access, or no handler: PROTECT_DENY */
    PROTECT_ASK_HOST,   /* ask the client outside that registered as handler; none, or too slow:
                           PROTECT_DENY */
    PROTECT_SUBSTITUTE, /* reads give the rule's value, writes are dropped; a fetch is refused */
    PROTECT_SKIP,       /* reads give zeros, writes are dropped; a fetch is refused */
    PROTECT_ALLOW_ONCE, /* the first such access completes, then the subject's action is
                           PROTECT_DENY */
    PROTECT_DEFERRED,   /* completes; the handler runs when the owner is next at CPL 3 outside a
                           handler */
    PROTECT_ALLOW,      /* completes: only the rule's `notify` happens */
    PROTECT_ACTIONS
};

/* What else happens, bits of `notify`. Every event goes to the context's ring unless QUIET. */
enum protect_notify {
    PROTECT_NOTIFY_QUIET = 1 << 0,     /* no event in the ring */
    PROTECT_NOTIFY_INTERRUPT = 1 << 1, /* the door's MSI-X vector */
    PROTECT_NOTIFY_PREIMAGE = 1 << 2,  /* the event carries the bytes before a write */
    PROTECT_NOTIFY_HOST = 1 << 3,      /* clients outside see the event */
    PROTECT_NOTIFY_PAUSE = 1 << 4,     /* the machine pauses behind the access (grant CONTROL) */
    PROTECT_NOTIFY_STOP = 1 << 5,      /* the machine ends, exit status 3 (grant CONTROL) */
};
#define PROTECT_NOTIFY_ALL 0x3fu

/* ---- Regions and rules --------------------------------------------------------------------------
 */

enum protect_region_flags {
    PROTECT_FOLLOW = 0,   /* when the guest maps another frame there, the rule moves along */
    PROTECT_PIN = 1 << 0, /* the rule stays with the frame; the change is an event */
    PROTECT_PHYSICAL =
        1 << 1, /* `base` is a guest-physical address (supervisor, host, or grant PHYSICAL) */
};

/* An element of PROTECT_OP_ADD_REGIONS. */
struct protect_region {
    uint64_t base;   /* virtual in the context's address space; byte granular */
    uint64_t length; /* bytes, > 0 */
    uint32_t flags;  /* enum protect_region_flags */
    uint32_t reserved;
    uint64_t cookie; /* yours; in every event and frame */
};

/* How PROTECT_DENY looks to an instruction. */
enum protect_fault {
    PROTECT_FAULT_PAGE = 0,    /* #PF, architectural error code (P = 1) with bit `marker` set */
    PROTECT_FAULT_GENERAL = 1, /* #GP(0) */
};
#define PROTECT_DEFAULT_MARKER                                                                     \
    15u /* "refused by something other than the page tables" to Linux                              \
         */

/* An element of PROTECT_OP_SET_RULES: the rule of `count` regions from `region` on, replacing what
 * they had. A region without a rule changes nothing. */
struct protect_rule {
    uint32_t region, count;
    uint8_t
        allow[PROTECT_SUBJECTS]; /* by subject: PROTECT_READ | _WRITE | _EXEC that stay allowed */
    uint8_t action[PROTECT_SUBJECTS]; /* by subject: enum protect_action for what is not */
    uint32_t notify;                  /* enum protect_notify */
    uint8_t fault;                    /* enum protect_fault */
    uint8_t marker;                   /* 7-30: bit of the #PF error code; 0: the default */
    uint16_t reserved;
    uint64_t value; /* for PROTECT_SUBSTITUTE: byte n of an address is byte (address mod 8) */
};

/* The default that a program should start from: its own code is held to `allow_` by `action_`, what
 * the kernel does beyond that is let through and logged, all others are left alone. */
#define PROTECT_RULE_DEFAULT(first_, count_, allow_, action_)                                      \
    {                                                                                              \
        (first_), (count_), {(allow_), 7, (allow_), 7, 7, 7, 7, 7},                                \
            {(action_), 7, 7, 7, 7, 7, 7, 7}, 0, 0, 0, 0, 0                                        \
    }

/* The actions that make sense for a subject; any other is refused with PROTECT_BAD_ACTION. */
#define PROTECT_ACTIONS_OF(subject)                                                                \
    ((subject) == PROTECT_OWNER    ? 0xffu                                                         \
     : (subject) <= PROTECT_KERNEL ? 0xffu & ~(1u << PROTECT_UPCALL)                               \
                                   : 1u << PROTECT_DENY | 1u << PROTECT_ALLOW_ONCE |               \
                                         1u << PROTECT_DEFERRED | 1u << PROTECT_ALLOW)

/* Grants, given by the admin page: what a user context may do beyond restricting its owner.
 * Supervisor contexts and host clients have all of them. */
enum protect_grant {
    PROTECT_GRANT_USERS = 1 << 0,    /* restrict OTHER_USER */
    PROTECT_GRANT_KERNEL = 1 << 1,   /* restrict KERNEL, EVENT, WALKER */
    PROTECT_GRANT_DEVICES = 1 << 2,  /* restrict DEVICE */
    PROTECT_GRANT_HOST = 1 << 3,     /* restrict HOST, DEBUGGER */
    PROTECT_GRANT_PHYSICAL = 1 << 4, /* name physical addresses */
    PROTECT_GRANT_OBSERVE = 1 << 5,  /* see RIP, CR3 and values of other subjects' accesses */
    PROTECT_GRANT_CONTROL = 1 << 6,  /* PAUSE and STOP */
};
#define PROTECT_GRANT_ALL 0x7fu

/* ---- Commands -----------------------------------------------------------------------------------
 *
 * A door has PROTECT_COMMANDS slots. Fill one with 64-bit stores, then store its number to
 * `doorbell`: the command has been carried out, on every processor, before the next instruction.
 * `status` says how; a refused command has changed nothing. Arrays are read once, at virtual
 * addresses of the caller, with the caller's rights; their pages must be present.
 *
 * Every command but BIND carries the session value that BIND gave, and is refused (WRONG_CALLER)
 * when it comes from another address space or privilege level than the context is bound to.
 */
enum protect_op {
    PROTECT_OP_BIND =
        1, /* arg[0]: 0 (host client: CR3 of its virtual addresses). Result: the session. CPL 3: a
              user context of this address space; CPL 0: a supervisor context, under any CR3 */
    PROTECT_OP_UNBIND,      /* ends the context with everything in it */
    PROTECT_OP_ADD_REGIONS, /* arg[0]: array of struct protect_region, arg[1]: how many. Result: the
                               first one's id; the others follow */
    PROTECT_OP_REMOVE_REGIONS, /* arg[0]: first id, arg[1]: how many */
    PROTECT_OP_SET_RULES,      /* arg[0]: array of struct protect_rule, arg[1]: how many */
    PROTECT_OP_SET_HANDLER,    /* arg[0]: address of a struct protect_handler; 0: none any more */
    PROTECT_OP_QUERY,          /* arg[0]: address of a struct protect_query, read and filled in */
    PROTECT_OP_SEAL,       /* arg[0]: enum protect_seal bits to set; never cleared before reset */
    PROTECT_OP_STATISTICS, /* arg[0]: address of a struct protect_statistics, filled in */
    PROTECT_OPS
};

struct protect_command {
    uint16_t op;      /* enum protect_op */
    uint16_t version; /* 0 or PROTECT_VERSION >> 16 */
    uint32_t reserved;
    uint64_t session;
    uint64_t arg[4];  /* those an operation does not name must be 0 */
    uint32_t status;  /* out: enum protect_status */
    uint32_t element; /* out: which element of an array was wrong */
    uint64_t result;  /* out */
};
#define PROTECT_COMMANDS     16u
#define PROTECT_MAX_ELEMENTS (1u << 20) /* of one array */
#define PROTECT_MAX_REGIONS  (1u << 22) /* of all contexts */
#define PROTECT_MAX_PAGES    (1u << 24) /* of one region */

/* One list of statuses, so that names and texts come from it too (protect_status_text). */
#define PROTECT_STATUSES(X)                                                                        \
    X(OK, "done")                                                                                  \
    X(BAD_OP, "no such operation")                                                                 \
    X(BAD_VERSION, "unknown version")                                                              \
    X(BAD_RESERVED, "a reserved field or an unused argument is not zero")                          \
    X(BAD_ARGUMENT, "an argument is out of range")                                                 \
    X(NOT_BOUND, "the door has no context")                                                        \
    X(BUSY, "the door has a context already")                                                      \
    X(WRONG_SESSION, "the session value is wrong")                                                 \
    X(WRONG_CALLER, "the context is bound to another address space or privilege level")            \
    X(NOT_MAPPED, "an address of the command is not mapped for the caller")                        \
    X(NOT_MEMORY, "a region contains something other than RAM")                                    \
    X(TOO_MANY, "more elements, regions or pages than the device takes")                           \
    X(NO_REGION, "no such region")                                                                 \
    X(NO_GRANT, "restricting this subject needs a grant")                                          \
    X(SEALED, "the context is sealed against this")                                                \
    X(BAD_ACCESS, "access bits other than read, write and execute")                                \
    X(BAD_ACTION, "no such action, or not one for this subject")                                   \
    X(BAD_NOTIFY, "no such notification")                                                          \
    X(BAD_FAULT, "no such fault, or not a bit that may mark a page fault")                         \
    X(BAD_FLAGS, "no such region flag")                                                            \
    X(BAD_RANGE, "a range is empty, wraps or is not canonical")                                    \
    X(BAD_HANDLER, "the handler or a stack of it is not a user address, or too many")              \
    X(BAD_TOKEN, "no upcall has this token, or its time has run out")                              \
    X(BAD_VERDICT, "no such verdict")                                                              \
    X(NO_MEMORY, "the monitor has no memory left for this")                                        \
    X(NOT_NOW, "the paging mode has no address spaces to bind to")
enum protect_status {
#define X(name, text) PROTECT_##name,
    PROTECT_STATUSES(X)
#undef X
        PROTECT_STATUS_COUNT
};

/* SET_HANDLER's argument. The handler is entered at CPL 3 like a signal handler: RDI = address of a
 * struct protect_frame, RSP 16-byte aligned less 8, RFLAGS with DF, TF, AC clear. It ends by
 * storing to `resume`, not by returning. */
enum {
    PROTECT_MAX_STACKS = 16,
    PROTECT_MAX_LIVE = 16, /* upcalls of one context at a time, nested ones and several threads'
                              together; one more: PROTECT_DENY */
};
struct protect_handler {
    uint64_t rip;
    uint32_t stacks;     /* of `stack`: 0: the faulting thread's own, 128 bytes below its RSP */
    uint32_t timeout_ms; /* how long an upcall may take; 0: one second; at most 60000 */
    uint64_t stack[PROTECT_MAX_STACKS]; /* tops; a live upcall holds one, none free: PROTECT_DENY */
};

/* QUERY: for an address (region = ~0) the first region that holds it, or a region by its id. */
struct protect_query {
    uint64_t address;
    uint32_t region; /* in and out */
    uint32_t pages;  /* out: pages it touches */
    uint64_t base, length, cookie;
    uint32_t flags;
    uint32_t resolved; /* out: pages of it that have a frame now */
    struct protect_rule rule;
};

enum protect_seal {
    PROTECT_SEAL_WEAKEN = 1 << 0, /* rules may only take more away */
    PROTECT_SEAL_REMOVE =
        1 << 1, /* regions stay; UNBIND and death of the address space zero their bytes first */
    PROTECT_SEAL_REBIND = 1 << 2, /* the handler stays what it is */
};
#define PROTECT_SEAL_ALL 7u

#define PROTECT_COUNTERS(X)                                                                        \
    X(commands)                                                                                    \
    X(refused_commands)                                                                            \
    X(checks) X(events) X(lost_events) X(denied) X(allowed) X(upcalls) X(resumes) X(timeouts)      \
        X(substituted) X(skipped) X(deferred) X(moved_pages) X(page_faults) X(system_calls)
struct protect_statistics {
#define X(name) uint64_t name;
    PROTECT_COUNTERS(X) /* page_faults, system_calls: of the owner's address space since BIND */
#undef X
};

/* ---- Events ---------------------------------------------------------------------------------- */

enum protect_event_type {
    PROTECT_EVENT_ACCESS = 1, /* an access that the rules did not allow */
    PROTECT_EVENT_MOVED,      /* FOLLOW: the page at `gva` has another frame now */
    PROTECT_EVENT_PINNED,     /* PIN: the page at `gva` has another frame; the rule stayed behind */
    PROTECT_EVENT_UNMAPPED,   /* the page at `gva` has no frame now */
    PROTECT_EVENT_TIMEOUT,    /* a handler took too long; the token in `value` is void */
};
enum protect_event_flags {
    PROTECT_EVENT_HIDDEN = 1 << 0,   /* another subject's: rip, cr3, value are withheld */
    PROTECT_EVENT_HAS_GVA = 1 << 1,  /* `gva` is the address that the subject used */
    PROTECT_EVENT_PREIMAGE = 1 << 2, /* `preimage` is valid */
    PROTECT_EVENT_VALUE =
        1 << 3, /* `value` is valid: what was, or would have been, written or read */
};

/* 128 bytes. `gva` and `value` are of the lowest byte that the context's rules object to. */
struct protect_event {
    uint64_t sequence; /* 1, 2, 3 ... of this context; written last: a slot with another number is
                          not ready */
    uint16_t type;     /* enum protect_event_type */
    uint8_t access;    /* enum protect_access bits */
    uint8_t subject;   /* enum protect_subject */
    uint8_t action;    /* enum protect_action that won, of whichever context */
    uint8_t flags;     /* enum protect_event_flags */
    uint16_t vcpu;     /* of instructions, walks, deliveries */
    uint32_t region;
    uint32_t length;   /* of the whole access, bytes */
    uint64_t cookie;   /* the region's */
    uint64_t gva;      /* lowest violated byte, as the subject addressed it */
    uint64_t home;     /* the same byte as an address of the region: its base + offset */
    uint64_t gpa;      /* physical; 0 without grant PHYSICAL */
    uint64_t rip, cr3; /* of the subject; 0 for devices and clients */
    uint64_t value[2]; /* up to 16 bytes from the lowest violated byte on */
    /* Of a write, from there on, too; without grant OBSERVE, and another subject's: as far as the
     * region goes in that page. */
    uint64_t preimage[2];
    uint64_t time;   /* TSC of vCPU 0 */
    uint16_t device; /* PCI bus/device/function for DMA */
    uint8_t cpl;
    uint8_t reserved[13];
};
#define PROTECT_EVENTS 32u /* slots: sequence n is in slot (n - 1) modulo PROTECT_EVENTS */

/* ---- Upcalls --------------------------------------------------------------------------------- */

/* What a handler finds at RDI. The monitor keeps the true registers: what the handler writes here
 * counts only as far as its verdict says so. */
struct protect_frame {
    uint32_t size, version;
    uint64_t token; /* single-use, 56 bits */
    uint64_t cookie;
    uint32_t region, length;
    uint8_t access, subject, deferred, instruction_length;
    uint16_t vcpu;
    uint16_t depth; /* upcalls of the context that are live now, this one included */
    uint64_t gva, home;
    uint64_t value[2];
    uint64_t preimage[2];
    uint8_t instruction[16];
    uint64_t gpr[16]; /* RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15 */
    uint64_t rip, rflags;
    uint64_t set; /* in, for PROTECT_SET: bit n: take gpr[n]; bit 16: rip; bit 17: CF PF AF ZF SF OF
                     DF */
    uint64_t substitute; /* in, for PROTECT_GIVE */
};

/* The low byte of what is stored to `resume`; the token is above it. */
enum protect_verdict {
    PROTECT_RETRY,  /* the access is made again, and checked again */
    PROTECT_LET,    /* it completes, this once, for nobody else */
    PROTECT_DROP,   /* as PROTECT_SKIP */
    PROTECT_GIVE,   /* as PROTECT_SUBSTITUTE, with frame->substitute */
    PROTECT_REFUSE, /* as PROTECT_DENY */
    PROTECT_SET,    /* go on with the registers that frame->set names, changed */
    PROTECT_VERDICTS
};
#define PROTECT_RESUME(token, verdict) ((uint64_t)(token) << 8 | (verdict))

/* ---- Registers
 * ------------------------------------------------------------------------------------
 *
 * Accesses of 4 or 8 aligned bytes; others read all ones and write nothing; but slots and events
 * can be read by 1 and 2 aligned bytes, too. Of a 64-bit register, a store to the low half means a
 * high half of zero, and one to the high half does nothing; slots keep halves. Stores by DMA, walker
 * and event delivery are ignored. Offsets are those of the struct members (checked below).
 *
 * While a door is free anybody may fill slots and bind. Bound, it obeys its owner only and shows
 * others id, version, index, state, and as status of every slot WRONG_CALLER; all else is zero. BIND
 * and the end of a context clear the slots, but for the answer: fill a slot whole each time.
 */
enum protect_door_state { PROTECT_DOOR_FREE, PROTECT_DOOR_USER, PROTECT_DOOR_SUPERVISOR };

struct protect_door {
    /* 000h, read-only but where said */
    uint32_t id, version;
    uint32_t index, state; /* enum protect_door_state */
    uint32_t grants, seals;
    uint64_t event_head;    /* sequence of the newest event; 0: none yet */
    uint64_t event_tail;    /* read-write: the newest one that you have read; head - tail <= 32 */
    uint64_t event_lost;    /* events that found the ring full */
    uint64_t upcall_depth;  /* upcalls that have not been resumed */
    uint64_t masked;        /* read-write: not 0: deferred upcalls wait; one that has waited runs
                               before the instruction behind the store of 0 */
    uint64_t doorbell;      /* write: number of a command slot */
    uint64_t resume;        /* write: PROTECT_RESUME(token, verdict); does not return when it is
                               right. Else: see resume_status */
    uint64_t resume_status; /* enum protect_status of the last RESUME that was refused */
    uint8_t reserved[1024 - 88];
    /* 400h: read-write but for status, element and result, which the device writes */
    struct protect_command command[PROTECT_COMMANDS];
    uint8_t reserved2[2048];
    /* 1000h: read-only */
    struct protect_event event[PROTECT_EVENTS];
};

/* The admin page. Whoever can map it decides who may restrict whom. */
struct protect_admin {
    uint32_t id, version;
    uint32_t doors, door_size;
    uint64_t doors_address;
    uint64_t grant; /* write: door | grants << 8 | 1 << 31 to take away; read: status of the last */
    uint64_t destroy; /* write: door: ends its context, as UNBIND would; read: status of the last */
    uint64_t regions, max_regions;
    uint64_t ruled_pages;
    struct protect_statistics total;
};

#ifdef __cplusplus
#define PROTECT_ASSERT static_assert
#else
#define PROTECT_ASSERT _Static_assert
#endif
PROTECT_ASSERT(sizeof(struct protect_region) == 32, "ABI");
PROTECT_ASSERT(sizeof(struct protect_rule) == 40, "ABI");
PROTECT_ASSERT(sizeof(struct protect_command) == 64, "ABI");
PROTECT_ASSERT(sizeof(struct protect_handler) == 144, "ABI");
PROTECT_ASSERT(sizeof(struct protect_query) == 88, "ABI");
PROTECT_ASSERT(sizeof(struct protect_event) == 128, "ABI");
PROTECT_ASSERT(sizeof(struct protect_frame) == 264, "ABI");
PROTECT_ASSERT(sizeof(struct protect_door) == PROTECT_DOOR_SIZE, "ABI");

#ifdef __cplusplus
}
#endif
#endif
