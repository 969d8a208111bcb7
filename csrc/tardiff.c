/*
 * A directory tree in the form that overlayfs stacks becomes a layer's tar stream: the way back
 * from untar.c.
 *
 * The stream follows from the tree alone, whatever file system holds it and in whatever order it
 * lists names: entries are sorted, parents first. In each directory what takes away comes before
 * what adds (image-spec, layer.md).
 *
 * The tree may be a container's, so nothing in it is trusted: names are opened one at a time
 * beneath descriptors, without following links and without crossing into other mounts, and a
 * descriptor is examined after it was opened.
 */
#include "error.h"
#include "listing.h"
#include "tardiff_entry.h"
#include "util.h"
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"

enum {
    OPEN_LEVELS = 32, /* directories kept open on the way down */
};

/* One directory on the way from the root to the current one. */
struct level {
    struct listing *listing;
    size_t next;
    size_t path_size; /* of the path, with the slash at its end */
    int fd;           /* -1 while too many levels below are open */
    dev_t device;
    ino_t inode;
};

static int grow(struct tardiff *diff, struct pyrtc_error *error)
{
    if (diff->depth < diff->space)
        return 0;
    size_t wanted = diff->space ? 2 * diff->space : 64;
    struct level *grown = reallocarray(diff->levels, wanted, sizeof(*grown));
    if (!grown)
        return pyrtc_fail(error, ENOMEM, TARDIFF_STEP, "%s", "");
    diff->levels = grown;
    diff->space = wanted;
    return 0;
}

static int by_name(const void *left, const void *right, void *names)
{
    const struct listing_entry *a = left, *b = right;

    return strcmp((const char *)names + a->name, (const char *)names + b->name);
}

/* Say whether a name is a whiteout: a character device 0:0. */
static int is_whiteout(int directory, const char *name, struct pyrtc_error *error)
{
    struct stat status;

    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return pyrtc_fail(error, errno, "examine a file", "%s", "");
    return S_ISCHR(status.st_mode) && status.st_rdev == 0;
}

/* Write what a directory takes away from the layers below, and mark its whiteouts as done. */
static int write_removals(struct tardiff *diff, struct level *level, struct pyrtc_error *error)
{
    struct listing *listing = level->listing;

    if (diff->options->plain)
        return 0;
    int opaque = attributes_opaque(level->fd, diff->options->rootless, error);
    if (opaque < 0 ||
        (opaque && tardiff_write_whiteout(diff, level->path_size, OPAQUE, "", error) < 0))
        return -1;
    diff->result->opaque += (uint64_t)opaque;
    for (size_t i = 0; i < listing->count; i++) {
        const char *name = listing_name(listing, i);
        if (!diff->options->headers_only && strncmp(name, WHITEOUT, sizeof(WHITEOUT) - 1) == 0) {
            tardiff_set_path(diff, level->path_size, name, "", error);
            return pyrtc_fail(error, 0, TARDIFF_STEP,
                              "a layer cannot hold a name that begins with .wh.");
        }
        if (listing->entries[i].type != DT_CHR)
            continue;
        int whiteout = is_whiteout(level->fd, name, error);
        if (whiteout < 0)
            return -1;
        if (!whiteout)
            continue;
        listing->entries[i].type = DT_WHT;
        diff->result->whiteouts++;
        /* "An opaque directory should not contain any whiteouts" (overlayfs.rst); one that does
         * hides nothing. */
        if (!opaque && tardiff_write_whiteout(diff, level->path_size, WHITEOUT, name, error) < 0)
            return -1;
    }
    return 0;
}

/* Write a directory, whose path with a slash at its end is the one at hand, and go into it. fd is
 * taken over. */
static int enter(struct tardiff *diff, int fd, struct pyrtc_error *error)
{
    owned_fd int taken = fd;
    size_t path_size = diff->path.size;
    struct stat status;

    if (fstat(fd, &status) < 0)
        return pyrtc_fail(error, errno, "examine a directory", "%s", "");
    if (tardiff_write_header(diff, '5', &status, NULL, &(struct attribute_source){.fd = fd},
                             error) < 0 ||
        grow(diff, error) < 0)
        return -1;
    struct listing *listing = listing_read(fd);
    if (!listing)
        return pyrtc_fail(error, errno, "read a directory", "%s", "");
    if (listing->count > 1)
        qsort_r(listing->entries, listing->count, sizeof(*listing->entries), by_name,
                listing->names);
    if (diff->depth >= OPEN_LEVELS) {
        struct level *far = &diff->levels[diff->depth - OPEN_LEVELS];
        close_owned(&far->fd);
        far->fd = -1;
    }
    struct level *level = &diff->levels[diff->depth++];
    *level = (struct level){
        .listing = listing,
        .path_size = path_size,
        .fd = steal_fd(&taken),
        .device = status.st_dev,
        .inode = status.st_ino,
    };
    return write_removals(diff, level, error);
}

static int enter_name(struct tardiff *diff, int directory, const char *name,
                      struct pyrtc_error *error)
{
    int fd = tardiff_open(directory, name, O_RDONLY | O_DIRECTORY);

    if (fd < 0 && errno == EXDEV)
        return pyrtc_fail(error, EXDEV, "open a directory", "a file system is mounted there");
    if (fd < 0)
        return pyrtc_fail(error, errno, "open a directory", "%s", "");
    size_t base = diff->path.size;
    if (tardiff_set_path(diff, base, "", "/", error) < 0) {
        close(fd);
        return -1;
    }
    return enter(diff, fd, error);
}

/* Say whether the entry at hand is one of those that are not the layer's. There are few of them. */
static bool is_left_out(const struct tardiff *diff)
{
    const struct pyrtc_tardiff_options *options = diff->options;

    for (uint32_t i = 0; i < options->left_out_count; i++) {
        if (strcmp(options->left_out[i], diff->path.data) == 0)
            return true;
    }
    return false;
}

/* Go back to the directory above. If it was closed meanwhile it is opened again as "..", which
 * must be the directory that it was: somebody may have moved things about. */
static int leave(struct tardiff *diff, struct pyrtc_error *error)
{
    struct level *level = &diff->levels[--diff->depth];
    struct level *above = diff->depth ? level - 1 : NULL;
    struct stat status;
    int result = 0;

    if (above && above->fd < 0) {
        above->fd = walk_open(level->fd, "..", O_RDONLY | O_DIRECTORY);
        if (above->fd < 0 || fstat(above->fd, &status) < 0)
            result = pyrtc_fail(error, errno, "go back to a directory", "%s", "");
        else if (status.st_dev != above->device || status.st_ino != above->inode)
            result = pyrtc_fail(error, ESTALE, "go back to a directory", "it was moved meanwhile");
    }
    close_owned(&level->fd);
    listing_release(level->listing);
    return result;
}

/* Write one name of the current directory. */
static int write_name(struct tardiff *diff, const char *name, struct pyrtc_error *error)
{
    const struct level *level = &diff->levels[diff->depth - 1];
    struct attribute_source source = {.fd = level->fd, .name = name};
    struct stat status;

    if (tardiff_set_path(diff, level->path_size, name, "", error) < 0)
        return -1;
    if (is_left_out(diff))
        return 0;
    if (fstatat(level->fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return pyrtc_fail(error, errno, "examine a file", "%s", "");
    if (S_ISDIR(status.st_mode))
        return enter_name(diff, level->fd, name, error);
    if (S_ISSOCK(status.st_mode)) {
        diff->result->skipped++; /* a tar cannot hold it, and nobody listens any more */
        return 0;
    }
    if (status.st_nlink > 1) {
        int failed;
        const char *first = first_name(&diff->names, &status, diff->path.data, &failed, error);
        if (failed)
            return -1;
        if (first)
            return tardiff_write_header(diff, '1', &status, first, NULL, error);
    }
    switch (status.st_mode & S_IFMT) {
    case S_IFREG:
        return tardiff_write_file(diff, level->fd, name, &status, error);
    case S_IFLNK:
        return tardiff_write_symlink(diff, level->fd, name, &status, error);
    case S_IFCHR:
        return tardiff_write_header(diff, '3', &status, NULL, &source, error);
    case S_IFBLK:
        return tardiff_write_header(diff, '4', &status, NULL, &source, error);
    case S_IFIFO:
        return tardiff_write_header(diff, '6', &status, NULL, &source, error);
    default:
        return pyrtc_fail(error, 0, TARDIFF_STEP, "a file of an unknown kind");
    }
}

static int walk(struct tardiff *diff, struct pyrtc_error *error)
{
    int root = tardiff_open(diff->options->root_fd, ".", O_RDONLY | O_DIRECTORY);

    if (root < 0)
        return pyrtc_fail(error, errno, "open the layer directory", "%s", "");
    if (tardiff_set_path(diff, 0, "", "", error) < 0) {
        close(root);
        return -1;
    }
    if (enter(diff, root, error) < 0)
        return -1;
    while (diff->depth) {
        struct level *level = &diff->levels[diff->depth - 1];
        if (level->next == level->listing->count) {
            if (leave(diff, error) < 0)
                return -1;
            continue;
        }
        size_t index = level->next++;
        if (level->listing->entries[index].type != DT_WHT &&
            write_name(diff, listing_name(level->listing, index), error) < 0)
            return -1;
    }
    /* Two blocks of zeros end the archive. */
    if (!diff->options->headers_only && sink_zeros(&diff->sink, 2 * TAR_BLOCK_SIZE, error) < 0)
        return -1;
    return sink_flush(&diff->sink, error);
}

/* Say which entry failed; its name is the image's or the container's: what could steer a terminal
 * is written as \ooo. */
static void name_entry(const struct tardiff *diff, struct pyrtc_error *error)
{
    char text[200], message[sizeof(error->message)];
    const char *path = diff->path.data ? diff->path.data : "";
    size_t size = pyrtc_printable(text, sizeof(text), path);

    snprintf(message, sizeof(message), "%s", error->message);
    if (size)
        snprintf(error->message, sizeof(error->message), "%.250s%s\"%s\"", message,
                 *message ? ": " : "", text);
}

/* Write the tree at root_fd as a layer. See pyrtc_layer.h for what the options mean. The stream is what
 * the tree is, byte for byte the same for equal trees; what changes while it is read is an error
 * or is written as it was when it was opened, never a broken stream. */
int pyrtc_tardiff(const struct pyrtc_tardiff_options *options, struct pyrtc_tardiff_result *result,
                  struct pyrtc_error *error)
{
    struct tardiff diff = {.options = options, .result = result};

    *result = (struct pyrtc_tardiff_result){0};
    int status = sink_open(&diff.sink, options->stream_fd, error);
    if (status == 0)
        status = attribute_room_open(&diff.room, error);
    if (status == 0) {
        status = walk(&diff, error);
        if (status < 0)
            name_entry(&diff, error);
    }
    result->stream_bytes = diff.sink.offset;
    while (diff.depth) {
        struct level *level = &diff.levels[--diff.depth];
        close_owned(&level->fd);
        listing_release(level->listing);
    }
    free(diff.levels);
    first_names_free(&diff.names);
    attribute_room_close(&diff.room);
    sink_close(&diff.sink);
    free(diff.attributes.data);
    free(diff.records.data);
    free(diff.path.data);
    return status;
}
