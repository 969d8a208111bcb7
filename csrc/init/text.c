/*
 * The few functions of a C library that a freestanding program needs; gcc itself emits calls of the
 * mem* ones.
 */
#include "init.h"

void *memcpy(void *restrict target, const void *restrict source, size_t size);
void *memset(void *target, int value, size_t size);
int memcmp(const void *left, const void *right, size_t size);

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *
memcpy(void *restrict target, const void *restrict source, size_t size)
{
    unsigned char *to = target;
    const unsigned char *from = source;

    while (size--)
        *to++ = *from++;
    return target;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memset(void *target, int value,
                                                                           size_t size)
{
    unsigned char *to = target;

    while (size--)
        *to++ = (unsigned char)value;
    return target;
}

int memcmp(const void *left, const void *right, size_t size)
{
    const unsigned char *a = left, *b = right;

    for (; size--; a++, b++)
        if (*a != *b)
            return *a - *b;
    return 0;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) size_t text_length(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    return length;
}

bool text_equal(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return *left == *right;
}

bool text_append(char *buffer, size_t size, size_t *used, const char *text)
{
    size_t length = text_length(text);

    if (*used + length + 1 > size)
        return false;
    memcpy(buffer + *used, text, length + 1);
    *used += length;
    return true;
}

bool text_append_number(char *buffer, size_t size, size_t *used, uint64_t number)
{
    char digits[21];
    unsigned at = sizeof(digits) - 1;

    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    return text_append(buffer, size, used, digits + at);
}

/* A non-negative decimal number, or -1. */
long text_number(const char *text)
{
    long value = 0;

    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > 100000000)
            return -1;
        value = value * 10 + (*text - '0');
    }
    return value;
}
