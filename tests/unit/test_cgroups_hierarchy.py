"""Finding out what a machine has, on fake trees."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrtc.errors import UsageError
from pyrtc.runtime.cgroups import hierarchy
from pyrtc.runtime.cgroups.hierarchy import CgroupMount, Hierarchy, read_mounts, survey
from pyrtc.runtime.cgroups.place import Place, check_parent

HYBRID = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:1 - cgroup cgroup rw,memory,clone_children
38 31 0:35 / /sys/fs/cgroup/blkio ro,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mounts_of_a_hybrid_machine_are_read() -> None:
    assert read_mounts(HYBRID) == [
        CgroupMount("/sys/fs/cgroup/cpu,cpuacct", "/", 1, frozenset({"cpu", "cpuacct"})),
        CgroupMount("/sys/fs/cgroup/memory", "/", 1, frozenset({"memory"})),
        CgroupMount("/sys/fs/cgroup/blkio", "/", 1, frozenset({"blkio"}), writable=False),
        CgroupMount("/sys/fs/cgroup/unified", "/", 2),
    ]


def test_one_mount_is_chosen_per_hierarchy() -> None:
    text = """\
1 0 0:9 /docker/abc /inner/cgroup rw - cgroup2 cgroup rw
2 0 0:9 / /sys/fs/cgroup ro - cgroup2 cgroup rw
3 0 0:9 / /mnt/my\\040groups rw - cgroup2 cgroup rw
4 0 0:9 /docker /other rw - cgroup2 cgroup rw
"""
    assert [mount.path for mount in read_mounts(text)] == ["/mnt/my groups"]


def test_a_hidden_mount_is_left_out() -> None:
    text = "1 0 0:9 / /a rw - cgroup2 cgroup rw\n2 0 0:9 / /b rw - cgroup2 cgroup rw\n"
    assert [mount.path for mount in read_mounts(text, lambda path, device: path == "/b" and device == "0:9")] == ["/b"]


def test_lines_of_other_shapes_are_ignored() -> None:
    assert read_mounts("\nnonsense\n1 0 0:9 / /a rw cgroup2 cgroup rw\n1 0 0:9 / - cgroup2 x\n") == []


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which paths this user cannot write: root can write every path of a test."""

    def declare(*paths: Path) -> None:
        refused = {str(path) for path in paths}
        monkeypatch.setattr(hierarchy, "_may_write", lambda path: os.path.exists(path) and path not in refused)

    declare()
    return declare


def group(path: Path, controllers: str, *, subtree: str = "", procs: str = "", kind: str | None = "domain") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers + "\n")
    (path / "cgroup.subtree_control").write_text(subtree + "\n")
    (path / "cgroup.procs").write_text(procs)
    if kind is not None:
        (path / "cgroup.type").write_text(kind + "\n")
    return path


def survey_v2(top: Path, own: str, root: str = "/") -> Hierarchy:
    return survey([CgroupMount(str(top), root, 2)], f"0::{own}\n")


def test_the_administrator_uses_the_top(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    group(tmp_path, "cpu memory pids", procs="1\n2\n", kind=None)
    group(tmp_path / "system.slice/ssh.service", "memory", procs="1\n")
    found = survey_v2(tmp_path, "/system.slice/ssh.service")
    assert found.mode == "v2"
    assert found.unified is not None and found.unified.base == str(tmp_path)
    assert set(found.places) == {"cpu", "memory", "pids", "devices"}
    assert found.places["devices"] is found.unified
    assert set(found.missing) == {"cpuset", "io"}


def test_a_user_gets_the_nearest_delegated_group_without_processes(
    tmp_path: Path, unwritable: Callable[..., None]
) -> None:
    group(tmp_path, "cpu io memory pids", kind=None)
    upper = group(tmp_path / "user.slice", "cpu io memory pids", subtree="cpu memory pids")
    service = group(upper / "user@1000.service", "cpu memory pids", subtree="cpu memory pids")
    app = group(service / "app.slice", "cpu memory pids")
    group(app / "run.scope", "cpu memory pids", procs="77\n")
    unwritable(tmp_path, upper)
    found = survey_v2(tmp_path, "/user.slice/user@1000.service/app.slice/run.scope")
    assert found.unified is not None and found.unified.base == str(app)
    assert {"cpu", "memory", "pids"} <= set(found.places)
    assert found.missing["io"][0] == f"the controller is not delegated to {app}"
    assert "Delegate=yes" in found.missing["io"][1]


def test_a_session_that_owns_nothing_is_told_what_to_do(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    group(tmp_path, "cpu memory pids", kind=None)
    own = group(tmp_path / "session-3.scope", "memory pids", procs="77\n")
    unwritable(tmp_path, own)
    found = survey_v2(tmp_path, "/session-3.scope")
    assert found.unified is None
    assert found.places == {}
    why, remedy = found.missing["memory"]
    assert "owns no cgroup" in why
    assert "systemd-run --user --scope -p Delegate=yes" in remedy
    assert f"memory: not available: {why}" in found.describe()


def test_a_group_with_processes_passes_on_only_what_it_did_already(
    tmp_path: Path, unwritable: Callable[..., None]
) -> None:
    """The root of a cgroup namespace holds the container's processes; inside one an engine meets this."""
    group(tmp_path, "cpu memory pids", subtree="cpu", procs="1\n")
    found = survey_v2(tmp_path, "/")
    assert found.unified is not None and found.unified.controllers == {"cpu"}
    assert "holds processes itself" in found.missing["memory"][0]
    assert "move them to a sub-group" in found.missing["memory"][1]


def test_the_right_to_move_processes_is_needed(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    group(tmp_path, "memory", kind=None)
    unwritable(tmp_path / "cgroup.procs")
    assert survey_v2(tmp_path, "/").unified is None


def test_threaded_groups_are_no_place(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    group(tmp_path, "memory", kind=None)
    own = group(tmp_path / "own", "memory", kind="threaded")
    unwritable(tmp_path)
    assert survey_v2(tmp_path, "/own").unified is None
    (own / "cgroup.type").write_text("domain threaded\n")
    assert survey_v2(tmp_path, "/own").unified is not None


@pytest.mark.parametrize("own", ["/docker/abc/sub", "/elsewhere", "/../other", "/docker/abcd"])
def test_own_group_is_found_below_the_mounted_part(tmp_path: Path, unwritable: Callable[..., None], own: str) -> None:
    group(tmp_path, "memory", kind=None)
    group(tmp_path / "sub", "memory")
    unwritable(tmp_path)
    found = survey_v2(tmp_path, own, root="/docker/abc")
    if own == "/docker/abc/sub":
        assert found.unified is not None and found.unified.base == str(tmp_path / "sub")
    else:
        assert found.unified is None


def test_hybrid_takes_controllers_from_where_they_are(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    unified = group(tmp_path / "unified", "hugetlb", kind=None)
    for name in ("memory", "blkio", "devices", "cpu,cpuacct"):
        (tmp_path / name).mkdir()
    mounts = [
        CgroupMount(str(tmp_path / "memory"), "/", 1, frozenset({"memory"})),
        CgroupMount(str(tmp_path / "blkio"), "/", 1, frozenset({"blkio"})),
        CgroupMount(str(tmp_path / "devices"), "/", 1, frozenset({"devices"})),
        CgroupMount(str(tmp_path / "cpu,cpuacct"), "/", 1, frozenset({"cpu", "cpuacct"})),
        CgroupMount(str(unified), "/", 2),
    ]
    found = survey(mounts, "4:memory:/\n0::/\n")
    assert found.mode == "hybrid"
    assert found.unified is not None and found.unified.base == str(unified)
    assert found.places["io"].base == str(tmp_path / "blkio")
    assert found.places["devices"].version == 1
    assert found.places["cpu"] is found.places["cpuacct"]
    assert [place.name for place in found.all_places()][-1] == "unified"
    assert len(list(found.all_places())) == 5
    assert set(found.missing) >= {"cpuset", "pids"}
    text = found.describe()
    assert "versions 1 and 2" in text and f"io: version 1, {tmp_path / 'blkio'}" in text


def test_a_read_only_mount_is_named(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    unwritable(tmp_path)
    found = survey([CgroupMount(str(tmp_path), "/", 1, frozenset({"memory"}), writable=False)], "4:memory:/\n")
    assert found.mode == "v1"
    assert found.missing["memory"] == (
        f"{tmp_path} is mounted read-only",
        f"remount it writable: mount -o remount,rw {tmp_path}",
    )


def test_an_ordinary_user_can_own_a_version_1_group(tmp_path: Path, unwritable: Callable[..., None]) -> None:
    (tmp_path / "box/sub").mkdir(parents=True)
    unwritable(tmp_path, tmp_path / "box/sub")
    found = survey([CgroupMount(str(tmp_path), "/", 1, frozenset({"memory"}))], "4:memory:/box/sub\n")
    assert found.places["memory"].base == str(tmp_path / "box")


def test_nothing_mounted() -> None:
    found = survey([], "")
    assert found.mode == "none"
    assert found.describe().startswith("control groups: none mounted")
    assert list(found.all_places()) == []


@pytest.mark.parametrize(
    ("line", "why", "remedy"),
    [
        ("pids 0 1 0", "it is switched off at boot", "boot without cgroup_disable=pids"),
        ("pids 0 1 1", "it is not mounted", "mount -t cgroup -o pids pids /sys/fs/cgroup/pids"),
        ("cpu 0 1 1", "this kernel was built without it", "use a kernel that has it"),
    ],
)
def test_an_absent_controller_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, why: str, remedy: str
) -> None:
    header = "#subsys_name hierarchy num_cgroups enabled\n"
    monkeypatch.setattr(hierarchy, "_text", lambda path, file: header + line if file == "cgroups" else None)
    found = survey([CgroupMount(str(tmp_path), "/", 1, frozenset({"freezer"}))], "")
    assert found.missing["pids"][0] == why
    assert remedy in found.missing["pids"][1]


@pytest.mark.parametrize("name", ["pyrtc", "a/b", "user@1000.service/x"])
def test_parent_names(name: str) -> None:
    assert check_parent(name) == name


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", "..", "a/..", ".hidden", "a b", "a\n", "-x", "a/" * 9 + "b"]
)
def test_other_parent_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="invalid parent cgroup"):
        check_parent(name)


def test_a_parent_is_made_once_and_again_when_it_was_removed(tmp_path: Path) -> None:
    place = Place(1, str(tmp_path), str(tmp_path), frozenset({"freezer"}))
    assert place.find_parent("a/b") is None
    first = place.make("a/b", "one")
    assert (tmp_path / "a/b/one").is_dir()
    assert place.parent("a/b") is first
    (tmp_path / "a/b/one").rmdir()
    (tmp_path / "a/b").rmdir()
    second = place.make("a/b", "two")
    assert second is not first
    assert (tmp_path / "a/b/two").is_dir()
    with pytest.raises(FileExistsError):
        place.make("a/b", "two")
    assert place.remove_parent("a/b") is False
    (tmp_path / "a/b/two").rmdir()
    assert place.remove_parent("a/b") is True
    assert os.listdir(tmp_path) == []


def test_controllers_are_passed_down_the_whole_way(tmp_path: Path) -> None:
    for path in (".", "a", "a/b"):
        group(tmp_path / path, "cpu memory")
    place = Place(2, str(tmp_path), str(tmp_path), frozenset({"cpu", "memory"}))
    directory = place.parent("a/b")
    place.enable("a/b", directory, "memory")
    for path in (".", "a", "a/b"):
        assert (tmp_path / path / "cgroup.subtree_control").read_text().strip() == "+memory"
    assert directory.enabled == {"memory"}
