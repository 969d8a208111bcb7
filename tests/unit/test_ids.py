"""Maps of user namespaces, entries of subuid(5), and ranges that are held by a lock (also runtime/ids.py)."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc import ids
from pyrtc.errors import StartError, UnsupportedError, UsageError
from pyrtc.ids import IdMaps, Range, keep_id, ordinary_user, write_maps
from pyrtc.runtime import ids as automatic_ids
from pyrtc.runtime.ids import AUTO_COUNT, AUTO_FIRST, AUTO_SLOTS, automatic, first_of_range

UID, GID = 1234, 1235


@pytest.fixture
def user(monkeypatch, tmp_path):
    """user(subuid, subgid, tools=) makes this process look like an ordinary user's with these files."""

    def make(subuid=None, subgid=None, *, tools=True):
        monkeypatch.setattr(os, "geteuid", lambda: UID)
        monkeypatch.setattr(os, "getegid", lambda: GID)
        monkeypatch.setattr(ids, "_id_tools", lambda: tools)
        real = ids._subordinate.__wrapped__
        files = {}
        for name, text in (("/etc/subuid", subuid), ("/etc/subgid", subgid)):
            files[name] = tmp_path / name.rpartition("/")[2]
            if text is not None:
                files[name].write_text(text)
        monkeypatch.setattr(ids, "_subordinate", lambda file, uid: real(str(files[file]), uid))

    return make


def subordinate(tmp_path, text, uid=UID):
    path = tmp_path / "subuid"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ids._subordinate.__wrapped__(str(path), uid)


# ---- maps ----------------------------------------------------------------------------------------------------------


def test_what_a_map_knows():
    maps = IdMaps((Range(0, 1000, 1), Range(1, 100000, 10)), (Range(5, 1000, 2),), privileged=False)
    assert [uid for uid in range(-1, 20) if maps.has_uid(uid)] == list(range(11))
    assert [gid for gid in range(20) if maps.has_gid(gid)] == [5, 6]
    assert (maps.init_uid, maps.init_gid) == (0, 5)
    assert not maps.single


def test_single_is_one_id_of_an_ordinary_user():
    one = (Range(0, 1000, 1),)
    assert IdMaps(one, one, privileged=False).single
    assert not IdMaps(one, one, privileged=True).single
    assert not IdMaps((Range(0, 1000, 2),), one, privileged=False).single


# ---- subuid(5) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1234:100000:65536\n", (100000, 65536)),
        ("other:1:1\n1234:100000:65536\n1234:7:7\n", (100000, 65536)),
        ("1234:100000:65536", (100000, 65536)),
        ("", None),
        ("\n\n#1234:1:1\n", None),
        ("12345:1:1\n", None),
        (" 1234:1:1\n", None),
        ("1234:x:1\n1234:5:6\n", (5, 6)),
        ("1234:1:0\n1234:5:6\n", (5, 6)),
        ("1234:-1:5\n", None),
        ("1234:1\n1234\n1234:\n1234::\n", None),
        ("1234:²:³\n1234:5:6\n", (5, 6)),
        (b"\xff\xfe:1:1\n1234:5:6\n", (5, 6)),
    ],
)
def test_first_range_of_a_user(tmp_path, text, expected):
    assert subordinate(tmp_path, text) == expected


def test_a_user_may_be_there_by_name(tmp_path):
    assert subordinate(tmp_path, "root:5:6\n", uid=0) == (5, 6)
    assert subordinate(tmp_path, "root:5:6\n", uid=UID) is None


def test_a_missing_file_is_no_range(tmp_path):
    assert ids._subordinate.__wrapped__(str(tmp_path / "nosuch"), UID) is None


def test_ordinary_user_with_ranges(user):
    user("1234:100000:65536\n", "1234:200000:1000\n")
    maps = ordinary_user()
    assert maps.uids == (Range(0, UID, 1), Range(1, 100000, 65536))
    assert maps.gids == (Range(0, GID, 1), Range(1, 200000, 1000))
    assert not maps.privileged
    assert not maps.single


@pytest.mark.parametrize(
    ("subuid", "subgid", "tools"),
    [
        (None, None, True),
        ("1234:1:1", None, True),
        (None, "1234:1:1", True),
        ("1234:1:1", "1234:1:1", False),
        ("other:1:1", "1234:1:1", True),
    ],
)
def test_ordinary_user_without_all_of_it_is_one_id(user, subuid, subgid, tools):
    user(subuid, subgid, tools=tools)
    maps = ordinary_user()
    assert (maps.uids, maps.gids) == ((Range(0, UID, 1),), (Range(0, GID, 1),))
    assert maps.single


# ---- keep-id -------------------------------------------------------------------------------------------------------


def test_keep_id_is_not_for_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="ordinary users"):
        keep_id()


def test_keep_id_without_ranges_is_oneself(user):
    user()
    maps = keep_id()
    assert (maps.uids, maps.gids) == ((Range(UID, UID, 1),), (Range(GID, GID, 1),))
    assert (maps.init_uid, maps.init_gid) == (UID, GID)
    assert maps.single


def test_keep_id_puts_the_ranges_around_oneself(user):
    user("1234:100000:65536\n", "1234:200000:10\n")
    maps = keep_id()
    assert maps.uids == (Range(0, 100000, UID), Range(UID, UID, 1), Range(UID + 1, 100000 + UID, 65536 - UID))
    assert maps.gids == (Range(0, 200000, 10), Range(GID, GID, 1))
    assert (maps.init_uid, maps.init_gid) == (0, 0)


@given(own=st.integers(1, 200000), count=st.integers(1, 200000))
def test_ranges_of_keep_id_never_overlap_and_use_every_subordinate_id_once(own, count):
    first = 1 << 20
    parts = ids._around(own, Range(1, first, count))
    assert all(part.count > 0 for part in parts)
    inside = sorted((part.inside, part.inside + part.count) for part in parts)
    outside = sorted((part.outside, part.outside + part.count) for part in parts)
    for spans in (inside, outside):
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert Range(own, own, 1) in parts
    assert sum(part.count for part in parts) == count + 1
    assert outside[-1][1] <= first + count
    assert inside[0][0] == 0


# ---- writing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch):
    files = []
    monkeypatch.setattr(ids, "_write", lambda path, text: files.append((path, text)))
    return files


def test_root_writes_maps_itself(written):
    write_maps(77, IdMaps((Range(0, 5, 6),), (Range(0, 7, 8), Range(9, 10, 11)), privileged=True))
    assert written == [("/proc/77/uid_map", "0 5 6\n"), ("/proc/77/gid_map", "0 7 8\n9 10 11\n")]


def test_a_single_id_needs_setgroups_denied_first(written):
    write_maps(77, IdMaps((Range(0, 1000, 1),), (Range(0, 1000, 1),), privileged=False))
    assert written == [
        ("/proc/77/setgroups", "deny"),
        ("/proc/77/uid_map", "0 1000 1\n"),
        ("/proc/77/gid_map", "0 1000 1\n"),
    ]


def test_what_the_kernel_refuses_is_told(monkeypatch):
    def refuse(_path, _text):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(ids, "_write", refuse)
    with pytest.raises(StartError, match="id maps of the user namespace: Operation not permitted") as error:
        write_maps(77, IdMaps((Range(0, 1, 1),), (Range(0, 1, 1),), privileged=True))
    assert error.value.errno == 1
    assert error.value.step == "write id maps"


def fake_tools(directory, monkeypatch, script):
    for name in ("newuidmap", "newgidmap"):
        tool = directory / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


RANGES = IdMaps((Range(0, 1, 1), Range(1, 100, 9)), (Range(0, 2, 1), Range(1, 200, 9)), privileged=False)


def test_ranges_are_written_by_the_tools(tmp_path, monkeypatch):
    fake_tools(tmp_path, monkeypatch, f'echo "${{0##*/}} $*" >> {tmp_path}/log')
    write_maps(77, RANGES)
    lines = (tmp_path / "log").read_text().splitlines()  # in any order: both run at once
    assert sorted(lines) == ["newgidmap 77 0 2 1 1 200 9", "newuidmap 77 0 1 1 1 100 9"]


def test_what_a_tool_says_is_told(tmp_path, monkeypatch):
    fake_tools(tmp_path, monkeypatch, "echo 'uid range not allowed' >&2; exit 1")
    with pytest.raises(StartError, match=r"newuidmap refused .*uid range not allowed.*/etc/subuid"):
        write_maps(77, RANGES)


# ---- ranges by lock ------------------------------------------------------------------------------------------------


@pytest.fixture
def as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_automatic_ranges_are_for_root(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnsupportedError, match="needs root"):
        automatic(tmp_path)


def test_ranges_do_not_overlap_and_come_free_with_their_lock(as_root, tmp_path):
    directory = tmp_path / "made" / "ids"
    taken = [automatic(directory) for _ in range(3)]
    try:
        firsts = [one.maps.uids[0].outside for one in taken]
        assert firsts == [AUTO_FIRST + slot * AUTO_COUNT for slot in range(3)]
        for one in taken:
            assert one.maps.uids == one.maps.gids == (Range(0, one.maps.uids[0].outside, AUTO_COUNT),)
            assert one.maps.privileged
            assert not os.get_inheritable(one.lock_fd)
        os.close(taken.pop(1).lock_fd)
        taken.append(automatic(directory))
        assert taken[-1].maps.uids[0].outside == firsts[1]
    finally:
        for one in taken:
            os.close(one.lock_fd)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_another_process_takes_another_range(as_root, tmp_path):
    program = """
import os, sys; from pathlib import Path; from pyrtc.runtime.ids import automatic
os.geteuid = lambda: 0
print(automatic(Path(sys.argv[1])).maps.uids[0].outside)
"""
    ours = automatic(tmp_path)
    try:
        for _ in range(2):  # the second is free again after the first has ended
            done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
            assert int(done.stdout) == AUTO_FIRST + AUTO_COUNT
    finally:
        os.close(ours.lock_fd)


def test_all_ranges_taken(as_root, tmp_path, monkeypatch):
    monkeypatch.setattr(automatic_ids, "AUTO_SLOTS", 1)
    one = automatic(tmp_path)
    before = os.listdir("/proc/self/fd")
    try:
        with pytest.raises(StartError, match="in use"):
            automatic(tmp_path)
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(one.lock_fd)


def test_ranges_stay_clear_of_what_systemd_uses():
    assert AUTO_FIRST >= 0x7000_0000
    assert AUTO_FIRST + automatic_ids.AUTO_SLOTS * AUTO_COUNT <= 0x7FFE_0000


def test_a_lock_is_not_a_link(as_root, tmp_path):
    (tmp_path / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        automatic(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_range_that_an_id_is_in():
    """A container may give "/" to any id that it has; that must not move the range that its files are shown with."""
    for slot in (0, 1, AUTO_SLOTS - 1):
        first = AUTO_FIRST + slot * AUTO_COUNT
        assert [first_of_range(first + inside) for inside in (0, 5, AUTO_COUNT - 1)] == [first] * 3
    for stranger in (0, 1000, AUTO_FIRST - 1, AUTO_FIRST + AUTO_SLOTS * AUTO_COUNT):
        with pytest.raises(UnsupportedError, match=f"{stranger} is in no range"):
            first_of_range(stranger)
