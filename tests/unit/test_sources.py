"""Sources of binds and volumes, opened by name for an ordinary user; detached mounts are tested with the kernel."""

import os
from contextlib import ExitStack

import pytest

from pyrtc import core
from pyrtc.errors import UsageError
from pyrtc.options import Bind, Tmpfs, Volume
from pyrtc.runtime.assembly import BoundMount
from pyrtc.runtime.sources import open_sources


def opened(*mounts, volumes=None, userns_fd=-1):
    with ExitStack() as owned:
        return open_sources(mounts, volumes or {}, owned=owned, userns_fd=userns_fd, detached=False)


@pytest.fixture
def clones(monkeypatch):
    """What would have been cloned: (device and inode of the source, arguments)."""
    calls = []

    def clone(fd, **options):
        about = os.fstat(fd)
        calls.append(((about.st_dev, about.st_ino), options))
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    monkeypatch.setattr(core, "clone_mount", clone)
    return calls


def test_a_source_is_named_by_what_was_opened(tmp_path):
    about = tmp_path.stat()
    (made,) = opened(Bind(str(tmp_path), "/data"))
    assert made == BoundMount("/data", False, True, str(tmp_path), about.st_dev, about.st_ino)


def test_options_are_passed_on(tmp_path):
    (made,) = opened(Bind(str(tmp_path), "/data", read_only=True, recursive=False))
    assert (made.read_only, made.recursive) == (True, False)


def test_a_link_is_what_it_leads_to_when_it_is_opened(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (made,) = opened(Bind(str(tmp_path / "link"), "/data"))
    assert made.path == str(tmp_path / "real")
    assert made.inode == (tmp_path / "real").stat().st_ino


def test_files_fifos_and_sockets_are_sources_and_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    assert [made.path for made in opened(Bind(f"{tmp_path}/fifo", "/a"), Bind(f"{tmp_path}/file", "/b"))] == [
        f"{tmp_path}/fifo",
        f"{tmp_path}/file",
    ]


def test_memory_needs_no_source_and_the_order_stays(tmp_path):
    tmpfs = Tmpfs("/t")
    made = opened(Bind(str(tmp_path), "/a"), tmpfs, Bind(str(tmp_path), "/b"))
    assert made[1] is tmpfs
    assert [mount.target for mount in made] == ["/a", "/t", "/b"]


def test_volumes_are_found_by_their_target(tmp_path):
    (made,) = opened(Volume("name", "/v", read_only=True), volumes={"/v": str(tmp_path)})
    assert (made.path, made.read_only, made.recursive) == (str(tmp_path), True, True)


@pytest.mark.parametrize("source", ["relative", "", ".", "~/x"])
def test_relative_sources_are_refused(source):
    with pytest.raises(UsageError, match="absolute"):
        opened(Bind(source, "/data"))
    with pytest.raises(UsageError, match="absolute"):
        opened(Bind(source, "/data", create=True))


@pytest.mark.parametrize("create", [True, False])
def test_nul_in_a_source_is_refused(create):
    with pytest.raises(UsageError, match="NUL"):
        opened(Bind("/tmp\0x", "/data", create=create))


def test_missing_sources_are_refused_or_made(tmp_path):
    missing = str(tmp_path / "a/b")
    with pytest.raises(UsageError, match=f"does not exist: {missing}"):
        opened(Bind(missing, "/data"))
    assert not os.path.exists(missing)
    (made,) = opened(Bind(missing, "/data", create=True))
    assert os.path.isdir(missing)
    assert made.inode == os.stat(missing).st_ino


def test_what_exists_is_not_made_again(tmp_path):
    (tmp_path / "file").write_text("kept")
    opened(Bind(f"{tmp_path}/file", "/data", create=True))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("create", [True, False])
def test_dangling_links_are_neither_followed_nor_replaced(tmp_path, create):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="does not exist"):
        opened(Bind(f"{tmp_path}/link", "/data", create=create))
    assert not (tmp_path / "nowhere").exists()


def test_what_cannot_be_made_or_used_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made: Not a directory"):
        opened(Bind(f"{tmp_path}/file/x", "/data", create=True))
    with pytest.raises(UsageError, match="cannot be used: Not a directory"):
        opened(Bind(f"{tmp_path}/file/x", "/data"))


def test_id_mapping_where_there_is_nothing_to_map(tmp_path):
    with pytest.raises(UsageError, match="root is that user anyway"):
        opened(Bind(str(tmp_path), "/data", idmap=True))


def test_detached_mounts_are_made_with_their_attributes(tmp_path, clones):
    about = (tmp_path.stat().st_dev, tmp_path.stat().st_ino)
    mounts = (
        Bind(str(tmp_path), "/a"),
        Bind(str(tmp_path), "/b", read_only=True, recursive=False),
        Bind(str(tmp_path), "/c", idmap=True),
        Volume("v", "/d"),
    )
    with ExitStack() as owned:
        made = open_sources(mounts, {"/d": str(tmp_path)}, owned=owned, userns_fd=9, detached=True)
        assert all(mount.fd is not None and os.fstat(mount.fd) for mount in made)
        fds = [mount.fd for mount in made]
    nodev, read_only = 4, 1
    assert clones == [
        (about, {"recursive": True, "attributes": nodev, "userns_fd": -1}),
        (about, {"recursive": False, "attributes": nodev | read_only, "userns_fd": -1}),
        (about, {"recursive": True, "attributes": nodev, "userns_fd": 9}),
        # what a volume holds belongs to the container's users
        (about, {"recursive": True, "attributes": nodev, "userns_fd": 9}),
    ]
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_devices_work_only_where_it_is_said(tmp_path, clones):
    with ExitStack() as owned:
        for devices in (True, False):
            (made,) = open_sources(
                (Bind(str(tmp_path), "/a"),), {}, owned=owned, userns_fd=-1, detached=True, devices=devices
            )
            assert made.devices is devices
    assert [call["attributes"] for _, call in clones] == [0, 4]


@pytest.mark.parametrize("bad", [Bind("relative", "/x"), Bind("/no/such/file", "/x"), Bind("/", "/x", idmap=True)])
def test_nothing_stays_open_when_a_later_source_fails(tmp_path, clones, bad):
    before = os.listdir("/proc/self/fd")
    for detached in (True, False):
        with pytest.raises(UsageError), ExitStack() as owned:
            open_sources((Bind(str(tmp_path), "/a"), bad), {}, owned=owned, userns_fd=-1, detached=detached)
    assert os.listdir("/proc/self/fd") == before
