"""What every container gets of /proc, /dev and /sys."""

import itertools
import os
import stat

import pytest
from test_plan import decode

from pyrtc._core import lib
from pyrtc.errors import UnsupportedError
from pyrtc.options import Device
from pyrtc.runtime.namespaces import NODEV, NOEXEC, NOSUID, RDONLY
from pyrtc.runtime.system import MASKED, READ_ONLY, bind_host, device_operation, masked_paths, system_mounts

SECURE = NOSUID | NODEV | NOEXEC
USUAL = {
    "own_pid": True,
    "own_ipc": True,
    "own_net": True,
    "user_namespace": False,
    "tty_group": True,
    "shm_size": 4096,
    "privileged": False,
}
KINDS = ("own_pid", "own_ipc", "own_net", "user_namespace", "tty_group", "privileged")


def made(**changes):
    return [decode(op) for op in system_mounts(**{**USUAL, **changes})]


def target(op):
    return op.strings[1].decode()


def one(ops, path):
    (found,) = [op for op in ops if target(op) == path]
    return found


@pytest.fixture(
    params=list(itertools.product([True, False], repeat=len(KINDS))),
    ids=lambda bits: "".join("ny"[bit] for bit in bits),
)
def every(request):
    return dict(zip(KINDS, request.param, strict=True))


def test_of_every_kind_of_container_this_holds(every):
    ops = made(**every)
    targets = [target(op) for op in ops]
    assert len(targets) == len(set(targets))
    for path in ("/proc", "/dev", "/dev/pts", "/dev/shm", "/sys"):
        assert path in targets
    for path in targets:
        if path.startswith("/dev/"):
            assert targets.index("/dev") < targets.index(path), "/dev would cover it"
    for op in ops:
        if op.code in (lib.PLAN_MOUNT, lib.PLAN_BIND):
            assert op.flags & lib.PLAN_NO_LINKS, "CVE-2023-27561: a link of the image would lead elsewhere"
            assert op.mode & NOSUID
            assert op.mode & NOEXEC
    sysfs = one(ops, "/sys")
    assert every["privileged"] or sysfs.mode & RDONLY


def test_proc_is_new_where_the_processes_are():
    op = one(made(), "/proc")
    assert (op.code, op.strings[0], op.mode) == (lib.PLAN_MOUNT, b"proc", SECURE)
    assert one(made(own_pid=False), "/proc").code == lib.PLAN_MOUNT
    assert one(made(user_namespace=True), "/proc").code == lib.PLAN_MOUNT
    assert one(made(own_pid=False, user_namespace=True), "/proc").code == lib.PLAN_BIND


def test_sysfs_is_new_where_the_network_is():
    op = one(made(), "/sys")
    assert (op.code, op.strings[0], op.mode) == (lib.PLAN_MOUNT, b"sysfs", SECURE | RDONLY)
    assert one(made(privileged=True), "/sys").mode == SECURE
    assert one(made(own_net=False), "/sys").code == lib.PLAN_MOUNT
    bound = one(made(own_net=False, user_namespace=True, privileged=True), "/sys")
    assert (bound.code, bound.mode) == (lib.PLAN_BIND, SECURE | RDONLY)


def test_shm():
    op = one(made(), "/dev/shm")
    assert (op.code, op.strings[0], op.mode) == (lib.PLAN_MOUNT, b"tmpfs", SECURE)
    assert {b"mode=1777", b"size=4096"} <= set(op.strings)
    assert one(made(own_ipc=False), "/dev/shm").code == lib.PLAN_BIND


def test_message_queues():
    assert one(made(), "/dev/mqueue").code == lib.PLAN_MOUNT
    assert one(made(own_ipc=False), "/dev/mqueue").code == lib.PLAN_MOUNT
    assert one(made(user_namespace=True), "/dev/mqueue").code == lib.PLAN_MOUNT
    shared = [op for op in made(own_ipc=False, user_namespace=True) if target(op) == "/dev/mqueue"]
    assert [op.code for op in shared] == ([lib.PLAN_BIND] if os.path.isdir("/dev/mqueue") else [])


def test_terminals():
    assert {b"ptmxmode=0666", b"mode=0620", b"gid=5"} <= set(one(made(), "/dev/pts").strings)
    assert b"gid=5" not in one(made(tty_group=False), "/dev/pts").strings


def test_nodes_made_in_dev_are_devices_only_for_the_privileged_of_the_host():
    assert one(made(), "/dev").mode == SECURE
    assert one(made(privileged=True), "/dev").mode == NOSUID | NOEXEC
    assert one(made(privileged=True, user_namespace=True), "/dev").mode == SECURE


def test_device_nodes_are_the_machines_own():
    ops = made()
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        op, about = one(ops, f"/dev/{name}"), os.stat(f"/dev/{name}")
        assert op.code == lib.PLAN_DEVICE
        assert op.strings == [f"/dev/{name}".encode()] * 2
        assert op.a == os.major(about.st_rdev) << 32 | os.minor(about.st_rdev)
        assert op.b == stat.S_IFCHR


def test_links():
    links = {target(op): op.strings[0] for op in made() if op.code == lib.PLAN_SYMLINK}
    assert links == {
        "/dev/fd": b"/proc/self/fd",
        "/dev/stdin": b"/proc/self/fd/0",
        "/dev/stdout": b"/proc/self/fd/1",
        "/dev/stderr": b"/proc/self/fd/2",
        "/dev/ptmx": b"pts/ptmx",
    }


def test_only_device_nodes_are_devices(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("file", "link"):
        with pytest.raises(UnsupportedError, match="not a device node"):
            device_operation(Device(str(tmp_path / name), "/dev/x"))
    with pytest.raises(UnsupportedError, match="nosuch: No such file"):
        device_operation(Device(str(tmp_path / "nosuch"), "/dev/x"))


def test_what_is_bound_of_the_host_is_known_by_its_inode(tmp_path):
    op, about = decode(bind_host(str(tmp_path), "/x", NODEV)), tmp_path.stat()
    assert (op.code, op.strings, op.mode) == (lib.PLAN_BIND, [os.fsencode(tmp_path), b"/x"], NODEV)
    assert (op.a, op.b) == (os.major(about.st_dev) << 32 | os.minor(about.st_dev), about.st_ino)
    assert op.flags == lib.PLAN_RECURSIVE | lib.PLAN_NO_LINKS


def test_masks_are_dockers_and_each_processors():
    assert masked_paths()[: len(MASKED)] == MASKED
    extra = masked_paths()[len(MASKED) :]
    assert all(path.startswith("/sys/devices/system/cpu/cpu") and path.endswith("/thermal_throttle") for path in extra)
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/sys/devices/virtual/powercap"} <= set(
        MASKED
    )
    assert {"/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq"} == set(READ_ONLY)
    assert not set(MASKED) & set(READ_ONLY)
