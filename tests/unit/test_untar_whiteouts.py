"""Whiteouts and opaque directories: what hides what, in any order, in the form that overlayfs reads."""

import itertools
import os
import stat
from pathlib import Path

import pytest
from tar_builder import directory, file, hardlink, header, opaque, symlink, unpack, whiteout

from pyrtc.errors import ImageError

NAMESPACE = "trusted" if os.geteuid() == 0 else "user"


def is_whiteout(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    name = f"{NAMESPACE}.overlay.opaque"
    return name in os.listxattr(path) and os.getxattr(path, name) == b"y"


def has_origin(path: Path) -> bool:
    return f"{NAMESPACE}.overlay.origin" in os.listxattr(path)


def tree(root: Path) -> dict[str, str]:
    """Describe a tree: name -> kind."""
    found = {}
    for top, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(top, name)
            kind = "whiteout" if is_whiteout(path) else "link" if path.is_symlink() else "file"
            if path.is_dir() and not path.is_symlink():
                kind = "opaque" if is_opaque(path) else "directory"
            found[str(path.relative_to(root))] = kind
    return found


def orders(tmp_path: Path, *parts: bytes) -> list[dict[str, str]]:
    """Unpack the parts in every order."""
    results = []
    for i, permuted in enumerate(itertools.permutations(parts)):
        unpack(tmp_path / f"order{i}", *permuted)
        results.append(tree(tmp_path / f"order{i}"))
    return results


def test_whiteout_becomes_device_and_its_directory_tells_overlayfs_to_look(tmp_path):
    unpack(tmp_path / "r", directory("d"), whiteout("d/x"), whiteout("top"))
    assert tree(tmp_path / "r") == {"d": "directory", "d/x": "whiteout", "top": "whiteout"}
    assert has_origin(tmp_path / "r/d") and has_origin(tmp_path / "r")


def test_whiteout_never_hides_a_file_of_its_own_layer(tmp_path):
    for result in orders(tmp_path, file("x", b"kept"), whiteout("x")):
        assert result == {"x": "file"}


def test_whiteout_never_hides_a_link_of_its_own_layer(tmp_path):
    for result in orders(tmp_path, symlink("x", "y"), whiteout("x")):
        assert result == {"x": "link"}


def test_whiteout_of_a_directory_of_this_layer_makes_it_opaque(tmp_path):
    for result in orders(tmp_path, directory("d"), file("d/child"), whiteout("d")):
        assert result == {"d": "opaque", "d/child": "file"}


def test_whiteout_of_an_implied_directory_makes_it_opaque(tmp_path):
    for result in orders(tmp_path, file("d/e/child"), whiteout("d")):
        assert result == {"d": "opaque", "d/e": "directory", "d/e/child": "file"}


def test_whiteout_below_a_whiteout_is_nothing(tmp_path):
    # "rm foo/bar; rmdir foo", as some tools record it
    for result in orders(tmp_path, whiteout("foo"), whiteout("foo/bar"), whiteout("foo/sub/bar")):
        assert result == {"foo": "whiteout"}


def test_opaque_marker_below_a_whiteout_is_nothing(tmp_path):
    for result in orders(tmp_path, whiteout("foo"), opaque("foo")):
        assert result == {"foo": "whiteout"}


def test_opaque_marker_may_stand_anywhere(tmp_path):
    for result in orders(tmp_path, file("d/a"), opaque("d"), file("d/b")):
        assert result == {"d": "opaque", "d/a": "file", "d/b": "file"}


def test_whiteouts_in_opaque_directories_are_dropped(tmp_path):
    for result in orders(tmp_path, directory("d"), whiteout("d/x"), opaque("d"), whiteout("d/sub/y")):
        assert {name: kind for name, kind in result.items() if kind == "whiteout"} == {}
        assert result["d"] == "opaque"


def test_opaque_directories_nest(tmp_path):
    for result in orders(tmp_path, opaque("d"), opaque("d/e"), file("d/e/f")):
        assert result["d"] == "opaque" and result["d/e/f"] == "file"


def test_opaque_root(tmp_path):
    unpack(tmp_path / "r", file(".wh..wh..opq"), file("x"))
    assert is_opaque(tmp_path / "r")
    assert tree(tmp_path / "r") == {"x": "file"}


def test_opaque_marker_for_a_missing_directory_makes_it(tmp_path):
    unpack(tmp_path / "r", opaque("a/b"))
    assert tree(tmp_path / "r") == {"a": "directory", "a/b": "opaque"}


def test_opaque_marker_in_a_file_is_refused(tmp_path):
    with pytest.raises(ImageError, match="ENOTDIR"):
        unpack(tmp_path / "r", file("d"), opaque("d"))


def test_entry_below_a_whiteout_makes_an_opaque_directory(tmp_path):
    unpack(tmp_path / "r", whiteout("d"), file("d/x"))
    assert tree(tmp_path / "r") == {"d": "opaque", "d/x": "file"}


def test_directory_in_place_of_something_else_shows_nothing_from_below(tmp_path):
    unpack(tmp_path / "r", file("a"), directory("a"), symlink("b", "a"), directory("b"))
    assert tree(tmp_path / "r") == {"a": "opaque", "b": "opaque"}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh..."])
def test_whiteout_that_names_nothing_or_a_parent_is_refused(tmp_path, name):
    with pytest.raises(ImageError, match="names nothing"):
        unpack(tmp_path / "r", file(name))


def test_entry_below_a_whiteout_name_is_refused(tmp_path):
    with pytest.raises(ImageError, match="nothing below"):
        unpack(tmp_path / "r", file(".wh.d/x"))


@pytest.mark.parametrize("type", ["1", "2", "3", "5", "6"])
def test_the_name_alone_makes_a_whiteout(tmp_path, type):
    unpack(tmp_path / "r", header(".wh.x", type=type, link="etc", size=0), file("after"))
    assert tree(tmp_path / "r") == {"x": "whiteout", "after": "file"}


def test_data_of_a_whiteout_is_passed_over(tmp_path):
    unpack(tmp_path / "r", file(".wh.x", b"z" * 700), file("after", b"!"))
    assert tree(tmp_path / "r") == {"x": "whiteout", "after": "file"}
    assert (tmp_path / "r/after").read_bytes() == b"!"


def test_aufs_files_are_left_out_but_hard_links_to_them_work(tmp_path):
    result = unpack(
        tmp_path / "r",
        file(".wh..wh.aufs"),
        directory(".wh..wh.orph"),
        file(".wh..wh.orph/1", b"x"),
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/12.34", b"shared"),
        hardlink("a", ".wh..wh.plnk/12.34"),
        hardlink("b", ".wh..wh.plnk/12.34"),
    )
    assert tree(tmp_path / "r") == {"a": "file", "b": "file"}
    assert (tmp_path / "r/a").read_bytes() == b"shared"
    assert os.stat(tmp_path / "r/a").st_nlink == 2
    assert result.skipped == 3


def test_whiteout_follows_a_linked_parent_but_not_its_own_name(tmp_path):
    unpack(tmp_path / "r", directory("real"), symlink("alias", "real"), symlink("real/x", "/etc"), whiteout("alias/y"))
    assert tree(tmp_path / "r")["real/y"] == "whiteout"
    unpack(tmp_path / "s", symlink("gone", "/nowhere"), whiteout("gone/y"))
    assert tree(tmp_path / "s")["nowhere/y"] == "whiteout"


def test_device_zero_zero_is_a_whiteout(tmp_path):
    unpack(tmp_path / "r", header("x", type="3"), header("y", type="3"), file("y"))
    assert tree(tmp_path / "r") == {"x": "whiteout", "y": "file"}


def test_in_a_plain_tree_the_names_are_ordinary(tmp_path):
    result = unpack(tmp_path / "r", file(".wh.x", b"1"), opaque("d"), header("dev", type="3"), file("f"), plain=True)
    assert tree(tmp_path / "r") == {".wh.x": "file", "d": "directory", "d/.wh..wh..opq": "file", "f": "file"}
    assert result.skipped == 1
    assert not has_origin(tmp_path / "r")


def test_whiteout_of_an_implied_directory_takes_back_what_it_inherited(tmp_path):
    unpack(tmp_path / "low", directory("d", 0o700), directory("d/e", 0o711))
    for i, parts in enumerate(itertools.permutations([file("d/e/x"), whiteout("d")])):
        unpack(tmp_path / f"r{i}", *parts, lowers=(tmp_path / "low",))
        assert stat.S_IMODE(os.stat(tmp_path / f"r{i}/d").st_mode) == 0o755
        assert stat.S_IMODE(os.stat(tmp_path / f"r{i}/d/e").st_mode) == 0o755


def test_opaque_marker_keeps_the_directory_itself_as_it_was(tmp_path):
    unpack(tmp_path / "low", directory("d", 0o700), directory("d/e", 0o711))
    for i, parts in enumerate(itertools.permutations([file("d/e/x"), opaque("d")])):
        unpack(tmp_path / f"r{i}", *parts, lowers=(tmp_path / "low",))
        assert stat.S_IMODE(os.stat(tmp_path / f"r{i}/d").st_mode) == 0o700
        assert stat.S_IMODE(os.stat(tmp_path / f"r{i}/d/e").st_mode) == 0o755
