"""What of the running system is overlaid, bound, linked or made anew: on made-up mount tables and the real one."""

import os

import pytest

from pyrtc.runtime import host_root
from pyrtc.runtime.host_root import Beneath, Bound, Link, Made, Overlaid, beneath_root, can_make, put_together


@pytest.fixture
def mounts(monkeypatch):
    """mounts({"/": "ext4", "/home": "xfs"}) makes these the mounts of this process."""

    def make(types):
        monkeypatch.setattr(host_root, "_mounts", lambda: host_root._Mounts({"/proc": "proc", **types}))

    return make


@pytest.mark.parametrize(
    ("raw", "read"),
    [(rb"/a\040b", b"/a b"), (rb"/\134040", rb"/\040"), (b"/plain", b"/plain"), (rb"/\011\012", b"/\t\n")],
)
def test_mount_points_are_unescaped(raw, read):
    assert host_root._unescape(raw) == read


def test_the_type_of_a_directory_is_that_of_the_mount_it_is_in():
    table = host_root._Mounts({"/": "ext4", "/home": "xfs"})
    assert [table.type_at(path) for path in ("/", "/usr/bin", "/home", "/home/x", "/homely")] == [
        "ext4", "ext4", "xfs", "xfs", "ext4"
    ]  # fmt: skip
    assert table.below("/")
    assert not table.below("/home")
    assert not table.below("/hom")


def test_own_directories_are_left_out_and_directories_come_first():
    parts = put_together()
    made = set()
    for part in parts:
        assert not any(part.path == fresh or part.path.startswith(fresh + "/") for fresh in host_root._FRESH)
        parent = os.path.dirname(part.path)
        assert parent == "/" or parent in made
        if isinstance(part, Overlaid):
            assert part.path in made
        if isinstance(part, Made):
            made.add(part.path)
        if isinstance(part, Link):
            assert os.readlink(part.path) == part.value
    assert len({part.path for part in parts if not isinstance(part, Made)}) == sum(
        not isinstance(part, Made) for part in parts
    )


def test_a_directory_without_mounts_is_overlaid_whole(mounts):
    mounts({"/": "ext4"})
    parts = put_together()
    assert "/usr" in [part.path for part in parts if isinstance(part, Overlaid)]
    assert not [part for part in parts if isinstance(part, Overlaid) and part.path.count("/") > 1]


def test_a_directory_with_mounts_below_is_taken_apart_once(mounts):
    mounts({"/": "ext4", "/usr/share/doc": "ext4"})
    kinds = {part.path: type(part) for part in put_together()}
    assert kinds["/usr"] is Made
    assert kinds["/usr/bin"] is Overlaid
    assert kinds["/usr/share"] is Bound


def test_a_file_system_that_is_no_layer_is_bound(mounts):
    mounts({"/": "ext4", "/usr": "vfat"})
    assert [type(part) for part in put_together() if part.path == "/usr"] == [Bound]


def test_what_may_not_be_read_is_empty(mounts, monkeypatch):
    mounts({"/": "ext4"})
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/usr" and real(path, mode))
    assert [type(part) for part in put_together() if part.path.startswith("/usr")] == [Made]


def test_files_are_put_where_that_can_be():
    parts = (Made("/etc", 0o755), Bound("/usr", 1, 2))
    assert can_make("/etc/none", parts)
    assert can_make("/usr/bin", parts)
    assert not can_make("/usr/none", parts)


def test_file_systems_below_root(mounts):
    mounts({"/": "ext4", "/usr": "xfs", "/usr/share/doc": "ext4", "/var/lib": "btrfs", "/run": "tmpfs", "/tmp": "tmpfs",
            "/sys": "sysfs", "/home": "overlay", "/etc": "vfat"})  # fmt: skip
    found = beneath_root()
    assert [part.path for part in found.overlaid] == ["/usr", "/var/lib"]
    assert [part.path for part in found.bound] == ["/etc", "/usr/share/doc"]
    assert found.topmost() == ("/etc", "/usr", "/var/lib")
    assert Beneath((), ()).topmost() == ()
