/*
 * Netlink: messages built in a row, sent at once, and what the kernel answers, read with every
 * length checked. Raw system calls only, so that a borrowing child may use all of it.
 */
#ifndef PYRTC_NETLINK_H
#define PYRTC_NETLINK_H

#include <stddef.h>
#include <stdint.h>

enum {
    NETLINK_ROOM = 6144,    /* bytes of one batch */
    NETLINK_MESSAGES = 64,  /* messages of one batch */
    NETLINK_ANSWER = 16384, /* bytes that one read may bring */
    NETLINK_TEXT = 160,     /* of what the kernel says about an error */
};

struct netlink_batch {
    uint32_t size;
    uint32_t message; /* where the last message begins */
    uint32_t count;
    uint32_t full;                       /* 1: something did not fit; netlink_exchange() refuses */
    const char *steps[NETLINK_MESSAGES]; /* what each message is for */
    uint8_t bytes[NETLINK_ROOM] __attribute__((aligned(8)));
};

/* Begin another batch. */
void netlink_begin(struct netlink_batch *batch);

/* Begin a message, whose fixed part follows; flags: NLM_F_*. */
void netlink_message(struct netlink_batch *batch, uint16_t type, uint16_t flags, const char *step);

/* Append to the message its fixed part, or an attribute. */
void netlink_put(struct netlink_batch *batch, const void *bytes, size_t size);
void netlink_attribute(struct netlink_batch *batch, uint16_t type, const void *bytes, size_t size);
void netlink_text(struct netlink_batch *batch, uint16_t type, const char *text);
void netlink_u32(struct netlink_batch *batch, uint16_t type, uint32_t value);

/* Attributes in an attribute: netlink_end() takes what netlink_nest() returned. */
uint32_t netlink_nest(struct netlink_batch *batch, uint16_t type);
void netlink_end(struct netlink_batch *batch, uint32_t nest);

/* A socket of this protocol that explains errors, or -errno. */
long netlink_open(int protocol);

struct netlink_answer {
    int32_t error;           /* of the first message that failed, as -errno; 0: none */
    uint32_t failed;         /* its number in the batch, 0 is the first */
    uint32_t settled;        /* 1: the last message was answered */
    char text[NETLINK_TEXT]; /* what the kernel says, printable; may be empty */
};

/* Called for each message that is no acknowledgement. */
typedef void netlink_visit(void *context, uint16_t type, const uint8_t *payload, size_t size);

/* Read one datagram of answers to a batch of count messages, at least one. Returns 0, or -EBADMSG. */
int netlink_read_answers(const uint8_t *bytes, size_t size, uint32_t count,
                         struct netlink_answer *answer, netlink_visit *visit, void *context);

/* Find an attribute of this type; NULL if there is none. *found_size: of its value. */
const uint8_t *netlink_find(const uint8_t *attributes, size_t size, uint16_t type,
                            size_t *found_size);

/* Send the batch and read until its last message, which asks for an acknowledgement by itself, is
 * answered; earlier failures are remembered, and what comes after them is done all the same.
 * buffer: NETLINK_ANSWER bytes. Returns 0, or -errno with answer->failed; *step says what it was.
 */
long netlink_exchange(long socket, struct netlink_batch *batch, struct netlink_answer *answer,
                      uint8_t *buffer, netlink_visit *visit, void *context, const char **step);

#endif
