/*
 * nftables through libnftables, which is loaded when the first rule is set: a process that
 * publishes nothing does without it and the five libraries that it needs.
 */
#include "pyrtc_network.h"

#include "error.h"
#include "util.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct pyrtc_nft {
    void *context;
    void *(*make)(uint32_t flags);
    void (*end)(void *context);
    int (*buffer_output)(void *context);
    int (*buffer_error)(void *context);
    const char *(*output)(void *context);
    const char *(*error)(void *context);
    void (*set_flags)(void *context, unsigned flags);
    int (*run)(void *context, const char *commands);
};

enum {
    OUTPUT_JSON = 1 << 4,
    OUTPUT_HANDLE = 1 << 3
}; /* NFT_CTX_OUTPUT_* of nftables/libnftables.h */

static void *library(struct pyrtc_error *error)
{
    void *handle = dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        pyrtc_fail(error, ENOENT, "load libnftables.so.1", "%s", dlerror());
    return handle;
}

/* A function's address by a void pointer, which ISO C does not convert. */
static int find(void *handle, const char *name, void *function, struct pyrtc_error *error)
{
    void *address = dlsym(handle, name);

    if (!address)
        return pyrtc_fail(error, ENOENT, "load libnftables.so.1", "it has no %s", name);
    memcpy(function, &address, sizeof(address));
    return 0;
}

/* The library stays loaded: what it registers for the end of the process would be gone before. */
static int load(struct pyrtc_nft *nft, struct pyrtc_error *error)
{
    void *handle = library(error);

    if (!handle || find(handle, "nft_ctx_new", &nft->make, error) < 0 ||
        find(handle, "nft_ctx_free", &nft->end, error) < 0 ||
        find(handle, "nft_ctx_buffer_output", &nft->buffer_output, error) < 0 ||
        find(handle, "nft_ctx_buffer_error", &nft->buffer_error, error) < 0 ||
        find(handle, "nft_ctx_get_output_buffer", &nft->output, error) < 0 ||
        find(handle, "nft_ctx_get_error_buffer", &nft->error, error) < 0 ||
        find(handle, "nft_ctx_output_set_flags", &nft->set_flags, error) < 0 ||
        find(handle, "nft_run_cmd_from_buffer", &nft->run, error) < 0)
        return -1;
    return 0;
}

static int is_netfilter(int fd)
{
    int domain = 0, protocol = -1;
    socklen_t size = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK &&
           getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
           protocol == NETLINK_NETFILTER;
}

/* Put a socket in the place of the one that the library has just opened: in another user namespace
 * no thread of ours can be, but a socket from there says where its messages go, and that its opener
 * had the right. The library has no word for it; its socket is the lowest descriptor that was free. */
static int use_socket(int socket_fd, int lowest, struct pyrtc_error *error)
{
    if (lowest < 0 || !is_netfilter(lowest))
        return pyrtc_fail(error, ENOTSUP, "open libnftables", "its socket is not where it was");
    if (dup3(socket_fd, lowest, O_CLOEXEC) < 0)
        return pyrtc_fail(error, errno, "give libnftables a socket", "");
    return 0;
}

struct pyrtc_nft *pyrtc_nft_open(int32_t socket_fd, struct pyrtc_error *error)
{
    owned struct pyrtc_nft *nft = calloc(1, sizeof(*nft));
    struct pyrtc_nft *opened = nft;

    if (!nft) {
        pyrtc_fail(error, ENOMEM, "open libnftables", "");
        return NULL;
    }
    if (load(nft, error) < 0)
        return NULL;
    int lowest = socket_fd < 0 ? -1 : fcntl(socket_fd, F_DUPFD_CLOEXEC, 0);
    if (lowest >= 0)
        close(lowest);
    nft->context = nft->make(0);
    if (!nft->context) {
        pyrtc_fail(error, ENOMEM, "open libnftables (nft_ctx_new)", "");
        return NULL;
    }
    if (socket_fd >= 0 && use_socket(socket_fd, lowest, error) < 0) {
        nft->end(nft->context);
        return NULL;
    }
    if (nft->buffer_output(nft->context) || nft->buffer_error(nft->context)) {
        nft->end(nft->context);
        pyrtc_fail(error, ENOMEM, "open libnftables (nft_ctx_buffer_output)", "");
        return NULL;
    }
    nft = NULL;
    return opened;
}

void pyrtc_nft_close(struct pyrtc_nft *nft)
{
    nft->end(nft->context);
    free(nft);
}

int pyrtc_nft_run(struct pyrtc_nft *nft, const char *commands, uint32_t json, const char **output,
                  const char **complaint)
{
    nft->set_flags(nft->context, json ? OUTPUT_JSON | OUTPUT_HANDLE : 0);
    int result = nft->run(nft->context, commands);
    *output = nft->output(nft->context);
    *complaint = nft->error(nft->context);
    return result ? -1 : 0;
}
