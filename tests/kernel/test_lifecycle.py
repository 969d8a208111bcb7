"""From start to end, whatever happens in between: killed callers and wardens, timeouts, threads, signals, asyncio."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, ImageFactory, Probe
from descriptors import descriptors

from pyrtc import aio
from pyrtc.api import make_options
from pyrtc.container import Outcome
from pyrtc.engine import Engine
from pyrtc.errors import CommandNotFound, ContainerError, ContainerNotFound, NetworkError, UnsupportedError
from pyrtc.preparation import Preparation
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.store.check import check_store

ROUNDS = 30
PATIENCE = 20.0  # seconds for what takes milliseconds on a machine that is not busy


def processes_with(word: str) -> dict[int, str]:
    """The processes of this machine that have the word in their arguments, without this one."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                line = Path("/proc", name, "cmdline").read_bytes()
                if word.encode() in line:
                    found[int(name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def gone(word: str) -> bool:
    """Wait until no process has the word in its arguments."""
    return eventually(lambda: not processes_with(word))


def eventually(condition: "object", patience: float = PATIENCE) -> bool:
    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path("/proc", str(pid), "task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def start_time(pid: int) -> int | None:
    from pyrtc.store.owner import process_start_time

    return process_start_time(pid)


@pytest.fixture
def word() -> str:
    """A word that only this test's processes have among their arguments."""
    return f"pyrtc-life-{os.urandom(6).hex()}"


class Script:
    """A Python program that uses the engine in a process of its own; `engine`, `image` and `word` are there."""

    def __init__(self, engine: Engine, image: str, word: str, body: str) -> None:
        head = f"""
            import os, signal, sys, threading, time
            from pyrtc.api import make_options
            from pyrtc.container import Outcome
            from pyrtc.engine import Engine
            engine, image, word = Engine({str(engine.store.root)!r}), {image!r}, {word!r}
            def options(*words, **keywords):
                return make_options(("/probe", "words", word, ",", *words), **keywords)
            def wardens():
                # A start does not wait until the warden has come so far that it has its name.
                deadline = time.monotonic() + {PATIENCE}
                while True:
                    found = []
                    for task in os.listdir("/proc/self/task"):
                        for pid in open(f"/proc/self/task/{{task}}/children").read().split():
                            if open(f"/proc/{{pid}}/comm").read().strip() == "pyrtc-warden":
                                found.append(int(pid))
                    if found or time.monotonic() > deadline:
                        return found
                    time.sleep(0.01)
            """
        self.word = word
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.readline().decode().strip()
        assert text, self.process.communicate(timeout=PATIENCE)[1].decode()
        return text

    def finish(self) -> str:
        out, error = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, error.decode()
        return out.decode().strip()

    def kill(self) -> None:
        """kill -9, then see that everything it had started dies."""
        born = {pid: start_time(pid) for pid in children(self.process.pid)}
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)
        assert eventually(lambda: all(start_time(pid) != time or time is None for pid, time in born.items())), born
        assert gone(self.word), processes_with(self.word)


@pytest.fixture
def script(engine: Engine, image: ImageFactory, word: str) -> Iterator["object"]:
    name, made = image(), []

    def start(body: str) -> Script:
        made.append(Script(engine, name, word, body))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.communicate()
    assert gone(word)


def nothing_is_left(engine: Engine) -> None:
    """Reap as the next command does; then rows, directories and control groups must be gone."""
    ids = [record.id for record in engine.store.containers.list()]
    with Engine(engine.store.root) as another:
        another.containers.reap()
    assert not engine.store.containers.list()
    assert not os.listdir(engine.store.containers.path)
    for container_id in ids:
        with pytest.raises(ContainerNotFound):
            Cgroup.open(container_id)


# ---- callers that die ----------------------------------------------------------------------------------------------

LOOP = """
    def loop(number):
        stay = (",", "sleep", "1000")
        commands = [("ids", *stay), ("away", "signal", *stay), ("away", "signal-daemon", *stay), ("ids",)]
        if os.geteuid() == 0:
            commands.insert(0, ("away", "signal-setuid", *stay))
        while True:
            for words in commands:
                kinds = [{}, {"init": True}, {"rw_layer": "memory"}, {"driver": "copy"}]
                if os.geteuid() == 0:
                    kinds += [{"memory": "64m"}, {"userns": "auto"}]
                engine.run(image, options(*words, timeout=0.02, **kinds[number]))
                number = (number + 1) % len(kinds)
    threads = [threading.Thread(target=loop, args=(number,)) for number in range(3)]
    print("ready", flush=True)
    for thread in threads:
        thread.start()
"""


def test_containers_die_with_their_caller_at_any_moment(engine: Engine, script: "object") -> None:
    chance = random.Random(4)
    for _ in range(ROUNDS):
        running = script(LOOP)  # type: ignore[operator]
        running.line()
        time.sleep(chance.uniform(0, 0.25))
        running.kill()
        nothing_is_left(engine)


@pytest.mark.parametrize("away", ["signal", "signal-daemon", "signal-setuid", "signal-setuid-daemon"])
def test_commands_that_got_rid_of_the_death_signal_die_too(engine: Engine, script: "object", away: str) -> None:
    if "setuid" in away and not ROOT:
        pytest.skip("needs root: an ordinary user may map one id only")
    running = script(f"""
        running = engine.start(image, options("away", "{away}", ",", "sleep", "1000"), stdout=None)
        print(running.pid, flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    running.line()
    expected = 2 if "daemon" in away else 1
    assert eventually(lambda: len(processes_with(running.word)) >= expected + 1)
    running.kill()
    nothing_is_left(engine)


def test_the_warden_is_killed(engine: Engine, script: "object") -> None:
    """The next start has a new one, which is told of what the old one watched."""
    running = script("""
        first = engine.start(image, options("away", "signal", ",", "sleep", "1000"), stdout=None)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        old = wardens()
        assert len(old) == 1, old
        os.kill(old[0], signal.SIGKILL)
        os.waitpid(old[0], 0)
        second = engine.start(image, options("away", "signal", ",", "sleep", "1000"), stdout=None)
        assert len(wardens()) == 1
        print("ready", flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    running.line()
    running.kill()
    nothing_is_left(engine)


def test_the_warden_forgets_what_has_ended(engine: Engine, script: "object") -> None:
    """An ended container that its caller has not waited for keeps the pidfd open: the warden neither spins on it nor
    takes its number for that of the next one."""
    running = script("""
        ended = [engine.start(image, options("exit", "0"), stdout=None) for _ in range(5)]
        time.sleep(0.2)
        (warden,) = wardens()
        def ticks():
            return sum(map(int, open(f"/proc/{warden}/stat").read().rpartition(")")[2].split()[11:13]))
        before = ticks()
        living = [engine.start(image, options("away", "signal", ",", "sleep", "1000"), stdout=None) for _ in range(5)]
        time.sleep(0.5)
        print(ticks() - before, flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    assert int(running.line()) < 10
    running.kill()
    nothing_is_left(engine)


def test_the_warden_and_then_the_caller_are_killed(engine: Engine, script: "object") -> None:
    """Nobody watches then; the next command kills what it finds."""
    running = script("""
        engine.start(image, options("away", "signal-daemon", ",", "sleep", "1000"), stdout=None)
        (warden,) = wardens()
        os.kill(warden, signal.SIGKILL)
        print("ready", flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    running.line()
    running.process.kill()
    running.process.wait()
    nothing_is_left(engine)
    assert gone(running.word)


def test_containers_in_the_hosts_pid_namespace_die_with_their_caller(
    engine: Engine, probe: Probe, script: "object"
) -> None:
    try:
        probe.run("ids", pid="host")
    except UnsupportedError:
        pytest.skip("needs a version 2 control group of its own")
    running = script("""
        for away in ("signal", "signal-daemon"):
            engine.start(image, options("away", away, ",", "forks", "3", ",", "sleep", "1000", pid="host"), stdout=None)
        print("ready", flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    running.line()
    assert eventually(
        lambda: len([line for line in processes_with(running.word).values() if line.startswith("/probe")]) >= 8
    )
    running.kill()
    nothing_is_left(engine)


def test_a_container_outlives_the_thread_that_started_it(engine: Engine, probe: Probe) -> None:
    """PR_SET_PDEATHSIG means the parent thread, and thread pools end."""
    started = []
    thread = threading.Thread(
        target=lambda: started.append(
            engine.start(probe.image, make_options(["/probe", "sleep", "0.3", ",", "exit", "7"]), stdout=None)
        )
    )
    thread.start()
    thread.join()
    done = started[0].wait()
    assert (done.returncode, done.outcome) == (7, Outcome.EXITED)


# ---- ends ----------------------------------------------------------------------------------------------------------


def test_exit_codes_and_signals(probe: Probe) -> None:
    for code in (0, 1, 7, 125, 126, 127, 128, 255):
        done = probe.run("exit", str(code))
        assert (done.returncode, done.outcome, done.signal) == (code, Outcome.EXITED, None)
    for init in (False, True):
        done = probe.run("raise", "9" if init else "6", init=init)
        assert done.returncode == 128 + (9 if init else 6) or (
            not init and done.returncode == 0
        )  # process 1 is immune to its own
    with pytest.raises(CommandNotFound):
        probe.engine.run(probe.image, make_options(["/missing"]))


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("away", ["signal", "signal-daemon"])
def test_timeouts_kill_forked_and_daemonised_processes(probe: Probe, word: str, away: str, init: bool) -> None:
    began = time.monotonic()
    done = probe.run("words", word, ",", "away", away, ",", "forks", "3", ",", "sleep", "1000", timeout=0.3, init=init)
    assert done.outcome is Outcome.TIMEOUT
    assert done.returncode == 137
    assert 0.3 <= time.monotonic() - began < PATIENCE
    assert not processes_with(word), "wait() came back before the last process was gone"


def test_the_end_of_process_one_ends_what_it_left(probe: Probe, word: str) -> None:
    done = probe.run("words", word, ",", "forks", "5", ",", "exit", "3")
    assert done.returncode == 3
    assert not processes_with(word)


def test_a_timeout_that_is_not_needed(probe: Probe) -> None:
    assert probe.run("sleep", "0.05", timeout=60).outcome is Outcome.EXITED


def test_close_kills(engine: Engine, probe: Probe, word: str) -> None:
    with engine.start(probe.image, make_options(["/probe", "words", word, ",", "sleep", "1000"]), stdout=None):
        assert eventually(lambda: processes_with(word))
    assert not processes_with(word)


def test_signals_reach_the_command(engine: Engine, probe: Probe) -> None:
    for init in (False, True):
        with engine.start(probe.image, make_options(["/probe", "sleep", "1000"], init=init), stdout=None) as running:
            time.sleep(0.1)
            running.signal(signal.SIGTERM)
            if init:
                assert running.wait().returncode == 143
            else:
                time.sleep(0.1)
                assert start_time(running.pid)  # process 1 ignores what it has no handler for
                running.signal(signal.SIGKILL)
                assert running.wait().signal == 9
        running.signal(signal.SIGTERM)  # no error


def test_the_reaper_reaps(probe: Probe) -> None:
    """What a daemonising command leaves to process 1 is no zombie for long, unless process 1 is the command itself."""
    for init, left in ((False, 2), (True, 2)):
        listed = probe.ask("orphan", "sleep 0.1", "list /proc", init=init)[2].split()
        assert len([name for name in listed if name.isdigit()]) == left  # without: a zombie, with: the reaper


# ---- input and output ----------------------------------------------------------------------------------------------


def test_output_up_to_the_limit(probe: Probe) -> None:
    done = probe.run("pour", "1000000", "1", ",", "pour", "500000", "2", run={"max_output": 1_500_002})
    assert (len(done.stdout), len(done.stderr), done.truncated) == (1_000_002, 500_000, False)
    done = probe.run("pour", "50000000", "1", run={"max_output": 1_000_000})
    assert (len(done.stdout), done.truncated, done.outcome) == (1_000_000, True, Outcome.EXITED)
    done = probe.run("pour", "50000000", "1", ",", "sleep", "1000", run={"max_output": 1_000_000, "on_limit": "kill"})
    assert (len(done.stdout), done.truncated, done.outcome) == (1_000_000, True, Outcome.OUTPUT_LIMIT)


def test_input_that_nobody_reads(probe: Probe) -> None:
    began = time.monotonic()
    assert probe.run("sleep", "0.1", run={"input": b"x" * 5_000_000}).returncode == 0
    assert probe.run("exit", "4", run={"input": b"x" * 5_000_000}).returncode == 4
    assert time.monotonic() - began < PATIENCE


def test_much_input_and_output_both_ways(probe: Probe) -> None:
    data = os.urandom(1 << 20) * 20
    done = probe.run("echo", run={"input": data, "max_output": 1 << 30})
    assert done.stdout[:-1] == data


def test_pieces_of_output_as_they_come(probe: Probe) -> None:
    pieces: list[tuple[str, bytes]] = []
    done = probe.run(
        "pour",
        "300000",
        "1",
        ",",
        "pour",
        "10",
        "2",
        run={"on_output": lambda stream, piece: pieces.append((stream, piece))},
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert sum(len(piece) for stream, piece in pieces if stream == "stdout") == 300_002
    assert sum(len(piece) for stream, piece in pieces if stream == "stderr") == 10


def test_what_a_callback_raises_ends_the_container(probe: Probe, word: str) -> None:
    def refuse(_stream: str, _piece: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        probe.run("words", word, ",", "pour", "100000", "1", ",", "sleep", "1000", run={"on_output": refuse})
    assert not processes_with(word)


def test_standard_streams_can_be_opened_again(probe: Probe) -> None:
    for user in ("0", "1000") if ROOT else ("0",):
        done = probe.run("write", "/dev/stdout", "out", ",", "write", "/dev/stderr", "err", user=user)
        assert done.stdout == b"out3\x1e3\x1e"
        assert done.stderr == b"err"


# ---- the calling process -------------------------------------------------------------------------------------------


def test_many_threads_leak_nothing(engine: Engine, probe: Probe) -> None:
    def work() -> None:
        try:
            for number in range(50):
                options = {"memory": "64m"} if ROOT and number % 10 == 0 else {}
                assert probe.run("exit", str(number), **options).returncode == number
        except BaseException as error:
            failures.append(error)

    failures: list[BaseException] = []
    for _ in range(3):  # spare network namespaces and the warden are there to stay
        probe.run("ids")
    before = descriptors()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    new = {name: target for name, target in descriptors().items() if before.get(name) != target}
    # A connection of the database for each thread that lived, spare namespaces: as many as processors.
    kept = [target for target in new.values() if not target.startswith(("net:[", str(engine.store.root)))]
    assert len(kept) <= 1, new
    assert len(new) < 40, new
    # What works with subordinate ids ends when it has been idle for seconds, and is waited for with the next.
    probe.run("ids")
    assert eventually(lambda: not zombies()), zombies()


def zombies() -> list[int]:
    """Children of this process that nobody has waited for."""
    found = []
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):  # waited for meanwhile
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
                found.append(pid)
    return found


def test_failing_starts_leak_nothing(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    from pyrtc.errors import PyrtcError
    from pyrtc.options import Bind

    attempts = [
        {"command": ["/missing"]},
        {"command": ["/proc"]},
        {"command": ["/probe"], "workdir": "/probe"},
        {"command": ["/probe"], "mounts": [Bind(str(tmp_path / "missing"), "/x")]},
        {"command": ["/probe"], "user": "nobody-here"},
        {"command": ["/probe"], "seccomp": "/missing"},
        {"command": ["/probe"], "mounts": [Bind(str(tmp_path), "/probe/x")]},
        *([{"command": ["/missing"], "memory": "64m", "userns": "auto"}] if ROOT else []),
    ]
    for attempt in attempts:
        with pytest.raises(PyrtcError):
            engine.run(probe.image, make_options(**attempt))
    before = descriptors()
    for attempt in attempts * 5:
        with pytest.raises(PyrtcError):
            engine.run(probe.image, make_options(**attempt))
    new = {name: target for name, target in descriptors().items() if before.get(name) != target}
    assert all(target.startswith("net:[") for target in new.values()), new
    assert not engine.store.containers.list()


def test_sigchld_is_ignored(engine: Engine, probe: Probe) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for code in (0, 5):
            done = probe.run("exit", str(code))
            assert (done.returncode, done.outcome) == (code, Outcome.EXITED)
        assert probe.run("sleep", "1000", timeout=0.1).outcome is Outcome.TIMEOUT
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_somebody_else_reaps_every_child(script: "object") -> None:
    running = script("""
        stop = False
        def reap():
            while not stop:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    time.sleep(0.0001)
        thread = threading.Thread(target=reap, daemon=True)
        thread.start()
        codes = [engine.run(image, options("exit", str(code))).returncode for code in range(30)]
        assert codes == list(range(30)), codes
        print("ready", flush=True)
        os._exit(0)
    """)  # type: ignore[operator]
    assert running.finish() == "ready"


def test_the_caller_forks(engine: Engine, script: "object") -> None:
    """A forked child neither ends the container of its parent nor keeps the warden from seeing the parent's end."""
    running = script("""
        with engine.start(image, options("sleep", "0.5", ",", "exit", "3"), stdout=None) as container:
            child = os.fork()
            if child == 0:
                sys.exit(0)  # unwinds the with block
            assert os.waitpid(child, 0)[1] == 0
            done = container.wait()
        assert done.returncode == 3, done
        child = os.fork()
        if child == 0:
            with Engine(engine.store.root) as own:
                os._exit(own.run(image, options("exit", "9")).returncode)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert engine.run(image, options("exit", "8")).returncode == 8
        engine.start(image, options("away", "signal", ",", "sleep", "1000"), stdout=None)
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        print("ready", flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    running.line()
    survivors = [
        pid for pid in children(running.process.pid) if "sleep(30)" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    running.process.kill()
    running.process.wait()
    try:
        assert eventually(lambda: not any(line.startswith("/probe") for line in processes_with(running.word).values()))
    finally:
        for pid in survivors:
            os.kill(pid, signal.SIGKILL)
    nothing_is_left(engine)


@pytest.mark.skipif(not ROOT, reason="control groups of one's own")
@pytest.mark.parametrize("how", ["sweep", "check", "prune"])
def test_whatever_puts_a_store_right_removes_control_groups(engine: Engine, script: "object", how: str) -> None:
    running = script("""
        engine.start(image, options("sleep", "1000", memory="64m"), stdout=None)
        print("ready", flush=True)
        time.sleep(1000)
    """)  # type: ignore[operator]
    running.line()
    (record,) = engine.store.containers.list()
    Cgroup.open(record.id)
    running.kill()
    if how == "sweep":
        engine.store.sweep()
    elif how == "check":
        assert check_store(engine.store, repair=True).problems
    else:
        engine.system.prune()
    with pytest.raises(ContainerNotFound):
        Cgroup.open(record.id)


def test_a_daemon_closes_every_descriptor(script: "object") -> None:
    running = script("""
        assert engine.run(image, options("exit", "1")).returncode == 1
        root = engine.store.root
        if os.fork():
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        os.closerange(3, 1000)
        fillers = [os.open("/dev/zero", os.O_RDONLY) for _ in range(60)]
        os._exit(Engine(root).run(image, options("exit", "6")).returncode)
    """)  # type: ignore[operator]
    running.process.communicate(timeout=60)
    assert running.process.returncode == 6


def test_the_callers_standard_streams_are_closed(script: "object") -> None:
    running = script("""
        report = os.dup(1)
        os.set_inheritable(report, False)
        for fd in (0, 1, 2):
            os.close(fd)
        for number in range(5):
            done = engine.run(image, options("echo", ",", "descriptors"), input=b"given")
            assert done.returncode == 0, done
            assert b"given" in done.stdout, done
            lines = [line.split()[0] for line in done.stdout.decode().split("\\x1e")[2].splitlines()]
            assert lines == ["0", "1", "2"], done.stdout
            done = engine.run(image, options("exit", "5", init=True))
            assert done.returncode == 5
            done = engine.run(image, options("exit", "137", init=True))
            assert (done.returncode, done.outcome, done.signal) == (137, Outcome.EXITED, None)
            done = engine.run(image, options("kill", "2", "9", init=True))
            assert (done.returncode, done.outcome, done.signal) == (137, Outcome.SIGNALED, 9), done
        os.write(report, b"fine\\n")
    """)  # type: ignore[operator]
    assert running.finish() == "fine"


def test_more_descriptors_than_select_can_take(script: "object") -> None:
    running = script("""
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        fillers = [os.open("/dev/null", os.O_RDONLY) for _ in range(1200)]
        done = engine.run(image, options("pour", "100000", "1"), input=b"x")
        assert len(done.stdout) > 100000
        print("fine")
    """)  # type: ignore[operator]
    assert running.finish() == "fine"


def test_too_few_descriptors(engine: Engine, script: "object") -> None:
    """Whichever step it hits, the start fails whole, and works again when there is room.

    A directory that could not be opened for its removal is left to the next command.
    """
    running = script("""
        import resource
        from pyrtc.errors import PyrtcError
        failed = 0
        for words, keywords in ((("ids",), {}), (("echo",), {"userns": "auto"} if os.geteuid() == 0 else {})):
            engine.run(image, options(*words, **keywords))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = max(map(int, os.listdir("/proc/self/fd"))) + 1
            for room in range(40):
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + room - 12, hard))
                try:
                    done = engine.run(image, options(*words, **keywords))
                except (PyrtcError, OSError):
                    failed += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                left = engine.store.containers.list()
                assert not left, (room, left)
            assert done.returncode == 0
            assert max(map(int, os.listdir("/proc/self/fd"))) < used + 10
        assert failed > 10, failed
        print("fine")
    """)  # type: ignore[operator]
    assert running.finish() == "fine"
    nothing_is_left(engine)


def test_interrupted_system_calls(probe: Probe) -> None:
    ticks = 0

    def tick(*_: object) -> None:
        nonlocal ticks
        ticks += 1

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for number in range(20):
            assert probe.run("spin", "0.005", ",", "exit", str(number)).returncode == number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ticks > 20


def test_exceptions_out_of_signal_handlers(engine: Engine, probe: Probe, word: str) -> None:
    """As ^C: whatever was under way is taken back."""
    # All that is imported for a start is there: the interpreter does not take back an import that is interrupted
    # between a module and its name in the package, and every later import of it fails.
    probe.run("exit", "0")

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    chance = random.Random(7)
    before = signal.signal(signal.SIGALRM, interrupt)
    hit = 0
    try:
        for _ in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0003, 0.012))
                probe.run("words", word, ",", "sleep", "0.005")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                hit += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hit
    assert gone(word), processes_with(word)
    left = engine.store.containers.list()
    assert not left, f"{len(left)} rows are left after {hit} interruptions"


# ---- asyncio -------------------------------------------------------------------------------------------------------


def test_a_hundred_at_once_in_one_loop(engine: Engine, probe: Probe) -> None:
    async def main() -> list[int]:
        runs = [
            aio.run(probe.image, ["/probe", "sleep", "0.05", ",", "exit", str(code)], engine=engine)
            for code in range(100)
        ]
        return [done.returncode for done in await asyncio.gather(*runs)]

    assert asyncio.run(main()) == list(range(100))


def test_input_output_and_ends_in_a_loop(engine: Engine, probe: Probe, word: str) -> None:
    async def main() -> None:
        data = os.urandom(3_000_000)
        done = await aio.run(probe.image, ["/probe", "echo"], input=data, engine=engine)
        assert done.stdout[:-1] == data
        done = await aio.run(
            probe.image,
            ["/probe", "words", word, ",", "away", "daemon", ",", "sleep", "1000"],
            timeout=0.2,
            engine=engine,
        )
        assert done.outcome is Outcome.TIMEOUT
        done = await aio.run(
            probe.image,
            ["/probe", "pour", "9000000", "1", ",", "sleep", "1000"],
            max_output=1000,
            on_limit="kill",
            engine=engine,
        )
        assert (done.outcome, len(done.stdout)) == (Outcome.OUTPUT_LIMIT, 1000)
        with pytest.raises(CommandNotFound):
            await aio.run(probe.image, ["/missing"], engine=engine)

        def refuse(*_: object) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await aio.run(
                probe.image, ["/probe", "pour", "100000", "1", ",", "sleep", "1000"], on_output=refuse, engine=engine
            )

    asyncio.run(main())
    assert not processes_with(word)


def test_cancellation_at_any_moment(engine: Engine, probe: Probe, word: str) -> None:
    """Once, or twice in a row: the container is gone when the task has ended."""
    chance = random.Random(3)

    async def one(twice: bool) -> None:
        command = ["/probe", "words", word, ",", "sleep", "0.01"]
        task = asyncio.create_task(aio.run(probe.image, command, engine=engine))
        await asyncio.sleep(chance.uniform(0, 0.02))
        task.cancel()
        if twice:
            await asyncio.sleep(chance.uniform(0, 0.003))
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def main() -> None:
        for _ in range(15):
            await asyncio.gather(*(one(twice=number % 2 == 1) for number in range(4)))
            assert not engine.store.containers.list()

    asyncio.run(main())
    assert not processes_with(word)


def test_the_loop_is_not_blocked(engine: Engine, probe: Probe) -> None:
    async def main() -> float:
        longest = 0.0
        task = asyncio.create_task(aio.run(probe.image, ["/probe", "sleep", "0.3"], engine=engine))
        while not task.done():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        await task
        return longest

    assert min(asyncio.run(main()) for _ in range(3)) < 0.2


def test_trees_that_are_hard_to_remove(engine: Engine, probe: Probe) -> None:
    """The fixture sees that the directory of each container is gone."""
    assert probe.one("deep 3000") == "0"
    assert probe.one("deep 300", driver="copy") == "0"
    answers = probe.ask(
        "mkdir /x",
        "create /x/file y",
        "mkdir /x/y",
        "create /x/y/z z",
        "chmod /x/y 0",
        "chmod /x/file 0",
        "chmod /x 0",
        "chmod / 0",
    )
    assert answers == ["0", "1", "0", "1", "0", "0", "0", "0"]


def test_kept_containers_remember_their_end(engine: Engine, probe: Probe) -> None:
    done = probe.run("exit", "5", name="kept", remove=False)
    record = engine.store.containers.get("kept")
    assert (record.id, record.state) == (done.id, "exited")
    assert json.loads(record.exit or b"{}")["returncode"] == 5
    engine.containers.remove("kept")


def test_an_end_is_recorded_whatever_cannot_be_given_back(
    engine: Engine, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Preparation.release

    def refused(self: Preparation, *, removed: bool) -> None:
        release(self, removed=removed)
        raise NetworkError("the firewall does not answer")

    monkeypatch.setattr(Preparation, "release", refused)
    with pytest.raises(NetworkError):
        probe.run("exit", "5", name="kept", remove=False)
    record = engine.store.containers.get("kept")
    assert record.state == "exited" and json.loads(record.exit or b"{}")["returncode"] == 5
    told = [event.action for event in engine.events(filters={"container": record.id})]
    assert told == ["create", "start", "die"]
    engine.containers.remove("kept")


def test_a_start_that_is_refused_leaves_no_volume(engine: Engine, image: ImageFactory) -> None:
    name = image({}, "VOLUME /data")
    with engine.start(name, make_options(["/probe", "sleep", "100"], name="mine"), stdout=None):
        before = engine.store.volumes.list()
        with pytest.raises(ContainerError, match="already in use"):
            engine.run(name, make_options(["/probe", "ids"], name="mine"))
        assert engine.store.volumes.list() == before and len(before) == 1
    assert engine.store.volumes.list() == ()
