#include "tar_header.h"

#include "error.h"

#include <errno.h>
#include <string.h>

#define STEP "read an access control list"

/* The kernel's form of an ACL, little-endian: a version, then entries sorted by tag and id. See
 * include/uapi/linux/posix_acl_xattr.h. */
enum {
    VERSION = 2,
    TAG_USER_OBJ = 1,
    TAG_USER = 2,
    TAG_GROUP_OBJ = 4,
    TAG_GROUP = 8,
    TAG_MASK = 16,
    TAG_OTHER = 32,
    MAX_ENTRIES = 1024,
};

struct acl_entry {
    uint16_t tag;
    uint16_t permissions;
    uint32_t id;
};

static int compare_entries(const void *left, const void *right)
{
    const struct acl_entry *a = left, *b = right;

    if (a->tag != b->tag)
        return a->tag < b->tag ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static bool text_is(const char *text, size_t size, const char *long_name, const char *short_name)
{
    return (size == strlen(long_name) && memcmp(text, long_name, size) == 0) ||
           (size == strlen(short_name) && memcmp(text, short_name, size) == 0);
}

static bool parse_id(const char *text, size_t size, uint32_t *id)
{
    uint64_t sum = 0;

    if (size == 0 || size > 10)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        sum = sum * 10 + (uint64_t)(text[i] - '0');
    }
    *id = (uint32_t)sum;
    return sum < UINT32_MAX;
}

static bool parse_permissions(const char *text, size_t size, uint16_t *permissions)
{
    *permissions = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == 'r')
            *permissions |= 4;
        else if (text[i] == 'w')
            *permissions |= 2;
        else if (text[i] == 'x')
            *permissions |= 1;
        else if (text[i] != '-')
            return false;
    }
    return size > 0;
}

/* Read "tag:who:rwx[:id]". Returns 1, 0 when who is a name that only the system that wrote the
 * archive knows, or -1. */
static int parse_entry(const char *text, size_t size, struct acl_entry *entry)
{
    const char *fields[4] = {"", "", "", ""};
    size_t sizes[4] = {0}, count = 0;

    for (size_t start = 0; start <= size;) {
        const char *colon = memchr(text + start, ':', size - start);
        size_t end = colon ? (size_t)(colon - text) : size;
        if (count == 4)
            return -1;
        fields[count] = text + start;
        sizes[count++] = end - start;
        start = end + 1;
    }
    bool named = sizes[1] > 0;
    entry->id = UINT32_MAX; /* what the kernel writes where an entry has no id */
    /* "mask:rwx" and "other:rwx" come without the empty field in the middle from some writers
     * (Solaris, star). */
    if (count == 2 &&
        (text_is(fields[0], sizes[0], "mask", "m") || text_is(fields[0], sizes[0], "other", "o"))) {
        fields[2] = fields[1];
        sizes[2] = sizes[1];
        named = false;
        count = 3;
    }
    if (count < 3 || !parse_permissions(fields[2], sizes[2], &entry->permissions))
        return -1;
    if (text_is(fields[0], sizes[0], "user", "u"))
        entry->tag = named ? TAG_USER : TAG_USER_OBJ;
    else if (text_is(fields[0], sizes[0], "group", "g"))
        entry->tag = named ? TAG_GROUP : TAG_GROUP_OBJ;
    else if (!named && text_is(fields[0], sizes[0], "mask", "m"))
        entry->tag = TAG_MASK;
    else if (!named && text_is(fields[0], sizes[0], "other", "o"))
        entry->tag = TAG_OTHER;
    else
        return -1;
    if (!named)
        return 1;
    if (sizes[3])
        return parse_id(fields[3], sizes[3], &entry->id) ? 1 : -1;
    if (text_is(fields[1], sizes[1], "root", "root")) {
        entry->id = 0;
        return 1;
    }
    return parse_id(fields[1], sizes[1], &entry->id) ? 1 : 0;
}

static void put_little_endian(uint8_t *target, uint32_t number, int size)
{
    for (int i = 0; i < size; i++)
        target[i] = (uint8_t)(number >> (8 * i));
}

/* Turn a textual ACL (SCHILY.acl.*: entries separated by commas or newlines) into the value of a
 * system.posix_acl_* attribute. Returns 1, or 0 where it names users without their numbers: names
 * are not looked up, because the image's passwd file is not this system's and may not have arrived
 * yet. The caller frees *value. */
int tar_acl_from_text(const char *text, uint8_t **value, size_t *size, struct pyrtc_error *error)
{
    struct acl_entry entries[MAX_ENTRIES];
    size_t count = 0;
    bool known = true;

    while (*text) {
        size_t length = strcspn(text, ",\n");
        size_t visible = length;
        const char *comment = memchr(text, '#', length);
        if (comment)
            visible = (size_t)(comment - text);
        while (visible && (text[visible - 1] == ' ' || text[visible - 1] == '\t'))
            visible--;
        if (visible) {
            if (count == MAX_ENTRIES)
                return pyrtc_fail(error, 0, STEP, "more than %d entries", MAX_ENTRIES);
            int result = parse_entry(text, visible, &entries[count]);
            if (result < 0)
                return pyrtc_fail(error, 0, STEP, "an entry that cannot be understood");
            known = known && result > 0;
            count++;
        }
        text += length;
        if (*text)
            text++;
    }
    if (!known)
        return 0;
    qsort(entries, count, sizeof(entries[0]), compare_entries);
    *size = 4 + 8 * count;
    *value = malloc(*size);
    if (!*value)
        return pyrtc_fail(error, ENOMEM, STEP, "%zu bytes", *size);
    put_little_endian(*value, VERSION, 4);
    for (size_t i = 0; i < count; i++) {
        put_little_endian(*value + 4 + 8 * i, entries[i].tag, 2);
        put_little_endian(*value + 6 + 8 * i, entries[i].permissions, 2);
        put_little_endian(*value + 8 + 8 * i, entries[i].id, 4);
    }
    return 1;
}
