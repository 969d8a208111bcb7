/*
 * What the tests of the monitor run in containers: a static program that does one thing after the other.
 *
 *   workload COMMAND [WORD...] [, COMMAND [WORD...]]...
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void say(int fd, const char *text, size_t size)
{
    while (size) {
        ssize_t written = write(fd, text, size);
        if (written < 0 && errno != EAGAIN)
            exit(errno == EPIPE ? 32 : 33);
        text += written > 0 ? written : 0;
        size -= written > 0 ? (size_t)written : 0;
    }
}

/* In one write; "\n" in a word is a newline. */
static void say_word(int fd, const char *word)
{
    char text[4096];
    size_t size = 0;

    for (; *word && size < sizeof(text); word++) {
        bool newline = word[0] == '\\' && word[1] == 'n';
        text[size++] = newline ? '\n' : *word;
        word += newline;
    }
    say(fd, text, size);
}

static void pause_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    while (nanosleep(&time, &time) < 0)
        ;
}

/* Numbered lines of 64 bytes, or x without a newline. */
static void flood(long bytes, bool lines)
{
    static char block[65536];

    for (long number = 0; bytes > 0;) {
        size_t size = bytes < (long)sizeof(block) ? (size_t)bytes : sizeof(block);
        memset(block, 'x', size);
        for (size_t at = 0; lines && at + 64 <= size; at += 64) {
            char text[65];
            snprintf(text, sizeof(text), "%063ld\n", number++);
            memcpy(block + at, text, 64);
        }
        say(1, block, size);
        bytes -= (long)size;
    }
}

/* Every descriptor that is open here, but that of the directory that is read. */
static void list_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    char text[4096] = "";

    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
            strcat(strcat(text, entry->d_name), " ");
    say(1, strcat(text, "\n"), strlen(text) + 1);
    closedir(directory);
}

static void copy_input(void)
{
    static char block[65536];
    ssize_t size;

    while ((size = read(0, block, sizeof(block))) > 0)
        say(1, block, (size_t)size);
}

static void await_byte(void)
{
    char byte;

    while (read(0, &byte, 1) < 0)
        ;
}

static void count_input(void)
{
    static char block[65536];
    long total = 0;
    ssize_t size;

    while ((size = read(0, block, sizeof(block))) > 0)
        total += size;
    dprintf(1, "%ld\n", total);
}

static void eat(long mebibytes)
{
    for (long i = 0; i < mebibytes; i++) {
        char *page = malloc(1 << 20);
        memset(page, 1, 1 << 20);
    }
}

static void on_winch(int number)
{
    (void)number;
}

static void print_size(void)
{
    struct winsize size;

    ioctl(0, TIOCGWINSZ, &size);
    dprintf(1, "%d %d\n", size.ws_row, size.ws_col);
}

/* A window size that is set before the handler would be missed: look every now and then. */
static void await_size(int rows)
{
    struct winsize size = {0};

    signal(SIGWINCH, on_winch);
    while (ioctl(0, TIOCGWINSZ, &size) == 0 && size.ws_row != rows)
        pause_ms(10);
}

/* One that leaves the session and keeps the standard streams; it ends when the file is there, or after a minute. */
static void leave_child(const char *word)
{
    if (fork() != 0)
        return;
    setsid();
    for (int i = 0; i < 600; i++)
        pause_ms(100);
    say_word(1, word);
    _exit(0);
}

/* All hold the terminal closed for a while; then it is opened again. */
static void reopen_terminal(long milliseconds)
{
    close(0);
    close(1);
    close(2);
    pause_ms(milliseconds);
    for (int fd = 0; fd < 3; fd++)
        if (open("/dev/console", O_RDWR) < 0)
            _exit(44);
}

static void do_command(int count, char **words)
{
    const char *name = words[0], *first = count > 1 ? words[1] : "";

    if (!strcmp(name, "out"))
        say_word(1, first);
    else if (!strcmp(name, "err"))
        say_word(2, first);
    else if (!strcmp(name, "sleep"))
        pause_ms(atol(first));
    else if (!strcmp(name, "flood"))
        flood(atol(first), true);
    else if (!strcmp(name, "endless"))
        flood(atol(first), false);
    else if (!strcmp(name, "close"))
        close(atoi(first));
    else if (!strcmp(name, "fds"))
        list_descriptors();
    else if (!strcmp(name, "cat"))
        copy_input();
    else if (!strcmp(name, "await"))
        await_byte();
    else if (!strcmp(name, "count"))
        count_input();
    else if (!strcmp(name, "exit"))
        exit(atoi(first));
    else if (!strcmp(name, "die"))
        kill(getpid(), atoi(first));
    else if (!strcmp(name, "eat"))
        eat(atol(first));
    else if (!strcmp(name, "child"))
        leave_child(first);
    else if (!strcmp(name, "size"))
        print_size();
    else if (!strcmp(name, "await-rows"))
        await_size(atoi(first));
    else if (!strcmp(name, "reopen"))
        reopen_terminal(atol(first));
    else if (!strcmp(name, "ignore"))
        signal(atoi(first), SIG_IGN);
    else if (!strcmp(name, "forever"))
        for (;;)
            pause_ms(1000);
    else
        exit(99);
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    for (int at = 1; at < count;) {
        int end = at;
        while (end < count && strcmp(words[end], ","))
            end++;
        do_command(end - at, words + at);
        at = end + 1;
    }
    return 0;
}
