/*
 * Check arbitrary plans as pyrtc-init does, then read every string and blob of those that pass. The magic and the size
 * are made right when the first bit of the input says so, or few inputs would get past them.
 */
#include "../../csrc/init/init.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static volatile uint64_t sink;

static void read_all(const void *bytes, size_t size)
{
    const unsigned char *at = bytes;

    for (size_t i = 0; i < size; i++)
        sink += at[i];
}

static void walk(const struct plan *plan)
{
    const struct plan_op *op = plan_first(plan);

    for (uint32_t i = 0; i < plan->header->op_count; i++, op = plan_next(op)) {
        assert(op->slot < (int64_t)plan->header->slot_count);
        for (uint32_t index = 0; index <= op->string_count && index < 64; index++) {
            const char *text = plan_string(op, index);
            read_all(text, text_length(text) + 1);
        }
        read_all(plan_blob(op), op->blob_size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plan plan;

    if (size < 1)
        return 0;
    size_t length = size - 1;
    uint64_t *bytes = malloc(length ? length : 1); /* malloc aligns as the mapping of a plan does */
    assert(bytes);
    memcpy(bytes, data + 1, length);
    if (data[0] & 1 && length >= sizeof(struct plan_header)) {
        struct plan_header *header = (struct plan_header *)bytes;
        header->magic = PYRTC_PLAN_MAGIC;
        header->size = (uint32_t)length;
    }
    if (plan_check(bytes, length, &plan) >= 0)
        walk(&plan);
    free(bytes);
    return 0;
}
