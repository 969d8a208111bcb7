"""Images, options and neighbours that try to get out: each class of escape that container engines have had.

CVE numbers name the fault in other engines that a test repeats.
"""

import ctypes
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, File, ImageFactory, Link, Node, Probe, needs_root

from pyrtc.api import make_options
from pyrtc.engine import Engine
from pyrtc.errors import PyrtcError, StartError, UsageError
from pyrtc.options import Bind, Tmpfs, Volume

AT_FDCWD = -100
RENAME_EXCHANGE = 2


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with a secret. Nothing may be added to it or read from it."""
    path = tmp_path / "outside"
    path.mkdir(mode=0o755)
    (path / "secret").write_text("of the host")
    yield path
    assert os.listdir(path) == ["secret"], "an escape left something on the host"
    assert (path / "secret").read_text() == "of the host"


def up(path: Path) -> str:
    """The path as a link that climbs to the root first, from wherever it is."""
    return "../" * 40 + str(path).lstrip("/")


# ---- who the container runs as -------------------------------------------------------------------------------------


@needs_root
def test_a_number_is_never_a_name(engine: Engine, image: ImageFactory) -> None:
    """CVE-2016-3697: a line of passwd that is named like a number."""
    name = image({"etc/passwd": "1000:x:0:0:::\n0:x:5:5:::\n", "etc/group": "2000:x:0:\n"})
    probe = Probe(engine, name)
    for user, uid, gid in (("1000", "1000", "0"), ("1000:2000", "1000", "2000"), (None, "0", "0"), ("0", "0", "0")):
        lines = probe.one("cat /proc/self/status", **({} if user is None else {"user": user})).splitlines()
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in lines
        assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}" in lines


@pytest.mark.parametrize(
    "user", ["4294967296", "4294967295", "18446744073709551616", "0:4294967296", "-1", "0x0", "+0", "\u0660"]
)
def test_ids_beyond_32_bits_are_no_ids(probe: Probe, user: str) -> None:
    """CVE-2024-40635, CVE-2026-46680."""
    with pytest.raises((UsageError, StartError)):
        probe.run("ids", user=user)


def test_an_overflowing_line_is_no_account(engine: Engine, image: ImageFactory) -> None:
    name = image(
        {"etc/passwd": "big:x:4294967296:0:::\nlong:x:99999999999999999999:0:::\nneg:x:-1:0:::\nname:x:zero:0:::\n"}
    )
    for user in ("big", "long", "neg", "name"):
        with pytest.raises(StartError, match="unable to find user"):
            Probe(engine, name).run("ids", user=user)


HOSTILE_PASSWD = {
    "fifo": Node("p"),
    "link": Link("/etc/passwd"),
    "link to the terminal": Link("/dev/tty"),
    "directory": None,
    "large": "#" * (5 << 20),
}


@pytest.mark.parametrize("kind", HOSTILE_PASSWD)
def test_hostile_account_files(engine: Engine, image: ImageFactory, kind: str) -> None:
    """CVE-2024-9676, and engines that hang for ever on a FIFO."""
    name = image({"etc/passwd": HOSTILE_PASSWD[kind], "etc/group": HOSTILE_PASSWD[kind]})
    probe = Probe(engine, name)
    began = time.monotonic()
    for options in ({"user": "daemon"}, {"user": "0:daemon"}, {"group_add": ["daemon"]}):
        with pytest.raises(StartError):
            probe.run("ids", **options)
    assert probe.one("cwd", user="0") == "/"
    assert probe.one("cwd") == "/"
    assert time.monotonic() - began < 30


@needs_root
def test_a_device_in_the_place_of_passwd_is_not_opened(engine: Engine, image: ImageFactory) -> None:
    """Opening some devices does something; /dev/zero at least would never end."""
    name = image({"etc/passwd": Node("c", 1, 5), "etc/group": Node("c", 10, 130)})
    with pytest.raises(StartError, match="regular file"):
        Probe(engine, name).run("ids", user="daemon")
    with pytest.raises(StartError, match="regular file"):
        Probe(engine, name).run("ids", group_add=["daemon"])


# ---- /proc, /sys and /dev ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["proc", "sys", "dev"])
@pytest.mark.parametrize("climbing", [False, True], ids=["absolute", "climbing"])
def test_system_directories_that_are_links(
    engine: Engine, image: ImageFactory, outside: Path, directory: str, climbing: bool
) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: masks and devices would land where the link leads."""
    name = image({directory: Link(up(outside) if climbing else str(outside))})
    with pytest.raises(StartError, match=f"/{directory}.*ELOOP"):
        Probe(engine, name).run("ids")


@pytest.mark.parametrize("directory", ["proc", "sys", "dev"])
def test_system_directories_that_lead_elsewhere_in_the_image(
    engine: Engine, image: ImageFactory, directory: str
) -> None:
    for entries in (
        {"fake": None, directory: Link("/fake")},
        {directory: Link("nowhere")},
        {directory: Link(directory)},
    ):
        with pytest.raises(StartError, match="ELOOP"):
            Probe(engine, image(entries)).run("ids")
    with pytest.raises(StartError, match=r"ENOTDIR|EINVAL"):
        Probe(engine, image({directory: "a file"})).run("ids")


def test_links_in_the_images_dev_do_not_matter(engine: Engine, image: ImageFactory, outside: Path) -> None:
    """CVE-2025-31133, CVE-2025-52565: what masks is the host's null device, checked, not the image's."""
    evil = {
        "dev/null": Link("/proc/sysrq-trigger"),
        "dev/pts": Link(str(outside)),
        "dev/console": Link(up(outside)),
        "dev/shm": Link(str(outside)),
        "dev/mqueue": Link(up(outside)),
        "dev/ptmx": "x",
        "dev/fd": "x",
    }
    probe = Probe(engine, image(evil))
    masked, null, shm = probe.ask("stat /proc/timer_list", "stat /dev/null", "create /dev/shm/x y")
    assert " 1:3 " in masked
    assert null.startswith("20666 ")
    assert shm == "1"


@pytest.mark.parametrize(
    "target",
    [
        "/proc",
        "/proc/self",
        "/proc/sys",
        "/proc/sysrq-trigger",
        "/x/../proc/sys",
        "//proc//sys",
        "/proc/./kcore",
        "/proc/1/attr",
    ],
)
def test_nothing_is_mounted_in_proc_by_name(probe: Probe, target: str, tmp_path: Path) -> None:
    """CVE-2019-16884, CVE-2025-52881: what would be written there next would go to the mounted file."""
    for mount in (Bind(str(tmp_path), target), Tmpfs(target), Volume("v", target)):
        with pytest.raises(UsageError, match="/proc"):
            probe.run("ids", mounts=[mount])


@pytest.mark.parametrize("target", ["/p/sys", "/p", "/sub/p/irq", "/p/self/attr", "/sub/../p/irq"])
def test_nothing_is_mounted_in_proc_by_a_link_of_the_image(
    engine: Engine, image: ImageFactory, target: str, tmp_path: Path
) -> None:
    name = image({"p": Link("proc"), "sub/p": Link("/proc")})
    for mount in (Bind(str(tmp_path), target), Tmpfs(target)):
        with pytest.raises(StartError, match="proc"):
            Probe(engine, name).run("ids", mounts=[mount])


@pytest.mark.parametrize("volume", ["/proc", "/p", "/p/sys", "/x/../proc"])
def test_an_images_volume_cannot_cover_proc(engine: Engine, image: ImageFactory, volume: str) -> None:
    name = image({"p": Link("/proc")}, f"VOLUME {volume}")
    with pytest.raises(PyrtcError, match="proc"):
        Probe(engine, name).run("ids")
    assert not engine.store.volumes.list()


@pytest.mark.parametrize("file", ["hosts", "hostname", "resolv.conf"])
def test_files_of_the_container_do_not_follow_links_into_proc(engine: Engine, image: ImageFactory, file: str) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_bytes()
    with pytest.raises(StartError, match="proc"):
        Probe(engine, image({f"etc/{file}": Link("/proc/sys/kernel/core_pattern")})).run("ids")
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == before


def test_a_directory_of_the_image_that_is_a_link_into_proc(engine: Engine, image: ImageFactory) -> None:
    for to in ("/proc", "/proc/sys/kernel", "/proc/self/fd", "/sys/kernel"):
        with pytest.raises(StartError):
            Probe(engine, image({"etc": Link(to)})).run("ids")


def test_what_lxcfs_shows_can_be_mounted(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("1 2\n")
    assert (
        probe.one("cat /proc/uptime", mounts=[Bind(str(tmp_path / "uptime"), "/proc/uptime", read_only=True)])
        == "1 2\n"
    )


def test_masks_survive_mounts_of_the_caller(probe: Probe, tmp_path: Path) -> None:
    if not os.path.isdir("/sys/firmware"):
        pytest.skip("needs /sys/firmware")
    (tmp_path / "shown").touch()
    answer, write = probe.ask(
        "list /sys/firmware", "create /sys/firmware/x y", mounts=[Bind(str(tmp_path), "/sys/firmware")]
    )
    assert answer == ""
    assert write == "!EROFS"


def test_masks_of_the_caller_stay_in_the_root(engine: Engine, image: ImageFactory, outside: Path) -> None:
    name = image({"link": Link(str(outside)), "data/secret": "x", "climb": Link("../../data/secret")})
    answers = Probe(engine, name).ask("list /data", "stat /data/secret", mask=["/link", "/climb", "/missing"])
    assert answers[0] == "secret\n"
    assert " 1:3 " in answers[1]


# ---- mount targets -------------------------------------------------------------------------------------------------


def mounted(answer: str) -> list[str]:
    return [line.split()[4] for line in answer.splitlines()]


@pytest.mark.parametrize("climbing", [False, True], ids=["absolute", "climbing"])
def test_mount_targets_are_resolved_in_the_root(
    engine: Engine, image: ImageFactory, outside: Path, tmp_path: Path, climbing: bool
) -> None:
    """CVE-2021-30465, CVE-2024-45310, CVE-2024-0132, CVE-2026-87766: also where directories have to be made first."""
    to = up(outside) if climbing else str(outside)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    entries = {
        "link": Link(to),
        "file": Link(f"{to}/new-file"),
        "deep": Link(f"{to}/made/by/link"),
        "secret": Link(f"{to}/secret"),
        "tmp/relative": Link("../link/relative"),
    }
    mounts = [
        Bind(str(source), "/link"),
        Bind(str(source), "/deep"),
        Bind(str(source), "/link/below/made"),
        Tmpfs("/tmp/relative/x"),
        Bind(str(source / "file"), "/file"),
        Bind(str(source / "file"), "/secret", read_only=True),
    ]
    answers = Probe(engine, image(entries)).ask(
        "cat /proc/self/mountinfo", f"list {outside}", "cat /secret", "cat /file", mounts=mounts
    )
    inside = str(outside)
    assert {inside, f"{inside}/made/by/link", f"{inside}/new-file", f"{inside}/secret"} <= set(mounted(answers[0]))
    assert answers[2:] == ["content", "content"]
    assert (source / "below" / "made").is_dir()  # made where the mount over /link is


def test_neighbours_do_not_disturb_the_resolution(
    engine: Engine, image: ImageFactory, outside: Path, tmp_path: Path
) -> None:
    """The kernel refuses ".." with EAGAIN while anything is being mounted or renamed on the machine."""
    name = image({"link": Link(up(outside)), "a/b/c/d": Link("../../../../a/../a/b/../../link")})
    mounts = [Bind(str(tmp_path), "/a/b/c/d/x"), Tmpfs("/link/y")]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(12):
                assert Probe(engine, name).one("cwd", mounts=mounts, workdir="/a/b/c/d/x") == f"{outside}/x"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


@pytest.mark.parametrize(
    "entries",
    [
        {"a": Link("a")},
        {"a": Link("b"), "b": Link("a")},
        {"a": Link("/" + "x" * 3000 + "/" + "y/" * 500)},
        {"a": Link("a/a")},
    ],
    ids=["itself", "circle", "long", "growing"],
)
def test_targets_that_never_end(engine: Engine, image: ImageFactory, entries: dict[str, Link], tmp_path: Path) -> None:
    for mount in (Bind(str(tmp_path), "/a/b"), Tmpfs("/a")):
        with pytest.raises(StartError, match=r"ELOOP|ENAMETOOLONG"):
            Probe(engine, image(entries)).run("ids", mounts=[mount])


def test_a_file_in_the_way(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    name = image({"file": "x", "directory": None})
    (tmp_path / "f").touch()
    with pytest.raises(StartError, match="ENOTDIR"):
        Probe(engine, name).run("ids", mounts=[Bind(str(tmp_path), "/file/below")])
    with pytest.raises(StartError, match=r"ENOTDIR|EINVAL"):
        Probe(engine, name).run("ids", mounts=[Bind(str(tmp_path), "/file")])
    with pytest.raises(StartError, match=r"ENOTDIR|EINVAL|EISDIR"):
        Probe(engine, name).run("ids", mounts=[Bind(str(tmp_path / "f"), "/directory")])


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """Exchange two names as fast as a thread can."""
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()
    paths = os.fsencode(first), os.fsencode(second)

    def swap() -> None:
        while not stop.is_set():
            for _ in range(200):
                assert libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("what", ["directory", "missing", "file", "workdir"])
def test_targets_in_a_shared_volume_are_swapped_for_links(
    engine: Engine, probe: Probe, outside: Path, tmp_path: Path, what: str
) -> None:
    """CVE-2021-30465, CVE-2023-28642: a neighbour with the same volume swaps a directory for a link meanwhile."""
    shared, source = tmp_path / "shared", tmp_path / "source"
    (shared / "target").mkdir(parents=True)
    source.mkdir()
    (source / "file").write_text("content")
    (shared / "link").symlink_to(outside)
    target, mount = {
        "directory": ("/shared/target", Bind(str(source), "/shared/target")),
        "missing": ("/shared/target/a/b", Bind(str(source), "/shared/target/a/b")),
        "file": ("/shared/target/file", Bind(str(source / "file"), "/shared/target/file")),
        "workdir": ("/shared/target/c/d", None),
    }[what]
    mounts = [Bind(str(shared), "/shared"), *([mount] if mount else [])]
    options = {"mounts": mounts, **({"workdir": target} if mount is None else {})}
    allowed = {target, target.replace("/shared/target", str(outside)), target.replace("/shared/target", "/shared/link")}
    started = 0
    with swapping(shared / "target", shared / "link"):
        for _ in range(25):
            try:
                answers = probe.ask("cat /proc/self/mountinfo", "cwd", **options)
            except StartError:
                continue  # caught between two steps: refused is fine
            started += 1
            new = set(mounted(answers[0])) - {"/", "/shared"}
            new = {path for path in new if not path.startswith(("/dev", "/proc", "/sys", "/etc"))}
            assert new <= allowed
            assert answers[1] in (allowed if mount is None else {"/"})
    assert started or what == "missing"


@needs_root
def test_system_mounts_do_not_move_when_the_root_is_swapped(
    engine: Engine, probe: Probe, outside: Path, tmp_path: Path
) -> None:
    """CVE-2023-28642, CVE-2025-52881: a volume on /sys/fs is exchanged under the masks."""
    shared = tmp_path / "shared"
    (shared / "firmware").mkdir(parents=True)
    (shared / "link").symlink_to(outside)
    with swapping(shared / "firmware", shared / "link"):
        for _ in range(15):
            try:
                answers = probe.ask(
                    "cat /proc/self/mountinfo", "stat /proc/timer_list", mounts=[Bind(str(shared), "/sys")]
                )
            except StartError:
                continue
            assert " 1:3 " in answers[1]
            own = {path for path in mounted(answers[0]) if not path.startswith(("/dev", "/proc", "/sys", "/etc"))}
            assert own <= {"/", str(outside)}


# ---- working directory ---------------------------------------------------------------------------------------------


def test_the_images_workdir_is_made_in_the_root(engine: Engine, image: ImageFactory, outside: Path) -> None:
    """CVE-2026-55686."""
    for number, to in enumerate((str(outside), up(outside))):
        name = image({"link": Link(to)}, f"WORKDIR /link/made{number}")
        assert Probe(engine, name).one("cwd") == f"{outside}/made{number}"


@pytest.mark.parametrize(
    "directory",
    [*(f"/proc/self/fd/{n}" for n in (3, 4, 5, 7, 8, 9)), "/proc/self/root", "/proc/self/cwd", "/proc/1/root/etc"],
)
def test_no_working_directory_through_a_descriptor(engine: Engine, image: ImageFactory, directory: str) -> None:
    """CVE-2024-21626: WORKDIR /proc/self/fd/N, of the image or of the caller."""
    opened = [os.open("/", os.O_RDONLY) for _ in range(8)]
    try:
        for fd in opened:
            os.set_inheritable(fd, True)
        with pytest.raises(StartError):
            Probe(engine, image({}, f"WORKDIR {directory}")).run("cwd")
        with pytest.raises(StartError):
            Probe(engine, image({"w": Link(directory)})).run("cwd", workdir="/w")
    finally:
        for fd in opened:
            os.close(fd)


def test_the_command_may_be_the_setup_program_but_not_change_it(engine: Engine, image: ImageFactory) -> None:
    """CVE-2019-5736: /proc/self/exe as entrypoint or interpreter leads to the sealed memfd, not to the caller's."""
    name = image({"script": "#!/proc/self/exe\n"})
    for command in (["/proc/self/exe"], ["/script"], ["/proc/self/exe", "0", "1"], ["/proc/self/exe", "9"]):
        try:
            done = engine.run(name, make_options(command, timeout=10))
        except StartError:
            continue
        assert done.returncode == 125
        assert done.stdout == done.stderr == b""
    assert Probe(engine, name).one("cwd") == "/"


# ---- volumes and layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("climbing", [False, True], ids=["absolute", "climbing"])
def test_volumes_are_filled_from_the_image_only(
    engine: Engine, image: ImageFactory, outside: Path, climbing: bool
) -> None:
    """CVE-2022-23648."""
    to = up(outside) if climbing else str(outside)
    name = image(
        {"data": Link(to), "other/link": Link(f"{to}/secret"), "good/file": "content"},
        "VOLUME /data /data/below /other/ /good",
    )
    probe = Probe(engine, name)
    answers = probe.ask(
        "list /data",
        "cat /data/secret",
        "list /data/below",
        "readlink /other/link",
        "cat /other/link",
        "cat /good/file",
    )
    assert answers[0] in ("", "below\n")
    assert answers[1] == "!ENOENT"
    assert answers[2] == ""
    assert answers[4] == "!ENOENT"
    assert answers[5] == "content"
    named = Volume("kept", "/data")
    assert probe.one("list /data", mounts=[named]) in ("", "below\n")
    assert not engine.store.volumes.get("kept").path.startswith(str(outside))


@pytest.mark.parametrize("options", [{}, {"driver": "copy"}, {"rw_layer": "memory"}], ids=str)
def test_layers_do_not_change(engine: Engine, image: ImageFactory, options: dict[str, str]) -> None:
    name = image({"file": "original", "directory/inner": "x"})
    probe = Probe(engine, name)
    answers = probe.ask(
        "create /file changed", "unlink /directory/inner", "chmod /probe 700", "create /new x", "cat /file", **options
    )
    assert answers == ["7", "0", "0", "1", "changed"]
    layer = Path(engine.store.image(name).layers[0])
    assert (layer / "file").read_text() == "original"
    assert (layer / "directory" / "inner").exists()
    assert layer.joinpath("probe").stat().st_mode & 0o777 == 0o755
    assert not (layer / "new").exists()
    assert probe.ask("cat /file", "stat /new", **options) == ["original", "!ENOENT"]


def test_overlay_attributes_cannot_be_forged(engine: Engine, probe: Probe) -> None:
    """trusted.overlay.redirect and its like steer what a lower layer shows."""
    setxattr = 188 if os.uname().machine == "x86_64" else 5
    for attribute in ("trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.metacopy"):
        assert probe.one(["call", str(setxattr), "s:/probe", f"s:{attribute}", "s:/etc", "4", "0"]) == "!EPERM"


# ---- sysctl, devices, sockets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4..ip_forward",
        "kernel.shmmax/../core_pattern",
        "fs.mqueue.",
        "vm.swappiness",
        "kernel.hostname",
        "user.max_user_namespaces",
        "",
        "net.\0x",
        "fs.mqueue/../../x",
    ],
)
def test_settings_of_the_host_cannot_be_named(probe: Probe, name: str) -> None:
    """CVE-2022-0811."""
    with pytest.raises((UsageError, StartError)):
        probe.run("ids", sysctls={name: "1"})
    with pytest.raises(UsageError):
        probe.run("ids", sysctls={"net.ipv4.ip_forward": "1\nkernel.core_pattern=|/bin/sh"})


def test_the_callers_devices_are_looked_at(probe: Probe, tmp_path: Path) -> None:
    from pyrtc.options import Device

    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/dev/null")
    for source in (tmp_path / "file", tmp_path, tmp_path / "missing"):
        with pytest.raises(PyrtcError, match="device"):
            probe.run("ids", devices=[Device(str(source), "/dev/x")])


def test_the_notify_and_status_sockets_are_gone(probe: Probe) -> None:
    """Nothing of the setup can be heard from or spoken to once the command runs."""
    names = probe.one("list /proc/self/fd").split()
    assert set(names) <= {"0", "1", "2", "3"}  # 3: the directory that is being read
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tried:
        tried.bind("\0pyrtc-notify-test")
    assert len(probe.one("cat /proc/net/unix").splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"workdir": "relative"},
        {"workdir": "/a\0b"},
        {"mounts": [Tmpfs("relative")]},
        {"mounts": [Tmpfs("/")]},
        {"mounts": [Tmpfs("/a/..")]},
        {"mounts": [Tmpfs("/a"), Tmpfs("/a/")]},
        {"mounts": [Volume("../x", "/a")]},
        {"mounts": [Volume("a/b", "/a")]},
        {"mounts": [Bind("relative", "/a")]},
        {"name": "../x"},
        {"env": {"A=B": "c"}},
        {"env": {"": "c"}},
        {"env": {"A": "b\0c"}},
        {"hostname": "x" * 65},
        {"hostname": "a\0b"},
        {"add_host": {"x y": "1.2.3.4"}},
        {"add_host": {"x": "not an address"}},
        {"dns": ["x\ny"]},
        {"dns_search": ["a b"]},
        {"mask": ["relative"]},
    ],
    ids=str,
)
def test_options_that_would_mean_something_else(probe: Probe, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        probe.run("ids", **options)


@needs_root
def test_the_hosts_files_do_not_change(engine: Engine, probe: Probe, probe_binary: bytes, tmp_path: Path) -> None:
    """The running system as an image: every place of it is tried."""
    (tmp_path / "probe").write_bytes(probe_binary)
    (tmp_path / "probe").chmod(0o755)
    name = f"pyrtc-escape-{os.urandom(6).hex()}"
    host = Probe(engine, "host")
    mounts = [Bind(str(tmp_path / "probe"), "/probe", read_only=True)]
    for options in ({}, {"rw_layer": "memory"}):
        places = mounted(host.one("cat /proc/self/mountinfo", mounts=mounts, **options))
        tops = [f"/{entry}" for entry in os.listdir("/") if os.path.isdir(f"/{entry}")]
        places = sorted({*tops, *places, "/usr/bin", "/etc/ssl", "/var/lib", "/root"})
        answers = host.ask(*[["create", f"{place}/{name}", "x"] for place in places], mounts=mounts, **options)
        assert "1" in answers
        left = [place for place in places if not place.startswith("/proc") and os.path.exists(f"{place}/{name}")]
        for place in left:
            os.unlink(f"{place}/{name}")
        assert not left
    listed = host.ask(
        "list /run", "list /tmp", f"list {engine.store.root}", "write /etc/hostname changed", mounts=mounts
    )
    before = Path("/etc/hostname").read_bytes() if os.path.exists("/etc/hostname") else b""
    assert not set(listed[0].split()) & set(os.listdir("/run"))
    assert not set(listed[1].split()) - set(Path(tmp_path).parts)
    assert listed[2] in ("", "!ENOENT")
    assert b"changed" not in before


def test_what_the_image_says_is_not_taken_for_an_order(engine: Engine, image: ImageFactory) -> None:
    name = image(
        {"etc/passwd": File(b"app:x:33:44:::\n")},
        "ENV LD_PRELOAD=/evil.so PATH=/nowhere",
        "STOPSIGNAL SIGKILL",
        "LABEL io.pyrtc.privileged=true",
    )
    variables = Probe(engine, name).one("environment").split()
    assert "LD_PRELOAD=/evil.so" in variables  # the container's own affair
    if ROOT:
        assert "Uid:\t33\t33\t33\t33" in Probe(engine, name).one("cat /proc/self/status", user="app")
