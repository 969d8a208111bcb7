import os
import subprocess
from dataclasses import replace

from pyrtc.store.owner import Owner, process_start_time


def test_current_process_is_alive() -> None:
    owner = Owner.current()
    assert owner.pid == os.getpid()
    assert owner.alive()
    assert owner is Owner.current()


def test_another_time_or_boot_is_another_process() -> None:
    owner = Owner.current()
    assert not replace(owner, start_time=owner.start_time + 1).alive()
    assert not replace(owner, boot="another boot 1").alive()


def test_another_pid_namespace_counts_as_alive() -> None:
    owner = Owner.current()
    boot = owner.boot.partition(" ")[0]
    assert replace(owner, pid=1 << 22, boot=f"{boot} 1").alive()


def test_dead_and_zombie_processes() -> None:
    with subprocess.Popen(["sleep", "30"]) as process:
        start = process_start_time(process.pid)
        assert start is not None
        owner = replace(Owner.current(), pid=process.pid, start_time=start)
        assert owner.alive()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not owner.alive()  # a zombie owns nothing
    assert process_start_time(process.pid) is None


def test_names_with_parentheses(tmp_path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "30"]) as process:
        try:
            start = process_start_time(process.pid)
            assert start is not None
            assert abs(start - Owner.current().start_time) < 100 * 3600
            assert start >= Owner.current().start_time
        finally:
            process.kill()


def test_a_child_is_not_its_parent() -> None:
    before = Owner.current()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if Owner.current().pid == os.getpid() != before.pid else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
