/*
 * The monitor's two parsers. What a container writes goes into log files of small limits, and has to be found in them
 * again, in lines of the right form. What clients send, in any order and size, must neither be mistaken for something
 * else nor reach the container's stdin but through clients that may write to it.
 */
#include "../../csrc/init/monitor.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 4
#define MOST 65536

static const uint8_t *at;
static size_t left;

static uint8_t next(void)
{
    return left ? (left--, *at++) : 0;
}

/* ---- the log */

static int directory = -1;

static void open_directory(void)
{
    const char *path = getenv("PYRTC_FUZZ_DIRECTORY");

    if (directory >= 0)
        return;
    directory = open(path ? path : "/dev/shm", O_RDONLY | O_DIRECTORY);
    assert(directory >= 0);
}

/* Put the text of one file after what there is; returns how much there is then. */
static size_t read_log(const char *name, uint64_t limit, char *text, size_t used)
{
    static char file[MOST * 64];
    int fd = openat(directory, name, O_RDONLY);

    if (fd < 0)
        return used;
    ssize_t size = read(fd, file, sizeof(file));
    assert(size >= 0 && size < (ssize_t)sizeof(file));
    close(fd);
    unlinkat(directory, name, 0);
    size_t lines = 0;
    for (char *line = file; line < file + size; lines++) {
        char *end = memchr(line, '\n', (size_t)(file + size - line));
        assert(end && end - line >= 40);
        assert(line[4] == '-' && line[10] == 'T' && line[19] == '.' && line[29] == 'Z');
        assert(!memcmp(line + 30, " stdout ", 8) && (line[38] == 'F' || line[38] == 'P'));
        assert(line[39] == ' ');
        memcpy(text + used, line + 40, (size_t)(end - line - 40));
        used += (size_t)(end - line - 40);
        if (line[38] == 'F')
            text[used++] = '\n';
        line = end + 1;
    }
    assert(!limit || lines <= 1 || (uint64_t)size <= limit);
    return used;
}

static void fuzz_log(void)
{
    static char input[MOST], text[MOST * 2];
    struct log log;
    size_t used = 0, found = 0;
    uint32_t files = 1 + next() % 40;
    uint64_t limit = next() % 2 ? 41 + (uint64_t)next() * 8 : 0;
    char name[24];

    open_directory();
    log_open(&log, directory, files, limit);
    while (left && used < MOST) {
        size_t size = 1 + (size_t)next() * 3;
        size_t begun = used;
        for (; size && used < MOST; size--)
            input[used++] = (char)next();
        log_write(&log, STREAM_STDOUT, input + begun, used - begun);
    }
    close(log.fd);
    for (uint32_t number = files; number--;) {
        if (number)
            snprintf(name, sizeof(name), "log.%u", number);
        found = read_log(number ? name : "log", limit, text, found);
    }
    /* What is kept is the end. */
    assert(found <= used && !memcmp(text, input + used - found, found));
    assert(limit || found == used);
}

/* ---- attach */

struct peer {
    int fd;
    bool known, input, gone;
};

static void turn(struct attach *attach)
{
    struct pollfd entries[MAX_CLIENTS];
    uint32_t count = attach_gather(attach, entries);

    poll(entries, count, 0);
    attach_serve(attach, entries, count, 1);
    assert(attach->count <= CLIENTS);
    uint32_t owed = 0;
    for (uint32_t i = 0; i < attach->count; i++) {
        assert(attach->clients[i].fd >= 0);
        owed += attach->clients[i].owed;
    }
    assert(owed == attach->owed);
    assert(attach->input_at <= attach->input_end && attach->input_end <= ATTACH_MAX_MESSAGE);
    if (attach->input_at < attach->input_end)
        attach_flush_input(attach);
}

/* Input is all 'i', and comes from clients that may send it; nothing else in these messages is. */
static size_t drain(int pipe_fd)
{
    static char bytes[MOST];
    ssize_t size = read(pipe_fd, bytes, sizeof(bytes));

    for (ssize_t i = 0; i < size; i++)
        assert(bytes[i] == 'i');
    return size > 0 ? (size_t)size : 0;
}

static void send_some(struct peer *peer, size_t *allowed)
{
    static char message[MOST];
    static const char kinds[] = "AIICWQZ";
    size_t size = next() % 8 ? next() % 7 : (size_t)next() * 200;
    char kind = kinds[next() % 7];

    message[0] = kind;
    for (size_t i = 1; i < size; i++)
        message[i] = kind == 'I' ? 'i' : (char)next();
    bool hello = !peer->known && kind == 'A' && size == 2 && (uint8_t)message[1] < 8;
    if (send(peer->fd, message, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return;
    if (hello) {
        peer->known = true;
        peer->input = message[1] & ATTACH_INPUT_ALLOWED;
    } else if (!peer->known) {
        peer->known = true; /* dropped */
    }
    if (kind == 'I' && peer->input && size)
        *allowed += size - 1;
}

static void fuzz_attach(void)
{
    static struct attach attach;
    struct peer peers[CLIENTS] = {0};
    int input[2], pair[2];
    size_t allowed = 0, got = 0;

    memset(&attach, 0, sizeof(attach));
    assert(pipe2(input, O_NONBLOCK) == 0);
    attach.input = input[1];
    attach.listener = -1;
    for (int i = 0; i < CLIENTS; i++) {
        assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
        peers[i].fd = pair[0];
        attach.clients[attach.count++] = (struct client){.fd = pair[1]};
    }
    while (left) {
        struct peer *peer = &peers[next() % CLIENTS];
        switch (next() % 8) {
        case 0:
            got += drain(input[0]);
            break;
        case 1:
            if (!attach.owed)
                attach_send(&attach, "Ohello", 6, next() % 2, 0);
            break;
        case 2:
            if (next() % 4 == 0 && !peer->gone) {
                peer->gone = true;
                shutdown(peer->fd, SHUT_RDWR);
            }
            break;
        case 3:
            attach_expire(&attach, next() % 16 ? 1 : CLIENT_STALL + 1);
            break;
        case 4:
            turn(&attach);
            break;
        default:
            if (!peer->gone)
                send_some(peer, &allowed);
        }
    }
    for (int i = 0; i < 64; i++) {
        turn(&attach);
        got += drain(input[0]);
    }
    assert(got <= allowed);
    for (uint32_t i = 0; i < attach.count; i++)
        close(attach.clients[i].fd);
    for (int i = 0; i < CLIENTS; i++)
        close(peers[i].fd);
    close(input[0]);
    if (attach.input >= 0)
        close(attach.input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[31];
    uint64_t time = 0;

    at = data;
    left = size;
    if (!size)
        return 0;
    switch (next() % 3) {
    case 0:
        fuzz_log();
        break;
    case 1:
        fuzz_attach();
        break;
    default:
        for (int i = 0; i < 8; i++)
            time = time << 8 | next();
        log_time(text, time);
        assert(strlen(text) == 30 && strspn(text, "0123456789-T:.Z") == 30);
        break;
    }
    return 0;
}
