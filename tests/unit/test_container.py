"""How a container ended, and a running one with a plain child process in its place."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyrtc.container import Completed, Outcome, Running, Usage
from pyrtc.errors import ContainerError, ContainerFailed

USAGE = Usage(1.0, 0.5, 0.3, 0.2)


class FakeCgroup:
    """Counts, and what was asked of it."""

    def __init__(self, **counted):
        self.kills = 0
        self.counted = SimpleNamespace(
            **{
                "cpu_usage": None,
                "memory_peak": None,
                "pids_peak": None,
                "io_read_bytes": None,
                "io_write_bytes": None,
                "oom_kills": None,
                **counted,
            }
        )

    def kill(self):
        self.kills += 1

    def stats(self):
        return self.counted


@pytest.fixture
def begin():
    """begin(shell script, ...) returns a Running; each must be reaped through it or is killed in the end."""
    processes = []

    def start(script="sleep 60", *, timeout=None, cgroup=None, own_pids=True, on_end=None, terminal=False):
        process = subprocess.Popen(["sh", "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)
        processes.append(process)
        return Running(
            container_id="f" * 64,
            name="test",
            args=("sh", "-c", script),
            pid=process.pid,
            pidfd=os.pidfd_open(process.pid),
            terminal_fd=os.open("/dev/null", os.O_RDONLY) if terminal else None,
            timeout=timeout,
            cgroup=cgroup,
            own_pids=own_pids,
            on_end=on_end or (lambda _running, _completed: None),
            warnings=("careful",),
        )

    yield start
    for process in processes:
        process.kill()
        process.wait()


def completed(outcome=Outcome.EXITED, returncode=0, stderr=b"", **more):
    return Completed("id", ("prog", "-x"), returncode, outcome, USAGE, b"", stderr, **more)


# ---- Completed -----------------------------------------------------------------------------------------------------


def test_check_returns_the_object_itself_on_success():
    done = completed()
    assert done.check() is done


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (completed(returncode=3), "'prog -x' exited with 3"),
        (completed(returncode=3, stderr=b"why\n"), "'prog -x' exited with 3: why"),
        (completed(Outcome.SIGNALED, 139, signal=11), "'prog -x' was killed by signal 11"),
        (completed(Outcome.TIMEOUT, 137, signal=9), "'prog -x' ran out of time"),
        (completed(Outcome.OOM_KILLED, 137, signal=9), "'prog -x' ran out of memory"),
        (completed(Outcome.OUTPUT_LIMIT, 137, signal=9), "'prog -x' wrote too much"),
        # a shell that lost its child to the kernel may well exit with 0
        (completed(Outcome.OOM_KILLED, 0), "'prog -x' ran out of memory"),
    ],
)
def test_check_says_what_happened(done, text):
    with pytest.raises(ContainerFailed) as error:
        done.check()
    assert str(error.value) == text
    assert error.value.completed is done
    assert error.value.exit_code == 125


def test_check_covers_every_outcome():
    for outcome in Outcome:
        if outcome is not Outcome.EXITED:
            with pytest.raises(ContainerFailed):
                completed(outcome).check()


def test_check_shows_the_end_of_a_long_error_and_bytes_that_are_no_text():
    with pytest.raises(ContainerFailed) as error:
        completed(returncode=1, stderr=b"x" * 10000 + b"\xff the end \n").check()
    assert str(error.value).endswith("� the end")
    assert len(str(error.value)) < 600


# ---- the end -------------------------------------------------------------------------------------------------------


def test_exit_code(begin):
    running = begin("exit 7")
    done = running.wait()
    assert (done.returncode, done.outcome, done.signal) == (7, Outcome.EXITED, None)
    assert (done.id, done.args, done.warnings) == ("f" * 64, ("sh", "-c", "exit 7"), ("careful",))
    assert done.usage.wall_seconds > 0
    assert running.wait() is done


def test_signals_become_128_and_more(begin):
    done = begin("kill -TERM $$").wait()
    assert (done.returncode, done.outcome, done.signal) == (143, Outcome.SIGNALED, signal.SIGTERM)


def test_timeout(begin):
    begun = time.monotonic()
    done = begin("sleep 60", timeout=0.2).wait()
    assert (done.outcome, done.returncode) == (Outcome.TIMEOUT, 137)
    assert time.monotonic() - begun < 20


def test_a_timeout_that_is_over_before_the_wait(begin):
    assert begin("sleep 60", timeout=0).wait().outcome is Outcome.TIMEOUT


def test_one_that_ended_by_itself_did_not_run_out_of_time(begin):
    running = begin("exit 0", timeout=0.2)
    time.sleep(0.4)
    running.kill(Outcome.TIMEOUT)
    assert running.wait().outcome is Outcome.EXITED


def test_remaining_time(begin):
    assert begin("exit 0").remaining_ms() is None
    assert 59_000 < begin("exit 0", timeout=60).remaining_ms() <= 60_000
    assert begin("exit 0", timeout=0).remaining_ms() == 0.0


def test_the_first_reason_stays(begin):
    running = begin()
    running.kill(Outcome.OUTPUT_LIMIT)
    running.kill(Outcome.TIMEOUT)
    assert running.wait().outcome is Outcome.OUTPUT_LIMIT


def test_a_kill_without_a_reason_is_a_signal(begin):
    running = begin()
    running.kill()
    done = running.wait()
    assert (done.outcome, done.signal) == (Outcome.SIGNALED, signal.SIGKILL)


def test_signals_reach_it(begin):
    running = begin("trap 'exit 5' USR1; while :; do sleep 0.01; done")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = Path(f"/proc/{running.pid}/status").read_text()
        if int(text.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGUSR1 - 1) & 1:
            break
        time.sleep(0.01)
    running.signal(signal.SIGUSR1)
    assert running.wait().returncode == 5


def test_no_signal_is_sent_by_a_number_that_means_somebody_else(begin):
    """The descriptor is closed at the end, and the next container's gets its number."""
    first = begin("exit 0")
    number = first.pidfd
    first.wait()
    second = begin()
    os.dup2(second.pidfd, number) if second.pidfd != number else None
    first.signal(signal.SIGKILL)
    first.kill()
    time.sleep(0.1)
    assert second.remaining_ms() is None
    assert not _ended(second.pid)
    if second.pidfd != number:
        os.close(number)
    second.close()


def _ended(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_output_is_passed_through(begin):
    running = begin("exit 0")
    done = running.finish(b"out", b"err", truncated=True)
    assert (done.stdout, done.stderr, done.truncated) == (b"out", b"err", True)


# ---- closing -------------------------------------------------------------------------------------------------------


def test_leaving_the_block_kills_reaps_and_closes(begin):
    ended = []
    with begin(on_end=lambda *words: ended.append(words), terminal=True) as running:
        pid, fds = running.pid, (running.pidfd, running.terminal_fd)
    assert not os.path.exists(f"/proc/{pid}")
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)
    ((told, done),) = ended
    assert told is running
    assert done.outcome is Outcome.SIGNALED
    assert running.terminal_fd is None


def test_the_end_is_told_once_while_the_pidfd_is_open(begin):
    calls = []
    running = begin("exit 0", on_end=lambda running, _done: calls.append(os.fstat(running.pidfd)))
    running.wait()
    running.wait()
    running.close()
    assert len(calls) == 1


def test_descriptors_are_closed_when_cleaning_up_fails(begin):
    def fail(_running, _done):
        raise ContainerError("no")

    running = begin("exit 0", on_end=fail)
    with pytest.raises(ContainerError):
        running.wait()
    with pytest.raises(OSError):
        os.fstat(running.pidfd)


def test_one_that_somebody_else_reaped_is_cleaned_up_all_the_same(begin):
    ended = []
    running = begin("exit 0", on_end=lambda _running, done: ended.append(done))
    os.waitpid(running.pid, 0)
    try:
        running.wait()
    except ContainerError:
        assert ended == [None]
    else:
        assert ended[0].outcome is Outcome.EXITED, "newer kernels tell from the pidfd"
    with pytest.raises(OSError):
        os.fstat(running.pidfd)


def test_a_forked_child_leaves_it_alone(begin):
    running = begin()
    child = os.fork()
    if child == 0:
        try:
            running.close()
            with running:
                pass
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert not _ended(running.pid)
    running.close()


def test_it_can_be_killed_from_another_thread_while_one_waits(begin):
    running = begin()
    threading.Timer(0.1, running.kill).start()
    assert running.wait().signal == signal.SIGKILL


def test_a_signal_handler_may_signal_while_its_thread_does(begin):
    running = begin()
    with running._lock:
        running.signal(0)
    running.close()


# ---- usage ---------------------------------------------------------------------------------------------------------


def test_without_a_cgroup_the_kernel_adds_up_what_process_1_reaped(begin):
    spin = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    usage = begin(f"{sys.executable} -S -c '{spin}'; exit 0").wait().usage
    assert usage.cpu_seconds == pytest.approx(usage.user_seconds + usage.system_seconds)
    assert 0.15 < usage.cpu_seconds < 20
    assert (usage.memory_peak, usage.pids_peak) == (None, None)


def test_a_cgroup_knows_more(begin):
    cgroup = FakeCgroup(cpu_usage=99.0, memory_peak=4096, pids_peak=3, io_read_bytes=5, io_write_bytes=6)
    usage = begin("exit 0", cgroup=cgroup).wait().usage
    assert (usage.cpu_seconds, usage.memory_peak, usage.pids_peak) == (99.0, 4096, 3)
    assert (usage.read_bytes, usage.written_bytes) == (5, 6)
    assert cgroup.kills == 0


@pytest.mark.parametrize(
    ("script", "outcome"),
    [("exit 1", Outcome.OOM_KILLED), ("kill -KILL $$", Outcome.OOM_KILLED), ("exit 0", Outcome.EXITED)],
)
def test_out_of_memory_is_why_it_failed(begin, script, outcome):
    assert begin(script, cgroup=FakeCgroup(oom_kills=1)).wait().outcome is outcome


def test_our_own_kill_goes_before_memory(begin):
    running = begin(cgroup=FakeCgroup(oom_kills=1), timeout=0.1)
    assert running.wait().outcome is Outcome.TIMEOUT


def test_without_a_pid_namespace_the_cgroup_kills_the_others(begin):
    cgroup = FakeCgroup()
    running = begin("exit 0", cgroup=cgroup, own_pids=False)
    running.wait()
    assert cgroup.kills == 1, "what process 1 left behind"
    cgroup = FakeCgroup()
    running = begin(cgroup=cgroup, own_pids=False)
    running.kill()
    assert cgroup.kills == 1
    running.wait()
    kills = cgroup.kills
    running.kill()
    assert cgroup.kills == kills, "the cgroup is gone by now"
