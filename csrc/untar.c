/*
 * A layer's tar stream becomes a directory tree in the form that overlayfs stacks: one pass,
 * whiteouts as devices 0:0, opaque directories as an attribute. This file reads entries and
 * decides what each one is; layer_*.c make it so.
 */
#include "error.h"
#include "layer_tree.h"
#include "tar_stream.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STEP "unpack an entry"

struct untar {
    const struct pyrtc_untar_options *options;
    struct pyrtc_untar_result *result;
    struct layer_tree tree;
    struct tar_stream stream;
    struct tar_extensions extensions;
    struct tar_header header;
    struct tar_entry entry;
    struct pending_links pending;
    struct tar_text path; /* the entry's names, cleaned */
    struct tar_text link;
    uint64_t pax_bytes; /* of extension headers since the last entry */
    uint64_t header_at; /* where in the stream the current entry's header is */
    bool has_entry;
    bool has_plink;
};

enum whiteout { WHITEOUT_NONE, WHITEOUT_NAME, WHITEOUT_OPAQUE, WHITEOUT_METADATA };

/* What the names on a cleaned path make of an entry; the type does not matter (image-spec,
 * layer.md).
 *
 * AUFS kept its own files under .wh..wh.*: they are left out, but not .wh..wh.plnk, whose files
 * are the targets of hard links; that one is taken away at the end. */
static int classify(const char *path, struct untar *untar, struct pyrtc_error *error)
{
    static const char link_directory[] = ".wh..wh.plnk";
    const char *name = path;

    if (untar->options->plain)
        return WHITEOUT_NONE;
    for (;; name++) {
        size_t length = strcspn(name, "/");
        bool last = name[length] == 0;
        if (strncmp(name, ".wh..wh.", 8) == 0) {
            if (last && strcmp(name, ".wh..wh..opq") == 0)
                return WHITEOUT_OPAQUE;
            if (name != path || length != sizeof(link_directory) - 1 ||
                memcmp(name, link_directory, length) != 0)
                return WHITEOUT_METADATA;
            untar->has_plink = true;
        } else if (strncmp(name, ".wh.", 4) == 0) {
            const char *hidden = name + 4;
            if (!last)
                return pyrtc_fail(error, 0, STEP, "a whiteout has nothing below it");
            if (!*hidden || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
                return pyrtc_fail(error, 0, STEP, "a whiteout that names nothing");
            return WHITEOUT_NAME;
        }
        if (last)
            return WHITEOUT_NONE;
        name += length;
    }
}

/* WHITEOUT_NONE: the path itself is what is hidden. */
static int make_whiteout(struct untar *untar, enum whiteout kind, struct pyrtc_error *error)
{
    struct node *parent;
    const char *name;
    int hidden = path_resolve_parent(&untar->tree, untar->path.data, true, &parent, &name, error);

    if (hidden) /* below another whiteout there is nothing to hide: tools record "rm -r a/b a" so */
        return hidden < 0 ? -1 : 0;
    if (kind == WHITEOUT_OPAQUE)
        return tree_make_opaque(&untar->tree, parent, error);
    return tree_make_whiteout(&untar->tree, parent, kind == WHITEOUT_NAME ? name + 4 : name, error);
}

static int clean_text(struct tar_text *text, const char *path, uint32_t max_depth,
                      size_t *components, struct pyrtc_error *error)
{
    size_t size = strlen(path);

    if (tar_text_reserve(text, size, error) < 0)
        return -1;
    memcpy(text->data, path, size + 1);
    return path_clean(text->data, max_depth, components, error);
}

/* Read the map of a sparse file from where its format keeps it, and take its bytes off what is
 * left of the data. */
static int read_map(struct untar *untar, const uint8_t *header, uint64_t *left,
                    struct pyrtc_error *error)
{
    struct tar_map *map = &untar->extensions.map;
    struct tar_entry *entry = &untar->entry;
    struct tar_map_reader reader = {0};
    const uint8_t *block;
    int more;

    switch (entry->sparse) {
    case TAR_SPARSE_NONE:
        return 0;
    case TAR_SPARSE_KNOWN:
        break;
    case TAR_SPARSE_OLD_GNU:
        map->count = 0;
        more = tar_map_add_header(map, header, &entry->real_size, error);
        while (more > 0) {
            int got = stream_block(&untar->stream, &block, error);
            if (got <= 0)
                return got < 0 ? -1 : stream_truncated(error);
            more = tar_map_add_extension(map, block, error);
        }
        if (more < 0)
            return -1;
        break;
    case TAR_SPARSE_IN_DATA:
        map->count = 0;
        do {
            if (*left < TAR_BLOCK_SIZE)
                return pyrtc_fail(error, 0, STEP, "the map of a sparse file is cut off");
            int got = stream_block(&untar->stream, &block, error);
            if (got <= 0)
                return got < 0 ? -1 : stream_truncated(error);
            *left -= TAR_BLOCK_SIZE;
            more = tar_map_read_block(&reader, map, block, error);
        } while (more == 0);
        if (more < 0)
            return -1;
        break;
    }
    return tar_map_check(map, *left, entry->real_size, error);
}

static int make_link(struct untar *untar, struct pyrtc_error *error)
{
    size_t components;

    if (clean_text(&untar->link, untar->entry.link, untar->options->max_depth, &components, error) <
        0)
        return -1;
    return link_make(&untar->tree, &untar->pending, untar->path.data, untar->link.data, error);
}

/* Make one entry of the tree; *left counts down what of its data is still in the stream. */
static int make_entry(struct untar *untar, const uint8_t *header, uint64_t *left,
                      struct pyrtc_error *error)
{
    struct tar_entry *entry = &untar->entry;
    struct tar_extensions *extensions = &untar->extensions;
    struct layer_tree *tree = &untar->tree;
    size_t components;
    struct node *parent;
    const char *name;

    /* A sparse file's map decides where the next header is, so it is read whatever the entry turns
     * out to be. */
    if (read_map(untar, header, left, error) < 0 ||
        clean_text(&untar->path, entry->path, untar->options->max_depth, &components, error) < 0)
        return -1;
    if (entry->type == TAR_VENDOR) {
        untar->result->skipped++;
        return 0;
    }
    tree->default_mtime = entry->mtime;
    if (components == 0) {
        /* Replacing the root by something else would redirect all that follows (CVE-2021-29136). A
         * file without any name is some writers' slip; Docker passes over it. */
        if (!*entry->path && entry->type == TAR_FILE) {
            untar->result->skipped++;
            return 0;
        }
        if (entry->type != TAR_DIRECTORY)
            return pyrtc_fail(error, 0, STEP, "the root can only be a directory");
        return entry_make_directory(tree, entry, extensions, NULL, "", error);
    }
    int whiteout = classify(untar->path.data, untar, error);
    if (whiteout < 0)
        return -1;
    if (whiteout == WHITEOUT_METADATA) {
        untar->result->skipped++;
        return 0;
    }
    if (whiteout != WHITEOUT_NONE)
        return make_whiteout(untar, (enum whiteout)whiteout, error);

    bool is_device = entry->type == TAR_CHARACTER || entry->type == TAR_BLOCK;
    if (entry->type == TAR_CHARACTER && entry->major == 0 && entry->minor == 0) {
        /* To overlayfs this device is a whiteout, so it is one here as well; a plain tree cannot
         * hold it. */
        if (!untar->options->plain)
            return make_whiteout(untar, WHITEOUT_NONE, error);
        untar->result->skipped++;
        return 0;
    }
    if (is_device && untar->options->rootless) {
        untar->result->skipped++;
        return 0;
    }
    if (entry->type == TAR_HARDLINK)
        return make_link(untar, error);
    if (entry->type == TAR_SYMLINK && !*entry->link)
        return pyrtc_fail(error, 0, STEP, "a symbolic link to nothing");
    if (path_resolve_parent(tree, untar->path.data, false, &parent, &name, error) < 0)
        return -1;
    if (entry->type == TAR_DIRECTORY)
        return entry_make_directory(tree, entry, extensions, parent, name, error);
    if (entry->type == TAR_FILE)
        return entry_make_file(tree, &untar->stream, entry, extensions, &extensions->map, parent,
                               name, left, error);
    return entry_make_special(tree, entry, extensions, parent, name, error);
}

/* Read the body of an extension header. All of one entry's together are bounded, however often
 * they come. */
static int read_extension(struct untar *untar, struct tar_text *text, struct pyrtc_error *error)
{
    int64_t size = untar->header.size;
    uint64_t limit = untar->options->max_pax_bytes;

    if (size < 0 || (uint64_t)size > limit || untar->pax_bytes > limit - (uint64_t)size)
        return pyrtc_fail(error, 0, "read an extended tar header", "more than %llu bytes of them",
                          (unsigned long long)limit);
    /* An empty one costs a header as well. */
    untar->pax_bytes += size ? (uint64_t)size : 1;
    if (tar_text_reserve(text, (size_t)size, error) < 0 ||
        stream_read(&untar->stream, text->data, (size_t)size, error) < 0)
        return -1;
    text->data[size] = 0;
    text->size = (size_t)size;
    return stream_skip(&untar->stream, -(uint64_t)size % TAR_BLOCK_SIZE, error);
}

/* Take in an extension header. Returns 1, or 0 where the header is that of an entry. */
static int take_extension(struct untar *untar, struct pyrtc_error *error)
{
    struct tar_extensions *extensions = &untar->extensions;

    switch (untar->header.typeflag) {
    case 'x':
    case 'X': /* Solaris wrote it before POSIX settled on x */
        tar_extensions_clear_pax(extensions);
        extensions->present = true;
        if (read_extension(untar, &extensions->pax, error) < 0 ||
            tar_parse_pax(extensions, error) < 0)
            return -1;
        return 1;
    case 'g': {
        /* Settings for all that follows: as the other engines, read and refuse what is malformed,
         * heed nothing. */
        struct tar_extensions ignored = {0};
        int result = read_extension(untar, &ignored.pax, error);
        if (result == 0)
            result = tar_parse_pax(&ignored, error);
        tar_extensions_free(&ignored);
        untar->pax_bytes = extensions->present ? untar->pax_bytes : 0;
        return result < 0 ? -1 : 1;
    }
    case 'L':
        extensions->present = true;
        return read_extension(untar, &extensions->long_name, error) < 0 ? -1 : 1;
    case 'K':
        extensions->present = true;
        return read_extension(untar, &extensions->long_link, error) < 0 ? -1 : 1;
    default:
        return 0;
    }
}

/* Read one header and what belongs to it. Returns 1, or 0 at the end of the archive: two zero
 * blocks, or the end of the stream where a header would be. One zero block with something behind
 * it is refused, as by Go: readers disagree on whether the archive goes on. */
static int next(struct untar *untar, struct pyrtc_error *error)
{
    uint8_t header[TAR_BLOCK_SIZE];
    const uint8_t *block;

    if (!untar->extensions.present)
        untar->header_at = untar->stream.offset;
    untar->has_entry = false;
    int got = stream_block(&untar->stream, &block, error);
    if (got > 0 && tar_is_zero_block(block)) {
        got = stream_block(&untar->stream, &block, error);
        if (got > 0 && !tar_is_zero_block(block))
            return pyrtc_fail(error, 0, "read a tar header", "a single block of zeros");
        got = got < 0 ? -1 : 0;
    }
    if (got == 0 && untar->extensions.present)
        return pyrtc_fail(error, 0, "read a tar header",
                          "the archive ends behind an extended header");
    if (got <= 0)
        return got;
    memcpy(header, block, TAR_BLOCK_SIZE);
    if (tar_parse_header(header, &untar->header, error) < 0)
        return -1;
    int taken = take_extension(untar, error);
    if (taken)
        return taken;

    untar->entry.path = untar->header.name;
    untar->has_entry = true;
    if (tar_merge(&untar->header, &untar->extensions, &untar->entry, error) < 0)
        return -1;
    if (untar->result->entries++ >= untar->options->max_entries)
        return pyrtc_fail(error, 0, STEP, "the layer has more than %llu entries",
                          (unsigned long long)untar->options->max_entries);
    uint64_t left = untar->entry.size;
    if (make_entry(untar, header, &left, error) < 0)
        return -1;
    untar->has_entry = false;
    /* The padding follows from the one size as well. */
    if (stream_skip(&untar->stream, left, error) < 0 ||
        stream_skip(&untar->stream, -untar->entry.size % TAR_BLOCK_SIZE, error) < 0)
        return -1;
    tar_extensions_clear(&untar->extensions);
    untar->pax_bytes = 0;
    return 1;
}

/* Say which entry failed. Its name is the archive's: what a terminal could take for a command is
 * written as \ooo. */
static void name_entry(const struct untar *untar, struct pyrtc_error *error)
{
    char text[240], message[sizeof(error->message)];
    const char *path = untar->has_entry ? untar->entry.path : "";

    size_t size = pyrtc_printable(text, sizeof(text), path);
    snprintf(message, sizeof(message), "%s", error->message);
    snprintf(error->message, sizeof(error->message), "%.200s%s%s%s%s%sat byte %llu of the stream",
             message, *message ? ": " : "", size ? "\"" : "", text, size ? "\"" : "",
             size ? " " : "", (unsigned long long)untar->header_at);
}

/* Returns 1 where it gave up, as `alone` asks, because the layers below have a say. */
static int unpack(struct untar *untar, struct pyrtc_error *error)
{
    struct layer_tree *tree = &untar->tree;
    int more;

    if (tree_open(tree, error) < 0)
        return -1;
    /* The root is a directory that is implied by the layer itself. */
    if ((untar->options->lower_count ? lower_inherit_directory(tree, NULL, tree->root, error)
                                     : tree_reset_attributes(tree, tree->root, error)) < 0)
        return -1;
    do {
        more = next(untar, error);
        if (more >= 0 && untar->options->alone && untar->result->depends)
            return 1;
    } while (more > 0);
    if (more < 0) {
        name_entry(untar, error);
        return -1;
    }
    if (link_make_pending(tree, &untar->pending, error) < 0)
        return -1;
    if (untar->options->alone && untar->result->depends)
        return 1;
    if (untar->has_plink) {
        bool existed;
        if (tree_clear_name(tree, tree->root, ".wh..wh.plnk", &existed, error) < 0)
            return -1;
    }
    return tree_finish(tree, error) < 0 || stream_drain(&untar->stream, error) < 0 ? -1 : 0;
}

/* Unpack one layer. See pyrtc_layer.h for what the options mean. Nothing is created outside root_fd,
 * nothing is followed out of it, and memory grows only with directories, links and whiteouts, of
 * which max_entries is the bound. On failure the partial tree is the caller's to remove. Calls may
 * run beside each other in any number of threads. */
int pyrtc_untar(const struct pyrtc_untar_options *options, struct pyrtc_untar_result *result,
                struct pyrtc_error *error)
{
    struct untar untar = {
        .options = options,
        .result = result,
        .tree = {.options = options, .result = result},
    };

    *result = (struct pyrtc_untar_result){0};
    int status = stream_open(&untar.stream, options->stream_fd, options->pieces, error);
    if (status == 0)
        status = unpack(&untar, error);
    result->stream_bytes = untar.stream.offset;
    tree_close(&untar.tree);
    stream_close(&untar.stream);
    tar_extensions_free(&untar.extensions);
    link_free_pending(&untar.pending);
    free(untar.path.data);
    free(untar.link.data);
    return status;
}
