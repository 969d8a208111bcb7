/*
 * The first process of a virtual machine: loads the drivers of its disk, mounts it and runs the
 * workload on it, with as little in between as can be.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what)
{
    perror(what);
    reboot(RB_POWER_OFF);
    return 1;
}

static void load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (syscall(SYS_finit_module, fd, "", 0) < 0)
        perror(path);
    close(fd);
}

int main(void)
{
    char path[16];
    int found = -1;

    mkdir("/dev", 0755);
    mkdir("/disk", 0755);
    if (mount("none", "/dev", "devtmpfs", 0, NULL) < 0)
        return fail("mount /dev");
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    for (int i = 0; i < 16; i++) {
        snprintf(path, sizeof(path), "/module.%d", i);
        load(path);
    }
    /* The disk appears a moment after its driver. */
    for (int i = 0; found < 0 && i < 4000; i++) {
        found = mount("/dev/vda", "/disk", "ext4", 0, NULL);
        if (found < 0)
            usleep(500);
    }
    if (found < 0)
        return fail("mount /dev/vda");
    if (chdir("/disk") < 0 || chroot(".") < 0)
        return fail("chroot /disk");
    if (fork() == 0) {
        execl("/bin/workload", "workload", "sleep", NULL);
        return fail("/bin/workload");
    }
    wait(NULL);
    reboot(RB_POWER_OFF);
    return 0;
}
