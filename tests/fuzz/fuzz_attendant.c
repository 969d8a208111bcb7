/*
 * The attendant's parsers: questions as containers send them, answers as servers do, and files of names. An answer is
 * never larger than its room, and of a form that can be read again; a name is found by halves where it is found by
 * reading everything. Addresses are found in answers where whoever made them followed the aliases from the question.
 */
#include "../../csrc/attendant/parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* What serve.c has, and nothing here needs. */
void close_fd(int *fd)
{
    *fd = -1;
}

/* The end of a name in an answer of ours, which has one pointer at most. */
static uint32_t after_name(const uint8_t *bytes, uint32_t size, uint32_t at)
{
    while (at < size && bytes[at] && bytes[at] < 64)
        at += 1U + bytes[at];
    assert(at < size);
    return bytes[at] ? at + 2 : at + 1;
}

static void check_answer(const uint8_t *query, const struct question *question,
                         const uint8_t *answer, uint32_t size)
{
    assert(size >= HEADER && size <= question->room);
    assert(answer[0] == query[0] && answer[1] == query[1] && answer[2] & 0x80);
    uint32_t at = HEADER;
    for (uint32_t i = 0; i < get16(answer + 4); i++)
        at = after_name(answer, size, at) + 4;
    assert(at == question->end);
    uint32_t records = get16(answer + 6) + get16(answer + 8) + get16(answer + 10);
    for (uint32_t i = 0; i < records; i++) {
        at = after_name(answer, size, at);
        assert(at + 10 <= size);
        at += 10 + get16(answer + at + 8);
    }
    assert(at == size);
}

/* The lines whose first word is this name, read one after the other. */
static uint32_t count_lines(const char *text, size_t size, const char *name)
{
    size_t length = strlen(name), at = 0;
    uint32_t found = 0;

    while (at < size && text[at] != '\n')
        at++;
    for (at++; at < size; at++) {
        size_t end = at;
        while (end < size && text[end] != '\n')
            end++;
        size_t word = 0;
        while (at + word < end && text[at + word] != ' ')
            word++;
        found += word == length && !memcmp(text + at, name, length);
        at = end;
    }
    return found;
}

/* As `write_names` makes them: few letters, so that names begin alike, in the order of their bytes. */
static int compare(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void fuzz_search(const uint8_t *data, size_t size)
{
    static const char letters[] = "ab-._0z9";
    char *lines[64], *text;
    size_t count = 0, used = 0;

    while (size && count < 64) {
        size_t length = 1 + data[0] % 6;
        char *line = malloc(64);
        for (size_t i = 0; i < length; i++)
            line[i] = letters[(i + 1 < size ? data[i + 1] : i) % 8];
        snprintf(line + length, 64 - length, " 4 0a0000%02x", data[0]);
        lines[count++] = line;
        size_t taken = length + 1 < size ? length + 1 : size;
        data += taken;
        size -= taken;
    }
    qsort(lines, count, sizeof(*lines), compare);
    size_t room = 64 + count * 64;
    text = malloc(room);
    used = (size_t)snprintf(text, room, "pyrtc-names 1 NET\n");
    for (size_t i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, room - used, "%s\n", lines[i]);
    struct network network = {.file = {.text = text, .length = used}};
    for (size_t i = 0; i < count; i++) {
        char name[80];
        *strchr(lines[i], ' ') = '\0';
        for (int round = 0; round < 2; round++) {
            snprintf(name, sizeof(name), "%s%s", lines[i], round ? ".net" : "");
            struct found found = names_find(&network, name);
            assert(found.line);
            uint32_t lines_found = 0;
            for (const char *line = found.line; line < found.end; lines_found++)
                assert(names_entry(&line, found.end).type == '4');
            uint32_t expected = count_lines(text, used, name);
            assert(lines_found == (expected ? expected : count_lines(text, used, lines[i])));
        }
        snprintf(name, sizeof(name), "%sq", lines[i]);
        assert(!names_find(&network, name).line);
    }
    for (size_t i = 0; i < count; i++)
        free(lines[i]);
    free(text);
}

/* Some names that end alike, each word of a list of allowed ones, asked for as a message would. */
static void fuzz_allowed(const uint8_t *data, size_t size)
{
    static const char *const parts[] = {"a", "b", "a.b", "b.a", "a.a.b", "ab", "b-a.b", "a.b.a.b"};
    char *lines[32], text[32 * 24 + 1];
    size_t count = 0, used = 0;

    for (; count < 32 && count + 1 < size; count++) {
        lines[count] = malloc(24);
        snprintf(lines[count], 24, "%s %s", parts[data[count + 1] % 8],
                 data[count + 1] & 8 ? "below" : "exact");
    }
    qsort(lines, count, sizeof(*lines), compare);
    for (size_t i = 0; i < count; i++)
        used += (size_t)sprintf(text + used, "%s\n", lines[i]);
    struct names names = {.forward = true, .limited = true, .allowed = {text, text + used}};
    for (size_t i = 0; i < 64; i++) {
        struct question question = {.plain = true, .class = CLASS_IN};
        snprintf(question.name, MAX_NAME, i < 8 ? "%s%s" : "%s.%s", parts[i % 8],
                 i < 8 ? "" : parts[i / 8]);
        bool expected = false;
        for (size_t line = 0; line < count; line++) {
            size_t length = (size_t)(strchr(lines[line], ' ') - lines[line]),
                   whole = strlen(question.name);
            bool ends =
                whole >= length && !memcmp(question.name + whole - length, lines[line], length);
            expected |= ends && (lines[line][length + 1] == 'e'
                                     ? whole == length
                                     : whole > length && question.name[whole - length - 1] == '.');
        }
        assert(names_may_ask(&names, &question) == expected);
        question.plain = false;
        assert(!names_may_ask(&names, &question));
    }
    for (size_t i = 0; i < count; i++)
        free(lines[i]);
}

/* ---- addresses in answers */

/* Write one of four names, letters of either case, or point to where it or its end was written before. */
static uint32_t write_name(uint8_t *bytes, uint32_t at, uint32_t name, uint8_t choice,
                           uint32_t *earlier)
{
    uint32_t begin = at;

    if (choice & 1 && earlier[name]) {
        put16(bytes + at, 0xc000 | earlier[name]);
        return at + 2;
    }
    for (uint32_t i = 0; i < name; i++) {
        bytes[at++] = 1;
        bytes[at++] = (uint8_t)((choice & 2 ? 'A' : 'a') + name);
    }
    if (choice & 4 && earlier[0]) {
        put16(bytes + at, 0xc000 | earlier[0]);
        at += 2;
    } else {
        if (!earlier[0])
            earlier[0] = at;
        memcpy(bytes + at, choice & 8 ? "\1X" : "\1x", 3);
        at += 3;
    }
    if (!earlier[name])
        earlier[name] = begin;
    return at;
}

static void fuzz_chain(const uint8_t *data, size_t size)
{
    uint8_t bytes[4096] = {0};
    uint32_t earlier[4] = {0}, owners[100], targets[100], count = 0;
    bool reached[4] = {false};
    struct addresses addresses;
    struct address address;

    struct question question = {
        .end = write_name(bytes, HEADER, data[0] % 4, data[0] >> 2, earlier) + 4};
    uint32_t at = question.end;
    for (size_t i = 1; i + 2 < size && count < 100; i += 3, count++) {
        owners[count] = data[i] % 4;
        targets[count] = data[i + 1] & 1 ? data[i] >> 2 & 3 : 4; /* 4: an address */
        at = write_name(bytes, at, owners[count], data[i + 2], earlier);
        put16(bytes + at, targets[count] < 4 ? 5 : TYPE_A);
        put16(bytes + at + 2, CLASS_IN);
        uint32_t end = targets[count] < 4
                           ? write_name(bytes, at + 10, targets[count], data[i + 2] >> 4, earlier)
                           : at + 14;
        if (targets[count] == 4)
            put16(bytes + at + 12, count);
        put16(bytes + at + 8, end - at - 10);
        at = end;
    }
    put16(bytes + 4, 1);
    put16(bytes + 6, count);
    for (uint32_t name = data[0] % 4; name < 4 && !reached[name];) {
        reached[name] = true;
        uint32_t next = 4;
        for (uint32_t i = 0; i < count && next == 4; i++)
            next = owners[i] == name ? targets[i] : 4;
        name = next;
    }
    uint8_t *exact = malloc(at);
    memcpy(exact, bytes, at);
    addresses_begin(&addresses, exact, at, &question);
    for (uint32_t i = 0; i < count; i++)
        if (targets[i] == 4 && reached[owners[i]])
            assert(addresses_next(&addresses, &address) && address.size == 4 &&
                   get16(address.bytes + 2) == i);
    assert(!addresses_next(&addresses, &address));
    free(exact);
}

static void fuzz_messages(const uint8_t *data, size_t size)
{
    static uint8_t answer[MAX_MESSAGE + 1];
    static struct names names;
    struct question question;

    if (size < 3)
        return;
    bool stream = data[0] & 1;
    size_t split = get16(data + 1) % (size - 2);
    /* Of the exact size each, so that a byte beyond the end is noticed. */
    uint8_t *query = malloc(split ? split : 1);
    char *text = malloc(size - 3 - split + 1);
    memcpy(query, data + 3, split);
    memcpy(text, data + 3 + split, size - 3 - split);
    memset(&names, 0, sizeof(names));
    names.turn = data[0];
    names.network_count = 2;
    names.networks[0].file = (struct mapped){.text = text, .length = size - 3 - split};
    names.networks[1].file =
        (struct mapped){.text = "pyrtc-names 1 n\nweb 4 0a000001\nweb p w.n\n", .length = 41};
    int rcode = message_read(query, (uint32_t)split, stream, &question);
    if (rcode > 0) {
        check_answer(query, &question, answer,
                     message_refuse(query, &question, (enum rcode)rcode, answer));
    } else if (rcode == 0) {
        assert(question.end <= split && strlen(question.name) < MAX_NAME);
        assert(question.room <= (stream ? MAX_MESSAGE : 4096));
        check_answer(query, &question, answer,
                     message_refuse(query, &question, RCODE_FAILED, answer));
        uint32_t made = message_answer(&names, query, &question, answer);
        if (made)
            check_answer(query, &question, answer, made);
        /* What follows the question as an answer of somebody else. */
        message_answers((const uint8_t *)text, (uint32_t)(size - 3 - split), query, &question, 7);
        if (size - 3 - split >= HEADER) {
            struct addresses addresses;
            struct address address;
            uint32_t found = 0;
            addresses_begin(&addresses, (const uint8_t *)text, (uint32_t)(size - 3 - split),
                            &question);
            while (addresses_next(&addresses, &address))
                found++;
            assert(found <= 1024);
        }
        names.forward = names.limited = true;
        names.allowed = (struct found){text, text + (size - 3 - split)};
        names_may_ask(&names, &question);
        uint8_t *own = malloc(split);
        memcpy(own, query, split);
        own[2] |= 0x80;
        assert(message_answers(own, (uint32_t)split, query, &question, (uint16_t)get16(query)));
        assert(
            !message_answers(own, (uint32_t)split, query, &question, (uint16_t)(get16(query) ^ 1)));
        free(own);
    }
    free(query);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    if (data[0] % 4 == 0)
        fuzz_search(data + 1, size - 1);
    else if (data[0] % 16 == 1)
        fuzz_allowed(data, size);
    else if (data[0] % 8 == 2 && size > 1)
        fuzz_chain(data + 1, size - 1);
    else
        fuzz_messages(data, size);
    return 0;
}
