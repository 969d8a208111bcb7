/*
 * Checking a plan before anything of it is done. It comes from our own caller, but a length that
 * was added wrongly there must end here and not as a wild pointer in a privileged process (the
 * class of CVE-2021-43784).
 */
#include "init.h"

#include <errno.h>

static const char *op_end(const struct plan_op *op)
{
    return (const char *)op + op->size;
}

/* The strings and the blob lie inside the operation, and each string ends in it. */
static long check_op(const struct plan_op *op, uint64_t room)
{
    if (room < sizeof(*op) || op->size < sizeof(*op) || op->size > room || op->size % 8)
        return -EBADMSG;
    const char *at = (const char *)(op + 1);
    const char *end = op_end(op);
    for (uint32_t i = 0; i < op->string_count; i++) {
        while (at < end && *at)
            at++;
        if (at == end)
            return -EBADMSG;
        at++;
    }
    return op->blob_size <= (uint64_t)(end - at) ? 0 : -EBADMSG;
}

long plan_check(const void *bytes, uint64_t size, struct plan *plan)
{
    const struct plan_header *header = bytes;

    if (size < sizeof(*header) || size > PYRTC_PLAN_MAX_SIZE || header->magic != PYRTC_PLAN_MAGIC ||
        header->size != size || header->slot_count > PYRTC_PLAN_MAX_SLOTS)
        return -EBADMSG;
    uint64_t offset = sizeof(*header) + (header->slot_count * sizeof(int32_t) + 7) / 8 * 8;
    if (offset > size)
        return -EBADMSG;
    plan->header = header;
    plan->slots = (const int32_t *)(header + 1);
    for (uint32_t i = 0; i < header->op_count; i++) {
        const struct plan_op *op = (const void *)((const char *)bytes + offset);
        long result = check_op(op, size - offset);
        if (result < 0)
            return result;
        if (op->slot >= 0 && (uint32_t)op->slot >= header->slot_count)
            return -EBADMSG;
        offset += op->size;
    }
    return offset == size ? 0 : -EBADMSG;
}

const struct plan_op *plan_first(const struct plan *plan)
{
    uint64_t table = (plan->header->slot_count * sizeof(int32_t) + 7) / 8 * 8;
    return (const void *)((const char *)plan->slots + table);
}

const struct plan_op *plan_next(const struct plan_op *op)
{
    return (const void *)op_end(op);
}

/* The index-th string, or "" where the operation has fewer. */
const char *plan_string(const struct plan_op *op, uint32_t index)
{
    const char *at = (const char *)(op + 1);

    if (index >= op->string_count)
        return "";
    while (index--)
        at += text_length(at) + 1;
    return at;
}

/* The blob as a string: "" where there is none, or where it does not end. */
const char *plan_text(const struct plan_op *op)
{
    const char *blob = plan_blob(op);

    return op->blob_size && !blob[op->blob_size - 1] ? blob : "";
}

const void *plan_blob(const struct plan_op *op)
{
    const char *at = (const char *)(op + 1);

    for (uint32_t i = 0; i < op->string_count; i++)
        at += text_length(at) + 1;
    return at;
}
