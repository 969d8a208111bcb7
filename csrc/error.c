#include "error.h"

#include <stdarg.h>
#include <stdio.h>

int pyrtc_fail(struct pyrtc_error *error, int code, const char *step, const char *format, ...)
{
    va_list arguments;

    error->code = code;
    snprintf(error->step, sizeof(error->step), "%s", step);
    va_start(arguments, format);
    vsnprintf(error->message, sizeof(error->message), format, arguments);
    va_end(arguments);
    return -1;
}
