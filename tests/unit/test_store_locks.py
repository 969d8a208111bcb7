"""Tests for pyrtc.store.locks."""

import os
import subprocess
from pathlib import Path

from pyrtc.store.locks import Lock, locked, try_lock_directory, try_lock_file


def test_a_lock_ends_although_somebody_has_a_copy_of_its_descriptor(tmp_path: Path) -> None:
    """As a program has that another thread is just starting."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    root = os.open(tmp_path, os.O_RDONLY)
    for take, name in ((try_lock_directory, "directory"), (try_lock_file, "file")):
        lock = take(root, name)
        assert lock is not None
        assert take(root, name) is None
        with subprocess.Popen(["sleep", "1000"], pass_fds=(lock.fd,)) as copy:
            lock.close()
            again = take(root, name)
            assert again is not None
            again.close()
            copy.kill()
    os.close(root)


def test_a_forked_child_leaves_its_parents_locks_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = os.open(tmp_path, os.O_RDONLY)
    lock = try_lock_file(root, "file")
    assert lock is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.fd == -1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert try_lock_file(root, "file") is None, "the child closed its copy and no more"
    lock.close()
    lock.close()
    with locked(root, ["other"]):
        assert try_lock_file(root, "other") is None
    assert isinstance(lock, Lock) and sorted(os.listdir(root)) == ["file"]
    os.close(root)
