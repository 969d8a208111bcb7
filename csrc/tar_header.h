/*
 * What tar headers say, read from bytes in memory: no system calls, no state, so that it can be
 * fuzzed by itself.
 *
 * Read are v7, ustar, star, GNU and PAX archives; where they leave room, the reading is that of
 * Go's archive/tar, with which Docker, containerd and Podman read layers: a stream must not hold
 * one tree for them and another for us. Where Go is laxer than safe (see tar_merge) the stream is
 * refused.
 */
#ifndef PYRTC_TAR_HEADER_H
#define PYRTC_TAR_HEADER_H

#include "pyrtc.h"

#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum { TAR_BLOCK_SIZE = 512 };

/* Extents of one sparse file: 16 MiB of memory. GNU tar writes one extent per run of data. */
enum { TAR_MAX_EXTENTS = 1 << 20 };

struct tar_extent {
    uint64_t offset; /* in the file; at most INT64_MAX, as is the size */
    uint64_t size;
};

struct tar_map {
    struct tar_extent *extents;
    size_t count;
    size_t capacity;
};

/* One header block, its numbers read and its strings terminated. */
struct tar_header {
    char typeflag;
    bool is_gnu;
    char name[155 + 1 + 100 + 1];
    char link[100 + 1];
    uint32_t mode;
    int64_t uid;
    int64_t gid;
    int64_t size;
    int64_t mtime;
    int64_t major;
    int64_t minor;
};

struct tar_attribute {
    const char *name;
    const char *value;
    size_t size;
};

/* A growing buffer that always holds a terminating NUL behind its size. */
struct tar_text {
    char *data;
    size_t size;
    size_t capacity;
};

/* What the extension headers (x, L, K) in front of an entry say about it. Pointers lead into the
 * texts. */
struct tar_extensions {
    struct tar_text pax;
    struct tar_text long_name;
    struct tar_text long_link;
    bool present;
    const char *path;
    const char *link;
    bool has_size, has_uid, has_gid, has_mtime;
    uint64_t size;
    uint64_t uid;
    uint64_t gid;
    struct timespec mtime;
    const char *acl_access;
    const char *acl_default;
    struct tar_attribute *attributes;
    size_t attribute_count;
    size_t attribute_capacity;
    /* GNU.sparse.* */
    const char *sparse_name;
    const char *sparse_major;
    const char *sparse_minor;
    bool has_sparse_size, has_sparse_count, has_sparse_map, half_extent;
    uint64_t sparse_size;
    uint64_t sparse_count;
    uint64_t sparse_offset;
    struct tar_map map;
};

enum tar_type {
    TAR_FILE,
    TAR_HARDLINK,
    TAR_SYMLINK,
    TAR_CHARACTER,
    TAR_BLOCK,
    TAR_DIRECTORY,
    TAR_FIFO,
    TAR_VENDOR, /* nothing that a tree can hold: volume labels, continuations, vendors' own types */
};

enum tar_sparse {
    TAR_SPARSE_NONE,
    TAR_SPARSE_KNOWN,   /* the map is complete: PAX 0.0 and 0.1 */
    TAR_SPARSE_OLD_GNU, /* starts in the header, goes on in extension blocks behind it */
    TAR_SPARSE_IN_DATA, /* PAX 1.0: the map is text in front of the data, counted in size */
};

/* One entry, everything decided. Pointers lead into the header and the extensions it was merged
 * from. */
struct tar_entry {
    enum tar_type type;
    enum tar_sparse sparse;
    const char *path;
    const char *link;
    uint32_t mode; /* permission bits, at most 07777 */
    uint32_t uid;
    uint32_t gid;
    uint32_t major;
    uint32_t minor;
    struct timespec mtime;
    uint64_t size; /* bytes behind the header, without padding: the one and only data boundary */
    uint64_t real_size; /* bytes of the file, holes included */
};

/* tar_header.c */
bool tar_is_zero_block(const uint8_t *block);
int tar_parse_number(const uint8_t *field, size_t size, int64_t *value);
int tar_parse_header(const uint8_t *block, struct tar_header *header, struct pyrtc_error *error);
int tar_merge(const struct tar_header *header, struct tar_extensions *extensions,
              struct tar_entry *entry, struct pyrtc_error *error);

/* tar_pax.c */
int tar_text_reserve(struct tar_text *text, size_t size, struct pyrtc_error *error);
int tar_parse_pax(struct tar_extensions *extensions, struct pyrtc_error *error);
int tar_parse_time(const char *text, struct timespec *time);
int tar_parse_decimal(const char *text, uint64_t *value);
void tar_extensions_clear_pax(struct tar_extensions *extensions);
void tar_extensions_clear(struct tar_extensions *extensions);
void tar_extensions_free(struct tar_extensions *extensions);

/* tar_sparse.c */
struct tar_map_reader {
    uint64_t number;
    uint64_t wanted; /* numbers still to come; the first number tells how many pairs there are */
    uint64_t offset;
    uint32_t digits;
    bool started;
};
int tar_map_add(struct tar_map *map, uint64_t offset, uint64_t size, struct pyrtc_error *error);
int tar_map_add_text(struct tar_map *map, const char *text, struct pyrtc_error *error);
int tar_map_add_header(struct tar_map *map, const uint8_t *block, uint64_t *real_size,
                       struct pyrtc_error *error);
int tar_map_add_extension(struct tar_map *map, const uint8_t *block, struct pyrtc_error *error);
int tar_map_read_block(struct tar_map_reader *reader, struct tar_map *map, const uint8_t *block,
                       struct pyrtc_error *error);
int tar_map_check(const struct tar_map *map, uint64_t data_size, uint64_t real_size,
                  struct pyrtc_error *error);

/* tar_acl.c */
int tar_acl_from_text(const char *text, uint8_t **value, size_t *size, struct pyrtc_error *error);

#endif
