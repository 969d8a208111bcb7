"""pyrtc-init in a sealed memfd, and the warden, which kills what a process that is gone has left behind."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pyrtc import core
from pyrtc.errors import StartError
from pyrtc.runtime import helper

F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEAL, SHRINK, GROW, WRITE = 1, 2, 4, 8


@pytest.fixture
def fresh(monkeypatch):
    """A state of its own, so that nothing of the test's own process is in it; its warden ends with it."""
    state = helper._Process()
    monkeypatch.setattr(helper, "_process", state)
    yield state
    if state.warden >= 0:
        os.close(state.warden)
    if state.helper >= 0:
        os.close(state.helper)


@pytest.fixture
def sleeper():
    """sleeper() starts a process and returns it with a pidfd."""
    made = []

    def start():
        process = subprocess.Popen(["sleep", "600"], start_new_session=True)
        made.append((process, os.pidfd_open(process.pid)))
        return made[-1]

    yield start
    for process, pidfd in made:
        process.kill()
        process.wait()
        os.close(pidfd)


def python(program, *words):
    """Run a program of its own, because it forks, exits or is killed."""
    command = [sys.executable, "-c", textwrap.dedent(program), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout.split()


def end_socket(state):
    """What the kernel does when the program is gone."""
    os.close(state.warden)
    state.warden = -1


def died(process, seconds=20):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


# ---- the sealed program --------------------------------------------------------------------------------------------


def test_the_program_can_never_change_again():
    """CVE-2019-5736: a container that reaches the program that started it must not be able to write to it."""
    fd = helper.helper_fd()
    seals = fcntl.fcntl(fd, F_GET_SEALS)
    assert seals & (SEAL | SHRINK | GROW | WRITE) == SEAL | SHRINK | GROW | WRITE
    for attempt in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.ftruncate(fd, 0),
        lambda: os.ftruncate(fd, 1 << 24),
        lambda: fcntl.fcntl(fd, F_ADD_SEALS, 0x20),
    ):
        with pytest.raises(OSError) as error:
            attempt()
        assert error.value.errno in (errno.EPERM, errno.EBADF, errno.EINVAL)


def test_it_cannot_be_opened_anew_and_written_to():
    path = f"/proc/self/fd/{helper.helper_fd()}"
    try:
        again = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        with pytest.raises(PermissionError):
            os.write(again, b"x")
    finally:
        os.close(again)


def test_it_is_the_program_of_the_package_and_can_be_executed():
    fd = helper.helper_fd()
    assert os.pread(fd, os.fstat(fd).st_size, 0) == helper._program()
    assert os.fstat(fd).st_mode & 0o111
    assert os.pread(fd, 4, 0) == b"\x7fELF"


def test_it_is_made_once_and_is_not_inherited():
    fd = helper.helper_fd()
    assert helper.helper_fd() == fd
    assert not os.get_inheritable(fd)


def test_threads_share_one(fresh):
    got = []
    threads = [threading.Thread(target=lambda: got.append(helper.helper_fd())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1


@pytest.mark.parametrize("instead", [None, "file", "memfd"])
def test_a_program_that_closed_every_descriptor_gets_another(fresh, tmp_path, instead):
    number = helper.helper_fd()
    os.close(number)
    if instead == "file":
        (tmp_path / "x").write_text("")
        other = os.open(tmp_path / "x", os.O_RDONLY)
    elif instead == "memfd":
        other = os.memfd_create("x")
    if instead is not None and other != number:
        os.dup2(other, number)
        os.close(other)
    try:
        again = helper.helper_fd()
        assert os.pread(again, 4, 0) == b"\x7fELF"
        assert fcntl.fcntl(again, F_GET_SEALS) & WRITE
        assert instead is None or again != number
    finally:
        if instead is not None:
            os.close(number)


def test_an_installation_without_it_is_told(fresh, monkeypatch):
    def missing():
        raise FileNotFoundError(2, "No such file or directory", "pyrtc-init")

    monkeypatch.setattr(helper, "_program", missing)
    with pytest.raises(StartError, match="pyrtc-init is missing"):
        helper.helper_fd()


# ---- the warden ----------------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_behind_is_killed(sleeper):
    process, _pidfd = sleeper()
    python(
        """
        import os, sys
        from pyrtc.runtime import helper
        helper.entrust(os.pidfd_open(int(sys.argv[1])))
        os.kill(os.getpid(), 9)
        """,
        str(process.pid),
    )
    assert died(process)
    assert process.returncode == -signal.SIGKILL


def test_it_survives_a_program_that_closes_all_descriptors_of_its_own(sleeper):
    process, _pidfd = sleeper()
    python(
        """
        import os, sys
        from pyrtc.runtime import helper
        helper.entrust(os.pidfd_open(int(sys.argv[1])))
        os.closerange(3, 100)
        """,
        str(process.pid),
    )
    assert died(process)


def test_many_are_watched_and_each_is_killed(fresh, sleeper):
    made = [sleeper() for _ in range(10)]
    for _, pidfd in made:
        helper.entrust(pidfd)
    assert len(fresh.living) == 10
    end_socket(fresh)
    assert all(died(process) for process, _ in made)


def test_the_cgroup_of_one_without_a_pid_namespace_is_killed_too(fresh, sleeper, tmp_path):
    _process, pidfd = sleeper()
    (tmp_path / "cgroup.kill").write_text("")
    fd = os.open(tmp_path / "cgroup.kill", os.O_WRONLY)
    helper.entrust(pidfd, fd)
    os.close(fd)
    end_socket(fresh)
    deadline = time.monotonic() + 20
    while (tmp_path / "cgroup.kill").read_text() != "1" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "cgroup.kill").read_text() == "1"


def test_one_that_ended_is_forgotten(fresh, sleeper):
    process, pidfd = sleeper()
    helper.entrust(pidfd)
    assert fresh.living == {pidfd: (None, False)}
    process.kill()
    process.wait()
    helper.release(pidfd)
    assert fresh.living == {}
    helper.release(pidfd)


def test_a_killed_warden_is_replaced_and_told_of_those_before(fresh, sleeper):
    first, first_fd = sleeper()
    second, second_fd = sleeper()
    others = _living_wardens()
    helper.entrust(first_fd)
    deadline = time.monotonic() + 20
    while not (ours := _living_wardens() - others) and time.monotonic() < deadline:
        time.sleep(0.01)
    (peer,) = ours
    before, generation = fresh.warden, fresh.generation
    os.kill(peer, signal.SIGKILL)
    os.waitid(os.P_PID, peer, os.WEXITED | os.WNOWAIT | 0x40000000)  # __WALL: it tells nobody of its end
    helper.entrust(second_fd)
    assert fresh.generation == generation + 1
    assert fresh.warden == before, "other threads may be about to use the number"
    assert not os.get_inheritable(fresh.warden)
    end_socket(fresh)
    assert died(first)
    assert died(second)


def _living_wardens():
    """This process's, but for those that are dead: nobody waits for them."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        command, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if command == "pyrtc-warden" and int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(name))
    return found


def test_a_forked_childs_end_is_not_the_programs(sleeper):
    """The child of a fork drops its copy of the socket; it neither keeps the warden nor sets it off."""
    process, _pidfd = sleeper()
    out = python(
        """
        import os, sys, time
        from pyrtc.runtime import helper
        pid = int(sys.argv[1])
        helper.entrust(os.pidfd_open(pid))
        child = os.fork()
        if child == 0:
            assert helper._process.warden == -1
            assert helper._process.living == {}
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.2)
        print(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0], flush=True)
        if os.fork() == 0:   # a child that lives on must not keep the warden waiting
            os.close(1), os.close(2)
            time.sleep(8)
            os._exit(0)
        os._exit(0)
        """,
        str(process.pid),
    )
    assert out == ["S"], "the child's end killed it"
    begun = time.monotonic()
    assert died(process)
    assert time.monotonic() - begun < 6, "it died only with the child"


def test_a_forked_child_has_a_warden_of_its_own(sleeper):
    process, _pidfd = sleeper()
    python(
        """
        import os, sys
        from pyrtc.runtime import helper
        helper.entrust(os.pidfd_open(os.getpid()))  # the parent's own, which needs a warden, too
        child = os.fork()
        if child == 0:
            helper.entrust(os.pidfd_open(int(sys.argv[1])))
            os._exit(0)
        os.waitpid(child, 0)
        """,
        str(process.pid),
    )
    assert died(process)


def test_a_fork_while_a_thread_holds_the_lock_does_not_hang():
    assert python(
        """
        import os, signal, threading
        from pyrtc.runtime import helper
        helper.helper_fd()
        helper._process.lock.acquire()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            helper.release(5)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    ) == ["7"]


def test_a_warden_that_cannot_be_had_is_told(fresh, sleeper, monkeypatch):
    _process, pidfd = sleeper()

    def dead(_helper):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        return ours.detach()

    monkeypatch.setattr(core, "start_warden", dead)
    with pytest.raises(StartError, match="Broken pipe"):
        helper.entrust(pidfd)
    assert fresh.living == {}


def test_sigpipe_does_not_kill_the_caller():
    assert python(
        """
        import os, signal, socket
        from pyrtc import core
        from pyrtc.errors import StartError
        from pyrtc.runtime import helper
        def dead(_helper):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.close()
            return ours.detach()
        core.start_warden = dead
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            helper.entrust(os.pidfd_open(os.getpid()))
        except StartError:
            print("lives")
        """
    ) == ["lives"]
