/*
 * Feed arbitrary bytes to everything that reads headers: blocks, PAX records, sparse maps, ACL texts. No system calls
 * are made; what is checked is that nothing is read or written out of bounds and that results keep their promises.
 */
#include "error.h"
#include "tar_header.h"

#include <assert.h>
#include <string.h>

static void feed_pax(struct tar_extensions *extensions, const uint8_t *data, size_t size)
{
    struct pyrtc_error error;

    tar_extensions_clear(extensions);
    if (tar_text_reserve(&extensions->pax, size, &error) < 0)
        return;
    memcpy(extensions->pax.data, data, size);
    extensions->pax.data[size] = 0;
    extensions->pax.size = size;
    if (tar_parse_pax(extensions, &error) < 0)
        tar_extensions_clear_pax(extensions);
    for (size_t i = 0; i < extensions->attribute_count; i++)
        assert(strlen(extensions->attributes[i].name) > 0);
}

static void feed_block(const uint8_t *block, struct tar_extensions *extensions)
{
    uint8_t sealed[TAR_BLOCK_SIZE];
    struct tar_header header;
    struct tar_entry entry;
    struct pyrtc_error error;
    uint32_t sum = 0;

    memcpy(sealed, block, sizeof(sealed));
    memset(sealed + 148, ' ', 8);
    for (int i = 0; i < TAR_BLOCK_SIZE; i++)
        sum += sealed[i];
    for (int i = 5; i >= 0; i--, sum >>= 3)
        sealed[148 + i] = (uint8_t)('0' + (sum & 7));
    if (tar_parse_header(sealed, &header, &error) < 0 ||
        tar_merge(&header, extensions, &entry, &error) < 0)
        return;
    assert(entry.size <= INT64_MAX && entry.mode <= 07777 && entry.uid != UINT32_MAX);
    assert(strlen(header.name) < sizeof(header.name) && strlen(header.link) < sizeof(header.link));
}

static void feed_maps(const uint8_t *data, size_t size)
{
    struct tar_map map = {0};
    struct tar_map_reader reader = {0};
    struct pyrtc_error error;
    uint64_t real_size = 0;

    for (size_t at = 0; at + TAR_BLOCK_SIZE <= size; at += TAR_BLOCK_SIZE) {
        if (tar_map_read_block(&reader, &map, data + at, &error) != 0)
            break;
    }
    map.count = 0;
    if (size >= TAR_BLOCK_SIZE) {
        int more = tar_map_add_header(&map, data, &real_size, &error);
        for (size_t at = TAR_BLOCK_SIZE; more > 0 && at + TAR_BLOCK_SIZE <= size;
             at += TAR_BLOCK_SIZE)
            more = tar_map_add_extension(&map, data + at, &error);
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < map.count; i++)
        sum += map.extents[i].size;
    if (tar_map_check(&map, sum, real_size, &error) == 0)
        assert(sum <= real_size);
    free(map.extents);
}

static void feed_acl(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size);
    uint8_t *value = NULL;
    size_t value_size;
    struct pyrtc_error error;

    if (text && tar_acl_from_text(text, &value, &value_size, &error) > 0)
        assert(value_size >= 4 && value_size % 8 == 4);
    free(value);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tar_extensions extensions = {0};

    feed_acl(data, size);
    feed_maps(data, size);
    feed_pax(&extensions, data, size);
    if (size >= TAR_BLOCK_SIZE) {
        feed_block(data, &extensions);
        feed_pax(&extensions, data + TAR_BLOCK_SIZE, size - TAR_BLOCK_SIZE);
        feed_block(data, &extensions);
    }
    tar_extensions_free(&extensions);
    return 0;
}
