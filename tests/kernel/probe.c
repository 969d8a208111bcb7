/*
 * What the tests run inside containers: one static program that makes one system call and says what came of it.
 *
 *   probe COMMAND [WORD...] [, COMMAND [WORD...]]...
 *
 * Each command writes its answer and a record separator (0x1e). A refused call is answered with "!" and the name of the
 * error, such as !EPERM. A command that ends or replaces the process must be the last.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void answer(long result)
{
    if (result < 0)
        printf("!%s", strerrorname_np(errno));
    else
        printf("%ld", result);
}

static void cat(const char *path)
{
    char buffer[65536];
    ssize_t size;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        answer(-1);
        return;
    }
    while ((size = read(fd, buffer, sizeof(buffer))) > 0)
        fwrite(buffer, 1, (size_t)size, stdout);
    if (size < 0)
        answer(-1);
    close(fd);
}

/* write PATH TEXT: into an existing file; the answer is the number of bytes. */
static void write_file(const char *path, const char *text, int flags)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);

    if (fd < 0) {
        answer(-1);
        return;
    }
    answer(write(fd, text, strlen(text)));
    close(fd);
}

static int by_name(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void list(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    char *names[4096];
    size_t count = 0;

    if (!directory) {
        answer(-1);
        return;
    }
    while ((entry = readdir(directory)) && count < 4096)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            names[count++] = strdup(entry->d_name);
    closedir(directory);
    qsort(names, count, sizeof(*names), by_name);
    for (size_t i = 0; i < count; i++)
        printf("%s\n", names[i]);
}

/* stat PATH: type and mode (octal), owner, group, device number, size, type of the file system (hex). */
static void describe(const char *path)
{
    struct stat about;
    struct statfs system;

    if (lstat(path, &about) < 0 || (statfs(path, &system) < 0 && !S_ISLNK(about.st_mode)))
        answer(-1);
    else
        printf("%o %u %u %u:%u %lld %lx", about.st_mode, about.st_uid, about.st_gid,
               major(about.st_rdev), minor(about.st_rdev), (long long)about.st_size,
               (unsigned long)system.f_type);
}

/* Every open descriptor and what it is. The one that reads the directory is left out. */
static void descriptors(void)
{
    char path[64], target[PATH_MAX];

    for (int fd = 0; fd < 65536; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        target[length < 0 ? 0 : length] = '\0';
        printf("%d %s\n", fd, target);
    }
}

/* node b|c PATH MAJOR MINOR: make a device node and open it. */
static void node(char **words)
{
    mode_t type = words[0][0] == 'b' ? S_IFBLK : S_IFCHR;

    if (mknod(words[1], type | 0600, makedev((unsigned)atoi(words[2]), (unsigned)atoi(words[3]))) <
        0) {
        answer(-1);
        return;
    }
    printf("made ");
    int fd = open(words[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == EROFS || errno == ENOMEDIUM))
        fd = open(words[1], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    answer(fd);
    if (fd >= 0)
        close(fd);
    unlink(words[1]);
}

/* call NUMBER [ARGUMENT...]: a raw system call; an argument is a number or a string after "s:". */
static void raw_call(char **words, int count)
{
    long argument[6] = {0};

    for (int i = 1; i < count && i < 7; i++)
        argument[i - 1] =
            strncmp(words[i], "s:", 2) ? (long)strtoull(words[i], NULL, 0) : (long)(words[i] + 2);
    long number = (long)strtoull(words[0], NULL, 0);
    answer(syscall(number, argument[0], argument[1], argument[2], argument[3], argument[4],
                   argument[5]));
}

#ifdef __x86_64__
/* The entry of 32-bit programs, which a filter for 64-bit calls alone would not see. */
static void old_entry(long number, long argument)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(argument), "c"(0L), "d"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    errno = result < 0 ? (int)-result : 0;
    answer(result < 0 ? -1 : result);
}
#endif

/* handle PATH: can file handles be opened? First of a file of our own, then one with a low inode number, the way the
 * "shocker" exploit reached the host's root directory. */
static void by_handle(const char *path)
{
    struct {
        struct file_handle head;
        unsigned char room[128];
    } handle = {.head = {.handle_bytes = 128}};
    int mount;

    if (name_to_handle_at(AT_FDCWD, path, &handle.head, &mount, 0) < 0) {
        printf("name ");
        answer(-1);
        return;
    }
    int root = open(path, O_RDONLY | O_CLOEXEC);
    answer(open_by_handle_at(root, &handle.head, O_RDONLY));
}

static void abstract_socket(const char *verb, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path + 1, name, sizeof(address.sun_path) - 2);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    if (!strcmp(verb, "connect"))
        answer(connect(fd, (struct sockaddr *)&address, size));
    else
        answer(bind(fd, (struct sockaddr *)&address, size));
}

static void terminal(void)
{
    struct winsize size = {0};
    char name[PATH_MAX] = "";

    ioctl(0, TIOCGWINSZ, &size);
    if (isatty(0))
        ttyname_r(0, name, sizeof(name));
    printf("tty=%d%d%d name=%s size=%ux%u session=%d foreground=%d", isatty(0), isatty(1),
           isatty(2), name, size.ws_row, size.ws_col, getsid(0) == getpid(),
           tcgetpgrp(0) == getpgrp());
}

/* As `gosu` or an attacker would: no death signal of the parent's any more, ids changed, own session, two forks. */
static void escape_death(const char *how)
{
    if (strstr(how, "signal"))
        prctl(PR_SET_PDEATHSIG, 0);
    if (strstr(how, "setuid") && (setgid(4000) < 0 || setuid(4000) < 0))
        exit(98);
    if (strstr(how, "daemon")) {
        for (int i = 0; i < 2; i++) {
            pid_t child = fork();
            if (child < 0)
                exit(97);
            if (child > 0 && i == 1)
                _exit(0);
            if (child > 0)
                break;
            setsid();
        }
    }
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

static void pour(uint64_t bytes, int fd)
{
    static char block[65536];

    memset(block, 'x', sizeof(block));
    while (bytes) {
        ssize_t written = write(fd, block, bytes < sizeof(block) ? (size_t)bytes : sizeof(block));
        if (written < 0)
            exit(99);
        bytes -= (uint64_t)written;
    }
}

static void echo(void)
{
    char block[65536];
    ssize_t size;

    while ((size = read(0, block, sizeof(block))) > 0)
        for (ssize_t done = 0; done < size;) {
            ssize_t written = write(1, block + done, (size_t)(size - done));
            if (written < 0)
                exit(99);
            done += written;
        }
}

/* take BYTES: touch that much memory. */
static void take(size_t bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        answer(-1);
        return;
    }
    for (size_t at = 0; at < bytes; at += 4096)
        memory[at] = 1;
    printf("taken");
}

static void forks(int count)
{
    int made = 0;

    for (; made < count; made++) {
        pid_t child = fork();
        if (child == 0) {
            pause();
            _exit(0);
        }
        if (child < 0)
            break;
    }
    printf("%d", made);
}

static void limit(int resource)
{
    struct rlimit value;

    if (getrlimit((__rlimit_resource_t)resource, &value) < 0)
        answer(-1);
    else
        printf("%lld %lld", (long long)value.rlim_cur, (long long)value.rlim_max);
}

static void nap(double seconds)
{
    struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    fflush(stdout);
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

/* deep COUNT: directories in each other, the path far longer than the kernel takes in one piece. */
static void deep(int count)
{
    for (int i = 0; i < count; i++)
        if (mkdir("directory", 0700) < 0 || chdir("directory") < 0) {
            answer(-1);
            return;
        }
    answer(open("file", O_CREAT | O_WRONLY, 0) < 0 ? -1 : 0);
}

/* writable PATH: the files below it that open for writing, with their modes; nothing is written, processes are left out. */
static int try_to_write(const char *path, const struct stat *about, int type, struct FTW *where)
{
    if (type == FTW_D && where->level == 1 && path[where->base] >= '0' && path[where->base] <= '9')
        return FTW_SKIP_SUBTREE;
    if (type != FTW_F || !S_ISREG(about->st_mode))
        return FTW_CONTINUE;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) {
        printf("%o %s\n", about->st_mode & 07777, path);
        close(fd);
    }
    return FTW_CONTINUE;
}

/* Leave a process to process 1 that ends at once. */
static void orphan(void)
{
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0)
            _exit(0);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

extern char **environ;

static void run(int count, char **words)
{
    const char *command = words[0];
    char buffer[PATH_MAX];
    char *word[8] = {0};

    for (int i = 1; i < count && i < 9; i++)
        word[i - 1] = words[i];
#define IS(name, least) (!strcmp(command, name) && count > (least))
    if (IS("cat", 1))
        cat(word[0]);
    else if (IS("write", 2))
        write_file(word[0], word[1], 0);
    else if (IS("create", 2))
        write_file(word[0], word[1], O_CREAT | O_TRUNC);
    else if (IS("open", 1)) {
        int fd = open(word[0],
                      (word[1] && *word[1] == 'w' ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
        answer(fd < 0 ? -1 : 0);
    } else if (IS("list", 1))
        list(word[0]);
    else if (IS("stat", 1))
        describe(word[0]);
    else if (IS("readlink", 1)) {
        ssize_t length = readlink(word[0], buffer, sizeof(buffer) - 1);
        if (length < 0)
            answer(-1);
        else
            printf("%.*s", (int)length, buffer);
    } else if (IS("mkdir", 1))
        answer(mkdir(word[0], 0755));
    else if (IS("unlink", 1))
        answer(unlink(word[0]));
    else if (IS("symlink", 2))
        answer(symlink(word[0], word[1]));
    else if (IS("chmod", 2))
        answer(chmod(word[0], (mode_t)strtol(word[1], NULL, 8)));
    else if (IS("chown", 2))
        answer(lchown(word[0], (uid_t)atol(word[1]), (gid_t)-1));
    else if (IS("chdir", 1))
        answer(chdir(word[0]));
    else if (IS("chroot", 1))
        answer(chroot(word[0]));
    else if (IS("cwd", 0)) {
        if (syscall(SYS_getcwd, buffer, sizeof(buffer)) < 0)
            answer(-1);
        else
            printf("%s", buffer);
    } else if (IS("descriptors", 0))
        descriptors();
    else if (IS("environment", 0)) {
        for (char **entry = environ; *entry; entry++)
            printf("%s\n", *entry);
    } else if (IS("words", 0)) {
        for (int i = 1; i < count; i++)
            printf("%s\n", words[i]);
    } else if (IS("node", 4))
        node(word);
    else if (IS("call", 1))
        raw_call(words + 1, count - 1);
#ifdef __x86_64__
    else if (IS("int80", 2))
        old_entry(atol(word[0]), atol(word[1]));
#endif
    else if (IS("handle", 1))
        by_handle(word[0]);
    else if (IS("abstract", 2))
        abstract_socket(word[0], word[1]);
    else if (IS("mount", 5))
        answer(
            mount(word[0], word[1], word[2], strtoul(word[3], NULL, 0), *word[4] ? word[4] : NULL));
    else if (IS("unmount", 1))
        answer(umount2(word[0], MNT_DETACH));
    else if (IS("ptrace", 1))
        answer(ptrace(PTRACE_SEIZE, atoi(word[0]), 0, 0));
    else if (IS("kill", 2))
        answer(kill(atoi(word[0]), atoi(word[1])));
    else if (IS("terminal", 0))
        terminal();
    else if (IS("push", 0))
        answer(ioctl(0, TIOCSTI, "x"));
    else if (IS("ids", 0))
        printf("%d %d %d %d", getpid(), getppid(), getsid(0), getpgrp());
    else if (IS("setuid", 1))
        answer(setresuid((uid_t)atol(word[0]), (uid_t)atol(word[0]), (uid_t)atol(word[0])));
    else if (IS("limit", 1))
        limit(atoi(word[0]));
    else if (IS("hostname", 0)) {
        gethostname(buffer, sizeof(buffer));
        printf("%s ", buffer);
        getdomainname(buffer, sizeof(buffer));
        printf("%s", buffer);
    } else if (IS("affinity", 0)) {
        cpu_set_t set;
        sched_getaffinity(0, sizeof(set), &set);
        printf("%d", CPU_COUNT(&set));
    } else if (IS("take", 1))
        take(strtoull(word[0], NULL, 0));
    else if (IS("deep", 1))
        deep(atoi(word[0]));
    else if (IS("writable", 1))
        nftw(word[0], try_to_write, 32, FTW_PHYS | FTW_ACTIONRETVAL);
    else if (IS("orphan", 0))
        orphan();
    else if (IS("forks", 1))
        forks(atoi(word[0]));
    else if (IS("pour", 2)) {
        fflush(stdout);
        pour(strtoull(word[0], NULL, 0), atoi(word[1]));
    } else if (IS("echo", 0)) {
        fflush(stdout);
        echo();
    } else if (IS("away", 1))
        escape_death(word[0]);
    else if (IS("spin", 1)) {
        struct timespec now, end;
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += (long)(atof(word[0]) * 1e9);
        do
            clock_gettime(CLOCK_MONOTONIC, &now);
        while ((now.tv_sec - end.tv_sec) * 1000000000L + now.tv_nsec - end.tv_nsec < 0);
    } else if (IS("burn", 1)) {
        struct timespec used;
        do
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        while ((double)used.tv_sec + (double)used.tv_nsec / 1e9 < atof(word[0]));
    } else if (IS("sleep", 1))
        nap(atof(word[0]));
    else if (IS("raise", 1)) {
        fflush(stdout);
        raise(atoi(word[0]));
    } else if (IS("exit", 1)) {
        fflush(stdout);
        _exit(atoi(word[0]));
    } else if (IS("exec", 1)) {
        fflush(stdout);
        execv(word[0], words + 1);
        answer(-1);
    } else {
        fprintf(stderr, "probe: what is %s with %d words?\n", command, count - 1);
        exit(96);
    }
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    for (int at = 1; at < count;) {
        int end = at;
        while (end < count && strcmp(words[end], ","))
            end++;
        if (end > at)
            run(end - at, words + at);
        putchar(0x1e);
        at = end + 1;
    }
    fflush(stdout);
    return 0;
}
