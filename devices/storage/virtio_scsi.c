/*
 * virtio_scsi.c - the SCSI host bus adapter of virtio 1.2, section 5.6. Units behind it are
 * scsi.h's.
 *
 * Queue 0 is the control queue (task management), 1 the event queue, the others take commands. A
 * request lives from the chain's arrival to its push on the used ring of its own queue; of each
 * queue at most as many as it has descriptors are in flight, whatever the guest does.
 *
 * Aborting: the tasks concerned are marked, and end when the image is done with what it has; then
 * the task management function is answered, so that nothing of an aborted task happens after that.
 * A reset forgets the requests in flight but not their effects: until the last of these "stale"
 * ones has ended, nothing new is taken (as in virtio_blk.c).
 *
 * No event is ever sent: neither hot plug nor change of parameters is offered, and units have no
 * asynchronous notifications. The event queue keeps the driver's buffers.
 */
#include "internal/error.h"
#include "internal/virtio.h"
#include "scsi.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define SCSI_QUEUE    256
#define SENSE_DEFAULT 96
#define CDB_DEFAULT   32
#define CDB_MAX       256

enum { CONTROL_QUEUE = 0, EVENT_QUEUE = 1, REQUEST_QUEUES = 2 /* the first of them */ };

/* 5.6.4, little-endian */
struct scsi_config {
    uint32_t num_queues, seg_max, max_sectors, cmd_per_lun, event_info_size, sense_size, cdb_size;
    uint16_t max_channel, max_target;
    uint32_t max_lun;
};
_Static_assert(sizeof(struct scsi_config) == 36, "as in the specification");

/* 5.6.6.1; what follows is the CDB, cdb_size bytes. */
struct command_header {
    uint8_t lun[8];
    uint64_t id;
    uint8_t task_attr, prio, crn;
} __attribute__((packed));
/* What follows is sense data, sense_size bytes. */
struct command_response {
    uint32_t sense_len, residual;
    uint16_t status_qualifier;
    uint8_t status, response;
} __attribute__((packed));
_Static_assert(sizeof(struct command_header) == 19 && sizeof(struct command_response) == 12,
               "as in the specification");

/* 5.6.6.2 */
struct tmf_request {
    uint32_t type, subtype;
    uint8_t lun[8];
    uint64_t id;
} __attribute__((packed));
struct an_request {
    uint32_t type;
    uint8_t lun[8];
    uint32_t event_requested;
} __attribute__((packed));
struct an_response {
    uint32_t event_actual;
    uint8_t response;
} __attribute__((packed));

enum { T_TMF = 0, T_AN_QUERY = 1, T_AN_SUBSCRIBE = 2 };
enum tmf_subtype {
    TMF_ABORT_TASK,
    TMF_ABORT_TASK_SET,
    TMF_CLEAR_ACA,
    TMF_CLEAR_TASK_SET,
    TMF_I_T_NEXUS_RESET,
    TMF_LOGICAL_UNIT_RESET,
    TMF_QUERY_TASK,
    TMF_QUERY_TASK_SET,
};
enum response {
    S_OK = 0, /* also FUNCTION COMPLETE */
    S_OVERRUN = 1,
    S_ABORTED = 2,
    S_BAD_TARGET = 3,
    S_RESET = 4,
    S_FAILURE = 9,
    S_FUNCTION_SUCCEEDED = 10,
    S_FUNCTION_REJECTED = 11,
    S_INCORRECT_LUN = 12,
};

struct scsi_request {
    struct scsi_task task;       /* of a command */
    struct virtio_scsi *adapter; /* NULL: gone, only free this */
    struct scsi_request *prev, *next;
    unsigned queue;
    bool stale;       /* taken before a reset */
    bool waits;       /* a task management function that waits for aborted tasks to end */
    uint8_t response; /* of it, or of a task that is aborted */
    uint16_t head;
    uint64_t id;
    uint32_t out_header, in_header; /* bytes before the data */
    unsigned out_count, in_count;
    struct virtq_segment segments[];
};

struct virtio_scsi {
    struct virtio_device virtio;
    struct scsi_bus bus;
    struct scsi_request *requests; /* all in flight */
    unsigned in_flight[VIRTIO_MAX_QUEUES], stale;
    unsigned aborting,
        waiting; /* aborted tasks that have not ended; functions that wait for them */
    uint32_t sense_size, cdb_size;
};

static const struct field scsi_fields[] = {
    VIRTIO_DEVICE_FIELDS(struct virtio_scsi, virtio),
    VIRTQUEUES_FIELDS(struct virtio_scsi, virtio.queues),
    FIELD(struct virtio_scsi, sense_size, FIELD_U32, 1),
    FIELD(struct virtio_scsi, cdb_size, FIELD_U32, 1),
};
static const struct state_desc scsi_state = STATE_DESC("virtio-scsi", 1, scsi_fields);

static void task_done(struct scsi_task *task);

static struct scsi_request *request_of(struct scsi_task *task)
{
    return (struct scsi_request *)task;
}

/* ---- Request records ---------------------------------------------------------------------------
 */

static struct scsi_request *request_new(struct virtio_scsi *adapter, unsigned queue)
{
    const struct virtq_chain *chain = &adapter->virtio.chain;
    unsigned count = chain->out_count + chain->in_count;
    struct scsi_request *r = calloc(1, sizeof(*r) + count * sizeof(r->segments[0]));
    if (!r) {
        virtio_break(&adapter->virtio, "out of memory for a SCSI request");
        return NULL;
    }
    r->adapter = adapter;
    r->task.bus = &adapter->bus;
    r->task.ended = task_done;
    r->queue = queue;
    r->head = chain->head;
    r->out_count = chain->out_count;
    r->in_count = chain->in_count;
    memcpy(r->segments, chain->segments, count * sizeof(r->segments[0]));
    r->next = adapter->requests;
    if (r->next)
        r->next->prev = r;
    adapter->requests = r;
    adapter->in_flight[queue]++;
    return r;
}

static void request_free(struct scsi_request *r)
{
    struct virtio_scsi *adapter = r->adapter;
    if (adapter) {
        if (r->next)
            r->next->prev = r->prev;
        if (r->prev)
            r->prev->next = r->next;
        else
            adapter->requests = r->next;
        adapter->in_flight[r->queue]--;
        adapter->stale -= r->stale;
    }
    scsi_task_release(&r->task);
    free(r);
}

/* ---- The units' way to the guest's memory ------------------------------------------------------
 */

static enum scsi_outcome outcome_of(enum virtq_move moved)
{
    static const enum scsi_outcome outcomes[] = {[VIRTQ_MOVED] = SCSI_COMPLETE,
                                                 [VIRTQ_REFUSED] = SCSI_NOT_ALLOWED,
                                                 [VIRTQ_NOT_MEMORY] = SCSI_NOT_MEMORY};
    return outcomes[moved];
}

static enum scsi_outcome fetch(struct scsi_task *task, uint64_t offset, void *buf, size_t len)
{
    struct scsi_request *r = request_of(task);
    return outcome_of(virtq_read(&r->adapter->virtio, r->segments, r->out_count,
                                 r->out_header + offset, buf, len));
}

static enum scsi_outcome deliver(struct scsi_task *task, uint64_t offset, const void *buf,
                                 size_t len)
{
    struct scsi_request *r = request_of(task);
    return outcome_of(virtq_write(&r->adapter->virtio, r->segments + r->out_count, r->in_count,
                                  r->in_header + offset, buf, len));
}

/* ---- Completion --------------------------------------------------------------------------------
 */

/* Writes the beginning of the device-writable part and gives the chain back; `data` bytes lie
 * behind it. */
static void give_back(struct scsi_request *r, const void *bytes, size_t len, uint64_t data)
{
    struct virtio_device *dev = &r->adapter->virtio;
    struct virtqueue *queue = &dev->queues[r->queue];
    uint64_t written = len + data;
    if (virtio_broken(dev))
        ;
    else if (virtq_write(dev, r->segments + r->out_count, r->in_count, 0, bytes, len) !=
             VIRTQ_MOVED)
        virtio_break(dev, "SCSI request's response is not in memory");
    else if (virtq_push(dev, queue, r->head, written > UINT32_MAX ? UINT32_MAX : (uint32_t)written))
        virtio_notify_queue(dev, queue);
    request_free(r);
}

static void respond(struct scsi_request *r, enum response response)
{
    const struct scsi_task *task = &r->task;
    uint8_t bytes[sizeof(struct command_response) + UINT8_MAX] = {0};
    struct command_response *head = (struct command_response *)bytes;
    uint32_t room = r->in_header - (uint32_t)sizeof(*head);
    uint64_t size = task->in_len ? task->in_len : task->out_len;
    uint64_t residual = size - task->moved;
    head->response = (uint8_t)response;
    if (response == S_OK) {
        head->residual = htole32(residual > UINT32_MAX ? UINT32_MAX : (uint32_t)residual);
        head->status = task->status;
        if (task->status == SCSI_CHECK_CONDITION) {
            uint32_t len = room < SCSI_SENSE ? room : SCSI_SENSE;
            head->sense_len = htole32(len);
            memcpy(bytes + sizeof(*head), task->sense, len);
        }
    }
    give_back(r, bytes, r->in_header, task->in_len ? task->moved : 0);
}

/* Answers the task management functions that have waited for aborted tasks. */
static void answer_functions(struct virtio_scsi *adapter)
{
    struct scsi_request *r = adapter->requests;
    while (r && adapter->waiting) {
        struct scsi_request *next = r->next;
        if (r->waits && !r->stale) {
            adapter->waiting--;
            give_back(r, &r->response, 1, 0);
        }
        r = next;
    }
}

static bool may_take(const struct virtio_scsi *adapter, unsigned queue)
{
    return !adapter->stale && adapter->in_flight[queue] < adapter->virtio.queues[queue].size;
}

/* The task has ended: at once, or in the I/O thread. */
static void task_done(struct scsi_task *task)
{
    static const enum response responses[] = {
        [SCSI_COMPLETE] = S_OK, [SCSI_OVERRUN] = S_OVERRUN, [SCSI_NOT_ALLOWED] = S_FAILURE};
    struct scsi_request *r = request_of(task);
    struct virtio_scsi *adapter = r->adapter;
    unsigned queue = r->queue;
    if (!adapter) {
        request_free(r);
        return;
    }
    bool was_full = !may_take(adapter, queue), was_stale = adapter->stale != 0;
    if (r->stale || virtio_broken(&adapter->virtio)) {
        adapter->aborting -= !r->stale && task->aborted;
        request_free(r);
    } else if (task->aborted) {
        task->moved = 0;
        adapter->aborting--;
        respond(r, r->response);
    } else if (task->outcome == SCSI_NOT_MEMORY) {
        virtio_break(&adapter->virtio, "data of a SCSI request are not in memory");
        request_free(r);
    } else {
        respond(r, responses[task->outcome]);
    }
    if (!adapter->aborting && adapter->waiting)
        answer_functions(adapter);
    for (unsigned i = 0; was_stale && !adapter->stale && i < adapter->virtio.queue_count; i++)
        virtio_kick(&adapter->virtio, i);
    if (was_full && may_take(adapter, queue)) /* chains may have been left waiting */
        virtio_kick(&adapter->virtio, queue);
}

/* ---- Addresses ---------------------------------------------------------------------------------
 */

/* 5.6.6.1: 1, target, single-level LUN structure, zeroes. False: nothing has such an address. */
static bool decode_lun(const uint8_t lun[8], unsigned *target, unsigned *number)
{
    *target = lun[1];
    *number = be16(lun + 2) & 0x3fff;
    /* SAM-5, 4.7.5: peripheral device (00b) or flat space (01b) addressing */
    return lun[0] == 1 && lun[2] >> 6 <= 1 && (lun[2] >> 6 || !lun[2]) && !be32(lun + 4);
}

/* ---- Commands ----------------------------------------------------------------------------------
 */

static void take_command(struct virtio_scsi *adapter, unsigned queue)
{
    struct virtio_device *dev = &adapter->virtio;
    const struct virtq_chain *chain = &dev->chain;
    uint8_t bytes[sizeof(struct command_header) + CDB_MAX] = {0};
    const struct command_header *header = (const struct command_header *)bytes;
    uint32_t out_header = (uint32_t)sizeof(*header) + adapter->cdb_size;
    uint32_t in_header = (uint32_t)sizeof(struct command_response) + adapter->sense_size;
    unsigned lun;
    if (adapter->cdb_size > CDB_MAX || adapter->sense_size > UINT8_MAX) {
        virtio_break(dev, "sense_size above 255 or cdb_size above 256");
        return;
    }
    if (chain->out_len < out_header || chain->in_len < in_header) {
        virtio_break(dev, "SCSI request without header or response");
        return;
    }
    struct scsi_request *r = request_new(adapter, queue);
    if (!r)
        return;
    struct scsi_task *task = &r->task;
    r->in_header = in_header;
    enum scsi_outcome outcome = fetch(task, 0, bytes, out_header);
    r->out_header = out_header;
    if (outcome != SCSI_COMPLETE) {
        task->outcome = outcome;
        task_done(task);
        return;
    }
    r->id = header->id;
    task->out_len = chain->out_len - out_header;
    task->in_len = chain->in_len - in_header;
    uint32_t cdb = adapter->cdb_size < SCSI_CDB ? adapter->cdb_size : SCSI_CDB;
    memcpy(task->cdb, bytes + sizeof(*header), cdb);
    if (!decode_lun(header->lun, &task->target, &lun) ||
        !scsi_target_exists(&adapter->bus, task->target)) {
        respond(r, S_BAD_TARGET);
    } else if (task->out_len && task->in_len) { /* VIRTIO_SCSI_F_INOUT is not offered */
        respond(r, S_FAILURE);
    } else {
        task->unit = scsi_find(&adapter->bus, task->target, lun);
        scsi_start(task);
    }
}

/* ---- Task management ---------------------------------------------------------------------------
 */

/* What a task management function is for. */
struct scope {
    unsigned target;
    const struct scsi_unit *unit; /* NULL: all of the target's */
    bool one;                     /* the task with this id only */
    uint64_t id;
};

static bool concerns(const struct scope *scope, const struct scsi_request *r)
{
    const struct scsi_unit *unit = r->task.unit;
    return !r->stale && unit && unit->target == scope->target &&
           (!scope->unit || scope->unit == unit) && (!scope->one || scope->id == r->id);
}

static bool any_task(const struct virtio_scsi *adapter, const struct scope *scope)
{
    const struct scsi_request *r = adapter->requests;
    while (r && !(concerns(scope, r) && !r->task.aborted))
        r = r->next;
    return r != NULL;
}

static void abort_tasks(struct virtio_scsi *adapter, const struct scope *scope,
                        enum response response)
{
    for (struct scsi_request *r = adapter->requests; r; r = r->next)
        if (concerns(scope, r) && !r->task.aborted) {
            r->task.aborted = true;
            r->response = (uint8_t)response;
            adapter->aborting++;
        }
}

static void reset_units(struct virtio_scsi *adapter, const struct scope *scope, enum scsi_asc why)
{
    for (struct scsi_unit *unit = adapter->bus.units; unit; unit = unit->next)
        if (unit->target == scope->target && (!scope->unit || scope->unit == unit))
            scsi_unit_reset(unit, why);
}

static enum response manage(struct virtio_scsi *adapter, const struct tmf_request *tmf)
{
    struct scope scope = {.id = tmf->id};
    unsigned lun;
    uint32_t what = le32toh(tmf->subtype);
    if (!decode_lun(tmf->lun, &scope.target, &lun) ||
        !scsi_target_exists(&adapter->bus, scope.target))
        return S_BAD_TARGET;
    if (what != TMF_I_T_NEXUS_RESET && !(scope.unit = scsi_find(&adapter->bus, scope.target, lun)))
        return S_INCORRECT_LUN;
    scope.one = what == TMF_ABORT_TASK || what == TMF_QUERY_TASK;
    switch (what) {
    case TMF_ABORT_TASK:
    case TMF_ABORT_TASK_SET:
    case TMF_CLEAR_TASK_SET: /* there is one initiator */
        abort_tasks(adapter, &scope, S_ABORTED);
        return S_OK;
    case TMF_I_T_NEXUS_RESET:
    case TMF_LOGICAL_UNIT_RESET:
        abort_tasks(adapter, &scope, S_RESET);
        reset_units(adapter, &scope,
                    what == TMF_LOGICAL_UNIT_RESET ? ASC_DEVICE_RESET : ASC_NEXUS_LOSS);
        return S_OK;
    case TMF_QUERY_TASK:
    case TMF_QUERY_TASK_SET:
        return any_task(adapter, &scope) ? S_FUNCTION_SUCCEEDED : S_OK;
    default: /* CLEAR ACA among them: no unit has auto contingent allegiance */
        return S_FUNCTION_REJECTED;
    }
}

/* 5.6.6.2.2: no unit has notifications. */
static void answer_notification(struct scsi_request *r, const struct an_request *an)
{
    struct an_response answer = {0};
    unsigned target, lun;
    if (!decode_lun(an->lun, &target, &lun) || !scsi_target_exists(&r->adapter->bus, target))
        answer.response = S_BAD_TARGET;
    else if (!scsi_find(&r->adapter->bus, target, lun))
        answer.response = S_INCORRECT_LUN;
    give_back(r, &answer, sizeof(answer), 0);
}

static void start_control(struct scsi_request *r, const uint8_t *bytes, uint64_t out_len,
                          uint64_t in_len)
{
    struct virtio_scsi *adapter = r->adapter;
    uint32_t type;
    memcpy(&type, bytes, sizeof(type));
    type = le32toh(type);
    if (type == T_TMF && out_len >= sizeof(struct tmf_request) && in_len >= 1) {
        r->response = (uint8_t)manage(adapter, (const struct tmf_request *)bytes);
        r->waits = adapter->aborting != 0;
        if (r->waits)
            adapter->waiting++;
        else
            give_back(r, &r->response, 1, 0);
    } else if ((type == T_AN_QUERY || type == T_AN_SUBSCRIBE) &&
               out_len >= sizeof(struct an_request) && in_len >= sizeof(struct an_response)) {
        answer_notification(r, (const struct an_request *)bytes);
    } else {
        virtio_break(&adapter->virtio, "SCSI control request of an unknown type or size");
        request_free(r);
    }
}

static void take_control(struct virtio_scsi *adapter, unsigned queue)
{
    const struct virtq_chain *chain = &adapter->virtio.chain;
    uint64_t out_len = chain->out_len, in_len = chain->in_len;
    uint8_t bytes[sizeof(struct tmf_request)] = {0};
    size_t len = out_len < sizeof(bytes) ? (size_t)out_len : sizeof(bytes);
    if (out_len < sizeof(uint32_t)) {
        virtio_break(&adapter->virtio, "SCSI control request without a type");
        return;
    }
    struct scsi_request *r = request_new(adapter, queue);
    if (!r)
        return;
    if (fetch(&r->task, 0, bytes, len) != SCSI_COMPLETE) {
        virtio_break(&adapter->virtio, "SCSI control request is not in memory");
        request_free(r);
    } else {
        start_control(r, bytes, out_len, in_len);
    }
}

/* ---- The device --------------------------------------------------------------------------------
 */

static void scsi_serve(struct virtio_device *dev, unsigned index)
{
    struct virtio_scsi *adapter = (struct virtio_scsi *)dev;
    struct virtqueue *queue = &dev->queues[index];
    if (index == EVENT_QUEUE)
        return;
    for (unsigned taken = 0; may_take(adapter, index); taken++) {
        if (taken == queue->size) { /* others want the I/O thread too */
            virtio_kick(dev, index);
            break;
        }
        if (virtq_pop(dev, queue, &dev->chain) != VIRTQ_CHAIN)
            break;
        if (index == CONTROL_QUEUE)
            take_control(adapter, index);
        else
            take_command(adapter, index);
    }
}

static void fill_config(const struct virtio_scsi *adapter, struct scsi_config *c)
{
    *c = (struct scsi_config){
        .num_queues = htole32(adapter->virtio.queue_count - REQUEST_QUEUES),
        .seg_max = htole32(SCSI_QUEUE - 2), /* header and response take two */
        .max_sectors = htole32(0xffff),
        .cmd_per_lun = htole32(128),
        .event_info_size = htole32(16),
        .sense_size = htole32(adapter->sense_size),
        .cdb_size = htole32(adapter->cdb_size),
        .max_target = htole16(SCSI_TARGETS - 1),
        .max_lun = htole32(SCSI_LUNS - 1),
    };
}

static uint8_t scsi_config_read(struct virtio_device *dev, unsigned offset)
{
    struct scsi_config config;
    fill_config((const struct virtio_scsi *)dev, &config);
    return ((const uint8_t *)&config)[offset];
}

/* sense_size and cdb_size are the driver's. */
static void scsi_config_write(struct virtio_device *dev, unsigned offset, uint8_t value)
{
    struct virtio_scsi *adapter = (struct virtio_scsi *)dev;
    struct scsi_config config;
    if (offset < offsetof(struct scsi_config, sense_size) ||
        offset >= offsetof(struct scsi_config, max_channel))
        return;
    fill_config(adapter, &config);
    ((uint8_t *)&config)[offset] = value;
    adapter->sense_size = le32toh(config.sense_size);
    adapter->cdb_size = le32toh(config.cdb_size);
}

static void scsi_reset(struct virtio_device *dev)
{
    struct virtio_scsi *adapter = (struct virtio_scsi *)dev;
    struct scsi_request *r = adapter->requests;
    while (r) {
        struct scsi_request *next = r->next;
        if (r->queue == CONTROL_QUEUE) { /* nothing of it is at an image */
            request_free(r);
        } else {
            adapter->stale += !r->stale;
            r->stale = r->task.aborted = true;
        }
        r = next;
    }
    adapter->aborting = adapter->waiting = 0;
    adapter->sense_size = SENSE_DEFAULT;
    adapter->cdb_size = CDB_DEFAULT;
    for (struct scsi_unit *unit = adapter->bus.units; unit; unit = unit->next)
        scsi_unit_reset(unit, ASC_POWER_ON);
}

/* The unit is being destroyed, and the adapter soon: what is at its image is forgotten. */
static void unit_gone(struct scsi_bus *bus, struct scsi_unit *unit)
{
    struct virtio_scsi *adapter =
        (struct virtio_scsi *)((char *)bus - offsetof(struct virtio_scsi, bus));
    for (struct scsi_request *r = adapter->requests; r; r = r->next)
        if (r->task.unit == unit) {
            adapter->aborting -= r->task.aborted && !r->stale;
            adapter->stale += !r->stale;
            r->stale = r->task.aborted = true;
            r->task.unit = NULL;
        }
}

static void scsi_destroy(struct virtio_device *dev)
{
    struct virtio_scsi *adapter = (struct virtio_scsi *)dev;
    struct scsi_request *r = adapter->requests;
    while (r) {
        struct scsi_request *next = r->next;
        if (r->queue == CONTROL_QUEUE)
            request_free(r);
        else
            r->adapter = NULL; /* freed when the image is done with it */
        r = next;
    }
    free(adapter);
}

static const struct virtio_class scsi_class = {
    .name = "virtio-scsi",
    .type = 8,
    .transitional = 0x1004,
    .class_code = 0x010000,
    .queue_count = REQUEST_QUEUES + 1,
    .queue_size = SCSI_QUEUE,
    .config_size = sizeof(struct scsi_config),
    .state = &scsi_state,
    .serve = scsi_serve,
    .reset = scsi_reset,
    .destroy = scsi_destroy,
    .config_read = scsi_config_read,
    .config_write = scsi_config_write,
};

struct scsi_bus *virtio_scsi_bus(struct pci_device *dev)
{
    return &((struct virtio_scsi *)dev)->bus;
}

struct pci_device *virtio_scsi_create(struct pci_bus *bus, int devfn, unsigned request_queues,
                                      struct error *err)
{
    _Static_assert(REQUEST_QUEUES + VIRTIO_SCSI_MAX_REQUEST_QUEUES == VIRTIO_MAX_QUEUES, "all");
    struct virtio_scsi *adapter = calloc(1, sizeof(*adapter));
    if (!adapter) {
        error_set(err, "virtio-scsi: out of memory");
        return NULL;
    }
    adapter->bus.fetch = fetch;
    adapter->bus.deliver = deliver;
    adapter->bus.unit_gone = unit_gone;
    adapter->sense_size = SENSE_DEFAULT;
    adapter->cdb_size = CDB_DEFAULT;
    adapter->virtio.queue_count = REQUEST_QUEUES + request_queues;
    if (!virtio_device_add(&adapter->virtio, &scsi_class, 0, bus, devfn, err)) {
        free(adapter);
        return NULL;
    }
    return &adapter->virtio.pci;
}
