/*
 * The interface between the C core and Python: this file and pyrtc_*.h, one a topic. cffi reads
 * their declarations (preprocessor lines are dropped), so they hold plain C declarations only.
 *
 * Conventions: a function returns < 0 after filling *error; descriptors passed in stay the
 * caller's, descriptors handed out become the caller's and are close-on-exec; paths are bytes,
 * relative to a directory descriptor, and are resolved beneath it without following links out.
 */
#ifndef PYRTC_H
#define PYRTC_H

#include <stddef.h>
#include <stdint.h>

struct pyrtc_error {
    int32_t code;      /* errno, or 0 where no system call is to blame */
    char step[64];     /* what was being done, in a few words: "open the layer directory" */
    char message[512]; /* what is wrong, a sentence without a full stop; may be empty */
};

#endif
