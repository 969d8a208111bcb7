/*
 * Messages of DNS (RFC 1035, EDNS: RFC 6891), as far as an attendant reads and writes them.
 *
 * What comes from a container, or from whoever answers in place of a server, is hostile. A name in a
 * question has no compression pointers, and those in records are stepped over here, never followed
 * (addresses.c does); so nothing is read twice, and an answer is never larger than the asker said that it can take.
 */
#include "parts.h"

#define FLAG_ANSWER 0x80 /* byte 2 */
#define FLAG_AUTHORITY 0x04
#define FLAG_TRUNCATED 0x02
#define FLAG_RECURSION 0x01
#define FLAG_AVAILABLE 0x80 /* byte 3 */
#define OPCODE 0x78
#define LIFE 5 /* seconds that an answer may be kept: less than an address rests unused */
#define PLAIN_ROOM 512
#define EDNS_ROOM 4096 /* over UDP, whatever the asker says; what we take ourselves */

uint32_t message_skip_name(const uint8_t *bytes, uint32_t size, uint32_t at)
{
    while (at < size) {
        uint8_t length = bytes[at];
        if (length == 0)
            return at + 1;
        if (length >= 0xc0)
            return at + 2 <= size ? at + 2 : 0;
        if (length > 63)
            return 0;
        at += 1U + length;
    }
    return 0;
}

static bool read_name(const uint8_t *bytes, uint32_t size, struct question *question)
{
    uint32_t at = HEADER, used = 0;

    question->plain = true;
    for (;;) {
        if (at >= size)
            return false;
        uint32_t length = bytes[at++];
        if (length == 0)
            break;
        if (length > 63 || at + length > size || used + length + 1 >= MAX_NAME)
            return false;
        if (used)
            question->name[used++] = '.';
        for (uint32_t i = 0; i < length; i++) {
            uint8_t byte = bytes[at + i];
            if (byte >= 'A' && byte <= 'Z')
                byte = (uint8_t)(byte - 'A' + 'a');
            if (!(byte >= 'a' && byte <= 'z') && !(byte >= '0' && byte <= '9') && byte != '-' &&
                byte != '_')
                question->plain = false;
            question->name[used++] = (char)byte;
        }
        at += length;
    }
    question->name[used] = '\0';
    if (at + 4 > size)
        return false;
    question->type = (uint16_t)get16(bytes + at);
    question->class = (uint16_t)get16(bytes + at + 2);
    question->end = at + 4;
    return true;
}

/* The OPT record among what follows the question. */
static bool read_extension(const uint8_t *bytes, uint32_t size, struct question *question)
{
    uint32_t at = question->end;
    uint32_t before = get16(bytes + 6) + get16(bytes + 8), count = before + get16(bytes + 10);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t name = at;
        at = message_skip_name(bytes, size, at);
        if (!at || at + 10 > size)
            return false;
        uint32_t length = get16(bytes + at + 8);
        if (i >= before && get16(bytes + at) == TYPE_OPT) {
            if (question->extended || bytes[name])
                return false;
            question->extended = true;
            question->room = get16(bytes + at + 2);
            question->version = bytes[at + 5];
            question->wants_dnssec = bytes[at + 6] & 0x80;
        }
        at += 10 + length;
        if (at > size)
            return false;
    }
    return true;
}

int message_read(const uint8_t *bytes, uint32_t size, bool stream, struct question *question)
{
    question->extended = question->wants_dnssec = false;
    question->version = 0;
    question->end = HEADER;
    question->room = PLAIN_ROOM;
    /* Nobody answers an answer, or two servers would never end. */
    if (size < HEADER || bytes[2] & FLAG_ANSWER)
        return -1;
    if (bytes[2] & OPCODE)
        return RCODE_UNKNOWN;
    if (get16(bytes + 4) != 1 || !read_name(bytes, size, question)) {
        question->end = HEADER;
        return RCODE_FORMAT;
    }
    if (!read_extension(bytes, size, question)) {
        question->extended = false;
        question->room = PLAIN_ROOM;
        return RCODE_FORMAT;
    }
    if (question->room < PLAIN_ROOM)
        question->room = PLAIN_ROOM;
    if (question->room > EDNS_ROOM)
        question->room = EDNS_ROOM;
    if (stream)
        question->room = MAX_MESSAGE;
    return question->version ? RCODE_VERSION : RCODE_NONE;
}

/* ---- answers */

static uint32_t begin(const uint8_t *query, const struct question *question, enum rcode rcode,
                      uint8_t *answer)
{
    memcpy(answer, query, question->end);
    answer[2] = (uint8_t)(FLAG_ANSWER | (query[2] & (OPCODE | FLAG_RECURSION)));
    answer[3] = (uint8_t)(FLAG_AVAILABLE | (rcode & 15));
    put16(answer + 4, question->end > HEADER);
    put16(answer + 6, 0);
    put16(answer + 8, 0);
    put16(answer + 10, 0);
    return question->end;
}

#define EXTENSION_SIZE 11

static uint32_t extend(const struct question *question, enum rcode rcode, uint8_t *answer,
                       uint32_t used)
{
    uint8_t *at = answer + used;

    if (!question->extended)
        return used;
    at[0] = 0;
    put16(at + 1, TYPE_OPT);
    put16(at + 3, EDNS_ROOM);
    at[5] = (uint8_t)(rcode >> 4);
    at[6] = 0;
    put16(at + 7, question->wants_dnssec ? 0x8000 : 0);
    put16(at + 9, 0);
    put16(answer + 10, 1);
    return used + EXTENSION_SIZE;
}

uint32_t message_refuse(const uint8_t *query, const struct question *question, enum rcode rcode,
                        uint8_t *answer)
{
    return extend(question, rcode, answer, begin(query, question, rcode, answer));
}

/* The name that a PTR record leads to; 0: it is none. */
static uint32_t write_name(const char *text, uint32_t length, uint8_t *at)
{
    uint32_t used = 0, start = 0;

    if (!length || length > 253)
        return 0;
    for (uint32_t i = 0; i <= length; i++) {
        if (i < length && text[i] != '.')
            continue;
        if (i == start || i - start > 63)
            return 0;
        at[used++] = (uint8_t)(i - start);
        memcpy(at + used, text + start, i - start);
        used += i - start;
        start = i + 1;
    }
    at[used++] = 0;
    return used;
}

/* Add one record about the name of the question; false when there is no room for it. */
static bool add_record(uint8_t *answer, uint32_t *used, uint32_t room, const struct entry *entry)
{
    uint8_t data[256];
    uint32_t type = entry->type == '4' ? TYPE_A : entry->type == '6' ? TYPE_AAAA : TYPE_PTR;
    uint32_t size = entry->type == '4' ? 4 : 16;

    if (type == TYPE_PTR)
        size = write_name(entry->text, entry->length, data);
    else
        memcpy(data, entry->bytes, size);
    if (!size)
        return true;
    if (*used + 12 + size > room || get16(answer + 6) == 65535)
        return false;
    uint8_t *at = answer + *used;
    put16(at, 0xc000 | HEADER); /* the name is that of the question */
    put16(at + 2, type);
    put16(at + 4, CLASS_IN);
    put16(at + 6, 0);
    put16(at + 8, LIFE);
    put16(at + 10, size);
    memcpy(at + 12, data, size);
    put16(answer + 6, get16(answer + 6) + 1);
    *used += 12 + size;
    return true;
}

static bool wanted(const struct question *question, char type)
{
    switch (type) {
    case '4':
        return question->type == TYPE_A || question->type == TYPE_ANY;
    case '6':
        return question->type == TYPE_AAAA || question->type == TYPE_ANY;
    case 'p':
        return question->type == TYPE_PTR || question->type == TYPE_ANY;
    default:
        return false;
    }
}

static uint32_t count_wanted(const struct found *found, const struct question *question)
{
    uint32_t count = 0;

    for (const char *line = found->line; line < found->end;) {
        struct entry entry = names_entry(&line, found->end);
        count += wanted(question, entry.type);
    }
    return count;
}

/* All records of one network, beginning with another one each time. */
static bool add_all(const struct found *found, const struct question *question, uint32_t skip,
                    uint8_t *answer, uint32_t *used, uint32_t room)
{
    for (int round = 0; round < 2; round++) {
        uint32_t at = 0;
        for (const char *line = found->line; line < found->end;) {
            struct entry entry = names_entry(&line, found->end);
            if (!wanted(question, entry.type))
                continue;
            if ((at++ >= skip) == (round == 0) && !add_record(answer, used, room, &entry))
                return false;
        }
    }
    return true;
}

uint32_t message_answer(struct names *names, const uint8_t *query, const struct question *question,
                        uint8_t *answer)
{
    uint32_t used = 0, room = question->room - (question->extended ? EXTENSION_SIZE : 0);

    if (!question->plain || question->class != CLASS_IN)
        return 0;
    for (uint32_t i = 0; i < names->network_count; i++) {
        struct found found = names_find(&names->networks[i], question->name);
        if (!found.line)
            continue;
        /* A name that is known is known for every type: an error for AAAA would make a C library
         * give up on A. */
        if (!used) {
            used = begin(query, question, RCODE_NONE, answer);
            answer[2] |= FLAG_AUTHORITY;
        }
        uint32_t count = count_wanted(&found, question);
        if (count && !add_all(&found, question, names->turn++ % count, answer, &used, room)) {
            answer[2] |= FLAG_TRUNCATED;
            break;
        }
    }
    return used ? extend(question, RCODE_NONE, answer, used) : 0;
}

/* ---- answers of others */

static uint8_t small(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

bool message_answers(const uint8_t *bytes, uint32_t size, const uint8_t *query,
                     const struct question *question, uint16_t id)
{
    if (size < HEADER || get16(bytes) != id || !(bytes[2] & FLAG_ANSWER) ||
        (bytes[2] & OPCODE) != (query[2] & OPCODE))
        return false;
    /* Some servers leave the question out of an error. */
    if (get16(bytes + 4) == 0 && (bytes[3] & 15) != RCODE_NONE)
        return true;
    if (get16(bytes + 4) != 1 || size < question->end)
        return false;
    /* Lengths are below 64, and so not changed by small(). */
    for (uint32_t i = HEADER; i < question->end - 4; i++)
        if (small(bytes[i]) != small(query[i]))
            return false;
    return memcmp(bytes + question->end - 4, query + question->end - 4, 4) == 0;
}
