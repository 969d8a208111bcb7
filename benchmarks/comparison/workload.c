/*
 * What runs inside every instance that is compared: one static program, the same for containers,
 * copied trees and virtual machines. It prints one line and ends, but for `sleep`.
 *
 *   first              a word, as soon as it runs
 *   sleep              the same, and then nothing until it is killed
 *   write PATH         nanoseconds of opening a file and writing one byte over its first
 *   chmod PATH         nanoseconds of changing its mode
 *   rename PATH NAME   nanoseconds of renaming it
 *   read DIR           nanoseconds of reading every file below a directory
 *   walk DIR           nanoseconds of looking at every name below a directory
 *   isolation          what separates this process from the rest of the machine, and a third of a
 *                      second in which somebody may look at it
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int write_byte(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || pwrite(fd, "x", 1, 0) != 1)
        return failed(path);
    return close(fd);
}

/* Look at everything below a directory, and read what is in it when asked to. */
static int visit(int parent, const char *name, int reading)
{
    static char buffer[1 << 16];
    struct dirent *entry;
    struct stat status;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (!directory)
        return failed(name);
    while ((entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            return failed(entry->d_name);
        if (S_ISDIR(status.st_mode) && visit(fd, entry->d_name, reading))
            return 1;
        if (reading && S_ISREG(status.st_mode)) {
            int file = openat(fd, entry->d_name, O_RDONLY | O_CLOEXEC);
            ssize_t size = file < 0 ? -1 : 1;

            while (size > 0)
                size = read(file, buffer, sizeof(buffer));
            if (size < 0)
                return failed(entry->d_name);
            close(file);
        }
    }
    return closedir(directory);
}

static int timed(int argc, char **argv)
{
    long long begin = now();
    int code;

    if (!strcmp(argv[1], "write"))
        code = write_byte(argv[2]);
    else if (!strcmp(argv[1], "chmod"))
        code = chmod(argv[2], 0700) < 0 ? failed(argv[2]) : 0;
    else if (!strcmp(argv[1], "rename") && argc > 3)
        code = rename(argv[2], argv[3]) < 0 ? failed(argv[2]) : 0;
    else if (!strcmp(argv[1], "read") || !strcmp(argv[1], "walk"))
        code = visit(AT_FDCWD, argv[2], argv[1][0] == 'r');
    else
        return 2;
    if (!code)
        printf("%lld\n", now() - begin);
    return code;
}

/* One fact a line: NAME VALUE. */
static int isolation(void)
{
    static const char *const spaces[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
    static const char *const hidden[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list",
                                         "/sys/firmware", "/proc/scsi"};
    static const char *const fixed[] = {"/proc/sys/kernel/domainname", "/proc/sysrq-trigger"};
    static const char *const wanted[] = {"CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"};
    char line[4096], target[128];
    FILE *file;

    for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/self/ns/%s", spaces[i]);
        ssize_t size = readlink(path, target, sizeof(target) - 1);
        printf("%s %.*s\n", spaces[i], size < 0 ? 1 : (int)size, size < 0 ? "?" : target);
    }
    file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof(line), file))
        for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
            if (!strncmp(line, wanted[i], strlen(wanted[i])))
                printf("%.*s %s", (int)strlen(wanted[i]) - 1, line,
                       line + strlen(wanted[i]) + strspn(line + strlen(wanted[i]), "\t "));
    if (file)
        fclose(file);
    /* A masked file is /dev/null, a masked directory an empty read-only file system. */
    for (size_t i = 0; i < sizeof(hidden) / sizeof(*hidden); i++) {
        struct stat status;
        int seen = 0;

        if (stat(hidden[i], &status) == 0) {
            if (S_ISDIR(status.st_mode)) {
                DIR *directory = opendir(hidden[i]);
                struct dirent *entry;

                while (directory && (entry = readdir(directory)))
                    seen |= entry->d_name[0] != '.';
                if (directory)
                    closedir(directory);
            } else {
                seen = !S_ISCHR(status.st_mode);
            }
        }
        printf("masked:%s %d\n", hidden[i], !seen);
    }
    for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++) {
        int fd = open(fixed[i], O_WRONLY | O_CLOEXEC);

        printf("readonly:%s %d\n", fixed[i], fd < 0);
        if (fd >= 0)
            close(fd);
    }
    /* Its control groups can be seen from outside only. */
    fflush(stdout);
    usleep(300000);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "first";

    if (!strcmp(what, "isolation"))
        return isolation();
    if (argc > 2)
        return timed(argc, argv);
    if (write(STDOUT_FILENO, "running\n", 8) != 8)
        return 1;
    if (!strcmp(what, "sleep"))
        for (;;)
            pause();
    return 0;
}
