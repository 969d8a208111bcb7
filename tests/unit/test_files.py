"""Paths beneath a root: whatever is in the tree, and whoever changes it, only the tree's own files are meant."""

import contextlib
import ctypes
import errno
import os
import pickle
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrtc import core, errors
from pyrtc.errors import ContainerFileError, ContainerFileNotFound, PyrtcError, StoreError
from pyrtc.store.confined import ACTIONS

LIBC = ctypes.CDLL(None, use_errno=True)
SECRET = b"outside"
ME = (os.geteuid(), os.getegid())
ALL = ((0, 0, (1 << 32) - 1),)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    inner = tmp_path / "root"
    (inner / "d").mkdir(parents=True)
    (inner / "d/file").write_bytes(b"inside")
    return inner


@pytest.fixture
def do(root):
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    opened = []

    def ask(action, **words):
        while opened:  # what the last one gave
            os.close(opened.pop())
        result, fds = ACTIONS[action]([fd], **words)
        opened.extend(fds)
        return result, fds

    yield ask
    for each in [fd, *opened]:
        os.close(each)


def read(do, path):
    _size, fds = do("open_data", path=path)
    return os.read(fds[0], 100)


def write(do, path, data=b"new", **words):
    _nothing, (fd,) = do(
        "open_new", path=path, **{"append": False, "mode": None, "owner": None, "parents": False} | words
    )
    os.write(fd, data)


def copy(source, source_name, target, target_name, **words):
    fds = [os.open(place, os.O_PATH | os.O_DIRECTORY) for place in (source, target)]
    try:
        return core.copy_entry(
            fds[0], source_name, fds[1], target_name, **{"owner": ME, "uids": ALL, "gids": ALL} | words
        )
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize(
    "path", ["/d/file", "d/file", "/d/../d/file", "/../../d/file", "/up/d/file", "/absolute", "/chain", "/d/./file"]
)
def test_paths_lead_to_the_trees_own_files(root, do, path):
    (root / "up").symlink_to("../../..")
    (root / "absolute").symlink_to("/d/file")
    (root / "chain").symlink_to("absolute")
    assert read(do, path) == b"inside"


@pytest.mark.parametrize("target", ["../secret", "/secret", "../../../../secret", "d/../../secret", "{outside}/secret"])
def test_a_link_out_names_nothing(root, do, target):
    (root / "link").symlink_to(target.format(outside=root.parent))
    with pytest.raises(FileNotFoundError):
        read(do, "/link")


@pytest.mark.parametrize("target", ["../made", "/made", "../../../made"])
def test_a_file_that_a_link_names_is_made_inside(root, do, target):
    (root / "link").symlink_to(target)
    write(do, "/link")
    assert (root / "made").read_bytes() == b"new"
    assert not (root.parent / "made").exists()


def test_links_in_a_circle_end(root, do):
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    for call in (lambda: read(do, "/a"), lambda: write(do, "/a"), lambda: do("entry", path="/a", follow=True)):
        with pytest.raises(OSError) as refusal:
            call()
        assert refusal.value.errno == errno.ELOOP


def test_parents_are_made_inside_and_behind_links(root, do):
    (root / "out").symlink_to("/../..")
    write(do, "/out/x/y/z", parents=True)
    assert (root / "x/y/z").read_bytes() == b"new"
    assert stat.S_IMODE((root / "x").stat().st_mode) == 0o755


def test_what_is_no_regular_file_is_never_opened(root, do):
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        begun = time.monotonic()
        for name in ("/fifo", "/socket"):
            for call in (read, write):
                with pytest.raises(OSError, match="never opened") as refusal:
                    call(do, name)
                assert refusal.value.errno == errno.EINVAL
        assert time.monotonic() - begun < 5
    with pytest.raises(IsADirectoryError):
        read(do, "/d")


def test_written_in_place(root, do):
    (root / "d/file").chmod(0o640)
    os.link(root / "d/file", root / "other")
    write(do, "/d/file", b"x")
    write(do, "/d/file", b"y", append=True)
    assert (root / "other").read_bytes() == b"xy"
    assert stat.S_IMODE((root / "other").stat().st_mode) == 0o640
    write(do, "/d/file", mode=0o600)
    assert stat.S_IMODE((root / "other").stat().st_mode) == 0o600


def test_removing_takes_the_link_and_not_what_it_names(root, do):
    (root / "link").symlink_to("d")
    do("remove", path="/link", recursive=True)
    assert (root / "d/file").exists()
    with pytest.raises(OSError) as refusal:
        do("remove", path="/d", recursive=False)
    assert refusal.value.errno == errno.ENOTEMPTY
    do("remove", path="/d/", recursive=True)
    assert not (root / "d").exists()
    for path in ("/", "/..", "/."):
        with pytest.raises(OSError):
            do("remove", path=path, recursive=True)


def test_a_list_is_limited(root, do):
    for number in range(5):
        (root / f"d/{number}").touch()
    found, _ = do("listing", path="/d", limit=6)
    assert [entry["name"] for entry in found] == ["0", "1", "2", "3", "4", "file"]
    with pytest.raises(OSError, match="more than 5"):
        do("listing", path="/d", limit=5)


NAMES = st.sampled_from(["a", "b", "..", ".", "", "d", "link", "secret"])
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=st.lists(st.tuples(st.sampled_from(["a", "b", "link", "d/a"]), PATHS), max_size=4), path=PATHS)
def test_no_path_shows_or_changes_anything_outside(tmp_path_factory, links, path):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_bytes(SECRET)
    root = outside / "root"
    (root / "d").mkdir(parents=True)
    for name, target in links:
        if target and not os.path.lexists(root / name):
            (root / name).symlink_to(target)
    before = sorted(os.listdir(outside))
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for action, words in (
            ("open_data", {}),
            ("open_new", {"append": False, "mode": None, "owner": None, "parents": True}),
            ("open_data", {}),
            ("make_directory", {"mode": 0o755, "owner": None, "parents": True, "exist_ok": True}),
            ("remove", {"recursive": True}),
        ):
            try:
                _, fds = ACTIONS[action]([fd], path=f"/{path}", **words)
            except OSError:
                continue
            for each in fds:
                if action == "open_data":
                    assert os.read(each, 100) != SECRET
                os.close(each)
    finally:
        os.close(fd)
    assert sorted(os.listdir(outside)) == before
    assert (outside / "secret").read_bytes() == SECRET


class Swapper:
    """Exchanges a directory and a link without end."""

    def __init__(self, directory: Path, link_to: Path) -> None:
        self.directory, self.spare = directory, directory.with_name("spare")
        self.spare.symlink_to(link_to)
        self.stop = threading.Event()
        self.rounds = 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        paths = [os.fsencode(path) for path in (self.directory, self.spare)]
        while not self.stop.is_set():
            # renameat2 with RENAME_EXCHANGE: at no moment is there neither.
            assert LIBC.renameat2(-100, paths[0], -100, paths[1], 2) == 0
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.stop.set()
        self.thread.join()
        if self.directory.is_symlink():
            LIBC.renameat2(-100, os.fsencode(self.directory), -100, os.fsencode(self.spare), 2)


def test_whoever_swaps_directories_for_links_gains_nothing(root, do, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(SECRET)
    done = 0
    with Swapper(root / "d", outside) as swapper:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for call in (
                lambda: read(do, "/d/file"),
                lambda: write(do, "/d/file", b"inside"),
                lambda: write(do, "/d/x"),
            ):
                try:
                    assert call() in (b"inside", b"", None)
                    done += 1
                except (FileNotFoundError, NotADirectoryError, FileExistsError):
                    continue
    assert done > 50
    assert swapper.rounds > 50
    assert (outside / "file").read_bytes() == SECRET
    assert os.listdir(outside) == ["file"]


def test_a_copy_into_a_tree_that_is_being_swapped_stays_in_it(root, tmp_path):
    outside, source = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    for number in range(20):
        (source / f"d/{number}").mkdir(parents=True)
        (source / f"d/{number}/file").write_bytes(b"copied")
    done = tried = 0
    with Swapper(root / "d", outside) as swapper:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            tried += 1
            try:
                copy(source, None, root, None)
                done += 1
            except StoreError:
                continue
    assert swapper.rounds > 50
    assert tried > 50
    assert done, "else it was refused each time, which shows nothing"
    copy(source, None, root, None)
    assert (root / "d/3/file").read_bytes() == b"copied"
    assert os.listdir(outside) == []


def test_a_copy_out_of_a_tree_that_is_being_swapped_shows_nothing_else(root, tmp_path):
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "file").write_bytes(SECRET)
    done = shown = 0
    with Swapper(root / "d", outside) as swapper:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            name = f"copy{done}"
            with contextlib.suppress(StoreError):
                copy(root, None, target, name)
            done += 1
            for path in (target / name).rglob("file"):
                if not path.parent.is_symlink():
                    assert path.read_bytes() in (b"inside", b"")
                    shown += 1
    assert swapper.rounds > 50
    assert done > 5
    assert shown > 5, "else no file was ever copied, which shows nothing"


def test_a_copy_merges_directories_and_replaces_the_rest(root, tmp_path):
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    (target / "d").chmod(0o700)
    (target / "d/kept").touch()
    (target / "d/file").symlink_to(tmp_path / "secret")
    result = copy(root, "d", target, "d")
    assert (result.entries, result.bytes) == (2, 6)
    assert sorted(os.listdir(target / "d")) == ["file", "kept"]
    assert not (target / "d/file").is_symlink()
    assert (tmp_path / "secret").read_bytes() == SECRET
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700
    copy(root, "d", target, "d", flags=core.COPY_DIRECTORIES)
    assert stat.S_IMODE((target / "d").stat().st_mode) == stat.S_IMODE((root / "d").stat().st_mode)


def test_a_directory_takes_no_files_place_nor_the_other_way_round(root, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").touch()
    with pytest.raises(StoreError, match="overwrite a non-directory") as refusal:
        copy(root, "d", target, "d")
    assert refusal.value.errno == errno.ENOTDIR
    (target / "file").mkdir()
    with pytest.raises(StoreError) as refusal:
        copy(root / "d", "file", target, "file")
    assert refusal.value.errno == errno.EISDIR


def test_hard_links_holes_attributes_and_special_files(root, tmp_path):
    os.link(root / "d/file", root / "again")
    os.setxattr(root / "d/file", "user.note", b"x")
    with open(root / "sparse", "wb") as file:
        file.seek(1 << 24)
        file.write(b"end")
    os.mkfifo(root / "fifo", 0o640)
    (root / "link").symlink_to("/etc/passwd")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    os.utime(root / "d/file", ns=(1, 2))
    target = tmp_path / "target"
    target.mkdir()
    for _ in range(2):  # the second time over what the first made
        result = copy(root, None, target, "copy")
        assert result.skipped == 1
        copied = target / "copy"
        assert (copied / "again").stat().st_ino == (copied / "d/file").stat().st_ino
        assert os.getxattr(copied / "again", "user.note") == b"x"
        assert (copied / "again").stat().st_mtime_ns == 2
        assert (copied / "sparse").stat().st_size == (1 << 24) + 3
        assert (copied / "sparse").stat().st_blocks < 1000
        assert stat.S_ISFIFO((copied / "fifo").stat().st_mode)
        assert os.readlink(copied / "link") == "/etc/passwd"
        assert not (copied / "socket").exists()


def test_set_user_id_needs_the_same_owner(root, tmp_path):
    (root / "d/file").chmod(0o6755)
    target = tmp_path / "target"
    target.mkdir()
    copy(root / "d", "file", target, "same")
    copy(root / "d", "file", target, "other", uids=(), gids=())
    assert stat.S_IMODE((target / "same").stat().st_mode) == 0o6755
    assert stat.S_IMODE((target / "other").stat().st_mode) == 0o755


def test_owners_that_have_no_number_there(root, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(StoreError, match="no number for") as refusal:
        copy(root / "d", "file", target, "x", flags=core.COPY_OWNERS, uids=(), gids=())
    assert refusal.value.errno == errno.EOVERFLOW


@pytest.mark.parametrize(("limit", "word"), [({"max_entries": 2}, "entries"), ({"max_bytes": 5}, "bytes")])
def test_limits_of_a_copy(root, tmp_path, limit, word):
    (root / "more").write_bytes(b"")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(StoreError, match=f"limit of {word}") as refusal:
        copy(root, None, target, "x", **limit)
    assert refusal.value.errno == errno.EFBIG


def test_a_tree_is_not_copied_into_itself(root):
    with pytest.raises(StoreError, match="into itself"):
        copy(root, None, root, None)
    with pytest.raises(StoreError, match="into itself"):
        copy(root, None, root / "d", "x", max_entries=1000)


def test_names_that_are_no_text(root, tmp_path):
    name = b"\xff\n\x1b[31m"
    (Path(os.fsdecode(os.fsencode(root) + b"/d/" + name))).write_bytes(b"x")
    target = tmp_path / "target"
    target.mkdir()
    copy(root, "d", target, "d")
    assert name in os.listdir(os.fsencode(target / "d"))


def test_errors_are_both_pyrtcs_and_the_systems():
    error = ContainerFileNotFound("cannot read /x: no such file", errno.ENOENT, "/x")
    assert isinstance(error, (PyrtcError)) and isinstance(error, FileNotFoundError)
    assert (str(error), error.errno, error.filename) == ("cannot read /x: no such file", errno.ENOENT, "/x")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.errno) == (ContainerFileNotFound, str(error), errno.ENOENT)
    assert issubclass(errors.ContainerFileDenied, PermissionError)
    assert issubclass(errors.ContainerFileIsADirectory, ContainerFileError)


def test_a_file_that_cannot_get_its_owner_or_mode_leaves_nothing_open(root, do):
    before = len(os.listdir("/proc/self/fd"))
    for owner in ([-2, -2], [1 << 33, 0]):
        with pytest.raises((OSError, OverflowError)):
            write(do, "/d/new", owner=owner)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_name_that_comes_and_goes_ends_in_an_error(root, do, monkeypatch):
    """Whoever makes and removes it all the time keeps nobody busy for ever, and nothing of theirs is written to."""
    really, tried = os.open, []

    def racing(path, flags, *more, **words):
        if flags & os.O_EXCL:
            tried.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return really(path, flags, *more, **words)

    monkeypatch.setattr(os, "open", racing)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="makes and removes it") as refusal:
        write(do, "/d/raced")
    assert (refusal.value.errno, len(tried)) == (errno.EAGAIN, 40)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_made_where_the_kernel_shows_itself():
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="interface of the kernel"):
            ACTIONS["open_new"]([fd], path="/proc/new", append=False, mode=None, owner=None, parents=False)
        with pytest.raises(OSError, match="interface of the kernel"):
            ACTIONS["open_new"]([fd], path="/proc/self/comm", append=False, mode=None, owner=None, parents=False)
    finally:
        os.close(fd)
