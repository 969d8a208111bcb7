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

size_t pyrtc_printable(char *text, size_t room, const char *name)
{
    size_t size = 0;

    for (; *name && size + sizeof("\\ooo") <= room; name++) {
        uint8_t byte = (uint8_t)*name;
        if (byte < ' ' || byte == '\\' || byte == 0x7f)
            size += (size_t)snprintf(text + size, room - size, "\\%03o", byte);
        else
            text[size++] = (char)byte;
    }
    text[size] = '\0';
    return size;
}
