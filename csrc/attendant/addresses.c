/*
 * The addresses that an answer gives to a name: those of the name that was asked for, and of those
 * that it is an alias of, one after the other, as far as the answer itself says so (RFC 1034, 3.6.2).
 * What else is in an answer says nothing about the question.
 *
 * Here, and nowhere else, compression pointers are followed. Each leads backwards, and a name has a
 * bounded number of them and of bytes; so does an answer of records that are looked at, and a chain
 * of aliases.
 */
#include "parts.h"

#define TYPE_CNAME 5
#define MAX_RECORDS 1024 /* of an answer that are looked at */
#define MAX_JUMPS 32     /* of pointers in a name */
#define MAX_BYTES 255    /* of a name */

struct record {
    uint32_t owner; /* where its name begins */
    uint32_t type, class, life;
    uint32_t data, length;
};

/* Where the reading of a name has come to. */
struct reader {
    uint32_t at, jumps, used;
};

/* The next label of a name, of which the last one is empty; NULL: the name is broken. */
static const uint8_t *next_label(const uint8_t *bytes, uint32_t size, struct reader *reader,
                                 uint32_t *length)
{
    while (reader->at < size && bytes[reader->at] >= 0xc0) {
        if (reader->at + 2 > size || ++reader->jumps > MAX_JUMPS)
            return NULL;
        uint32_t to = get16(bytes + reader->at) & 0x3fff;
        if (to < HEADER || to >= reader->at)
            return NULL;
        reader->at = to;
    }
    if (reader->at >= size || bytes[reader->at] > 63)
        return NULL;
    *length = bytes[reader->at];
    reader->used += *length + 1;
    if (reader->used > MAX_BYTES || reader->at + 1 + *length > size)
        return NULL;
    const uint8_t *label = bytes + reader->at + 1;
    reader->at += 1 + *length;
    return label;
}

static uint8_t small(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

static bool same_name(const uint8_t *bytes, uint32_t size, uint32_t left, uint32_t right)
{
    struct reader readers[2] = {{.at = left}, {.at = right}};

    for (;;) {
        uint32_t length, other;
        const uint8_t *one = next_label(bytes, size, &readers[0], &length);
        const uint8_t *two = next_label(bytes, size, &readers[1], &other);
        if (!one || !two || length != other)
            return false;
        if (!length)
            return true;
        for (uint32_t i = 0; i < length; i++)
            if (small(one[i]) != small(two[i]))
                return false;
    }
}

/* The record at *at, which moves beyond it. */
static bool read_record(const uint8_t *bytes, uint32_t size, uint32_t *at, struct record *record)
{
    record->owner = *at;
    uint32_t end = message_skip_name(bytes, size, *at);
    if (!end || end + 10 > size)
        return false;
    record->type = get16(bytes + end);
    record->class = get16(bytes + end + 2);
    record->life = get16(bytes + end + 4) << 16 | get16(bytes + end + 6);
    record->length = get16(bytes + end + 8);
    record->data = end + 10;
    *at = end + 10 + record->length;
    return *at <= size;
}

/* Where the name begins that this one is an alias of; 0: it is none. */
static uint32_t find_alias(const struct addresses *addresses, uint32_t name)
{
    uint32_t at = addresses->at;
    struct record record;

    for (uint32_t i = 0; i < addresses->left; i++) {
        if (!read_record(addresses->bytes, addresses->size, &at, &record))
            return 0;
        if (record.type == TYPE_CNAME && record.class == CLASS_IN &&
            message_skip_name(addresses->bytes, addresses->size, record.data) == at &&
            same_name(addresses->bytes, addresses->size, record.owner, name))
            return record.data;
    }
    return 0;
}

void addresses_begin(struct addresses *addresses, const uint8_t *bytes, uint32_t size,
                     const struct question *question)
{
    addresses->bytes = bytes;
    addresses->size = size;
    addresses->at = question->end;
    addresses->left = addresses->chain_count = 0;
    if (size < question->end || get16(bytes + 4) != 1 || (bytes[3] & 15) != RCODE_NONE)
        return;
    addresses->left = get16(bytes + 6) < MAX_RECORDS ? get16(bytes + 6) : MAX_RECORDS;
    for (uint32_t name = HEADER; name && addresses->chain_count < MAX_CHAIN;
         name = find_alias(addresses, name))
        addresses->chain[addresses->chain_count++] = name;
}

bool addresses_next(struct addresses *addresses, struct address *address)
{
    struct record record;

    for (; addresses->left; addresses->left--) {
        if (!read_record(addresses->bytes, addresses->size, &addresses->at, &record)) {
            addresses->left = 0;
            return false;
        }
        address->size = record.type == TYPE_A ? 4 : record.type == TYPE_AAAA ? 16 : 0;
        if (!address->size || record.length != address->size || record.class != CLASS_IN)
            continue;
        for (uint32_t i = 0; i < addresses->chain_count; i++)
            if (same_name(addresses->bytes, addresses->size, record.owner, addresses->chain[i])) {
                memcpy(address->bytes, addresses->bytes + record.data, address->size);
                /* RFC 2181, 8: with the highest bit set it is 0. */
                address->life = record.life >> 31 ? 0 : record.life;
                addresses->left--;
                return true;
            }
    }
    return false;
}
