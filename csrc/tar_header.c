#include "tar_header.h"

#include "error.h"

#include <string.h>

#define STEP "read a tar header"

/* Where the fields lie. v7 ends with the link name; GNU keeps times and its sparse map where ustar
 * has the prefix. */
enum {
    NAME_AT = 0,
    MODE_AT = 100,
    UID_AT = 108,
    GID_AT = 116,
    SIZE_AT = 124,
    MTIME_AT = 136,
    CHECKSUM_AT = 148,
    TYPE_AT = 156,
    LINK_AT = 157,
    MAGIC_AT = 257,
    MAJOR_AT = 329,
    MINOR_AT = 337,
    PREFIX_AT = 345,
    GNU_ATIME_AT = 345,
    GNU_CTIME_AT = 357,
    STAR_TRAILER_AT = 508,
};

bool tar_is_zero_block(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, TAR_BLOCK_SIZE - 1) == 0;
}

/* Read a number of a header: octal digits between spaces and NULs, or big-endian two's complement
 * when the top bit is set. An empty field is 0. Returns < 0 for anything else and for what does
 * not fit in 63 bits: a wrapped owner would be root (CVE-2024-40635), a wrapped size would move
 * the data boundary. */
int tar_parse_number(const uint8_t *field, size_t size, int64_t *value)
{
    if (field[0] & 0x80) {
        uint8_t invert = field[0] & 0x40 ? 0xff : 0;
        uint64_t sum = 0;
        for (size_t i = 0; i < size; i++) {
            uint8_t byte = field[i] ^ invert;
            if (i == 0)
                byte &= 0x7f;
            if (sum >> 55)
                return -1;
            sum = sum << 8 | byte;
        }
        *value = invert ? -(int64_t)sum - 1 : (int64_t)sum;
        return 0;
    }

    size_t at = 0;
    uint64_t sum = 0;
    while (at < size && (field[at] == ' ' || field[at] == 0))
        at++;
    for (; at < size && field[at] >= '0' && field[at] <= '7'; at++) {
        if (sum >> 60)
            return -1;
        sum = sum << 3 | (uint64_t)(field[at] - '0');
    }
    /* What follows a NUL was left over in the writer's buffer; what follows a space is part of the
     * field. */
    for (; at < size && field[at] != 0; at++) {
        if (field[at] != ' ')
            return -1;
    }
    *value = (int64_t)sum;
    return 0;
}

/* Some old writers summed signed characters; both sums are accepted, as by every other reader. */
static bool checksum_matches(const uint8_t *block)
{
    int64_t wanted, as_unsigned = 0, as_signed = 0;

    if (tar_parse_number(block + CHECKSUM_AT, 8, &wanted) < 0)
        return false;
    for (int i = 0; i < TAR_BLOCK_SIZE; i++) {
        uint8_t byte = i >= CHECKSUM_AT && i < CHECKSUM_AT + 8 ? ' ' : block[i];
        as_unsigned += byte;
        as_signed += (int8_t)byte;
    }
    return wanted == as_unsigned || wanted == as_signed;
}

/* Writers of Go before 1.8 put a prefix into GNU headers, over the access and change times. As Go
 * itself does, believe in a prefix there when the times cannot be read as numbers and the prefix
 * is plain ASCII. */
static bool gnu_header_has_prefix(const uint8_t *block)
{
    int64_t ignored;
    bool times =
        (block[GNU_ATIME_AT] == 0 || tar_parse_number(block + GNU_ATIME_AT, 12, &ignored) == 0) &&
        (block[GNU_CTIME_AT] == 0 || tar_parse_number(block + GNU_CTIME_AT, 12, &ignored) == 0);

    if (times)
        return false;
    for (int i = PREFIX_AT; i < PREFIX_AT + 155 && block[i] != 0; i++) {
        if (block[i] & 0x80)
            return false;
    }
    return true;
}

static void join_name(const uint8_t *block, size_t prefix_size, struct tar_header *header)
{
    const char *name = (const char *)block + NAME_AT, *prefix = (const char *)block + PREFIX_AT;
    size_t length = strnlen(prefix, prefix_size);
    char *target = header->name;

    if (length) {
        memcpy(target, prefix, length);
        target += length;
        *target++ = '/';
    }
    length = strnlen(name, 100);
    memcpy(target, name, length);
    target[length] = 0;
}

/* Read one header block. Numbers are read strictly but not judged: an extension header may still
 * replace them. */
int tar_parse_header(const uint8_t *block, struct tar_header *header, struct pyrtc_error *error)
{
    int64_t mode;
    const struct {
        const char *name;
        int at, size;
        int64_t *value;
    } numbers[] = {
        {"mode", MODE_AT, 8, &mode},
        {"owner", UID_AT, 8, &header->uid},
        {"group", GID_AT, 8, &header->gid},
        {"size", SIZE_AT, 12, &header->size},
        {"time", MTIME_AT, 12, &header->mtime},
        {"device major", MAJOR_AT, 8, &header->major},
        {"device minor", MINOR_AT, 8, &header->minor},
    };

    if (!checksum_matches(block))
        return pyrtc_fail(error, 0, STEP, "the checksum does not match: damaged, or not a tar");
    bool is_ustar = memcmp(block + MAGIC_AT, "ustar\0", 6) == 0;
    header->is_gnu = memcmp(block + MAGIC_AT, "ustar  \0", 8) == 0;
    size_t count = sizeof(numbers) / sizeof(numbers[0]);
    header->major = header->minor = 0;
    if (!is_ustar && !header->is_gnu)
        count -= 2; /* v7 knows no devices; the bytes may be anything */
    for (size_t i = 0; i < count; i++) {
        if (tar_parse_number(block + numbers[i].at, (size_t)numbers[i].size, numbers[i].value) < 0)
            return pyrtc_fail(error, 0, STEP, "the %s is not a number", numbers[i].name);
    }
    header->mode = (uint32_t)mode & 07777;
    header->typeflag = (char)block[TYPE_AT];

    size_t prefix_size = 0;
    if (is_ustar)
        prefix_size = memcmp(block + STAR_TRAILER_AT, "tar\0", 4) == 0 ? 131 : 155;
    else if (header->is_gnu && header->typeflag != 'S' && gnu_header_has_prefix(block))
        prefix_size = 155;
    join_name(block, prefix_size, header);
    size_t length = strnlen((const char *)block + LINK_AT, 100);
    memcpy(header->link, block + LINK_AT, length);
    header->link[length] = 0;
    return 0;
}

static int set_type(char typeflag, struct tar_entry *entry, struct pyrtc_error *error)
{
    size_t length = strlen(entry->path);

    switch (typeflag) {
    case 0:
    case '0':
    case '7': /* contiguous: a file whose blocks some systems would keep together */
        entry->type = TAR_FILE;
        /* v7 tar had no type for directories. With data behind it nobody could say where the next
         * header is: Go skips nothing, GNU tar skips the data. */
        if (length && entry->path[length - 1] == '/') {
            if (entry->size)
                return pyrtc_fail(error, 0, STEP, "a directory in the form of v7 claims data");
            entry->type = TAR_DIRECTORY;
        }
        break;
    case 'S':
        entry->type = TAR_FILE;
        break;
    case '1':
        entry->type = TAR_HARDLINK;
        break;
    case '2':
        entry->type = TAR_SYMLINK;
        break;
    case '3':
        entry->type = TAR_CHARACTER;
        break;
    case '4':
        entry->type = TAR_BLOCK;
        break;
    case '5':
    case 'D': /* GNU incremental: a directory followed by a list of names, which is of no use here */
        entry->type = TAR_DIRECTORY;
        break;
    case '6':
        entry->type = TAR_FIFO;
        break;
    default:
        if (typeflag < 'A' || typeflag > 'Z')
            return pyrtc_fail(error, 0, STEP, "unknown entry type 0x%02x", (uint8_t)typeflag);
        entry->type = TAR_VENDOR;
        break;
    }
    /* Go, GNU tar and Python agree that these have no data whatever their size says: old writers
     * put the size of the linked file here. */
    if (typeflag >= '1' && typeflag <= '6')
        entry->size = 0;
    return 0;
}

static int set_sparse(const struct tar_header *header, const struct tar_extensions *extensions,
                      struct tar_entry *entry, struct pyrtc_error *error)
{
    const char *major = extensions->sparse_major, *minor = extensions->sparse_minor;

    entry->sparse = TAR_SPARSE_NONE;
    entry->real_size = entry->size;
    if (entry->type != TAR_FILE)
        return 0;
    if (header->typeflag == 'S') {
        if (!header->is_gnu)
            return pyrtc_fail(error, 0, STEP, "a sparse file that is not in GNU format");
        entry->sparse = TAR_SPARSE_OLD_GNU; /* the size follows from the map */
        return 0;
    }
    if (extensions->half_extent)
        return pyrtc_fail(error, 0, STEP, "a sparse extent without its size");
    if (major || minor) {
        if (!major || !minor)
            return pyrtc_fail(error, 0, STEP, "half a GNU.sparse version");
        if (strcmp(major, "1") == 0 && strcmp(minor, "0") == 0)
            entry->sparse = TAR_SPARSE_IN_DATA;
        else if (strcmp(major, "0") == 0 && (strcmp(minor, "0") == 0 || strcmp(minor, "1") == 0))
            entry->sparse = TAR_SPARSE_KNOWN;
        else
            return pyrtc_fail(error, 0, STEP, "unknown GNU.sparse version");
    } else if (extensions->has_sparse_map) {
        entry->sparse = TAR_SPARSE_KNOWN;
    }
    if (entry->sparse == TAR_SPARSE_NONE)
        return 0;
    if (!extensions->has_sparse_size)
        return pyrtc_fail(error, 0, STEP, "a sparse file without its size");
    if (entry->sparse == TAR_SPARSE_KNOWN && extensions->has_sparse_count &&
        extensions->sparse_count != extensions->map.count)
        return pyrtc_fail(error, 0, STEP, "a sparse map that is not as long as it says");
    entry->real_size = extensions->sparse_size;
    return 0;
}

/* Put header and extensions together. PAX beats GNU's long names, which beat the header.
 *
 * One size decides both where the data ends and how much is written, the PAX one where there is
 * one: readers that used the header's for one of the two let an archive smuggle entries inside a
 * file (CVE-2025-62518). */
int tar_merge(const struct tar_header *header, struct tar_extensions *extensions,
              struct tar_entry *entry, struct pyrtc_error *error)
{
    const char *long_name = extensions->long_name.size ? extensions->long_name.data : "";
    const char *long_link = extensions->long_link.size ? extensions->long_link.data : "";
    int64_t uid = extensions->has_uid ? (int64_t)extensions->uid : header->uid;
    int64_t gid = extensions->has_gid ? (int64_t)extensions->gid : header->gid;
    int64_t size = extensions->has_size ? (int64_t)extensions->size : header->size;

    entry->path = *long_name ? long_name : header->name;
    entry->link = *long_link ? long_link : header->link;
    if (extensions->path)
        entry->path = extensions->path;
    if (extensions->sparse_name)
        entry->path = extensions->sparse_name;
    if (extensions->link)
        entry->link = extensions->link;
    if (size < 0)
        return pyrtc_fail(error, 0, STEP, "the size is negative");
    /* 2^32-1 means "no change" to chown(2), and anything above does not fit: neither may quietly
     * become root. */
    if (uid < 0 || uid > UINT32_MAX - 1 || gid < 0 || gid > UINT32_MAX - 1)
        return pyrtc_fail(error, 0, STEP, "owner %lld:%lld is out of range", (long long)uid,
                          (long long)gid);
    entry->mode = header->mode;
    entry->uid = (uint32_t)uid;
    entry->gid = (uint32_t)gid;
    entry->size = (uint64_t)size;
    entry->mtime = (struct timespec){.tv_sec = header->mtime};
    if (extensions->has_mtime)
        entry->mtime = extensions->mtime;
    if (set_type(header->typeflag, entry, error) < 0)
        return -1;
    entry->major = entry->minor = 0;
    if (entry->type == TAR_CHARACTER || entry->type == TAR_BLOCK) {
        if (header->major < 0 || header->major >= 1 << 12 || header->minor < 0 ||
            header->minor >= 1 << 20)
            return pyrtc_fail(error, 0, STEP, "device %lld:%lld is out of range",
                              (long long)header->major, (long long)header->minor);
        entry->major = (uint32_t)header->major;
        entry->minor = (uint32_t)header->minor;
    }
    return set_sparse(header, extensions, entry, error);
}
