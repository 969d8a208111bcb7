"""Directories for what containers write: handed on only where nobody can have changed anything."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrtc.store import Store
from pyrtc.store.rw_directories import RwDirectories


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as store:
        yield store


@pytest.fixture
def directories(store: Store) -> Iterator[RwDirectories]:
    directories = RwDirectories(store.containers.fd, store.staging)
    yield directories
    directories.close()


def mount_once(path: Path) -> None:
    """Leave what overlayfs leaves in the work directory after a volatile mount."""
    (path / "work/work/incompat/volatile").mkdir(parents=True)
    (path / "work/work/incompat/volatile/dirty").touch()


def second(directories: RwDirectories, store: Store) -> Path:
    """Make the second directory, the first that may be kept."""
    directories.make("first", passing=True)
    directories.remove("first")
    directories.make("second", passing=True)
    path = Path(store.containers.path, "second")
    mount_once(path)
    return path


def test_an_untouched_directory_is_handed_on(store: Store, directories: RwDirectories) -> None:
    inode = (second(directories, store) / "upper").stat().st_ino
    directories.remove("second")
    directories.make("third", passing=True)
    third = Path(store.containers.path, "third")
    assert (third / "upper").stat().st_ino == inode
    assert not (third / "work/work/incompat").exists(), "a volatile mount would be refused"
    assert not Path(store.containers.path, "second").exists()
    mount_once(third)
    directories.remove("third")
    directories.close()
    assert os.listdir(store.containers.path) == []


def test_the_first_of_a_process_is_removed(store: Store, directories: RwDirectories) -> None:
    directories.make("first", passing=True)
    mount_once(Path(store.containers.path, "first"))
    directories.remove("first")
    assert os.listdir(store.containers.path) == []
    assert os.listdir(store.staging.fd) == []


def written(upper: Path) -> None:
    (upper / "file").write_text("secret")


def written_and_removed(upper: Path) -> None:
    (upper / "file").write_text("secret")
    (upper / "file").unlink()


def opened_to_all(upper: Path) -> None:
    upper.chmod(0o777)


def attribute(upper: Path) -> None:
    os.setxattr(upper, "user.note", b"secret")


def old_time(upper: Path) -> None:
    os.utime(upper, (1, 1))


@pytest.mark.parametrize("change", [written, written_and_removed, opened_to_all, attribute, old_time])
def test_a_directory_that_was_touched_is_removed(
    store: Store, directories: RwDirectories, change: Callable[[Path], None]
) -> None:
    upper = second(directories, store) / "upper"
    inode = upper.stat().st_ino
    change(upper)
    held = os.open(upper, os.O_PATH)  # else its inode number may come again
    try:
        directories.remove("second")
        assert os.listdir(store.containers.path) == []
        directories.make("third", passing=True)
        fresh = Path(store.containers.path, "third", "upper").stat()
        assert fresh.st_ino != inode
        assert stat.S_IMODE(fresh.st_mode) == 0o755
    finally:
        os.close(held)


def test_no_other_command_takes_it_for_a_dead_ones(store: Store, directories: RwDirectories) -> None:
    inode = (second(directories, store) / "upper").stat().st_ino
    directories.remove("second")
    assert os.listdir(store.containers.path) == []
    with Store(store.root) as other:
        assert other.staging.sweep() == 0
    directories.make("third", passing=True)
    assert Path(store.containers.path, "third", "upper").stat().st_ino == inode


def test_a_forked_child_leaves_its_parents_alone(store: Store, directories: RwDirectories) -> None:
    inode = (second(directories, store) / "upper").stat().st_ino
    directories.remove("second")
    child = os.fork()
    if child == 0:
        try:
            directories.make("of-child", passing=True)
            os._exit(Path(store.containers.path, "of-child", "upper").stat().st_ino == inode)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    directories.make("third", passing=True)
    assert Path(store.containers.path, "third", "upper").stat().st_ino == inode


def test_the_end_of_the_process_removes_what_was_kept(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = f"""
from pyrtc.store import Store
from tests.unit.test_rw_directories import RwDirectories, second
store = Store({str(tmp_path)!r})
directories = RwDirectories(store.containers.fd, store.staging)
second(directories, store)
directories.remove("second")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert os.listdir(tmp_path / "containers") == []
    assert os.listdir(tmp_path / "tmp") == []
