"""Commands in running containers: the same walls, nothing more to hold on to, and an end for everything."""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, ImageFactory, Link, needs_root
from descriptors import descriptors, left_open

from pyrtc import aio, core
from pyrtc.api import make_options
from pyrtc.container import Outcome, Running
from pyrtc.engine import Engine
from pyrtc.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    ContainerFailed,
    ContainerNotFound,
    StartError,
    UsageError,
)
from pyrtc.live import Container
from pyrtc.runtime.cgroups import Cgroup, detect

BUSYBOX = Path("/bin/busybox")
pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\ndocs:x:50:app\nextra:x:60:\n"
TOOLS = ("sh", "cat", "sleep", "id", "true", "env", "pwd", "ln", "mkfifo", "rm", "dd", "tty", "stty", "setsid", "kill")

# Without a control group a command is killed by its process group.
grouped = pytest.mark.skipif(detect().unified is None, reason="needs control groups version 2 that this user may use")


@pytest.fixture
def shell(image: ImageFactory) -> str:
    """An image with a shell and a few accounts."""
    entries: dict[str, Any] = {
        "bin/busybox": BUSYBOX.read_bytes(),
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
        "home/app": None,
        **{f"bin/{tool}": Link("busybox") for tool in TOOLS},
    }
    return image(entries, "ENV FROM_IMAGE=1")


@contextlib.contextmanager
def running(engine: Engine, image: str, *command: str, **options: Any) -> Iterator[tuple[Container, Running]]:
    """A container that sleeps."""
    words = command or ("sleep", "1000")
    with engine.start(image, make_options(words, **options), stdin=None, stdout=None, stderr=None) as started:
        yield Container.of(engine, started.id), started


def text(container: Container, script: str, **options: Any) -> str:
    """What a shell script prints in the container."""
    done = container.exec(["sh", "-c", script], **options)
    assert done.returncode == 0, done
    return done.stdout.decode()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def is_gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return status(pid)["State"][0] in "ZX"
    return True


def wait_gone(*pids: int) -> None:
    deadline = time.monotonic() + 10
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.01)


KINDS: dict[str, Any] = {
    "default": {},
    "host network": {"network": "host"},
    "more rights": {"cap_add": ["NET_ADMIN"], "cap_drop": ["CHOWN"], "no_new_privileges": False},
    "no filter": {"seccomp": "unconfined"},
    "a user": {"user": "app"},
    "limits": {"oom_score_adj": 100},
}
if ROOT:
    KINDS |= {
        "privileged": {"privileged": True},
        "user namespace": {"userns": "auto"},
        "traced": {"cap_add": ["SYS_PTRACE"]},
        "memory": {"memory": "64m", "pids": 50},
    }
    if detect().unified is not None:
        KINDS["host pids"] = {"pid": "host"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_walls(engine: Engine, shell: str, kind: str) -> None:
    with running(engine, shell, **KINDS[kind]) as (container, first):
        with container.popen(["sleep", "1000"]) as process:
            own, its = status(process.pid), status(first.pid)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
                assert own.get(name) == its.get(name), name
            for name in ("Uid", "Gid", "Groups", "SigBlk", "SigIgn", "Umask", "TracerPid"):
                assert own[name] == its[name], name
            for name in NAMESPACES:
                if os.path.exists(f"/proc/self/ns/{name}"):
                    links = [os.readlink(f"/proc/{pid}/ns/{name}") for pid in (process.pid, first.pid)]
                    assert links[0] == links[1], name
            groups = [Path(f"/proc/{pid}/cgroup").read_text().splitlines() for pid in (process.pid, first.pid)]
            for line, reference in zip(*groups, strict=True):
                assert line == reference or line.startswith(f"{reference}/exec-"), line
            if ROOT or kind != "a user":
                assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2"]
            scores = [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in (process.pid, first.pid)]
            assert scores[0] == scores[1]
            assert (
                os.stat(f"/proc/{process.pid}/root/bin/busybox").st_ino
                == os.stat(f"/proc/{first.pid}/root/bin/busybox").st_ino
            )
            assert os.readlink(f"/proc/{process.pid}/cwd") == os.readlink(f"/proc/{first.pid}/cwd")
            process.kill()
        assert process.returncode == 137


def test_limits_are_the_containers(engine: Engine, shell: str) -> None:
    from pyrtc import Ulimit

    soft = min(200, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    with (
        running(engine, shell, ulimits=[Ulimit("nofile", soft, soft), Ulimit("core", 0, 0)]) as (container, _first),
        container.popen(["sleep", "1000"]) as process,
    ):
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (soft, soft)
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        process.kill()
    with running(engine, shell, ulimits=[Ulimit("nofile", 4, 4)]) as (container, _first):
        assert container.exec(["true"]).returncode == 0  # fewer than starting it takes


def test_environment_and_identity(engine: Engine, shell: str) -> None:
    with running(engine, shell, env={"FROM_RUN": "2"}, group_add=["extra"], hostname="box") as (container, _first):
        script = 'echo "$FROM_IMAGE $FROM_RUN $OWN $HOME $HOSTNAME $TERM"; id -u; id -g; pwd'
        assert text(container, script, env={"OWN": "3"}).split("\n")[:4] == ["1 2 3 /root box ", "0", "0", "/"]
        lines = text(container, script + "; id -G", user="app", workdir="/home/app").split("\n")
        assert lines[:4] == ["1 2  /home/app box ", "1000", "1000", "/home/app"]
        assert set(lines[4].split()) >= {"1000", "50", "60"} or not ROOT
        assert text(container, "echo $HOME", env={"HOME": "/x"}).strip() == "/x"
        assert text(container, "echo $TERM", tty=True).strip() == "xterm"
        with pytest.raises(StartError, match="unable to find user nobody-here"):
            container.exec(["true"], user="nobody-here")
        with pytest.raises(UsageError, match="absolute path"):
            container.exec(["true"], workdir="relative")
        with pytest.raises(UsageError, match="no command"):
            container.exec([])
        with pytest.raises(TypeError):
            container.exec("true")


@pytest.mark.parametrize("user", ["1", "1:2", "app", "1000:0"])
def test_who_is_asked_for_is_who_runs(engine: Engine, shell: str, user: str) -> None:
    """And not root, as in an engine that ran the command of user 1 as user 0 (CVE-2026-30892)."""
    uid, gid = {"1": ("1", "0"), "1:2": ("1", "2"), "app": ("1000", "1000"), "1000:0": ("1000", "0")}[user]
    with running(engine, shell) as (container, _first), container.popen(["sleep", "1000"], user=user) as process:
        its = status(process.pid)
        inside = text(container, "cat /proc/self/uid_map").split()
        if ROOT:
            assert its["Uid"].split() == [uid] * 4
            assert its["Gid"].split() == [gid] * 4
        else:
            assert inside[1] not in its["Uid"].split(), "the host's id of the container's root"
        assert {its[name] for name in ("CapEff", "CapPrm", "CapAmb")} == {"0" * 16}
        assert text(container, "id -u; id -g", user=user).split() == [uid, gid]
        process.kill()


def test_names_are_those_of_the_running_container(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        text(container, "echo late:x:1234:1234::/late:/bin/sh >>/etc/passwd")
        if ROOT:
            assert text(container, 'id -u; echo "$HOME"', user="late").split() == ["1234", "/late"]
        text(container, "echo 'root:x:0:0::/changed:/bin/sh' >/etc/passwd")
        assert text(container, "echo $HOME").strip() == "/changed"


@pytest.mark.parametrize(
    "attack",
    [
        "rm /etc/passwd; ln -s /../../../../etc/shadow /etc/passwd",
        "rm /etc/passwd; ln -s /proc/1/root/etc/shadow /etc/passwd",
        "rm /etc/passwd; mkfifo /etc/passwd",
        "rm /etc/passwd; ln -s passwd /etc/passwd",
        "rm /etc/passwd; mkdir /etc/passwd 2>/dev/null || ln -s / /etc/passwd",
        "dd if=/dev/zero of=/etc/passwd bs=1 count=1 seek=104857600 2>/dev/null",
        "rm /etc/group; mkfifo /etc/group",
    ],
)
def test_hostile_account_files(engine: Engine, shell: str, attack: str) -> None:
    with running(engine, shell) as (container, _first):
        text(container, attack)
        began = time.monotonic()
        with pytest.raises(StartError):
            container.exec(["true"], user="app:docs")
        assert container.exec(["true"], user="0:0").returncode == 0  # a number needs no file
        assert container.exec(["true"]).returncode == 0
        assert time.monotonic() - began < 5


def test_working_directories_stay_inside(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, first):
        text(container, "ln -s / /up; ln -s /proc/self/fd/7 /fd; ln -s /proc/1/cwd/../../../.. /out")
        root = os.stat(f"/proc/{first.pid}/root")
        entered = 0
        for directory in ("/up", "/out", "/proc/1/root", "/../../..", "/proc/1/cwd"):
            try:
                process = container.popen(["sleep", "1000"], workdir=directory)
            except StartError as error:
                assert error.step.startswith("workdir")
                continue
            with process:
                about = os.stat(f"/proc/{process.pid}/cwd")
                assert (about.st_dev, about.st_ino) == (root.st_dev, root.st_ino), directory
                entered += 1
                process.kill()
        assert entered >= 2, "a link to / and a way above it lead to the root"
        for directory in ("/fd", *(f"/proc/self/fd/{fd}" for fd in range(3, 12)), "/nowhere", "/bin/sh"):
            with pytest.raises(StartError, match="workdir"):
                container.exec(["true"], workdir=directory)


def test_exit_codes_and_streams(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        done = container.exec(["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (done.returncode, done.outcome, done.stdout, done.stderr) == (7, Outcome.EXITED, b"out\n", b"err\n")
        assert done.args[0] == "sh" and done.id == container.id
        killed = container.exec(["sh", "-c", "kill -9 $$"])
        assert (killed.returncode, killed.outcome, killed.signal) == (137, Outcome.SIGNALED, 9)
        assert container.exec(["cat"], input=b"x" * 300_000).stdout == b"x" * 300_000
        with pytest.raises(CommandNotFound) as missing:
            container.exec(["nope"])
        assert missing.value.exit_code == 127
        with pytest.raises(CommandNotExecutable) as refused:
            container.exec(["/etc/passwd"])
        assert refused.value.exit_code == 126
        with pytest.raises(ContainerFailed):
            container.exec(["sh", "-c", "exit 1"], check=True)


TREE = "sleep 1000 & setsid sleep 1000 & (sleep 1000 &) ; echo started; wait; sleep 1000"


def sleepers(first: Running) -> list[int]:
    """Processes named sleep in the pid namespace of a container, but for its first."""
    wanted = os.readlink(f"/proc/{first.pid}/ns/pid")
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != first.pid:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == wanted and status(int(name))["Name"] == "sleep":
                    found.append(int(name))
    return [pid for pid in found if not is_gone(pid)]


@grouped
def test_a_timeout_kills_all_that_was_started(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, first):
        done = container.exec(["sh", "-c", TREE], timeout=0.5)
        assert (done.outcome, done.returncode, done.stdout) == (Outcome.TIMEOUT, 137, b"started\n")
        assert 0.4 < done.usage.wall_seconds < 5
        assert not sleepers(first)
        assert container.status == "running" and container.exec(["true"]).returncode == 0


def test_a_timeout_without_control_groups(engine: Engine, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object, **_keywords: object) -> Cgroup:
        raise ContainerNotFound("there is none")

    with running(engine, shell) as (container, first):
        monkeypatch.setattr(Cgroup, "open", none)
        done = container.exec(["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5)
        assert done.outcome is Outcome.TIMEOUT
        wait_gone(*sleepers(first))
        assert not sleepers(first)


def test_what_a_command_leaves_lives_on(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, first):
        assert text(container, "sleep 1000 >/dev/null 2>&1 & echo done") == "done\n"
        time.sleep(0.1)
        assert len(sleepers(first)) == 1
    wait_gone(first.pid)


def test_output_limits(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        done = container.exec(["sh", "-c", "dd if=/dev/zero bs=1000 count=100 2>/dev/null"], max_output=5000)
        assert (len(done.stdout), done.truncated, done.returncode) == (5000, True, 0)
        done = container.exec(["cat", "/dev/zero"], max_output=5000, on_limit="kill")
        assert (len(done.stdout), done.outcome) == (5000, Outcome.OUTPUT_LIMIT)
        pieces: list[tuple[str, bytes]] = []
        container.exec(["sh", "-c", "echo a; echo b >&2"], on_output=lambda name, data: pieces.append((name, data)))
        assert sorted(pieces) == [("stderr", b"b\n"), ("stdout", b"a\n")]

        def fail(_name: str, _data: bytes) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            container.exec(["sh", "-c", "echo a; sleep 1000"], on_output=fail)


def test_many_threads(engine: Engine, shell: str) -> None:
    failures: list[BaseException] = []
    dead_before = dead_children()

    def work(number: int) -> None:
        try:
            for turn in range(8):
                done = container.exec(["sh", "-c", f"echo {number}.{turn}; exit {number}"])
                assert (done.stdout, done.returncode) == (f"{number}.{turn}\n".encode(), number)
        except BaseException as error:
            failures.append(error)

    with running(engine, shell) as (container, _first):
        container.exec(["true"])
        before = descriptors()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
        assert not left_open(before)
        # What works with subordinate ids ends when it was idle for seconds, and is waited for when it is closed.
        engine.store.trees.close()
        assert not dead_children() - dead_before
        if (path := container.cgroup_path) is not None:
            assert not [name for name in os.listdir(path) if name.startswith("exec-")]


def dead_children() -> set[int]:
    """Children that have ended and that nobody has waited for; a test before this one may have left some."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in children if status(int(pid))["State"][0] == "Z"}


@grouped
def test_a_paused_container(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        group = container.cgroup()
        container.exec(["true"])
        group.freeze()
        try:
            with pytest.raises(ContainerError, match="is paused, unpause the container before exec"):
                container.exec(["true"])
        finally:
            group.thaw()
        assert container.exec(["true"]).returncode == 0


def test_a_container_that_has_ended(engine: Engine, shell: str) -> None:
    with running(engine, shell, remove=False, name="ended") as (container, first):
        container.exec(["true"])
        first.kill()
        wait_gone(first.pid)
        for _ in range(2):
            with pytest.raises(ContainerError, match="is not running"):
                container.exec(["true"])
        other = Container.of(engine, first.id)
        with pytest.raises(ContainerError, match="is not running"):
            other.exec(["true"])
    with pytest.raises(ContainerError, match="is not running"):
        container.exec(["true"])
    container.remove()
    with pytest.raises(ContainerNotFound):
        container.exec(["true"])


def test_a_container_that_ends_meanwhile(engine: Engine, shell: str) -> None:
    for delay in (0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003):
        with running(engine, shell) as (container, first):
            container.exec(["true"])
            timer = threading.Timer(delay, first.signal, (signal.SIGKILL,))
            timer.start()
            try:
                while True:
                    done = container.exec(["true"])
                    assert done.returncode in (0, 137), done
            except ContainerError as error:
                assert "is not running" in str(error)
            timer.join()


def test_a_process_with_a_taken_number_is_not_the_container(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, first):
        record = container.record
        engine.store.containers.started(first.id, first.pid, record.start_time + 1)
        with pytest.raises(ContainerError, match="is not running"):
            container.exec(["true"])
        engine.store.containers.started(first.id, first.pid, record.start_time)


def test_popen(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        with container.popen(["cat"], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None and process.returncode is None and process.poll() is None
            process.stdin.write(b"one\ntwo\n")
            process.stdin.close()
            assert list(process) == [b"one\n", b"two\n"]
            assert process.wait(10) == 0
        assert process.returncode == 0 and process.pidfd == -1
        with container.popen(["sh", "-c", "echo err >&2"], stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None and process.stdout.read() == b"err\n" and process.stderr is None
        with container.popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=None) as process:
            with pytest.raises(TimeoutError):
                process.wait(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            process.terminate()  # one that has ended is fine
        with pytest.raises(RuntimeError), container.popen(["sleep", "1000"]) as process:
            raise RuntimeError
        assert process.returncode == 137
        with pytest.raises(UsageError):
            container.popen(["true"], stdin=-7)


@pytest.mark.parametrize("held", [True, False], ids=["held", "dropped"])
@pytest.mark.parametrize("command", ["true", "sleep 1000"])
@pytest.mark.parametrize("how", ["stop", "end", "aio"])
def test_one_that_nobody_waits_for_does_not_keep_its_container(
    engine: Engine, shell: str, command: str, how: str, *, held: bool
) -> None:
    """A command that has ended would be a zombie in the container, without which process 1 cannot go."""
    container = engine.containers.run(shell, ["sleep", "1000"])
    try:
        process: Any
        if how == "aio":

            async def begin() -> object:
                return await aio.Container.of(container).popen(command.split())

            process = asyncio.run(begin())
        else:
            process = container.popen(command.split(), stdin=subprocess.PIPE)
        if command == "true":
            wait_gone(process.pid)
        began = time.monotonic()
        if not held:
            del process
        if how == "stop":
            container.stop(timeout=0)
        else:
            container.kill()
            assert container.wait(timeout=5).returncode == 137
        assert time.monotonic() - began < 5
        if held:
            ended = getattr(process, "blocking", process).wait(timeout=5)
            assert ended == (0 if command == "true" else 137)
            process.kill()  # as it ended long ago
    finally:
        container.remove(force=True)
    deadline = time.monotonic() + 5
    while any(thread.name == "pyrtc-reaper" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread stays"
        time.sleep(0.01)


def test_a_forked_child_reaps_its_own(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        first = container.popen(["sleep", "1000"])
        child = os.fork()
        if not child:
            code = 1
            try:
                process = container.popen(["sh", "-c", "exit 3"])
                wait_gone(process.pid)
                code = process.wait(timeout=5)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        first.kill()
        assert first.wait(timeout=5) == 137


def test_communicate(engine: Engine, shell: str) -> None:
    both = ["sh", "-c", "cat; echo err >&2; exit 3"]
    data = b"line\n" * 100_000  # more than the pipes hold
    with running(engine, shell) as (container, _first):
        with container.popen(both, stdin=subprocess.PIPE) as process:
            assert process.communicate(data, timeout=20) == (data, b"err\n")
            assert process.returncode == 3
            with pytest.raises(UsageError):
                process.communicate(b"more")
        with container.popen(["sh", "-c", "exec <&-; echo deaf"], stdin=subprocess.PIPE, stderr=None) as process:
            assert process.communicate(data, timeout=20) == (b"deaf\n", None), "what nobody reads is no error"
        with container.popen(["sh", "-c", "echo one; sleep 0.4; echo two; sleep 0.1"]) as process:
            with pytest.raises(TimeoutError):
                process.communicate(timeout=0.1)
            assert process.poll() is None and process.communicate(timeout=20) == (b"one\ntwo\n", b"")
        with container.popen(["sh", "-c", "echo one; echo two"]) as process:
            assert process.stdout is not None and process.stdout.readline() == b"one\n"
            assert process.communicate(timeout=20) == (b"two\n", b""), "with what was read ahead"
        with container.popen(["sh", "-c", "exec >&- 2>&-; sleep 1000"]) as process:
            with pytest.raises(TimeoutError):
                process.communicate(timeout=0.2)
            process.kill()
            assert process.communicate() == (b"", b"") and process.returncode == 137
        with container.popen(["true"]) as process, pytest.raises(UsageError):
            process.communicate(b"no pipe")


def test_terminals(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, _first):
        done = container.exec(["sh", "-c", "tty; exit 4"], tty=True)
        assert (done.returncode, done.stdout.strip()) == (4, b"/dev/pts/0")
        with container.popen(
            ["sh", "-c", "read x; stty size; echo got $x"], tty=True, terminal_size=(20, 70)
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.resize(30, 90)
            process.stdin.write(b"hello\n")
            assert process.stdout.read().split(b"\r\n")[1:3] == [b"30 90", b"got hello"]
        assert process.returncode == 0
        # ^C goes to the command's own session.
        with container.popen(["sleep", "1000"], tty=True) as process:
            assert process.stdin is not None
            process.stdin.write(b"\x03")
            assert process.wait(10) == 130


@needs_root
def test_a_terminal_that_is_none(engine: Engine, shell: str) -> None:
    """A container that may mount can put anything where its terminals are made."""
    with running(engine, shell, privileged=True) as (container, _first):
        mounting = "/bin/busybox mount -t tmpfs none /dev/pts && mkfifo /dev/pts/ptmx"
        assert container.exec(["sh", "-c", mounting]).returncode == 0
        with pytest.raises(StartError, match="terminal"):
            container.exec(["true"], tty=True)


def test_detached(engine: Engine, shell: str) -> None:
    with running(engine, shell) as (container, first):
        plain = container.exec_detached(["sleep", "1000"])
        noisy = container.exec_detached(["sh", "-c", "tty >/tty; while :; do echo more; done"], tty=True)
        time.sleep(0.5)
        assert not is_gone(plain) and not is_gone(noisy)
        assert text(container, "cat /tty").strip() == "/dev/pts/0"
        used = [Path(f"/proc/{noisy}/stat").read_text().rpartition(")")[2].split()[11] for _ in range(1)]
        assert int(used[0]) > 0  # its output is taken away, so that it never has to wait
        os.kill(noisy, signal.SIGKILL)
        with pytest.raises(CommandNotFound):
            container.exec_detached(["nope"])
        assert plain in sleepers(first)
    wait_gone(plain, noisy)


CALLER = """
import sys, time
sys.path.insert(0, {path!r})
from pyrtc.engine import Engine
container = Engine({root!r}).containers.get({name!r})
process = container.popen(["sh", "-c", {tree!r}])
print(process.pid, container.exec_detached(["sleep", "1000"]), flush=True)
process.stdout.readline()
print("ready", flush=True)
time.sleep(1000)
"""


IN_ITS_GROUP = "sleep 1000 & echo started; sleep 1000"
signals_groups = pytest.mark.skipif(
    tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 9), reason="needs Linux 6.9"
)


@pytest.mark.parametrize(
    "tree",
    [pytest.param(TREE, marks=grouped), pytest.param(IN_ITS_GROUP, marks=signals_groups), "echo started; sleep 1000"],
)
def test_commands_die_with_a_killed_caller(engine: Engine, shell: str, tree: str) -> None:
    with running(engine, shell) as (container, first):
        source = CALLER.format(
            path=str(Path(__file__).parents[2]), root=str(engine.store.root), name=container.id, tree=tree
        )
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as caller:
            assert caller.stdout is not None
            pid, detached = map(int, caller.stdout.readline().split())
            assert caller.stdout.readline() == "ready\n"
            assert not is_gone(pid)
            caller.kill()
        wait_gone(pid)
        deadline = time.monotonic() + 10
        while sleepers(first) != [detached]:
            assert time.monotonic() < deadline, sleepers(first)
            time.sleep(0.01)
        assert container.exec(["true"]).returncode == 0


@pytest.fixture(scope="session")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    target = tmp_path_factory.mktemp("tracer") / "tracer"
    command = [compiler, "-static", "-O1", "-s", "-Wall", "-Wextra", "-o", target, Path(__file__).with_name("tracer.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


@pytest.mark.parametrize("may", [True, False])
@pytest.mark.parametrize("privileges", [True, False])
def test_who_may_trace_finds_nothing_to_hold_on_to(
    engine: Engine, image: ImageFactory, tracer: bytes, tmp_path: Path, may: bool, privileges: bool
) -> None:
    """A process in the container tries to catch each command between its birth and its program."""
    name = image({"tracer": tracer, "bin/busybox": BUSYBOX.read_bytes(), "bin/true": Link("busybox")})
    options = make_options(["/tracer", "3"], cap_add=["SYS_PTRACE"] if may else [], no_new_privileges=privileges)
    # A file: a tracer that waited for a reader would keep what it has caught.
    with (
        open(tmp_path / "output", "w+b") as output,
        engine.start(name, options, stdin=None, stdout=output.fileno(), stderr=None) as first,
    ):
        container = Container.of(engine, first.id)
        its = status(first.pid)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert container.exec(["true"]).returncode == 0
        first.wait()
        output.seek(0)
        lines = output.read().splitlines()
        assert (lines[0], lines[-1]) == (b"ready", b"over")
        caught = [line.decode().split() for line in lines[1:-1]]
    early = [words for words in caught if "memfd" in words[1]]  # "?" has come to its end
    if may and ROOT:
        assert early, "the tracer caught nothing: the test shows nothing"
    else:
        assert not early  # what is not readable for others is not theirs to trace
    for words in early:
        assert words[2:5] == [its["CapPrm"], "2", its["NoNewPrivs"]], words
        assert {fd.partition("=")[0] for fd in words[5:]} <= {"0", "1", "2", "3"}, words
        assert all(fd.partition("=")[2].startswith("socket:") for fd in words[5:] if fd[0] == "3"), words


def test_a_strict_profile(engine: Engine, shell: str, tmp_path: Path) -> None:
    """The filter is loaded last, so a profile need not know what starting a command takes."""
    refused = ["clone", "clone3", "setsid", "setns", "setgroups", "capset", "ppoll"]
    rule = {"names": refused, "action": "SCMP_ACT_KILL_PROCESS"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    with (
        running(engine, shell, seccomp=str(profile)) as (container, first),
        container.popen(["sleep", "1000"]) as process,
    ):
        assert status(process.pid)["Seccomp_filters"] == status(first.pid)["Seccomp_filters"] == "1"
        process.kill()


@needs_root
def test_out_of_memory_and_processes(engine: Engine, shell: str) -> None:
    with running(engine, shell, memory="32m", pids=10) as (container, _first):
        done = container.exec(["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"])
        assert done.outcome is Outcome.OOM_KILLED or done.returncode == 1
        if detect().unified is not None and "memory" not in detect().unified.controllers:
            assert container.exec(["true"]).returncode == 0


def test_privileged_commands(engine: Engine, shell: str) -> None:
    with (
        running(engine, shell) as (container, first),
        container.popen(["sleep", "1000"], privileged=True) as process,
    ):
        own, its = status(process.pid), status(first.pid)
        assert int(own["CapEff"], 16) > int(its["CapEff"], 16)
        assert int(own["CapEff"], 16) & 1 << 21  # SYS_ADMIN
        assert own["Seccomp"] == its["Seccomp"] and own["NoNewPrivs"] == its["NoNewPrivs"]
        process.kill()


def test_reports_of_strangers_are_not_believed() -> None:
    """What pyrtc-init hands over is taken only if the kernel says that it was pyrtc-init."""
    from pyrtc._core import lib
    from pyrtc.runtime import join as joining

    read, write = os.pipe()
    os.close(write)
    report = core.Report(0, 1, "", "", None, process_fd=read, sender=4)
    child = core.Child(5, -1, -1)
    starting = joining._Starting(child, [b""], None, None, detached=False)
    with pytest.raises(StartError, match="in the place of pyrtc-init"):
        starting._take(report)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(read)
    assert lib.REPORT_PROCESS


def test_asyncio(engine: Engine, shell: str) -> None:
    async def work(blocking: Container, first: Running) -> None:
        container = aio.Container.of(blocking)
        done = await container.exec(["sh", "-c", "cat; exit 3"], input=b"hi")
        assert (done.returncode, done.stdout) == (3, b"hi")
        assert (await container.exec(["sh", "-c", "tty"], tty=True)).stdout.strip() == b"/dev/pts/0"
        assert (await container.exec(["sleep", "1000"], timeout=0.1)).outcome is Outcome.TIMEOUT
        many = await asyncio.gather(*(container.exec(["sh", "-c", f"exit {code}"]) for code in range(16)))
        assert [one.returncode for one in many] == list(range(16))
        with pytest.raises(CommandNotFound):
            await container.exec(["nope"])
        task = asyncio.create_task(container.exec(["sh", "-c", "sleep 1000 & sleep 1000"]))
        await asyncio.sleep(0.3)
        assert sleepers(first)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wait_gone(*sleepers(first))
        async with await container.popen(["cat"], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None and process.returncode is None
            process.stdin.write(b"one\ntwo\n")
            process.stdin.close()
            assert [line async for line in process] == [b"one\n", b"two\n"]
        assert process.returncode == 0
        async with await container.popen(["sh", "-c", "cat; echo err >&2"], stdin=subprocess.PIPE) as process:
            data = b"line\n" * 100_000
            assert await process.communicate(data, timeout=20) == (data, b"err\n")
        async with await container.popen(["sh", "-c", "exec <&-"], stdin=subprocess.PIPE, stderr=None) as process:
            assert await process.communicate(data) == (b"", None)
        async with await container.popen(["sleep", "1000"]) as process:
            with pytest.raises(TimeoutError):
                await process.communicate(timeout=0.1)
            process.kill()
            assert await process.communicate() == (b"", b"") and process.returncode == 137
        async with await container.popen(["sh", "-c", "tty; sleep 0.1"], tty=True) as process:
            assert process.stdout is not None and b"/dev/pts/0" in await process.stdout.read()
        with pytest.raises(RuntimeError):
            async with await container.popen(["sleep", "1000"]) as process:
                with pytest.raises(TimeoutError):
                    await process.wait(0.05)
                raise RuntimeError
        assert process.returncode == 137

    with running(engine, shell) as (container, first):
        asyncio.run(work(container, first))


def test_a_container_of_a_monitor(engine: Engine, shell: str) -> None:
    with Container(shell, ["sleep", "1000"], engine=engine) as container:
        assert container.exec(["sh", "-c", "exit 4"]).returncode == 4
        pid = container.pid
        if container.cgroup_path is not None:
            container.pause()
            with pytest.raises(ContainerError, match="is paused"):
                container.exec(["true"])
            container.unpause()
        container.stop(timeout=0)
        with pytest.raises(ContainerError, match="is not running"):
            container.exec(["true"])
        container.start()
        assert container.pid != pid
        assert container.exec(["true"]).returncode == 0


# ---- what is told ---------------------------------------------------------------------------------------------------


def test_events(engine: Engine, shell: str, tmp_path: Path) -> None:
    with Container(shell, ["sleep", "1000"], engine=engine, labels={"tier": "a"}) as container:
        container.exec(["sh", "-c", "exit 3"])
        with container.popen(["true"]):
            pass
        container.exec_detached(["sleep", "1000"])
        with pytest.raises(CommandNotFound):
            container.exec(["/nothing"])
        container.export(tmp_path / "root.tar")
        container.attach().close()
        told = [
            one for one in engine.events(filters={"container": container.id}) if one.action not in ("create", "start")
        ]
        actions = [event.action for event in told]
        assert actions == [
            "exec_create: sh -c exit 3",
            "exec_start: sh -c exit 3",
            "exec_die",
            "exec_create: true",
            "exec_start: true",
            "exec_die",
            "exec_create: sleep 1000",
            "exec_start: sleep 1000",
            "export",
            "attach",
        ]
        assert [told[at].attribute("exitCode") for at in (2, 5)] == ["3", "0"]
        assert told[0].attribute("execID") == told[2].attribute("execID") != told[3].attribute("execID")
        assert told[0].attribute("tier") == "a"
        assert len(list(engine.events(filters={"event": "exec_start"}))) == 3
    with running(engine, shell) as (unnoticed, _):
        assert unnoticed.exec(["true"]).returncode == 0
        assert list(engine.events(filters={"container": unnoticed.id})) == []
