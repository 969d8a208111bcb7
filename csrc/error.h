/*
 * The one error convention: every function that can fail takes a struct pyrtc_error and returns < 0
 * after filling it.
 */
#ifndef PYRTC_ERROR_H
#define PYRTC_ERROR_H

#include "pyrtc.h"

/* Fill *error with the step that failed, its errno (0: no system call is to blame) and a formatted
 * sentence that may be empty; returns -1, so that `return pyrtc_fail(...)` reads as one thought. */
int pyrtc_fail(struct pyrtc_error *error, int code, const char *step, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A name out of an image as text that a terminal may be shown: control characters and backslashes
 * as \ooo, cut where it does not fit. Returns its length. */
size_t pyrtc_printable(char *text, size_t room, const char *name);

#endif
