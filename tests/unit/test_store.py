import os
import stat
import subprocess
import sys

import pytest

from pyrtc.errors import StoreError
from pyrtc.store import Store, default_root


def test_made_for_its_owner_only(tmp_path) -> None:
    with Store(tmp_path / "a" / "b") as store:
        assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
        assert store.root == tmp_path / "a" / "b"
        assert store.rootless == (os.geteuid() != 0)


def test_links_are_resolved(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Store(tmp_path / "link") as store:
        assert store.root == tmp_path / "real"


def test_an_open_store_is_closed_to_others(tmp_path) -> None:
    root = tmp_path / "s"
    Store(root).close()
    root.chmod(0o755)
    Store(root).close()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_directory_with_other_things_is_not_taken(tmp_path) -> None:
    (tmp_path / "precious").write_text("x")
    tmp_path.chmod(0o755)
    with pytest.raises(StoreError, match="no store"):
        Store(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a directory to another user")
def test_somebody_elses_store_is_refused(tmp_path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    os.chown(root, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        Store(root)


def test_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(StoreError, match="cannot open the store"):
        Store(tmp_path / "f")
    with pytest.raises(StoreError, match="cannot open the store"):
        Store(tmp_path / "f" / "s")


def test_default_root(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path))
    assert default_root() == str(tmp_path)
    monkeypatch.delenv("PYRTC_ROOT")
    monkeypatch.setattr("pyrtc.store.root.is_rootless", lambda: True)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_root() == f"{tmp_path}/pyrtc"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == f"{tmp_path}/.local/share/pyrtc"
    monkeypatch.setattr("pyrtc.store.root.is_rootless", lambda: False)
    assert default_root() == "/var/lib/pyrtc"


def test_nothing_is_left_open(tmp_path) -> None:
    Store(tmp_path / "s").close()  # what is imported lazily is open now
    before = set(os.listdir("/proc/self/fd"))
    store = Store(tmp_path / "s")
    store.sweep()
    store.close()
    with pytest.raises(StoreError):
        (tmp_path / "f").write_text("")
        Store(tmp_path / "f")
    assert set(os.listdir("/proc/self/fd")) == before


def test_sweep_removes_what_has_no_name(tmp_path) -> None:
    with Store(tmp_path / "s") as store:
        for name in ("tmp", "containers", "layers", "volumes"):
            junk = store.root / name / ("0" * 64)
            (junk / "deep").mkdir(parents=True)
            (junk / "deep" / "file").write_text("x")
        blob = store.root / "blobs/sha256/00" / ("0" * 64)
        blob.parent.mkdir(parents=True)
        blob.write_text("x")
        (store.root / "locks" / "sha256-1").write_text("")
        assert store.sweep().removed == 4
        for name in ("tmp", "containers", "layers", "volumes", "locks"):
            assert os.listdir(store.root / name) == []
        assert store.blobs.list() == ()
        assert store.sweep().removed == 0


def test_what_a_live_process_works_on_is_left_alone(tmp_path) -> None:
    with Store(tmp_path / "s") as store, Store(tmp_path / "s") as other:
        with store.staging.directory() as fd:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            assert other.sweep().removed == 0
            assert os.listdir(fd) == ["file"]
        assert os.listdir(store.root / "tmp") == []


def test_locks_die_with_their_process_but_not_by_a_fork(tmp_path) -> None:
    with Store(tmp_path / "s") as store:
        with store.staging.directory():
            pid = os.fork()
            if pid == 0:
                import time

                time.sleep(30)
                os._exit(0)
        try:
            # The child has a copy of nothing: what the parent let go of is free.
            with store.staging.directory(), Store(tmp_path / "s") as other:
                assert other.sweep().removed == 0
            program = f"""
import os, sys
from pyrtc.store import Store
store = Store({str(tmp_path / "s")!r})
held = store.staging.directory(); held.__enter__()
if os.fork() == 0:
    import time
    print("ready", flush=True)  # here, where what a fork must let go of is let go of
    time.sleep(30)
sys.stdin.read()
"""
            with subprocess.Popen(
                [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            ) as process:
                assert process.stdout.readline() == b"ready\n"
                assert store.sweep().removed == 0
                process.kill()  # its child lives on
                process.wait()
                assert store.sweep().removed == 1
                os.killpg(process.pid, 9)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
