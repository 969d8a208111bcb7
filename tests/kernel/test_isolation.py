"""What a container with default options can see, and what it can not."""

import ctypes
import fcntl
import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import ROOT, ImageFactory, Probe, needs_root

from pyrtc.api import make_options
from pyrtc.engine import Engine
from pyrtc.runtime.capabilities import names_of

DOCKER_CAPABILITIES = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
}
# moby daemon/pkg/oci/defaults.go
DOCKER_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
DOCKER_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def status_of(answer: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in answer.splitlines())}


def capabilities(status: dict[str, str], which: str) -> set[str]:
    return set(names_of(int(status[which], 16)))


# ---- the process ---------------------------------------------------------------------------------------------------


def test_process_one_alone_in_its_session(probe: Probe) -> None:
    pid, parent, session, group = probe.one("ids").split()
    assert (pid, parent, session, group) == ("1", "0", "1", "1")
    names = [name for name in probe.one("list /proc").splitlines() if name.isdigit()]
    assert names == ["1"]


def test_status_of_a_default_container(probe: Probe) -> None:
    status = status_of(probe.one("cat /proc/self/status"))
    assert capabilities(status, "CapInh") == set()
    assert capabilities(status, "CapAmb") == set()
    assert capabilities(status, "CapBnd") == DOCKER_CAPABILITIES
    assert capabilities(status, "CapPrm") == DOCKER_CAPABILITIES
    assert capabilities(status, "CapEff") == DOCKER_CAPABILITIES
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Groups"] == "" or not ROOT
    assert status["SigBlk"] == status["SigIgn"] == status["SigCgt"] == "0" * 16
    assert status["Umask"] == "0022"


def test_a_user_other_than_root_has_no_capability(probe: Probe) -> None:
    if not ROOT:
        pytest.skip("needs root: an ordinary user may map one id only")
    status = status_of(probe.one("cat /proc/self/status", user="1000:2000", group_add=["7"]))
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["2000"] * 4
    assert status["Groups"].split() == ["7"]
    assert [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == ["0" * 16] * 4


def test_nothing_is_inherited_from_a_caller_with_inheritable_and_ambient_capabilities(
    engine: Engine, image: ImageFactory
) -> None:
    """CVE-2022-29162, CVE-2016-8867."""
    if not ROOT:
        pytest.skip("needs root: an ordinary user has no capabilities to pass on")
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    name, answers = image(), []

    def run() -> None:  # capabilities are a thread's own
        assert libc.capget(header, data) == 0
        data[2], data[5] = data[1], data[4]
        assert libc.capset(header, data) == 0
        assert libc.prctl(47, 2, 13, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE CAP_NET_RAW
        for user in ("0", "1000"):
            answers.append(Probe(engine, name).one("cat /proc/self/status", user=user))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    root, user = map(status_of, answers)
    assert capabilities(root, "CapInh") == capabilities(root, "CapAmb") == set()
    assert capabilities(user, "CapInh") == capabilities(user, "CapAmb") == capabilities(user, "CapPrm") == set()


def test_no_descriptor_of_the_caller_leaks(probe: Probe) -> None:
    """CVE-2024-21626."""
    opened = []
    try:
        for _ in range(60):
            fd = os.open("/", os.O_RDONLY)
            os.set_inheritable(fd, True)
            opened.append(fd)
        found = probe.one("descriptors").splitlines()
        with_reaper = probe.one("descriptors", init=True).splitlines()
        below_reaper = probe.ask("list /proc/1/fd", init=True)
    finally:
        for fd in opened:
            os.close(fd)
    for lines in (found, with_reaper):
        assert [line.split()[0] for line in lines] == ["0", "1", "2"]
        assert lines[0] == "0 /dev/null"
        assert all(line.split()[1].startswith("pipe:") for line in lines[1:])
    assert below_reaper[0].strip() in ("", "!EACCES")


def test_the_callers_environment_is_not_visible(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "hidden")
    variables = probe.one("environment").splitlines()
    assert {line.partition("=")[0] for line in variables} == {"PATH", "HOSTNAME", "HOME"}
    assert "hidden" not in probe.one("cat /proc/1/environ", init=True)


def test_the_program_that_sets_up_is_sealed(probe: Probe, engine: Engine) -> None:
    """CVE-2019-5736: what runs before the command, and with init as process 1, is a memfd that nobody can change."""
    words = ["/probe", "readlink", "/proc/1/exe", ",", "open", "/proc/1/exe", "w", ",", "sleep", "30"]
    read_end, write_end = os.pipe()
    with engine.start(probe.image, make_options(words, init=True), stdout=write_end) as running:
        os.close(write_end)
        answers = os.read(read_end, 4096).decode().split("\x1e")
        os.close(read_end)
        assert answers[0].startswith("/memfd:pyrtc-init")
        assert answers[1] in ("!ETXTBSY", "!EPERM", "!EACCES")
        fd = os.open(f"/proc/{running.pid}/exe", os.O_RDONLY)
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        finally:
            os.close(fd)
        wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        assert seals & wanted == wanted


# ---- the file system -----------------------------------------------------------------------------------------------


def mounts_of(answer: str) -> dict[str, tuple[set[str], str, str]]:
    """Mount point -> (options, type, root inside its file system)."""
    found = {}
    for line in answer.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        found[fields[4]] = (set(fields[5].split(",")), right.split()[0], fields[3])
    return found


@pytest.mark.parametrize("options", [{}, {"driver": "copy"}, {"rw_layer": "memory"}, {"userns": "auto"}], ids=str)
def test_only_the_containers_own_mounts_are_there(probe: Probe, options: dict[str, str]) -> None:
    if options.get("userns") and not ROOT:
        pytest.skip("needs root: userns=auto is root's")
    text = probe.one("cat /proc/self/mountinfo", **options)
    mounts = mounts_of(text)
    for target, (flags, kind, _root) in mounts.items():
        assert re.fullmatch(r"/|/proc.*|/sys.*|/dev.*|/etc/(hosts|hostname|resolv\.conf)", target), target
        assert "shared:" not in text
        assert "master:" not in text
        if kind not in ("devpts", "devtmpfs") and not target.startswith("/dev/"):
            assert "nodev" in flags, f"{target} is not nodev"
    assert len(text.splitlines()) == len(mounts), "one mount covers another"
    assert mounts["/"][1] == "overlay" or options.get("driver") == "copy"
    assert "ro" in mounts["/sys"][0]


@pytest.mark.parametrize("options", [{}, {"driver": "copy"}, {"rw_layer": "memory"}], ids=str)
def test_mounts_have_the_names_that_people_look_for(probe: Probe, options: dict[str, str]) -> None:
    lines = probe.one("cat /proc/self/mounts", **options).splitlines()
    sources = {fields[1]: fields[0] for fields in map(str.split, lines)}
    if not options.get("driver"):
        assert sources["/"] == "overlay"
    wanted = {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs", "/dev/mqueue": "mqueue"}
    assert wanted.items() <= sources.items()
    assert "none" not in sources.values()


def test_nothing_is_left_of_the_pivot(probe: Probe) -> None:
    own = set(probe.one("list /").splitlines())
    assert own == {"probe", "dev", "etc", "proc", "sys"}
    for way in (
        "/proc/1/root",
        "/proc/self/root",
        "/proc/1/cwd",
        "/..",
        "/../..",
        "/proc/1/root/..",
        "/proc/self/cwd/../../..",
    ):
        answer = probe.one(f"list {way}")
        assert set(answer.splitlines()) == own, way


def test_the_classic_chroot_escape_ends_in_the_container(probe: Probe) -> None:
    answers = probe.ask("mkdir /jail", "chroot /jail", "chdir ../../../../../..", "chroot .", "list /")
    assert answers[1] == "0"
    assert set(answers[4].splitlines()) == {"probe", "dev", "etc", "proc", "sys", "jail"}


def test_files_cannot_be_opened_by_handle(probe: Probe) -> None:
    """The way of "shocker" (2014), which found the host's root directory by its inode number."""
    assert probe.one("handle /probe").split()[-1] in ("!EPERM", "!EOPNOTSUPP")


def test_masked_paths_hide_what_is_there(probe: Probe) -> None:
    paths = [path for path in DOCKER_MASKED if os.path.exists(path)]
    assert paths
    for path, answer in zip(
        paths, probe.ask(*[f"{'list' if os.path.isdir(p) else 'cat'} {p}" for p in paths]), strict=True
    ):
        assert answer in ("", "!EACCES"), f"{path}: {answer[:80]}"
    for path, answer in zip(
        paths, probe.ask(*[f"create {p}/x y" if os.path.isdir(p) else f"stat {p}" for p in paths]), strict=True
    ):
        assert answer == "!EROFS" if os.path.isdir(path) else " 1:3 " in answer, f"{path}: {answer}"


@pytest.mark.parametrize("options", [{}, {"userns": "auto"}], ids=str)
def test_kernel_settings_cannot_be_written(probe: Probe, options: dict[str, str]) -> None:
    if options and not ROOT:
        pytest.skip("needs root: userns=auto is root's")
    before = {path: Path(path).read_bytes() for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness")}
    paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/swappiness",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/class/net/lo/mtu",
    ]
    for path, answer in zip(paths, probe.ask(*[f"write {path} 1" for path in paths], **options), strict=True):
        assert answer in ("!EROFS", "!EACCES", "!EPERM", "!ENOENT"), f"{path}: {answer}"
    for path in DOCKER_READ_ONLY:
        if os.path.isdir(path):
            assert probe.one(f"chmod {path} 755", **options) == "!EROFS", path
    assert before == {path: Path(path).read_bytes() for path in before}


@pytest.mark.parametrize("options", [{}, {"userns": "auto"}], ids=str)
def test_no_other_file_of_the_kernel_takes_writes(probe: Probe, options: dict[str, str]) -> None:
    """Root may open what only shows something, but nothing in /proc and /sys of this kernel with a w in its mode."""
    if options and not ROOT:
        pytest.skip("needs root: userns=auto is root's")
    found = "".join(probe.ask("writable /proc", "writable /sys", **options)).splitlines()
    takes_writes = [line.split()[1] for line in found if int(line.split()[0], 8) & 0o222]
    # Pressure files give notice of shortages to who opened them; nothing else changes.
    assert [path for path in takes_writes if not path.startswith("/proc/pressure/")] == []


def test_control_groups_are_read_only(probe: Probe) -> None:
    limits = {"memory": "64m"} if ROOT else {}
    found = mounts_of(probe.one("cat /proc/self/mountinfo", **limits))
    shown = [
        target
        for target in found
        if target.startswith("/sys/fs/cgroup/") or (target == "/sys/fs/cgroup" and "cgroup" in found[target][1])
    ]
    assert shown or not ROOT
    for target in shown:
        assert "ro" in found[target][0]
        assert found[target][2] == "/", f"{target} shows {found[target][2]}: not the container's own"
        for file in ("cgroup.procs", "tasks", "release_agent", "notify_on_release"):
            assert probe.one(f"create {target}/{file} 1", **limits) in ("!EROFS", "!EACCES", "!EPERM", "!ENOENT")
        assert probe.one(f"mkdir {target}/x", **limits) == "!EROFS"
    for line in probe.one("cat /proc/self/cgroup", **limits).splitlines():
        if line.split(":")[1] in ("memory", ""):
            assert line.endswith(":/"), line


def test_device_nodes_of_the_container_are_not_devices(probe: Probe) -> None:
    """Made by the container itself, in every place where it can write."""
    for directory in ("/", "/dev", "/dev/shm", "/etc"):
        for what in ("b x 7 0", "c x 1 1", "c x 1 3"):
            kind, _name, major, minor = what.split()
            answer = probe.one(f"node {kind} {directory}/x {major} {minor}")
            assert answer in ("made !EACCES", "!EPERM"), f"{directory}: {answer}"


def test_device_nodes_of_the_image_are_not_devices(engine: Engine, image: ImageFactory) -> None:
    if not ROOT:
        pytest.skip("needs root: an ordinary user's layers hold no devices")
    from conftest import Node

    name = image({"mem": Node("c", 1, 1), "loop": Node("b", 7, 0), "zero": Node("c", 1, 5)})
    answers = Probe(engine, name).ask("open /mem", "open /loop", "open /zero")
    assert answers == ["!EACCES"] * 3


def test_default_devices_work_and_stay_as_they_are(probe: Probe) -> None:
    """The inodes are the host's: root in the container must not change mode or owner of the host's /dev/null."""
    before = os.stat("/dev/null")
    names = ("null", "zero", "full", "random", "urandom")
    answers = probe.ask(
        *[f"open /dev/{name} w" for name in names],
        *[f"chmod /dev/{name} 666" for name in names],
        *[f"chown /dev/{name} 0" for name in names],
        "write /dev/null x",
        "write /dev/full x",
        "unlink /dev/null",
    )
    assert answers[:5] == ["0"] * 5
    assert set(answers[5:15]) <= {"!EROFS", "!EPERM"}
    assert answers[15:] == ["1", "!ENOSPC", "!EBUSY"]
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_uid, before.st_ctime_ns) == (after.st_mode, after.st_uid, after.st_ctime_ns)


@needs_root
def test_a_container_that_may_mount_is_held_by_the_device_rules(probe: Probe) -> None:
    answers = probe.ask(
        "mount none /sys tmpfs 0 mode=755",
        "node c /sys/x 1 1",
        "node b /sys/y 7 0",
        "node c /sys/z 1 3",
        cap_add=["SYS_ADMIN"],
    )
    assert answers == ["0", "!EPERM", "!EPERM", "made 3"] or answers == ["0", "made !EPERM", "made !EPERM", "made 3"]


# ---- namespaces ----------------------------------------------------------------------------------------------------


def test_namespaces_are_its_own(probe: Probe) -> None:
    kinds = ("mnt", "pid", "uts", "ipc", "net", "cgroup")
    for kind, answer in zip(kinds, probe.ask(*[f"readlink /proc/self/ns/{kind}" for kind in kinds]), strict=True):
        assert answer != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert (probe.one("readlink /proc/self/ns/user") == os.readlink("/proc/self/ns/user")) == ROOT


def test_living_containers_share_no_namespace(engine: Engine, probe: Probe) -> None:
    """Also those whose network was made ahead."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        running = [
            stack.enter_context(engine.start(probe.image, make_options(["/probe", "sleep", "60"]), stdout=None))
            for _ in range(6)
        ]
        for kind in ("net", "mnt", "pid", "uts", "ipc", "cgroup"):
            assert len({os.readlink(f"/proc/{one.pid}/ns/{kind}") for one in running}) == 6, kind


def test_without_a_network_there_is_only_loopback(probe: Probe) -> None:
    devices, route, up = probe.ask("list /sys/class/net", "cat /proc/net/route", "cat /sys/class/net/lo/operstate")
    assert devices.split() == ["lo"]
    assert len(route.splitlines()) <= 1
    assert up.strip() == "unknown"  # what a loopback that is up says


def test_abstract_sockets_of_the_host_cannot_be_reached(probe: Probe) -> None:
    """CVE-2020-15257."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0pyrtc-isolation-test")
        listening.listen()
        assert probe.one("abstract connect pyrtc-isolation-test") == "!ECONNREFUSED"
        assert probe.one("abstract bind pyrtc-isolation-test") == "0"
        assert probe.one("abstract connect pyrtc-isolation-test", network="host") == "0"


def test_mounts_made_later_do_not_pass_in_either_direction(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("needs root: only root mounts on the host")
    from pyrtc.options import Bind

    shared = tmp_path / "shared"
    (shared / "sub").mkdir(parents=True)
    # A peer group, as / is on a machine with systemd.
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    try:
        subprocess.run(["mount", "--make-shared", shared], check=True)
        read_end, write_end = os.pipe()
        go_read, go_write = os.pipe()
        words = [
            "/probe",
            "mount",
            "none",
            "/shared",
            "tmpfs",
            "0",
            "",
            ",",
            "mkdir",
            "/shared/inside",
            ",",
            "echo",
            ",",
            "list",
            "/shared/sub",
            ",",
            "unmount",
            "/shared",
            ",",
            "list",
            "/shared/sub",
        ]
        options = make_options(words, cap_add=["SYS_ADMIN"], mounts=[Bind(str(shared), "/shared")])
        with engine.start(probe.image, options, stdin=go_read, stdout=write_end) as running:
            os.close(write_end)
            os.close(go_read)
            subprocess.run(["mount", "-t", "tmpfs", "none", shared / "sub"], check=True)
            (shared / "sub" / "outside").touch()
            os.close(go_write)
            assert running.wait().returncode == 0
            answers = os.read(read_end, 65536).decode().split("\x1e")
            os.close(read_end)
        assert answers[:2] == ["0", "0"]
        assert "outside" not in answers[5]
        assert not (shared / "inside").exists()
    finally:
        subprocess.run(["umount", shared / "sub"], check=False)
        subprocess.run(["umount", shared], check=True)


# ---- system calls --------------------------------------------------------------------------------------------------

# Numbers of x86_64 and aarch64.
CALLS = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "lookup_dcookie": (212, 18),
    "kcmp": (312, 272),
}
COLUMN = 0 if os.uname().machine == "x86_64" else 1
CLONE_NEWUSER = 0x10000000


def test_forbidden_calls_are_refused(probe: Probe) -> None:
    answers = probe.ask(*[f"call {numbers[COLUMN]} 0 0 0 0 0" for numbers in CALLS.values()])
    assert dict(zip(CALLS, answers, strict=True)) == dict.fromkeys(CALLS, "!EPERM")


def test_no_new_namespaces(probe: Probe) -> None:
    unshare, clone = (272, 97)[COLUMN], (56, 220)[COLUMN]
    flags = (CLONE_NEWUSER, 0x20000, 0x20000000, 0x40000000, 0x02000000, 0x80)
    assert probe.ask(*[f"call {unshare} {flag}" for flag in flags]) == ["!EPERM"] * len(flags)
    assert probe.one(f"call {clone} {CLONE_NEWUSER | 17} 0 0 0 0") == "!EPERM"
    assert probe.one("call 435 0 0") == "!ENOSYS"  # clone3, so that C libraries fall back to clone


def test_socket_families(probe: Probe) -> None:
    socket_number = (41, 198)[COLUMN]
    families = {"unix": (1, "3"), "inet": (2, "4"), "alg": (38, "!EPERM"), "vsock": (40, "!EPERM")}
    answers = probe.ask(*[f"call {socket_number} {number} 1 0" for number, _ in families.values()])
    assert answers[:2] == [answer for _, answer in families.values()][:2]
    assert all(answer in ("!EPERM", "!EAFNOSUPPORT") for answer in answers[2:])
    assert answers[2:] == ["!EPERM", "!EPERM"]


@pytest.mark.skipif(COLUMN != 0, reason="needs x86_64")
def test_other_entries_into_the_kernel_are_filtered_too(probe: Probe) -> None:
    """x32 numbers (bit 30) and the 32-bit entry, behind which the numbers mean other calls."""
    x32 = 0x40000000
    done = probe.run("call", str(x32 + 321), "0", "0", "0")
    assert done.signal == 31 or done.stdout in (b"!EPERM\x1e", b"!ENOSYS\x1e")
    done = probe.run("int80", "357", "0")  # bpf
    assert done.signal in (11, 31) or done.stdout in (b"!EPERM\x1e", b"!ENOSYS\x1e")
    done = probe.run("int80", "21", "0")  # mount
    assert done.signal in (11, 31) or done.stdout in (b"!EPERM\x1e", b"!ENOSYS\x1e")


def test_set_uid_programs_give_nothing(engine: Engine, image: ImageFactory, probe_binary: bytes) -> None:
    if not ROOT:
        pytest.skip("needs root: an ordinary user may map one id only")
    from conftest import File

    suid = Probe(engine, image({"suid": File(probe_binary, 0o4755)}))
    command = ["exec", "/suid", "cat", "/proc/self/status"]
    assert status_of(suid.one(command, user="1000"))["Uid"].split() == ["1000"] * 4
    lifted = status_of(suid.one(command, user="1000", no_new_privileges=False))
    assert lifted["Uid"].split() == ["1000", "0", "0", "0"]  # as with Docker
    assert capabilities(lifted, "CapPrm") == DOCKER_CAPABILITIES
    assert lifted["Seccomp"] == "2"


# ---- neighbours ----------------------------------------------------------------------------------------------------


def test_containers_do_not_reach_each_other(engine: Engine, probe: Probe) -> None:
    with engine.start(probe.image, make_options(["/probe", "sleep", "30"]), stdout=None) as running:
        answers = probe.ask(f"ptrace {running.pid}", f"kill {running.pid} 9", "list /proc", "kill -1 15")
        assert answers[:2] == ["!ESRCH", "!ESRCH"]
        assert {name for name in answers[2].split() if name.isdigit()} == {"1"}
        assert Path(f"/proc/{running.pid}").exists()


def test_a_terminal_of_the_caller_cannot_be_pushed_into(probe: Probe, engine: Engine) -> None:
    """CVE-2016-10124, CVE-2017-5226: the standard streams may be the caller's terminal, but not a controlling one."""
    master, slave = os.openpty()
    read_end, write_end = os.pipe()
    with engine.start(
        probe.image, make_options(["/probe", "push", ",", "terminal"]), stdin=slave, stdout=write_end
    ) as running:
        os.close(write_end)
        assert running.wait().returncode == 0
    answers = os.read(read_end, 4096).decode().split("\x1e")
    for fd in (master, slave, read_end):
        os.close(fd)
    assert answers[0] in ("!EPERM", "!EIO")
    assert "session=1 foreground=0" in answers[1]


def test_keyrings_are_not_the_callers(probe: Probe) -> None:
    seccomp_off = probe.ask(f"call {CALLS['keyctl'][COLUMN]} 0 -3 0", seccomp="unconfined")[0]
    assert seccomp_off.isdigit()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(CALLS["keyctl"][COLUMN], 0, -3, 0) != int(seccomp_off)


# ---- user namespaces -----------------------------------------------------------------------------------------------


def host_ids(pid: int) -> tuple[int, int]:
    status = status_of(Path(f"/proc/{pid}/status").read_text())
    return int(status["Uid"].split()[0]), int(status["Gid"].split()[0])


@needs_root
def test_ranges_of_ids_are_unique_among_living_containers(engine: Engine, probe: Probe) -> None:
    options = make_options(["/probe", "create", "/made", "x", ",", "sleep", "30"], userns="auto")
    read_end, write_end = os.pipe()
    with (
        engine.start(probe.image, options, stdout=None) as first,
        engine.start(probe.image, options, stdout=None) as second,
    ):
        ids = [host_ids(first.pid), host_ids(second.pid)]
        ranges = [Path(f"/proc/{running.pid}/uid_map").read_text().split() for running in (first, second)]
        stored = Path(engine.store.containers.path, first.id, "upper")
        while not (stored / "made").exists():
            os.sched_yield()
        about = (stored / "made").stat()
    os.close(read_end)
    os.close(write_end)
    assert ids[0] != ids[1]
    assert 0 not in (*ids[0], *ids[1])
    assert [part[2] for part in ranges] == ["65536", "65536"]
    assert abs(int(ranges[0][1]) - int(ranges[1][1])) >= 65536
    assert (about.st_uid, about.st_gid) == ids[0]


@needs_root
def test_layers_stay_roots_where_owners_are_mapped(engine: Engine, image: ImageFactory, probe_binary: bytes) -> None:
    from conftest import File

    name = image({"mine": File(b"x", 0o600), "other": File(b"y", 0o644, 33, 44)})
    answers = Probe(engine, name).ask(
        "stat /mine",
        "stat /other",
        "write /mine z",
        "chown /other 5",
        "stat /other",
        "cat /proc/self/status",
        userns="auto",
    )
    assert answers[0].split()[:3] == ["100600", "0", "0"]
    assert answers[1].split()[:3] == ["100644", "33", "44"]
    assert answers[2:4] == ["1", "0"]
    assert answers[4].split()[1] == "5"
    layer = Path(engine.store.image(name).layers[0])
    assert (layer / "mine").read_bytes() == b"x"
    assert ((layer / "other").stat().st_uid, (layer / "other").stat().st_gid) == (33, 44)
    assert capabilities(status_of(answers[5]), "CapAmb") == set()
    assert capabilities(status_of(answers[5]), "CapInh") == set()


# ---- privileged ----------------------------------------------------------------------------------------------------


@needs_root
def test_privileged_gives_what_dockers_gives(probe: Probe) -> None:
    text, devices, network, setting, mounted, status = probe.ask(
        "cat /proc/self/mountinfo",
        "list /dev",
        "list /sys/class/net",
        "stat /proc/keys",
        "mount none /etc tmpfs 0 mode=755",
        "cat /proc/self/status",
        privileged=True,
    )
    mounts, told = mounts_of(text), status_of(status)
    assert "rw" in mounts["/sys"][0]
    assert not any(path in mounts for path in (*DOCKER_MASKED, *DOCKER_READ_ONLY))
    assert {"loop-control", "kmsg"} & set(devices.split()) == {"loop-control", "kmsg"} & set(os.listdir("/dev"))
    assert network.split() == ["lo"]
    assert " 0:0 " in setting
    assert mounted == "0"
    assert told["Seccomp"] == "0"
    assert told["NoNewPrivs"] == "0"
    assert capabilities(told, "CapEff") == set(
        names_of(int(status_of(Path("/proc/self/status").read_text())["CapBnd"], 16))
    )
    assert capabilities(told, "CapInh") == set()


@needs_root
def test_devices_in_binds_are_for_privileged_containers(probe: Probe) -> None:
    from pyrtc.options import Bind

    mounts = [Bind("/dev", "/host")]
    assert probe.ask("open /host/zero", "open /host/kmsg", mounts=mounts) == ["!EACCES", "!EACCES"]
    assert probe.one("open /host/zero", mounts=mounts, privileged=True) == "0"


@needs_root
def test_privileged_can_make_and_open_devices(probe: Probe) -> None:
    assert probe.ask("node c /x 1 5", "node c /dev/x 1 5", privileged=True) == ["made 3", "made 3"]
