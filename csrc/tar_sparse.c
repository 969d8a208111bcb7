#include "tar_header.h"

#include "error.h"

#include <errno.h>
#include <string.h>

#define STEP "read the map of a sparse file"

int tar_map_add(struct tar_map *map, uint64_t offset, uint64_t size, struct pyrtc_error *error)
{
    if (map->count == TAR_MAX_EXTENTS)
        return pyrtc_fail(error, 0, STEP, "more than %d extents", TAR_MAX_EXTENTS);
    if (map->count == map->capacity) {
        size_t capacity = map->capacity ? map->capacity * 2 : 16;
        void *grown = realloc(map->extents, capacity * sizeof(*map->extents));
        if (!grown)
            return pyrtc_fail(error, ENOMEM, STEP, "%zu extents", capacity);
        map->extents = grown;
        map->capacity = capacity;
    }
    map->extents[map->count++] = (struct tar_extent){.offset = offset, .size = size};
    return 0;
}

/* PAX 0.1: "offset,size,offset,size,..." */
int tar_map_add_text(struct tar_map *map, const char *text, struct pyrtc_error *error)
{
    uint64_t pair[2];
    int have = 0;

    while (*text) {
        uint64_t number = 0;
        const char *start = text;
        for (; *text >= '0' && *text <= '9'; text++) {
            if (number > (INT64_MAX - 9) / 10)
                return pyrtc_fail(error, 0, STEP, "a number is too large");
            number = number * 10 + (uint64_t)(*text - '0');
        }
        if (text == start || (*text && (*text != ',' || !text[1])))
            return pyrtc_fail(error, 0, STEP, "it is not a list of numbers");
        if (*text)
            text++;
        pair[have++] = number;
        if (have == 2) {
            have = 0;
            if (tar_map_add(map, pair[0], pair[1], error) < 0)
                return -1;
        }
    }
    if (have)
        return pyrtc_fail(error, 0, STEP, "an offset without its size");
    return 0;
}

/* Old GNU: pairs of twelve-byte numbers up to the first empty one; returns the flag behind them:
 * is there more. */
static int add_pairs(struct tar_map *map, const uint8_t *pairs, int count, uint8_t more,
                     struct pyrtc_error *error)
{
    for (int i = 0; i < count && pairs[i * 24] != 0; i++) {
        int64_t offset, size;
        if (tar_parse_number(pairs + i * 24, 12, &offset) < 0 ||
            tar_parse_number(pairs + i * 24 + 12, 12, &size) < 0 || offset < 0 || size < 0)
            return pyrtc_fail(error, 0, STEP, "an extent that is not a number");
        if (tar_map_add(map, (uint64_t)offset, (uint64_t)size, error) < 0)
            return -1;
    }
    return more != 0;
}

/* The part of an old GNU map that lies in the header. Returns 1 when an extension block follows,
 * else 0. */
int tar_map_add_header(struct tar_map *map, const uint8_t *block, uint64_t *real_size,
                       struct pyrtc_error *error)
{
    int64_t size;

    if (tar_parse_number(block + 483, 12, &size) < 0 || size < 0)
        return pyrtc_fail(error, 0, STEP, "the size of the file is not a number");
    *real_size = (uint64_t)size;
    return add_pairs(map, block + 386, 4, block[482], error);
}

/* Returns 1 when one more extension block follows, else 0. */
int tar_map_add_extension(struct tar_map *map, const uint8_t *block, struct pyrtc_error *error)
{
    return add_pairs(map, block, 21, block[504], error);
}

/* PAX 1.0: decimal numbers, one a line, in front of the data: how many extents, then their offsets
 * and sizes. Feed one block; returns 1 when the map is complete (the rest of the block is
 * padding), 0 when it goes on. */
int tar_map_read_block(struct tar_map_reader *reader, struct tar_map *map, const uint8_t *block,
                       struct pyrtc_error *error)
{
    for (int i = 0; i < TAR_BLOCK_SIZE; i++) {
        if (block[i] >= '0' && block[i] <= '9') {
            if (reader->number > (INT64_MAX - 9) / 10 || ++reader->digits > 20)
                return pyrtc_fail(error, 0, STEP, "a number is too large");
            reader->number = reader->number * 10 + (uint64_t)(block[i] - '0');
            continue;
        }
        if (block[i] != '\n' || !reader->digits)
            return pyrtc_fail(error, 0, STEP, "it is not a list of numbers");
        uint64_t number = reader->number;
        reader->number = reader->digits = 0;
        if (!reader->started) {
            if (number > TAR_MAX_EXTENTS)
                return pyrtc_fail(error, 0, STEP, "more than %d extents", TAR_MAX_EXTENTS);
            reader->started = true;
            reader->wanted = number * 2;
        } else if (reader->wanted-- % 2 == 0) {
            reader->offset = number;
        } else if (tar_map_add(map, reader->offset, number, error) < 0) {
            return -1;
        }
        if (reader->wanted == 0)
            return 1;
    }
    return 0;
}

/* The extents ascend, do not overlap, end within the file, and account for every byte that is
 * stored. */
int tar_map_check(const struct tar_map *map, uint64_t data_size, uint64_t real_size,
                  struct pyrtc_error *error)
{
    uint64_t end = 0, sum = 0;

    for (size_t i = 0; i < map->count; i++) {
        const struct tar_extent *extent = &map->extents[i];
        if (extent->offset < end)
            return pyrtc_fail(error, 0, STEP, "extents overlap or run backwards");
        if (extent->size > real_size || extent->offset > real_size - extent->size)
            return pyrtc_fail(error, 0, STEP, "an extent ends beyond the file");
        end = extent->offset + extent->size;
        sum += extent->size;
    }
    if (sum != data_size)
        return pyrtc_fail(error, 0, STEP, "it accounts for %llu bytes, but %llu are stored",
                          (unsigned long long)sum, (unsigned long long)data_size);
    return 0;
}
