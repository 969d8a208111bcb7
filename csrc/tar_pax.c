#include "tar_header.h"

#include "error.h"

#include <errno.h>
#include <string.h>

#define STEP "read an extended tar header"

/* Make room for size bytes and a terminating NUL. */
int tar_text_reserve(struct tar_text *text, size_t size, struct pyrtc_error *error)
{
    if (size < text->capacity)
        return 0;
    size_t capacity = size + 1 < 4096 ? 4096 : size + 1;
    char *data = realloc(text->data, capacity);
    if (!data)
        return pyrtc_fail(error, ENOMEM, STEP, "%zu bytes", capacity);
    text->data = data;
    text->capacity = capacity;
    return 0;
}

/* Read a number of a PAX record: digits only, at most INT64_MAX. */
int tar_parse_decimal(const char *text, uint64_t *value)
{
    uint64_t sum = 0;

    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        uint64_t digit = (uint64_t)(*text - '0');
        if (sum > (INT64_MAX - digit) / 10)
            return -1;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return 0;
}

/* Read seconds since 1970 with an optional sign and fraction. Digits beyond nanoseconds are
 * dropped; times before 1970 count their nanoseconds upwards from the second before, as the kernel
 * does. */
int tar_parse_time(const char *text, struct timespec *time)
{
    bool negative = *text == '-';
    int64_t seconds = 0;
    long nanoseconds = 0, unit = 100000000;

    if (negative)
        text++;
    if (*text < '0' || *text > '9')
        return -1;
    for (; *text >= '0' && *text <= '9'; text++) {
        int digit = *text - '0';
        if (seconds > (INT64_MAX - digit) / 10)
            return -1;
        seconds = seconds * 10 + digit;
    }
    if (*text == '.') {
        for (text++; *text >= '0' && *text <= '9'; text++) {
            nanoseconds += unit * (*text - '0');
            unit /= 10;
        }
    }
    if (*text)
        return -1;
    if (negative) {
        seconds = -seconds; /* at least INT64_MIN + 1, so one less is still in range */
        if (nanoseconds) {
            seconds--;
            nanoseconds = 1000000000 - nanoseconds;
        }
    }
    *time = (struct timespec){.tv_sec = seconds, .tv_nsec = nanoseconds};
    return 0;
}

static int add_attribute(struct tar_extensions *extensions, const char *name, const char *value,
                         size_t size, struct pyrtc_error *error)
{
    if (!*name)
        return pyrtc_fail(error, 0, STEP, "an extended attribute without a name");
    if (extensions->attribute_count == extensions->attribute_capacity) {
        size_t capacity = extensions->attribute_capacity ? extensions->attribute_capacity * 2 : 8;
        void *grown = realloc(extensions->attributes, capacity * sizeof(*extensions->attributes));
        if (!grown)
            return pyrtc_fail(error, ENOMEM, STEP, "%zu extended attributes", capacity);
        extensions->attributes = grown;
        extensions->attribute_capacity = capacity;
    }
    extensions->attributes[extensions->attribute_count++] =
        (struct tar_attribute){.name = name, .value = value, .size = size};
    return 0;
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static int base64_digit(char digit)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = digit ? strchr(digits, digit) : NULL;

    return found ? (int)(found - digits) : -1;
}

/* LIBARCHIVE.xattr.NAME=VALUE, with percent-encoded name and base64 value. Both become shorter:
 * decoded in place. */
static int add_libarchive_attribute(struct tar_extensions *extensions, char *name, char *value,
                                    size_t size, struct pyrtc_error *error)
{
    char *from = name, *to = name;
    while (*from) {
        if (*from == '%') {
            int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
            if (low < 0 || high + low == 0)
                return pyrtc_fail(error, 0, STEP, "an attribute name with a wrong %%-code");
            *to++ = (char)(high << 4 | low);
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;

    while (size && value[size - 1] == '=')
        size--;
    size_t decoded = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = base64_digit(value[i]);
        if (digit < 0)
            return pyrtc_fail(error, 0, STEP, "an attribute value that is not base64");
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4)
            value[decoded++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    if (size % 4 == 1)
        return pyrtc_fail(error, 0, STEP, "an attribute value that is not base64");
    return add_attribute(extensions, name, value, decoded, error);
}

static int set_number(const char *key, const char *value, bool *present, uint64_t *number,
                      struct pyrtc_error *error)
{
    *present = *value != 0; /* an empty value takes an earlier record back */
    if (*present && tar_parse_decimal(value, number) < 0)
        return pyrtc_fail(error, 0, STEP, "record %s is not a number in range", key);
    return 0;
}

/* GNU.sparse.*: format 0.0 has pairs of offset and numbytes records, 0.1 the list in one record. */
static int set_sparse_record(struct tar_extensions *extensions, const char *key, const char *value,
                             struct pyrtc_error *error)
{
    uint64_t size;

    if (strcmp(key, "major") == 0) {
        extensions->sparse_major = *value ? value : NULL;
    } else if (strcmp(key, "minor") == 0) {
        extensions->sparse_minor = *value ? value : NULL;
    } else if (strcmp(key, "name") == 0) {
        extensions->sparse_name = *value ? value : NULL;
    } else if (strcmp(key, "size") == 0 || strcmp(key, "realsize") == 0) {
        return set_number(key, value, &extensions->has_sparse_size, &extensions->sparse_size,
                          error);
    } else if (strcmp(key, "numblocks") == 0) {
        return set_number(key, value, &extensions->has_sparse_count, &extensions->sparse_count,
                          error);
    } else if (strcmp(key, "map") == 0) {
        extensions->has_sparse_map = *value != 0;
        extensions->map.count = 0;
        return tar_map_add_text(&extensions->map, value, error);
    } else if (strcmp(key, "offset") == 0) {
        if (extensions->half_extent || tar_parse_decimal(value, &extensions->sparse_offset) < 0)
            return pyrtc_fail(error, 0, STEP, "a wrong GNU.sparse.offset");
        extensions->half_extent = true;
    } else if (strcmp(key, "numbytes") == 0) {
        if (!extensions->half_extent || tar_parse_decimal(value, &size) < 0)
            return pyrtc_fail(error, 0, STEP, "a wrong GNU.sparse.numbytes");
        extensions->half_extent = false;
        extensions->has_sparse_map = true;
        return tar_map_add(&extensions->map, extensions->sparse_offset, size, error);
    }
    return 0;
}

/* A record's value ends where a NUL was put over its newline; size tells of NULs inside. Keys that
 * nobody here needs (comment, uname, charset, atime, vendors' own) are passed over. */
static int set_record(struct tar_extensions *extensions, char *key, char *value, size_t size,
                      struct pyrtc_error *error)
{
    static const char schily_xattr[] = "SCHILY.xattr.", libarchive_xattr[] = "LIBARCHIVE.xattr.";
    static const char sparse[] = "GNU.sparse.";

    if (strncmp(key, schily_xattr, sizeof(schily_xattr) - 1) == 0)
        return add_attribute(extensions, key + sizeof(schily_xattr) - 1, value, size, error);
    if (strncmp(key, libarchive_xattr, sizeof(libarchive_xattr) - 1) == 0)
        return add_libarchive_attribute(extensions, key + sizeof(libarchive_xattr) - 1, value, size,
                                        error);
    bool is_sparse = strncmp(key, sparse, sizeof(sparse) - 1) == 0;
    static const char *const texts[] = {"path",
                                        "linkpath",
                                        "size",
                                        "uid",
                                        "gid",
                                        "mtime",
                                        "uname",
                                        "gname",
                                        "SCHILY.acl.access",
                                        "SCHILY.acl.default"};
    bool is_text = is_sparse;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        is_text = is_text || strcmp(key, texts[i]) == 0;
    if (!is_text)
        return 0;
    if (strlen(value) != size)
        return pyrtc_fail(error, 0, STEP, "record %s holds a NUL", key);

    if (is_sparse)
        return set_sparse_record(extensions, key + sizeof(sparse) - 1, value, error);
    if (strcmp(key, "path") == 0)
        extensions->path = *value ? value : NULL;
    else if (strcmp(key, "linkpath") == 0)
        extensions->link = *value ? value : NULL;
    else if (strcmp(key, "SCHILY.acl.access") == 0)
        extensions->acl_access = *value ? value : NULL;
    else if (strcmp(key, "SCHILY.acl.default") == 0)
        extensions->acl_default = *value ? value : NULL;
    else if (strcmp(key, "size") == 0)
        return set_number(key, value, &extensions->has_size, &extensions->size, error);
    else if (strcmp(key, "uid") == 0)
        return set_number(key, value, &extensions->has_uid, &extensions->uid, error);
    else if (strcmp(key, "gid") == 0)
        return set_number(key, value, &extensions->has_gid, &extensions->gid, error);
    else if (strcmp(key, "mtime") == 0) {
        extensions->has_mtime = *value != 0;
        if (*value && tar_parse_time(value, &extensions->mtime) < 0)
            return pyrtc_fail(error, 0, STEP, "record mtime is not a time");
    }
    return 0;
}

/* Read the records "LENGTH KEY=VALUE\n" in extensions->pax, editing the text in place. Anything
 * that is not exactly such a record is an error: a reader that passes over a broken record sees
 * another entry than the one that stops. */
int tar_parse_pax(struct tar_extensions *extensions, struct pyrtc_error *error)
{
    char *at = extensions->pax.data, *end = at + extensions->pax.size;

    while (at < end) {
        char *text = at;
        size_t length = 0;
        while (text < end && *text >= '0' && *text <= '9' && length <= extensions->pax.size)
            length = length * 10 + (size_t)(*text++ - '0');
        if (text == at || text == end || *text != ' ')
            return pyrtc_fail(error, 0, STEP, "a record without its length");
        text++;
        if (length > (size_t)(end - at) || at + length <= text || at[length - 1] != '\n')
            return pyrtc_fail(error, 0, STEP, "a record whose length is wrong");
        char *last = at + length - 1;
        char *equals = memchr(text, '=', (size_t)(last - text));
        if (!equals || equals == text)
            return pyrtc_fail(error, 0, STEP, "a record without a key");
        if (memchr(text, 0, (size_t)(equals - text)))
            return pyrtc_fail(error, 0, STEP, "a record whose key holds a NUL");
        *equals = *last = 0;
        if (set_record(extensions, text, equals + 1, (size_t)(last - equals - 1), error) < 0)
            return -1;
        at += length;
    }
    return 0;
}

/* Forget what the last x header said: of several in front of one entry the last counts, whole. */
void tar_extensions_clear_pax(struct tar_extensions *extensions)
{
    struct tar_extensions kept = *extensions;

    *extensions = (struct tar_extensions){
        .pax = kept.pax,
        .long_name = kept.long_name,
        .long_link = kept.long_link,
        .present = kept.present,
        .attributes = kept.attributes,
        .attribute_capacity = kept.attribute_capacity,
        .map = {.extents = kept.map.extents, .capacity = kept.map.capacity},
    };
    extensions->pax.size = 0;
}

void tar_extensions_clear(struct tar_extensions *extensions)
{
    tar_extensions_clear_pax(extensions);
    extensions->present = false;
    extensions->long_name.size = extensions->long_link.size = 0;
}

void tar_extensions_free(struct tar_extensions *extensions)
{
    free(extensions->pax.data);
    free(extensions->long_name.data);
    free(extensions->long_link.data);
    free(extensions->attributes);
    free(extensions->map.extents);
}
