/*
 * Unpack arbitrary streams, or, with the top bit of the first byte, archives whose entries are well-formed and whose
 * names are few, so that entries replace, link to and hide each other. Header checksums are made right first, or no input would get past them. The layer lies
 * beside a directory that must stay as it is: nothing may be created, changed or removed outside the layer.
 *
 * Set PYRTC_FUZZ_DIRECTORY to a directory on a tmpfs; the default is /dev/shm.
 */
#include "error.h"
#include "pyrtc_layer.h"
#include "pyrtc_tree.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int base_fd = -1, canary_fd;
static struct stat canary;

static void prepare(void)
{
    char path[256];
    const char *parent = getenv("PYRTC_FUZZ_DIRECTORY");

    snprintf(path, sizeof(path), "%s/fuzz-untar-XXXXXX", parent ? parent : "/dev/shm");
    assert(mkdtemp(path));
    base_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert(base_fd >= 0);
    assert(mkdirat(base_fd, "outside", 0700) == 0);
    canary_fd = openat(base_fd, "outside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert(canary_fd >= 0 && fstat(canary_fd, &canary) == 0);
    /* A layer below with what entries may fall back on. */
    assert(mkdirat(base_fd, "lower", 0755) == 0);
    int lower = openat(base_fd, "lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert(lower >= 0);
    assert(mkdirat(lower, "d", 01777) == 0 && mkdirat(lower, "d/e", 0700) == 0);
    assert(symlinkat("../../../outside", lower, "s") == 0 && symlinkat("d/e", lower, "l") == 0);
    int file = openat(lower, "d/f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert(file >= 0 && write(file, "lower", 5) == 5);
    close(file);
    close(lower);
}

/* Names that meet each other: what is a directory for one entry is a link, a whiteout or a file for the next. */
static size_t append_path(char *target, size_t space, const uint8_t *data)
{
    static const char *const names[] = {"a",
                                        "b",
                                        "d",
                                        "e",
                                        "f",
                                        "l",
                                        "s",
                                        "..",
                                        ".",
                                        "outside",
                                        ".wh.a",
                                        ".wh.d",
                                        ".wh.e",
                                        ".wh..wh..opq",
                                        ".wh..wh.plnk",
                                        "b"};
    size_t size = 0;

    if (data[0] >= 0xf0)
        size += (size_t)snprintf(target, space, "/");
    for (int i = 0; i < 1 + data[0] % 4; i++)
        size += (size_t)snprintf(target + size, space - size, "%s%s", i ? "/" : "",
                                 names[data[1 + i / 2] >> (i % 2 * 4) & 15]);
    return size;
}

/* Make an archive of well-formed entries, eight bytes of input for each. */
static uint8_t *generate(const uint8_t *data, size_t size, size_t *made)
{
    static const char types[] = "0000555522211163";
    size_t count = size / 8;
    uint8_t *archive = calloc(count + 1, 512);

    assert(archive);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *in = data + 8 * i;
        char *block = (char *)archive + 512 * i;
        append_path(block, 100, in + 1);
        append_path(block + 157, 100, in + 4);
        snprintf(block + 100, 8, "%07o", in[7]);
        snprintf(block + 108, 8, "%07o", 0);
        snprintf(block + 116, 8, "%07o", 0);
        snprintf(block + 124, 12, "%011o", 0);
        snprintf(block + 136, 12, "%011o", in[7]);
        block[156] = types[in[0] & 15];
        memcpy(block + 257, "ustar", 6);
    }
    *made = 512 * count;
    return archive;
}

/* Walk the blocks as a reader would and put right checksums in. */
static void seal(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size; at += 512) {
        uint8_t *block = data + at;
        uint32_t sum = 0;
        if (block[156] == 0xfe || block[0] == 0)
            continue; /* left to the fuzzer: data, wrong sums, the end */
        memset(block + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += block[i];
        snprintf((char *)block + 148, 8, "%06o", sum & 0777777);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pyrtc_error error = {0};
    struct pyrtc_untar_result result;
    struct stat now;

    if (base_fd < 0)
        prepare();
    if (size < 1 || size > 1 << 18)
        return 0;
    uint8_t flags = data[0];
    size_t length = size - 1;
    uint8_t *copy;
    if (flags & 0x80) {
        copy = generate(data + 1, size - 1 < 4096 ? size - 1 : 4096, &length);
    } else {
        copy = malloc(size);
        assert(copy);
        memcpy(copy, data + 1, length);
    }
    seal(copy, length);
    int stream = memfd_create("stream", MFD_CLOEXEC);
    assert(stream >= 0 && write(stream, copy, length) == (ssize_t)length);
    lseek(stream, 0, SEEK_SET);
    free(copy);

    assert(mkdirat(base_fd, "layer", 0700) == 0);
    int root = openat(base_fd, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int32_t lower = openat(base_fd, "lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert(root >= 0 && lower >= 0);
    struct pyrtc_untar_options options = {
        .stream_fd = stream,
        .root_fd = root,
        .lower_fds = &lower,
        .lower_count = flags & 1,
        .rootless = flags >> 1 & 1,
        .plain = flags >> 2 & 1,
        .max_entries = 4096,
        .max_bytes = 1 << 20,
        .max_file_size = 1ull << 40,
        .max_depth = 64,
        .max_pax_bytes = 1 << 16,
    };
    int status = pyrtc_untar(&options, &result, &error);
    assert(result.bytes <= options.max_bytes && result.stream_bytes <= length);
    if (status < 0)
        assert(error.step[0]);
    else
        assert(result.stream_bytes == length && result.entries <= options.max_entries);

    assert(fstat(canary_fd, &now) == 0);
    assert(now.st_nlink == canary.st_nlink && now.st_mode == canary.st_mode);
    assert(now.st_mtim.tv_sec == canary.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == canary.st_mtim.tv_nsec);
    close(lower);
    close(root);
    close(stream);
    assert(pyrtc_remove_tree(base_fd, "layer", &error) == 0);
    return 0;
}
