"""Files of real containers: running, paused and stopped, of root and of ordinary users, hostile or not."""

import asyncio
import contextlib
import errno
import os
import stat
import threading
import time

import pytest
from conftest import ROOT, Link, Node, needs_root

import pyrtc
from pyrtc import aio
from pyrtc.api import make_options
from pyrtc.errors import ContainerFileDenied, ContainerFileError, ContainerFileNotFound, UnsupportedError
from pyrtc.files import Files
from pyrtc.runtime.container_root import open_running

SLEEP = ("/probe", "sleep", "60")
PATIENCE = 30.0  # seconds for what takes two on a machine that is not busy
USERNS = [{}, {"userns": "auto"}] if ROOT else [{}, {"userns": "keep-id"}]


@pytest.fixture(params=USERNS, ids=lambda options: options.get("userns", "default"))
def options(request):
    return request.param


@pytest.fixture
def running(engine, image):
    """Start containers: running(entries, **options) returns handle and files."""
    started = []

    def start(entries=None, **options):
        words = {"remove": False} | options
        handle = engine.start(image(entries), make_options(SLEEP, **words), stdout=None, stderr=None)
        started.append(handle)
        return handle, Files(engine.store, handle.id)

    yield start
    for handle in started:
        handle.close()
        with contextlib.suppress(pyrtc.ContainerNotFound):
            engine.containers.remove(handle.id, force=True)


def test_write_read_list_remove(running, options):
    _, files = running(**options)
    files.write("/srv/a/b", "text")
    files.write("/srv/a/b", b"+", append=True)
    about = files.stat("srv/a/b")
    assert (files.read("/srv/a/b"), about.kind, about.mode, about.uid, about.gid) == (b"text+", "file", 0o644, 0, 0)
    files.write("/dev/shm/x", b"", mode=0o4711, user="5:6")
    about = files.stat("/dev/shm/x")
    assert (about.mode, about.uid, about.gid) == (0o4711, 5, 6)
    files.mkdir("/srv/c", mode=0o700, user=7)
    assert [(entry.name, entry.kind, entry.uid) for entry in files.list("/srv")] == [
        ("a", "directory", 0),
        ("c", "directory", 7),
    ]
    with pytest.raises(ContainerFileError) as refusal:
        files.remove("/srv/a")
    assert refusal.value.errno == errno.ENOTEMPTY
    files.remove("/srv/a", recursive=True)
    files.remove("/srv/a", missing_ok=True)
    assert not files.exists("/srv/a")
    with pytest.raises(FileNotFoundError):
        files.remove("/srv/a")


def test_a_stopped_container_has_the_same_files(running, options):
    handle, files = running(**options)
    files.write("/srv/kept", "before", user="5")
    handle.close()
    assert (files.read("/srv/kept"), files.stat("/srv/kept").uid) == (b"before", 5)
    files.write("/srv/after", "after", user="9")
    assert [(entry.name, entry.uid) for entry in files.list("/srv")] == [("after", 9), ("kept", 5)]
    with open("/proc/self/mountinfo") as mounts:
        assert "overlay" not in [line.split()[4] for line in mounts if handle.id in line]


def test_volumes_binds_and_tmpfs(running, engine, tmp_path):
    (tmp_path / "bound").mkdir(mode=0o777)
    (tmp_path / "bound").chmod(0o777)
    mounts = (pyrtc.Volume("data", "/data"), pyrtc.Bind(str(tmp_path / "bound"), "/bound"), pyrtc.Tmpfs("/memory"))
    handle, files = running(mounts=mounts)
    for place in ("/data", "/bound", "/memory"):
        files.write(f"{place}/x", place)
    assert (tmp_path / "bound/x").read_text() == "/bound"
    handle.close()
    assert [files.exists(f"{place}/x") for place in ("/data", "/bound", "/memory")] == [True, True, False]
    files.write("/data/y", "stopped")
    volume = engine.store.volumes.get("data")
    assert sorted(os.listdir(volume.path)) == ["x", "y"]


def test_what_is_mounted_read_only_stays_so(running, tmp_path):
    _, files = running(read_only=True, mounts=(pyrtc.Tmpfs("/memory"),))
    for call in (lambda: files.write("/x", b""), lambda: files.mkdir("/d"), lambda: files.copy_in(__file__, "/x")):
        with pytest.raises(ContainerFileError) as refusal:
            call()
        assert refusal.value.errno == errno.EROFS
    files.write("/memory/x", b"1")


HOSTILE = {
    "root": Link("/proc/1/root"),
    "up": Link("../../../../../.."),
    "fd": Link("/proc/self/fd"),
    "cwd": Link("/proc/1/cwd"),
    "fifo": Node("p"),
    "tree/link": Link("/etc/passwd"),
    "tree/file": b"data",
    "tree/fifo": Node("p"),
}


def test_links_lead_to_nothing_of_the_host(running, options, tmp_path):
    (tmp_path / "secret").write_text("secret")
    _, files = running(HOSTILE, **options)
    for path in (f"/up{tmp_path}/secret", f"/root{tmp_path}/secret", f"/cwd{tmp_path}/secret", f"{tmp_path}/secret"):
        with pytest.raises(ContainerFileError):
            files.read(path)
    with pytest.raises(ContainerFileError) as refusal:
        files.read("/proc/1/root/probe")
    assert refusal.value.errno == errno.ELOOP
    files.write(f"/up{tmp_path}/made", b"inside")
    assert not (tmp_path / "made").exists()
    assert files.read(f"{tmp_path}/made") == b"inside"


def test_devices_fifos_and_kernel_interfaces(running, options):
    _, files = running(HOSTILE, **options)
    begun = time.monotonic()
    for path in ("/fifo", "/dev/null", "/dev/zero"):
        for call in (files.read, lambda path: files.write(path, b"x")):
            with pytest.raises(ContainerFileError, match="never opened"):
                call(path)
    assert time.monotonic() - begun < 5
    assert files.read("/proc/1/status").startswith(b"Name:")
    with pytest.raises(ContainerFileDenied, match="interface of the kernel"):
        files.write("/proc/1/oom_score_adj", b"0")
    with pytest.raises(ContainerFileError) as refusal:
        files.read("/probe", max_bytes=10)
    assert refusal.value.errno == errno.EFBIG


def test_copies_in_and_out(running, options, tmp_path):
    handle, files = running(HOSTILE, **options)
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/x").write_text("x")
    os.link(source / "d/x", source / "y")
    os.setxattr(source / "y", "user.note", b"n")
    with open(source / "sparse", "wb") as sparse:
        sparse.truncate(1 << 22)
    for _ in range(2):
        files.copy_in(source, "/copy")
        assert (files.stat("/copy/y").links, files.stat("/copy/d/x").uid) == (2, 0)
        handle.close()  # the second time it is stopped
    out = tmp_path / "out"
    result = files.copy_out("/copy", out)
    assert result.skipped == 0
    assert (out / "y").stat().st_ino == (out / "d/x").stat().st_ino
    assert os.getxattr(out / "y", "user.note") == b"n"
    assert ((out / "sparse").stat().st_size, (out / "sparse").stat().st_blocks) == (1 << 22, 0)
    assert {path.lstat().st_uid for path in [out, *out.rglob("*")]} == {os.geteuid()}
    files.copy_out("/tree", tmp_path / "tree")
    assert os.readlink(tmp_path / "tree/link") == "/etc/passwd"
    assert stat.S_ISFIFO((tmp_path / "tree/fifo").stat().st_mode)


def test_archive_keeps_owners(running, options, tmp_path):
    _, files = running(**options)
    (tmp_path / "x").write_text("x")
    if ROOT:
        os.chown(tmp_path / "x", 1234, 4321)
    files.copy_in(tmp_path / "x", "/x", archive=True)
    about = files.stat("/x")
    if ROOT:
        assert (about.uid, about.gid) == (1234, 4321)
        files.copy_out("/x", tmp_path / "y", archive=True)
        assert ((tmp_path / "y").stat().st_uid, (tmp_path / "y").stat().st_gid) == (1234, 4321)
    else:
        assert (about.uid, about.gid) == (os.geteuid(), os.getegid())
        files.copy_out("/x", tmp_path / "y", archive=True)
        assert (tmp_path / "y").stat().st_uid == os.geteuid()


@needs_root
def test_devices_and_powers_come_out_only_where_they_mean_the_same(running, tmp_path):
    _, files = running({"tree/null": Node("c", 1, 3)}, userns="auto")
    files.write("/tree/suid", b"", mode=0o4755, user=7)
    assert files.copy_out("/tree", tmp_path / "out").skipped == 1
    assert stat.S_IMODE((tmp_path / "out/suid").stat().st_mode) == 0o755
    assert not (tmp_path / "out/null").exists()


def test_archives(running, options, tmp_path):
    _, files = running(HOSTILE, **options)
    files.write("/tree/suid", b"", user="7:8")
    with open(tmp_path / "a.tar", "wb") as stream:
        files.archive_out("/tree", stream)
    with open(tmp_path / "a.tar", "rb") as stream:
        files.archive_in(stream, "/dev/shm")
    about = files.stat("/dev/shm/tree/suid")
    assert (about.uid, about.gid, files.stat("/dev/shm/tree/link", follow_symlinks=False).target) == (
        7,
        8,
        "/etc/passwd",
    )
    (tmp_path / "bad.tar").write_bytes(b"x" * 1024)
    with open(tmp_path / "bad.tar", "rb") as stream, pytest.raises(pyrtc.PyrtcError):
        files.archive_in(stream, "/dev/shm")


def test_a_whole_container_without_what_the_kernel_shows(running, tmp_path):
    _, files = running(HOSTILE)
    files.copy_out("/.", tmp_path / "all")
    assert (tmp_path / "all/probe").exists()
    assert os.listdir(tmp_path / "all/proc") == []
    assert os.listdir(tmp_path / "all/sys") == []


def test_swapping_inside_shows_nothing_outside(engine, running, options, tmp_path):
    """The volume is the host's directory, so the host plays the hostile process, as fast as it can."""
    bound = tmp_path / "bound"
    bound.mkdir()
    bound.chmod(0o777)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (bound / "d").mkdir()
    (bound / "d/file").write_text("inside")
    (bound / "d").chmod(0o777)
    (bound / "d/file").chmod(0o666)
    _, files = running(mounts=(pyrtc.Bind(str(bound), "/bound"),), **options)
    stop = threading.Event()
    rounds = 0

    def swap():
        nonlocal rounds
        while not stop.is_set():
            (bound / "d").rename(bound / "aside")
            (bound / "d").symlink_to(outside)
            (bound / "d").unlink()
            (bound / "aside").rename(bound / "d")
            rounds += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        begin, done, worked = time.monotonic(), 0, 0
        # A busy machine gets further in more time.
        while (took := time.monotonic() - begin) < 2 or (took < PATIENCE and (rounds <= 50 or worked <= 5)):
            done += 1
            for call in (
                lambda: files.read("/bound/d/file"),
                lambda: files.write("/bound/d/file", "inside", parents=False),
                lambda number=done: files.copy_out("/bound", tmp_path / f"out{number}"),
            ):
                try:
                    assert call() != b"secret"
                    worked += 1
                except ContainerFileError:
                    continue
    finally:
        stop.set()
        thread.join()
    assert rounds > 50
    assert worked > 5
    assert (outside / "file").read_text() == "secret"
    assert os.listdir(outside) == ["file"]
    files.copy_out("/bound", tmp_path / "out")
    assert (tmp_path / "out/d/file").is_file(), "once nobody swaps it is there"
    copies = [path for path in tmp_path.glob("out*/d/file") if path.parent.parent != outside and path.is_file()]
    assert all(path.parent.is_symlink() or path.read_text() in ("inside", "") for path in copies)
    # Directories of a copy that was broken off may still belong to an id of the container.
    parent = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        for path in tmp_path.glob("out?*"):
            engine.store.trees.remove(parent, path.name)
    finally:
        os.close(parent)


def test_nothing_of_the_container_is_loaded_by_who_works_in_it(running, engine, options):
    """Its root and all that it has mapped are the host's, whatever libraries and decompressors the container has."""
    handle, _ = running({"lib/x86_64-linux-gnu/libnss_files.so.2": b"x", "usr/bin/xz": b"x"}, **options)
    host = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with open_running(engine.store.containers.get(handle.id)) as session:
            assert session is not None
            for worker in (session.reader, session.writer):
                worker.ask("examine", [session.root_fd], path="/usr/bin/xz", follow=True)
                shown = {}
                for name in ("maps", "mountinfo"):
                    _size, (fd,) = worker.ask("open_data", [host], path=f"/proc/self/{name}")
                    with open(fd) as file:
                        shown[name] = file.read().splitlines()
                with open("/proc/self/mountinfo") as file:
                    assert shown["mountinfo"] == file.read().splitlines(), "a root of its own would show other mounts"
                mapped = {tuple(line.split(maxsplit=5)[4:]) for line in shown["maps"] if line.count("/")}
                files = {path: int(inode) for inode, path in mapped if "(deleted)" not in path}
                assert any("_core" in path for path in files)
                assert {path: os.stat(path).st_ino for path in files} == files
    finally:
        os.close(host)


def test_containers_that_keep_nothing(running, engine):
    handle, files = running(remove=True)
    assert files.exists("/probe")
    handle.close()
    with pytest.raises(pyrtc.ContainerNotFound):
        files.read("/probe")


def test_the_stopped_host_says_what_to_do(engine):
    handle = engine.start("host", make_options(["sleep", "60"], remove=False), stdout=None, stderr=None)
    files = Files(engine.store, handle.id)
    try:
        assert files.exists("/etc/passwd")
        handle.close()
        with pytest.raises(UnsupportedError, match="start it first"):
            files.exists("/etc/passwd")
    finally:
        with contextlib.suppress(pyrtc.ContainerNotFound):
            engine.containers.remove(handle.id, force=True)


def test_asyncio(running):
    _, files = running()

    async def work():
        twin = aio.Files(files)
        await twin.write("/x", "1")
        return await asyncio.gather(twin.read("/x"), twin.exists("/y"))

    assert asyncio.run(work()) == [b"1", False]


def test_a_missing_file_is_a_builtin_error(running):
    _, files = running()
    with pytest.raises(FileNotFoundError, match="cannot read /nope in container"):
        files.read("/nope")
    with pytest.raises(ContainerFileNotFound):
        files.list("/nope")
    with pytest.raises(NotADirectoryError):
        files.list("/probe")
    with pytest.raises(IsADirectoryError):
        files.read("/")


def test_a_paused_container(engine, image):
    with pyrtc.Container(image(), list(SLEEP), engine=engine) as container:
        try:
            container.pause()
        except UnsupportedError as error:
            pytest.skip(str(error))
        assert container.status == "paused"
        container.files.write("/x", "1")
        assert container.files.read("/x") == b"1"
        container.files.copy_in(__file__, "/y")
        container.unpause()
