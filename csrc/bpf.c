#include "error.h"
#include "pyrtc_start.h"
#include "util.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

/*
 * Loads the program and attaches it to the cgroup, where it stays until the cgroup is removed; our
 * descriptor of it is closed again. BPF_F_ALLOW_MULTI lets an engine inside the container attach
 * stricter programs to cgroups of its own: the kernel asks all of them and each can only deny more.
 */
int pyrtc_attach_device_filter(int32_t cgroup_fd, const uint64_t *instructions, uint32_t count,
                               struct pyrtc_error *error)
{
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)instructions,
        .insn_cnt = count,
        .license = (uintptr_t) "GPL",
        .prog_name = "pyrtc_devices",
    };
    union bpf_attr attach = {
        .target_fd = (uint32_t)cgroup_fd,
        .attach_type = BPF_CGROUP_DEVICE,
        .attach_flags = BPF_F_ALLOW_MULTI,
    };
    owned_fd int program = -1;

    program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
    if (program < 0)
        return pyrtc_fail(error, errno, "load the device filter", "bpf(BPF_PROG_LOAD)");
    attach.attach_bpf_fd = (uint32_t)program;
    if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof(attach)) < 0)
        return pyrtc_fail(error, errno, "attach the device filter", "bpf(BPF_PROG_ATTACH)");
    return 0;
}
