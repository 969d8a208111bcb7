"""Names, parents, links and duplicates: where an entry lands, and that it is never outside."""

import os
import stat
from pathlib import Path

import pytest
from tar_builder import directory, extension, file, hardlink, header, opaque, pax, stream, symlink, unpack, whiteout

from pyrtc import core
from pyrtc.core import UntarLimits
from pyrtc.errors import ImageError


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def outside(tmp_path):
    """A directory beside the layer that nothing may touch."""
    path = tmp_path / "outside"
    path.mkdir(mode=0o700)
    (path / "secret").write_bytes(b"s")
    before = os.stat(path), os.stat(path / "secret")
    yield path
    assert sorted(os.listdir(path)) == ["secret"]
    assert (path / "secret").read_bytes() == b"s"
    assert (os.stat(path).st_mode, os.stat(path).st_mtime_ns) == (before[0].st_mode, before[0].st_mtime_ns)
    assert os.stat(path / "secret").st_nlink == 1


# ---- names ----


@pytest.mark.parametrize(
    "name", ["../outside/x", "/../outside/x", "a/../../outside/x", "./../outside/x", "..", "a/../.."]
)
def test_name_that_climbs_out_is_refused(tmp_path, outside, name):
    with pytest.raises(ImageError, match="leads out of the layer"):
        unpack(tmp_path / "r", file(name, b"x"))


@pytest.mark.parametrize("name", ["/abs/x", "//abs//x", "./abs/./x", "abs/y/../x", "abs/x"])
def test_names_are_cleaned_as_text(tmp_path, name):
    unpack(tmp_path / "r", file(name, b"x"))
    assert (tmp_path / "r/abs/x").read_bytes() == b"x"
    assert os.listdir(tmp_path / "r/abs") == ["x"]


@pytest.mark.parametrize("name", ["", "/", "./", ".", "///", "a/.."])
def test_root_entry_gives_the_root_its_attributes(tmp_path, name):
    unpack(tmp_path / "r", directory(name, 0o1751, mtime=5))
    assert mode(tmp_path / "r") == 0o1751
    assert os.stat(tmp_path / "r").st_mtime == 5


@pytest.mark.parametrize("name", ["/", "/.", "./", "."])
@pytest.mark.parametrize("type", ["1", "2", "3", "6"])
def test_root_can_only_be_a_directory(tmp_path, outside, name, type):
    with pytest.raises(ImageError, match="root can only be a directory"):
        unpack(tmp_path / "r", header(name, type=type, link=str(outside)), file("x"))


def test_file_without_a_name_is_left_out(tmp_path):
    assert unpack(tmp_path / "r", file("", b"data"), file("x")).skipped == 1
    assert os.listdir(tmp_path / "r") == ["x"]


def test_names_are_bytes(tmp_path):
    names = [b"\xff\xfe", b"a\nb", b"back\\slash", b"*", b" ", b"-rf", b"A", b"a", b"\xc3\xa9"]
    unpack(tmp_path / "r", *(file(name) for name in names))
    assert sorted(os.listdir(os.fsencode(tmp_path / "r"))) == sorted(names)


def test_long_name(tmp_path):
    unpack(tmp_path / "r", pax(("path", "n" * 255)), file("short"))
    assert os.listdir(tmp_path / "r") == ["n" * 255]
    with pytest.raises(ImageError, match="ENAMETOOLONG"):
        unpack(tmp_path / "s", pax(("path", "n" * 256)), file("short"))


def test_path_longer_than_the_kernel_takes(tmp_path):
    path = "/".join(["d" * 250] * 30)
    unpack(tmp_path / "r", pax(("path", path + "/file")), file("short", b"deep"))
    fd = os.open(tmp_path / "r", os.O_RDONLY)
    for part in path.split("/"):
        fd, old = os.open(part, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    assert os.listdir(fd) == ["file"]
    os.close(fd)


def test_sibling_with_the_same_beginning_is_not_inside(tmp_path):
    evil = tmp_path / "r-evil"
    evil.mkdir()
    with pytest.raises(ImageError):
        unpack(tmp_path / "r", file("../r-evil/x"))
    assert os.listdir(evil) == []


# ---- links on the way ----


@pytest.mark.parametrize("target", ["/", "../../../../..", "/../..", "."])
def test_linked_parent_is_resolved_in_the_root(tmp_path, outside, target):
    unpack(tmp_path / "r", symlink("link", target), file(f"link{outside}/x", b"in"))
    assert (tmp_path / f"r{outside}/x").read_bytes() == b"in"


@pytest.mark.parametrize("make", [file, directory, lambda name: whiteout(name.rstrip("/")), opaque])
def test_link_to_the_outside_is_never_followed_there(tmp_path, outside, make):
    unpack(tmp_path / "r", symlink("a", str(outside)), symlink("b", "a"), make("b/secret"))
    assert (tmp_path / f"r{outside}").is_dir()


def test_hard_link_to_the_outside(tmp_path, outside):
    with pytest.raises(ImageError, match="ENOENT"):
        unpack(tmp_path / "r", hardlink("x", f"{outside}/secret"))
    with pytest.raises(ImageError, match="leads out"):
        unpack(tmp_path / "s", hardlink("x", "../outside/secret"))
    with pytest.raises(ImageError, match="ENOENT"):
        unpack(tmp_path / "t", symlink("a", str(outside)), hardlink("x", "a/secret"))


def test_hard_link_to_a_link_then_write(tmp_path, outside):
    # CVE-2014-6407: the second name is the link itself, and a file in its place replaces it
    unpack(tmp_path / "r", symlink("a", f"{outside}/secret"), hardlink("b", "a"), file("b", b"evil"))
    assert (tmp_path / "r/a").is_symlink()
    assert (tmp_path / "r/b").read_bytes() == b"evil"


def test_links_in_a_circle_are_refused(tmp_path):
    with pytest.raises(ImageError, match="ELOOP"):
        unpack(tmp_path / "r", symlink("a", "b"), symlink("b", "a"), file("a/x"))
    with pytest.raises(ImageError, match="ELOOP"):
        unpack(tmp_path / "s", symlink("a", "a/a"), file("a/x"))


def test_links_that_multiply_steps_are_refused(tmp_path):
    parts = [directory("d")]
    parts += [symlink("d/l0", "/d/" + "./" * 20)]
    target = "/d/" + "x/../" * 900
    parts += [pax(("linkpath", target)), symlink("loop", "")]
    parts += [directory("d/x"), pax(("path", "/".join(["loop/.."] * 20 + ["f"]))), file("f")]
    with pytest.raises(ImageError):
        unpack(tmp_path / "r", *parts, symlink("m", "loop/" * 19), file("m/f"))


def test_dangling_link_as_parent_gets_its_target(tmp_path):
    unpack(tmp_path / "r", symlink("a", "nowhere/b"), file("a/x"))
    assert (tmp_path / "r/nowhere/b/x").is_file()
    assert os.readlink(tmp_path / "r/a") == "nowhere/b"


def test_link_targets_are_data(tmp_path):
    targets = ["/etc/passwd", "../../..", "a//b/./c", "/proc/self/root", "x\n"]
    unpack(tmp_path / "r", *(symlink(f"l{i}", target) for i, target in enumerate(targets)))
    assert [os.readlink(tmp_path / f"r/l{i}") for i in range(len(targets))] == targets


def test_link_to_nothing_is_refused(tmp_path):
    with pytest.raises(ImageError, match="link to nothing"):
        unpack(tmp_path / "r", symlink("a", ""))


def test_file_as_parent_is_refused(tmp_path):
    with pytest.raises(ImageError, match="ENOTDIR"):
        unpack(tmp_path / "r", file("a"), file("a/b"))
    with pytest.raises(ImageError, match="ENOTDIR"):
        unpack(tmp_path / "s", file("f"), symlink("a", "f"), file("a/b"))


# ---- implied parents, with and without layers below ----


def test_implied_parent_without_lower_is_plain(tmp_path):
    result = unpack(tmp_path / "r", file("a/b/c", mtime=77))
    for path in ("r/a", "r/a/b"):
        status = os.stat(tmp_path / path)
        assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 77)
    assert result.depends == 2


def test_explicit_directories_depend_on_nothing(tmp_path):
    assert unpack(tmp_path / "r", directory("a"), file("a/b"), whiteout("a/c")).depends == 0


def test_implied_parent_is_the_one_from_below(tmp_path):
    unpack(tmp_path / "low", directory("a", 0o1777, mtime=3), directory("a/b", 0o2750, mtime=4))
    unpack(tmp_path / "top", directory("a", 0o711, mtime=5))
    unpack(tmp_path / "r", file("a/b/c"), lowers=(tmp_path / "top", tmp_path / "low"))
    assert (mode(tmp_path / "r/a"), os.stat(tmp_path / "r/a").st_mtime) == (0o711, 5)
    assert (mode(tmp_path / "r/a/b"), os.stat(tmp_path / "r/a/b").st_mtime) == (0o2750, 4)


@pytest.mark.parametrize("hider", [whiteout("a"), opaque("a"), file("a"), symlink("a", "elsewhere")])
def test_what_a_middle_layer_hides_is_not_inherited(tmp_path, hider):
    unpack(tmp_path / "low", directory("a", 0o700), directory("a/b", 0o700))
    unpack(tmp_path / "middle", hider)
    unpack(tmp_path / "r", file("a/b/c"), lowers=(tmp_path / "middle", tmp_path / "low"))
    found = tmp_path / ("r/elsewhere/b" if (tmp_path / "middle/a").is_symlink() else "r/a/b")
    assert mode(found) == 0o755


def test_explicit_entry_after_an_implied_one_decides(tmp_path):
    unpack(tmp_path / "low", directory("a", 0o700))
    os.setxattr(tmp_path / "low/a", "user.old", b"1")
    unpack(tmp_path / "r", file("a/x"), directory("a", 0o751, mtime=9), lowers=(tmp_path / "low",))
    assert (mode(tmp_path / "r/a"), os.stat(tmp_path / "r/a").st_mtime) == (0o751, 9)
    assert "user.old" not in os.listxattr(tmp_path / "r/a")


def test_implied_parent_inherits_attributes_but_not_overlay_marks(tmp_path):
    unpack(tmp_path / "low", directory("a"), whiteout("a/x"))
    os.setxattr(tmp_path / "low/a", "user.mine", b"1")
    unpack(tmp_path / "r", file("a/b"), lowers=(tmp_path / "low",))
    assert os.listxattr(tmp_path / "r/a") == ["user.mine"]


def test_parent_that_is_a_link_below_is_followed(tmp_path):
    # merged /usr: lib -> usr/lib below, lib/x here
    unpack(tmp_path / "low", directory("usr"), directory("usr/lib", 0o711), symlink("lib", "usr/lib"))
    result = unpack(tmp_path / "r", file("lib/x", b"1"), file("lib/y"), lowers=(tmp_path / "low",))
    assert sorted(os.listdir(tmp_path / "r/usr/lib")) == ["x", "y"]
    assert os.listdir(tmp_path / "r") == ["usr"]
    assert mode(tmp_path / "r/usr/lib") == 0o711
    assert result.depends > 0


def test_link_below_that_leads_out_is_resolved_in_the_root(tmp_path, outside):
    unpack(tmp_path / "low", symlink("lib", f"../../../..{outside}"))
    unpack(tmp_path / "r", file("lib/secret", b"in"), lowers=(tmp_path / "low",))
    assert (tmp_path / f"r{outside}/secret").read_bytes() == b"in"


def test_explicit_directory_replaces_a_link_below(tmp_path):
    unpack(tmp_path / "low", directory("usr/lib"), symlink("lib", "usr/lib"))
    unpack(tmp_path / "r", file("lib/early"), directory("lib"), file("lib/x"), lowers=(tmp_path / "low",))
    assert os.listdir(tmp_path / "r/lib") == ["x"]
    assert os.listdir(tmp_path / "r/usr/lib") == ["early"]


def test_root_without_an_entry_is_the_one_from_below(tmp_path):
    unpack(tmp_path / "low", directory("./", 0o751, mtime=6))
    unpack(tmp_path / "r", file("x"), lowers=(tmp_path / "low",))
    assert (mode(tmp_path / "r"), os.stat(tmp_path / "r").st_mtime) == (0o751, 6)
    unpack(tmp_path / "s", file("x"))
    assert (mode(tmp_path / "s"), os.stat(tmp_path / "s").st_mtime) == (0o755, 0)


# ---- duplicates ----


def test_last_of_two_files_wins(tmp_path):
    unpack(tmp_path / "r", file("x", b"first", mode=0o600), file("x", b"2", mode=0o640))
    assert (tmp_path / "r/x").read_bytes() == b"2"
    assert mode(tmp_path / "r/x") == 0o640


def test_last_of_two_directories_gives_the_attributes(tmp_path):
    unpack(tmp_path / "r", directory("d", 0o700), file("d/x"), directory("d", 0o711, mtime=8))
    assert (mode(tmp_path / "r/d"), os.stat(tmp_path / "r/d").st_mtime) == (0o711, 8)
    assert os.listdir(tmp_path / "r/d") == ["x"]


def test_file_replaces_a_directory_and_all_in_it(tmp_path):
    unpack(tmp_path / "r", file("d/e/f"), symlink("d/l", "e"), file("d", b"file"), file("x"))
    assert (tmp_path / "r/d").read_bytes() == b"file"
    unpack(tmp_path / "s", file("d/e/f"), symlink("d", "x"), file("d/new"))
    assert os.listdir(tmp_path / "s/x") == ["new"]


def test_directory_replaces_a_link_to_a_directory(tmp_path):
    unpack(tmp_path / "r", directory("real"), symlink("d", "real"), directory("d"), file("d/x"))
    assert os.listdir(tmp_path / "r/real") == []
    assert os.listdir(tmp_path / "r/d") == ["x"]


def test_paths_resolved_before_a_replacement_are_resolved_anew(tmp_path):
    unpack(
        tmp_path / "r",
        directory("one"), directory("two"), symlink("d", "one"), file("d/x"), symlink("d", "two"), file("d/y"),
    )  # fmt: skip
    assert os.listdir(tmp_path / "r/one") == ["x"]
    assert os.listdir(tmp_path / "r/two") == ["y"]


# ---- hard links ----


def inode(path: Path) -> int:
    return os.lstat(path).st_ino


def test_hard_link(tmp_path):
    unpack(tmp_path / "r", file("a", b"x", mode=0o600), hardlink("d/b", "/a", mode=0o777, uid=5), file("after"))
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/d/b")
    assert mode(tmp_path / "r/a") == 0o600  # the file's own attributes stand


def test_size_of_a_hard_link_is_not_data(tmp_path):
    unpack(tmp_path / "r", file("a", b"x" * 600), hardlink("b", "a", size=600), file("c", b"c"))
    assert (tmp_path / "r/c").read_bytes() == b"c"
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/b")


def test_hard_link_before_its_target(tmp_path):
    unpack(tmp_path / "r", hardlink("d/b", "a"), file("a", b"x"))
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/d/b")


def test_chain_of_hard_links_before_their_target(tmp_path):
    unpack(tmp_path / "r", hardlink("c", "b"), hardlink("b", "a"), hardlink("d", "c"), file("a", b"x"))
    assert len({inode(tmp_path / "r" / name) for name in "abcd"}) == 1


def test_hard_link_to_a_later_symbolic_link(tmp_path):
    unpack(tmp_path / "r", hardlink("b", "a"), symlink("a", "target"), file("b/x"))
    assert os.readlink(tmp_path / "r/a") == "target"
    # b was made a directory by a later entry, which wins
    assert os.listdir(tmp_path / "r/b") == ["x"]


def test_hard_link_to_a_symbolic_link_is_followed_as_one(tmp_path):
    unpack(tmp_path / "r", symlink("a", "target"), hardlink("b", "a"), file("b/x"))
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/b")
    assert os.listdir(tmp_path / "r/target") == ["x"]


def test_later_entry_beats_a_waiting_hard_link(tmp_path):
    unpack(tmp_path / "r", hardlink("b", "a"), file("b", b"own"), file("a", b"x"))
    assert (tmp_path / "r/b").read_bytes() == b"own"


def test_waiting_hard_link_beats_an_earlier_entry(tmp_path):
    unpack(tmp_path / "r", file("b", b"own"), hardlink("b", "a"), file("a", b"x"))
    assert (tmp_path / "r/b").read_bytes() == b"x"


def test_hard_link_to_itself(tmp_path):
    unpack(tmp_path / "r", file("a", b"x"), hardlink("a", "./a"), hardlink("b", "a"), hardlink("b", "a"))
    assert (tmp_path / "r/a").read_bytes() == b"x"
    with pytest.raises(ImageError, match="ENOENT"):
        unpack(tmp_path / "s", hardlink("a", "a"))


def test_hard_link_replaces_what_is_there(tmp_path):
    unpack(tmp_path / "r", file("a", b"x"), file("d/e"), hardlink("d", "a"))
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/d")


def test_hard_link_over_the_directory_of_its_target_is_refused(tmp_path):
    with pytest.raises(ImageError, match="its own target"):
        unpack(tmp_path / "r", file("d/e/a", b"x"), hardlink("d", "d/e/a"))


@pytest.mark.parametrize("target", ["d", "/", "."])
def test_hard_link_to_a_directory_is_refused(tmp_path, target):
    with pytest.raises(ImageError, match="EISDIR"):
        unpack(tmp_path / "r", directory("d"), hardlink("x", target))


def test_hard_link_to_nothing_is_refused_by_name(tmp_path):
    with pytest.raises(ImageError, match="missing/file, linked to as x"):
        unpack(tmp_path / "r", hardlink("x", "missing/file"))


def test_hard_link_to_a_file_of_a_lower_layer_copies_it_up(tmp_path):
    unpack(tmp_path / "low", directory("d", 0o711), file("d/a", b"below", mode=0o4750, mtime=7))
    os.setxattr(tmp_path / "low/d/a", "user.mine", b"1")
    result = unpack(tmp_path / "r", hardlink("b", "d/a"), lowers=(tmp_path / "low",))
    assert inode(tmp_path / "r/b") == inode(tmp_path / "r/d/a") != inode(tmp_path / "low/d/a")
    status = os.stat(tmp_path / "r/b")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_size) == (0o4750, 7, 5)
    assert os.getxattr(tmp_path / "r/b", "user.mine") == b"1"
    assert mode(tmp_path / "r/d") == 0o711
    assert result.depends > 0 and result.bytes == 5


def test_hard_link_to_a_lower_file_that_this_layer_deletes_keeps_only_the_link(tmp_path):
    unpack(tmp_path / "low", file("d/a", b"below"))
    for i, hider in enumerate([whiteout("d/a"), opaque("d"), whiteout("d")]):
        unpack(tmp_path / f"r{i}", hider, hardlink("b", "d/a"), lowers=(tmp_path / "low",))
        assert (tmp_path / f"r{i}/b").read_bytes() == b"below"
        assert not (tmp_path / f"r{i}/d/a").is_file()


def test_hard_link_to_a_symbolic_link_of_a_lower_layer(tmp_path):
    unpack(tmp_path / "low", symlink("a", "/etc"))
    unpack(tmp_path / "r", hardlink("b", "a"), lowers=(tmp_path / "low",))
    assert os.readlink(tmp_path / "r/b") == "/etc"
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/b")


def test_hard_link_to_a_whiteout_below_is_refused(tmp_path):
    unpack(tmp_path / "low", whiteout("a"))
    with pytest.raises(ImageError, match="ENOENT"):
        unpack(tmp_path / "r", hardlink("b", "a"), lowers=(tmp_path / "low",))


def test_sparse_lower_file_is_copied_with_its_holes(tmp_path):
    unpack(tmp_path / "low", file("a", b"x"))
    os.truncate(tmp_path / "low/a", 1 << 26)
    unpack(tmp_path / "r", hardlink("b", "a"), lowers=(tmp_path / "low",))
    status = os.stat(tmp_path / "r/b")
    assert status.st_size == 1 << 26 and status.st_blocks < 64


# ---- bounds ----


def test_depth_is_bounded(tmp_path):
    limits = UntarLimits(depth=8)
    unpack(tmp_path / "r", file("/".join("abcdefgh")), limits=limits)
    with pytest.raises(ImageError, match="more than 8 components"):
        unpack(tmp_path / "s", file("/".join("abcdefghi")), limits=limits)
    with pytest.raises(ImageError, match="more than 8 components"):
        unpack(tmp_path / "t", symlink("l", "a/b/c/d/e/f"), file("l/g/h/i/j"), limits=limits)


def test_implied_directories_count_as_entries(tmp_path):
    with pytest.raises(ImageError, match="more than 20 directories"):
        unpack(tmp_path / "r", *(file(f"{i}/b/c/d/e/f") for i in range(9)), limits=UntarLimits(entries=20))


def test_message_names_entry_and_place(tmp_path):
    with pytest.raises(ImageError, match=r'"evil\\033\[1mname" at byte 512 of the stream'):
        unpack(tmp_path / "r", file("x"), header("evil\033[1mname", type="a"))


def test_pax_link_names_are_resolved_as_the_short_ones(tmp_path, outside):
    with pytest.raises(ImageError, match="leads out"):
        unpack(tmp_path / "r", pax(("linkpath", "../outside/secret")), hardlink("x", "a"))
    with pytest.raises(ImageError, match="leads out"):
        unpack(tmp_path / "s", extension(b"../outside/secret\0", "K"), hardlink("x", "a"))
    with pytest.raises(ImageError, match="leads out"):
        unpack(tmp_path / "t", pax(("GNU.sparse.name", "../outside/x")), file("a"))


# ---- unpacked before the layers below are there ----


def unpack_alone(root: Path, *parts: bytes):
    root.mkdir()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with stream(b"".join(parts)) as source:
            return core.untar_alone(source, fd, rootless=os.geteuid() != 0)
    finally:
        os.close(fd)


def test_layer_that_depends_on_nothing_can_be_unpacked_alone(tmp_path):
    parts = [directory("d"), whiteout("d/x"), file("a", b"x"), hardlink("b", "a"), opaque("d")]
    result = unpack_alone(tmp_path / "r", *parts)
    assert result.depends == 0 and result.entries == 5
    assert inode(tmp_path / "r/a") == inode(tmp_path / "r/b")


@pytest.mark.parametrize("part", [file("a/b", b"x"), hardlink("b", "below"), whiteout("d/x"), opaque("d")])
def test_layer_that_depends_on_others_is_given_up(tmp_path, part):
    assert unpack_alone(tmp_path / "r", part, file("more", b"y" * 100_000)) is None
