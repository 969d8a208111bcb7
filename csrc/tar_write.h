/*
 * Writing a tar stream: ustar headers, and PAX headers in front of what those cannot say.
 *
 * The bytes depend on what is written and on nothing else: no names of users, no times but the
 * entries' own, records in a fixed order.
 */
#ifndef PYRTC_TAR_WRITE_H
#define PYRTC_TAR_WRITE_H

#include "pyrtc.h"
#include "tar_header.h"

#include <stdbool.h>

enum { TAR_SINK_BUFFER = 1 << 18 };

/* Buffered writing to a descriptor. */
struct tar_sink {
    int fd;
    uint8_t *buffer;
    size_t used;
    uint64_t offset; /* bytes written so far, those in the buffer included */
};

/* One entry. Pointers are the caller's. */
struct tar_item {
    char type;        /* '0' to '6' */
    const char *path; /* a directory's ends with a slash */
    const char *link; /* target of a link, NULL otherwise */
    uint32_t mode;    /* permission bits */
    uint32_t uid;
    uint32_t gid;
    uint32_t major;
    uint32_t minor;
    uint64_t size; /* of the data that the caller writes next */
    struct timespec mtime;
    const struct tar_text *attributes; /* finished PAX records, or NULL */
};

int sink_open(struct tar_sink *sink, int fd, struct pyrtc_error *error);
void sink_close(struct tar_sink *sink);
int sink_flush(struct tar_sink *sink, struct pyrtc_error *error);
int sink_write(struct tar_sink *sink, const void *data, size_t size, struct pyrtc_error *error);
int sink_zeros(struct tar_sink *sink, uint64_t size, struct pyrtc_error *error);

/* Where in the buffer there is room, at least one byte, for the caller to fill and sink_took() to
 * count. */
int sink_room(struct tar_sink *sink, uint8_t **room, size_t *size, struct pyrtc_error *error);
void sink_took(struct tar_sink *sink, size_t size);

/* Append the record "LENGTH KEY=VALUE\n". key has no '=' and no NUL. */
int tar_add_record(struct tar_text *records, const char *key, const void *value, size_t size,
                   struct pyrtc_error *error);

/* Write the header of an entry, with a PAX header in front where it takes one. scratch is kept for
 * the next entry. */
int tar_write_item(struct tar_sink *sink, const struct tar_item *item, struct tar_text *scratch,
                   struct pyrtc_error *error);

#endif
