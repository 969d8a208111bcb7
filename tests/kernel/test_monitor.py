"""Containers that outlive their caller: what their monitor records, logs and passes on, whoever is killed when."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import needs_root
from watching import PATIENCE, WatchedContainer, eventually, readable

from pyrtc import core
from pyrtc.errors import CommandNotFound, StartError
from pyrtc.ids import IdMaps, Range
from pyrtc.options import LogOptions
from pyrtc.runtime.attach import attach, claim_end, input_messages
from pyrtc.runtime.cgroups import Cgroup, Limits
from pyrtc.runtime.monitor import EndCommand, Watched, until_running
from pyrtc.store.containers import new_id
from pyrtc.store.owner import process_start_time

MONITOR_PSS = 100 << 10  # bytes


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program that the containers run."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the workload")
    target = tmp_path_factory.mktemp("workload") / "workload"
    command = [
        compiler,
        "-static",
        "-O1",
        "-s",
        "-Wall",
        "-Wextra",
        "-o",
        target,
        Path(__file__).with_name("workload.c"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


@pytest.fixture
def layer(workload: bytes, tmp_path: Path) -> Path:
    """A layer that holds nothing but the program."""
    directory = tmp_path / "layer"
    directory.mkdir()
    (directory / "workload").write_bytes(workload)
    (directory / "workload").chmod(0o755)
    tmp_path.chmod(0o755)
    return directory


@pytest.fixture
def container(tmp_path: Path) -> Iterator[WatchedContainer]:
    """A container that has not been started."""
    made = WatchedContainer(tmp_path / "container")
    yield made
    made.close()


Start = Callable[..., WatchedContainer]


@pytest.fixture
def start(container: WatchedContainer, layer: Path) -> Start:
    """Start the container with these words, and return it."""

    def begin(*words: str, **options: object) -> WatchedContainer:
        container.start(layer, *words, **options)  # type: ignore[arg-type]
        return container

    return begin


# ---- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "number"),
    [(("exit", "0"), 0, 0), (("exit", "37"), 37, 0), (("exit", "255"), 255, 0)],
)
def test_exit_codes_are_recorded(start: Start, words: tuple[str, ...], code: int, number: int) -> None:
    before = time.time_ns()
    record = start(*words).end()
    assert (record["code"], record["signal"], record["oom"]) == (code, number, 0)
    assert before < record["started"] <= record["finished"] < time.time_ns()


def test_what_ends_before_its_caller_says_that_it_runs_did_not_start_later(start: Start, monkeypatch) -> None:
    created: list[Watched] = []

    def wait_longer(*words: object) -> int | None:
        answer = until_running(*words)  # type: ignore[arg-type]
        assert eventually(lambda: process_start_time(created[0].pid) != created[0].start_time)
        return answer

    monkeypatch.setattr("pyrtc.runtime.monitor.until_running", wait_longer)
    before = time.time_ns()
    record = start("exit", "3", on_created=created.append).end()
    assert record["code"] == 3
    assert before < record["started"] <= record["finished"] < time.time_ns()


def test_a_signal_is_recorded(start: Start) -> None:
    container = start("out", "x\\n", ",", "forever")
    assert container.watched is not None
    signal.pidfd_send_signal(container.watched.pidfd, signal.SIGKILL)
    record = container.end()
    assert (record["code"], record["signal"]) == (128 + signal.SIGKILL, signal.SIGKILL)


def test_cpu_time_is_recorded(start: Start) -> None:
    record = start("flood", "30000000").end()
    assert record["user_us"] + record["system_us"] > 1000


@needs_root
def test_an_oom_kill_is_recorded(start: Start) -> None:
    group = Cgroup.create(new_id(), Limits(memory=16 << 20, memory_swap=16 << 20), best_effort=True, accounting=True)
    oom_fd = group.oom_events()
    if oom_fd is None:
        group.remove()
        pytest.skip("nothing counts memory here")
    try:
        container = start(
            "eat", "64", cgroup_fd=group.into_fd, tasks_fds=tuple(group.tasks_fds), oom_fd=oom_fd, memory="16m"
        )
        record = container.end()
        assert record["signal"] == signal.SIGKILL
        assert record["oom"] >= 1
    finally:
        os.close(oom_fd)
        group.close()
        group.remove()


def test_an_earlier_record_does_not_stay(start: Start, container: WatchedContainer) -> None:
    (container.place / "exit").write_text("code=9 signal=0 oom=0 finished=1 started=1\n")
    start("forever")
    assert not (container.place / "exit").exists()


def test_the_end_command(start: Start, container: WatchedContainer) -> None:
    """It is the process that was the monitor, with nothing open, blocked or ignored, in /, and it runs once."""
    program = (
        "import os, sys\n"
        "mask = os.umask(0)\n"
        "fds = sorted(os.listdir('/proc/self/fd'), key=int)\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in fds[:3]]\n"
        "status = open('/proc/self/status').read()\n"
        "masks = [line.split()[1] for line in status.splitlines() if line.startswith(('SigBlk', 'SigIgn'))]\n"
        "with open(sys.argv[1], 'a') as file:\n"
        "    print(fds[:-1], links, os.getpid(), os.getcwd(), sorted(os.environ), masks, os.getsid(0) == os.getpid(),\n"
        "        os.path.exists(sys.argv[2]), oct(mask), file=file)\n"
    )
    said = container.place / "said"
    words = (sys.executable, "-I", "-c", program, str(said), str(container.place / "exit"))
    before = os.umask(0o27)
    try:
        start("exit", "3", end_command=EndCommand(words, ("A=b", "LC_ALL=C.UTF-8")))
    finally:
        os.umask(before)
    container.end()
    assert container.watched is not None
    masks = ["0" * 16, f"{1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1):016x}"]  # Python ignores two itself
    pid = container.watched.monitor_pid
    expected = f"['0', '1', '2'] {['/dev/null'] * 3} {pid} / ['A', 'LC_ALL'] {masks} True True 0o27\n"
    assert said.read_text() == expected


def test_signals_do_not_reach_the_end_command(start: Start, container: WatchedContainer) -> None:
    """Neither what the monitor was sent, nor the SIGPIPE of input that the container did not take."""
    said = container.place / "said"
    command = EndCommand(("/bin/sh", "-c", f"echo > {said}"))
    start("close", "0", ",", "out", "x", ",", "sleep", "500", interactive=True, end_command=command)
    assert container.watched is not None
    os.kill(container.watched.monitor_pid, signal.SIGTERM)
    with container.attach(stdin=True) as client:
        with contextlib.suppress(BrokenPipeError):
            client.write(b"nobody reads this")
        assert client.wait(PATIENCE) is not None
    container.end()
    assert said.exists()


def test_a_claimed_end_starts_no_end_command(start: Start, container: WatchedContainer) -> None:
    said = container.place / "said"
    start("cat", interactive=True, end_command=EndCommand(("/bin/sh", "-c", f"echo > {said}")))
    with container.attach(stdin=True) as client:
        claim_end(client)
        client.close_stdin()
        exited = client.wait(PATIENCE)
        assert exited is not None and exited.code == 0
    container.end()
    assert not said.exists()


def test_many_claims_at_the_very_end(layer: Path, tmp_path: Path) -> None:
    """A claim that was sent before the container was killed counts, however soon after it that was."""
    for number in range(20):
        container = WatchedContainer(tmp_path / f"claimed{number}")
        said = container.place / "said"
        try:
            watched = container.start(layer, "forever", end_command=EndCommand(("/bin/sh", "-c", f"echo > {said}")))
            with container.attach(output=False) as client:
                claim_end(client)
                signal.pidfd_send_signal(watched.pidfd, signal.SIGKILL)
                exited = client.wait(PATIENCE)
            assert exited is not None and exited.signal == signal.SIGKILL
            container.end()
            assert not said.exists()
        finally:
            container.close()


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_the_log(start: Start) -> None:
    container = start(
        *("out", "one\\ntwo\\n", ",", "sleep", "50", ",", "err", "oops\\n", ",", "sleep", "50", ",", "out", "pro"),
        *(",", "sleep", "50", ",", "out", "mpt\\n", ",", "sleep", "50", ",", "out", "no end"),
    )
    container.end()
    lines = container.log()
    assert lines[:3] == [("stdout", "F", b"one"), ("stdout", "F", b"two"), ("stderr", "F", b"oops")]
    # Written with pauses in between; on a busy machine two pieces may be read as one.
    assert container.output() == b"one\ntwo\nprompt\nno end"
    assert lines[3][1:] in (("P", b"pro"), ("F", b"prompt"))
    assert lines[-1][1] == "P"
    assert (container.place / "log").stat().st_mode & 0o777 == 0o600


def test_a_prompt_is_seen_at_once(start: Start) -> None:
    container = start("out", "name? ", ",", "forever")
    assert eventually(lambda: (container.place / "log").exists() and container.output() == b"name? ")
    assert container.log()[-1][1] == "P"


def test_times_are_right(start: Start) -> None:
    before = time.time()
    container = start("out", "x\\n")
    container.end()
    stamp = (container.place / "log").read_text().split()[0]
    seconds = time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    moment = seconds + int(stamp[20:29]) / 1e9
    assert before - 0.001 <= moment <= time.time()


def test_every_byte_is_logged(start: Start) -> None:
    size = 4 << 20
    container = start("flood", str(size), log=LogOptions(max_size=0))
    container.end()
    expected = b"".join(
        b"%063d\n" % number for block in range(size // 65536) for number in range(block * 1024, block * 1024 + 1024)
    )
    assert container.output() == expected


def test_an_endless_line_takes_no_memory(start: Start) -> None:
    size = 3 << 20
    container = start("endless", str(size), ",", "sleep", "300", log=LogOptions(max_size=0))
    assert container.watched is not None
    if os.geteuid() == 0:
        assert eventually(lambda: (container.place / "log").stat().st_size > size)
        # With its buffers, which it has until it becomes quiet.
        assert pss(container.watched.monitor_pid) < 2 * MONITOR_PSS
    container.end()
    assert container.output() == b"x" * size
    assert {mark for _stream, mark, _text in container.log()} == {"P"}
    assert max(len(text) for _stream, _mark, text in container.log()) <= 16384


def test_rotation(start: Start) -> None:
    size = 1 << 20
    container = start("flood", str(size), log=LogOptions(max_size=100_000, max_files=3))
    container.end()
    names = sorted(path.name for path in container.place.glob("log*"))
    assert names == ["log", "log.1", "log.2"]
    sizes = [(container.place / name).stat().st_size for name in names]
    assert 0 < sizes[0] <= 100_000
    assert all(100_000 - 200 < size <= 100_000 for size in sizes[1:])
    # What is kept is the end, without a gap.
    kept = container.output("stdout", "log.2", "log.1", "log")
    numbers = [int(line) for line in kept.split()]
    assert numbers == list(range(numbers[0], size // 64))


def test_rotation_with_one_file(start: Start) -> None:
    container = start("flood", str(1 << 20), log=LogOptions(max_size=100_000, max_files=1))
    container.end()
    assert [path.name for path in container.place.glob("log*")] == ["log"]
    assert container.output().endswith(b"%063d\n" % ((1 << 14) - 1))
    assert (container.place / "log").stat().st_size <= 100_000


def test_tiny_files(start: Start) -> None:
    """A piece that is longer than a file may be gets one of its own."""
    container = start("endless", "40000", ",", "out", "\\nend\\n", log=LogOptions(max_size=100, max_files=50))
    container.end()
    names = sorted((path.name for path in container.place.glob("log*")), key=lambda name: -int(name[4:] or 0))
    assert container.output("stdout", *names) == b"x" * 40000 + b"\nend\n"


def test_an_earlier_log_is_continued(container: WatchedContainer, layer: Path) -> None:
    for number in range(3):
        container.start(layer, "out", f"{number}\\n")
        container.end()
        assert container.watched is not None
        container.watched.close()
        container.watched = None
    assert container.output() == b"0\n1\n2\n"


def test_no_log(start: Start) -> None:
    container = start("flood", "1000000", log=LogOptions(driver="none"))
    assert container.end()["code"] == 0
    assert not (container.place / "log").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), open(place / "ballast", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    assert os.statvfs(place).f_bavail == 0


@needs_root
def test_a_full_disk(small_disk: Path, layer: Path) -> None:
    """The container goes on, and the log tells what is missing once there is room again."""
    container = WatchedContainer(small_disk)
    try:
        words = ("out", "before\\n", ",", "await", ",", "flood", "1048576", ",", "err", "flooded\\n", ",", "cat")
        watched = container.start(layer, *words, interactive=True, log=LogOptions(max_size=0))
        with container.attach(stdin=True) as client:
            assert eventually(lambda: container.output() == b"before\n")
            fill(small_disk)
            client.write(b"!")
            while client.read(PATIENCE) != ("stderr", b"flooded\n"):
                pass
            (small_disk / "ballast").unlink()
            time.sleep(1.1)  # it is tried once a second
            client.write(b"there is room\n")
            client.close_stdin()
            assert client.wait(PATIENCE) is not None
        assert container.end()["code"] == 0
        assert watched.monitor_pid
        lines = container.log()
        told = [text for stream, _mark, text in lines if stream == "stderr" and text != b"flooded"]
        lost = 0
        for text in told:
            found = re.fullmatch(
                rb"\[pyrtc: (\d+) bytes of output are not in this log: writing it failed, errno 28\]", text
            )
            assert found, text
            lost += int(found.group(1))
        assert 1 <= len(told) <= 2
        written = len("before\n") + 1048576 + len("flooded\n") + len("there is room\n")
        flooded = sum(len("flooded\n") for _stream, _mark, text in lines if text == b"flooded")
        assert len(container.output()) + flooded + lost == written
        assert lines[-1] == ("stdout", "F", b"there is room")
    finally:
        container.close()


@needs_root
def test_the_end_on_a_full_disk(small_disk: Path, layer: Path) -> None:
    """There is room for the record of it, however full the disk is."""
    container = WatchedContainer(small_disk)
    try:
        words = ("await", ",", "flood", "1048576", ",", "exit", "5")
        container.start(layer, *words, interactive=True, log=LogOptions(max_size=0))
        with container.attach(stdin=True, output=False) as client:
            fill(small_disk)
            client.write(b"!")
            assert client.wait(PATIENCE) is not None
        assert container.end()["code"] == 5
    finally:
        container.close()


# ---- attaching -------------------------------------------------------------------------------------------------------


def read_all(client: object) -> dict[str, bytes]:
    found = {"stdout": b"", "stderr": b""}
    while (piece := client.read(PATIENCE)) is not None:  # type: ignore[attr-defined]
        found[piece[0]] += piece[1]
    return found


def test_who_attaches_before_the_start_misses_nothing(container: WatchedContainer, layer: Path) -> None:
    clients = []
    for words in (("out", "first\\n", ",", "err", "second\\n"), ("flood", "1000000")):
        container.start(layer, *words, on_created=lambda _watched: clients.append(container.attach()))
        with clients.pop() as client:
            found = read_all(client)
            assert client.exit is not None and (client.exit.code, client.exit.signal) == (0, 0)
        container.end()
        assert container.watched is not None
        container.watched.close()
        container.watched = None
        if words[0] == "out":
            assert found == {"stdout": b"first\n", "stderr": b"second\n"}
        else:
            assert len(found["stdout"]) == 1_000_000


def test_two_clients(start: Start) -> None:
    container = start("cat", ",", "exit", "7", interactive=True)
    with container.attach(stdin=True) as one, container.attach() as two, container.attach(output=False) as three:
        one.write(b"hello\n")
        assert one.read(PATIENCE) == ("stdout", b"hello\n")
        assert two.read(PATIENCE) == ("stdout", b"hello\n")
        one.close_stdin()
        for client in (one, two, three):
            assert client.read(PATIENCE) is None
            assert client.exit is not None and client.exit.code == 7
    container.end()
    assert container.output() == b"hello\n"


def test_who_comes_later_gets_what_comes_later(start: Start) -> None:
    container = start("out", "early\\n", ",", "cat", interactive=True)
    assert eventually(lambda: (container.place / "log").exists() and container.output() == b"early\n")
    with container.attach(stdin=True) as client:
        client.write(b"late\n")
        assert client.read(PATIENCE) == ("stdout", b"late\n")
        client.close_stdin()
        client.wait(PATIENCE)
    container.end()


def test_much_input(start: Start) -> None:
    """More than fits anywhere: the container reads late, the monitor holds one piece, the client waits."""
    container = start("sleep", "500", ",", "count", interactive=True)
    with container.attach(stdin=True) as client:
        client.write(bytes(5_000_000))
        client.close_stdin()
        assert read_all(client)["stdout"] == b"5000000\n"
    container.end()


def test_input_and_output_at_once(start: Start) -> None:
    container = start("cat", interactive=True, log=LogOptions(driver="none"))
    data = random.Random(1).randbytes(2_000_000)
    with container.attach(stdin=True) as client:

        def feed() -> None:
            client.write(data)
            client.close_stdin()

        thread = threading.Thread(target=feed)
        thread.start()
        found = read_all(client)
        thread.join()
    assert found["stdout"] == data
    container.end()


def test_other_messages_pass_input_that_waits(start: Start) -> None:
    """While the container does not read its stdin, a second client can still claim, and a third be told of the end."""
    container = start("out", "x", ",", "forever", interactive=True)
    with container.attach(stdin=True) as full, container.attach() as other:
        while full.send_now(next(input_messages(bytes(16383)))):
            pass
        claim_end(other)
        assert container.watched is not None
        signal.pidfd_send_signal(container.watched.pidfd, signal.SIGKILL)
        for client in (other, full):
            exited = client.wait(PATIENCE)
            assert exited is not None and exited.signal == signal.SIGKILL
    container.end()


def test_stdin_once(start: Start) -> None:
    container = start("cat", ",", "out", "closed\\n", interactive=True)
    with container.attach(stdin=True, output=False):
        pass  # leaves stdin open
    with container.attach(stdin=True, stdin_once=True) as client:
        client.write(b"last words\n")
    container.end()
    assert container.output() == b"last words\nclosed\n"


def test_no_stdin(start: Start) -> None:
    container = start("cat", ",", "exit", "4")
    assert container.end()["code"] == 4


def test_a_container_that_closes_its_stdin(start: Start) -> None:
    container = start("close", "0", ",", "out", "x", ",", "sleep", "500", interactive=True)
    with container.attach(stdin=True) as client:
        with contextlib.suppress(BrokenPipeError):
            for _ in range(20):
                client.write(bytes(30000))  # goes nowhere, and waits for nobody
        assert client.wait(PATIENCE) is not None
    assert container.end()["code"] == 0


def test_a_client_that_does_not_read_is_dropped(start: Start) -> None:
    """It holds the container back for five seconds, no longer; others get everything."""
    size = 4 << 20
    container = start("sleep", "300", ",", "flood", str(size), log=LogOptions(driver="none"))
    with container.attach() as idle, container.attach() as reader:
        begun = time.monotonic()
        found = read_all(reader)
        took = time.monotonic() - begun
        assert len(found["stdout"]) == size
        assert 4.5 < took < 15
        assert len(read_all(idle)["stdout"]) < size
        assert idle.exit is None
    assert container.end()["code"] == 0


def test_a_slow_client_holds_the_container_back(start: Start) -> None:
    size = 2 << 20
    container = start("flood", str(size), log=LogOptions(driver="none"), on_created=lambda _watched: None)
    with container.attach() as client:
        seen = 0
        while (piece := client.read(PATIENCE)) is not None:
            seen += len(piece[1])
            if seen < 500_000:
                time.sleep(0.01)
        assert client.exit is not None
    container.end()


MALFORMED = [
    b"",
    b"I no hello",
    b"A",
    b"A\xff",
    b"A\x01\x01",
    b"Q",
    b"\0" * 8,
]
MALFORMED_LATER = [b"Z", b"A\x01", b"W", b"W12", b"W12345", b"C1", b"Q1", b"O output", b"I" * 40000, b"C", b"I input"]


def test_malformed_messages_end_the_connection_only(start: Start) -> None:
    """Of each client, with or without input that is waiting for the container."""
    container = start("out", "x", ",", "forever", interactive=True)
    with container.attach(stdin=True) as full:
        for filled in (False, True):
            while filled and full.send_now(next(input_messages(bytes(16383)))):
                pass
            for message in MALFORMED:
                fd = core.connect_at(container.directory_fd, "attach")
                core.send_message(fd, message) if message else os.write(fd, b"")
                assert_dropped(fd)
            for message in MALFORMED_LATER:
                fd = core.connect_at(container.directory_fd, "attach")
                core.send_message(fd, b"A\0")  # no input for this one
                core.send_message(fd, message)
                if filled and message[:1] == b"I":
                    os.close(fd)  # it waits for its turn
                    continue
                assert_dropped(fd)
        assert container.watched is not None
        assert not readable(container.watched.monitor_pidfd, 0)
        signal.pidfd_send_signal(container.watched.pidfd, signal.SIGKILL)
        assert full.wait(PATIENCE) is not None
    container.end()


def assert_dropped(fd: int) -> None:
    try:
        assert readable(fd)
        with contextlib.suppress(ConnectionResetError):
            assert os.read(fd, 100) == b""
    finally:
        os.close(fd)


def test_random_messages(start: Start) -> None:
    chance = random.Random(7)
    container = start("cat", ",", "forever", interactive=True)
    for _ in range(300):
        fd = core.connect_at(container.directory_fd, "attach")
        with contextlib.suppress(OSError):
            for _ in range(chance.randint(1, 6)):
                kind = chance.choice([b"A", b"I", b"W", b"Z", b"\0"])
                core.send_message(fd, kind + chance.randbytes(chance.choice([0, 1, 4, 5, 100, 30000])))
        os.close(fd)
    with container.attach() as client:
        assert container.watched is not None
        assert not readable(container.watched.monitor_pidfd, 0)
        signal.pidfd_send_signal(container.watched.pidfd, signal.SIGKILL)
        assert client.wait(PATIENCE) is not None
    container.end()


def test_more_clients_than_there_is_room_for(start: Start) -> None:
    container = start("cat", interactive=True)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(container.attach(output=False)) for _ in range(300)]
        first = clients.pop(0)
        first.close()
        signal.pidfd_send_signal(container.watched.pidfd, signal.SIGKILL)  # type: ignore[union-attr]
        told = [client.wait(PATIENCE) for client in clients]
    assert sum(exited is not None for exited in told) >= 255
    container.end()


def test_nobody_is_there_any_more(start: Start) -> None:
    container = start("exit", "0")
    container.end()
    assert attach(container.directory_fd) is None
    assert (container.place / "exit").exists()


def test_a_monitor_that_accepts_nobody(tmp_path: Path) -> None:
    """As one that is stopped: who connects then does not wait for ever."""
    with contextlib.ExitStack() as held:
        directory_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        held.callback(os.close, directory_fd)
        held.callback(os.close, core.listen_at(directory_fd, "attach"))
        begun = time.monotonic()
        with pytest.raises(BlockingIOError):
            for _ in range(1000):
                held.callback(os.close, core.connect_at(directory_fd, "attach"))
        assert 4 < time.monotonic() - begun < PATIENCE


def test_a_long_path(layer: Path, tmp_path: Path) -> None:
    place = tmp_path / ("long" * 40) / ("er" * 40)
    container = WatchedContainer(place)
    try:
        container.start(layer, "out", "x", ",", "forever")
        with container.attach() as client:
            signal.pidfd_send_signal(container.watched.pidfd, signal.SIGKILL)  # type: ignore[union-attr]
            assert client.wait(PATIENCE) is not None
    finally:
        container.close()


# ---- terminals -------------------------------------------------------------------------------------------------------


def test_a_terminal(start: Start) -> None:
    container = start("size", ",", "cat", tty=True, terminal_size=(31, 97))
    with container.attach(stdin=True) as client:
        assert eventually(lambda: container.output().startswith(b"31 97\r\n"))
        client.write(b"typed\n")
        found = b""
        while found.count(b"typed\r\n") < 2:  # the echo, and what cat writes
            piece = client.read(PATIENCE)
            assert piece is not None and piece[0] == "stdout"
            found += piece[1]
        client.write(b"\x04")
        assert client.wait(PATIENCE) is not None
    assert container.end()["code"] == 0


def test_resizing_a_terminal(start: Start) -> None:
    container = start("await-rows", "50", ",", "size", tty=True)
    with container.attach(output=False) as client:
        client.resize(50, 132)
        assert client.wait(PATIENCE) is not None
    container.end()
    assert container.output() == b"50 132\r\n"


def test_a_terminal_that_is_closed_and_opened_again(start: Start) -> None:
    """Nobody's having it open is not its end, nor keeps it the monitor busy."""
    container = start("out", "before\\n", ",", "reopen", "1000", ",", "out", "after\\n", tty=True)
    assert container.watched is not None
    time.sleep(0.3)
    before = cpu_ticks(container.watched.monitor_pid)
    time.sleep(0.5)
    assert cpu_ticks(container.watched.monitor_pid) - before <= 2
    container.end()
    assert container.output() == b"before\r\nafter\r\n"


def test_all_that_a_terminal_got_is_logged(start: Start) -> None:
    container = start("flood", "1000000", tty=True, log=LogOptions(max_size=0))
    container.end()
    found = container.output()
    assert len(found) == 1_000_000 + found.count(b"\n") and found.count(b"\n") == 1_000_000 // 64


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# ---- hostile ---------------------------------------------------------------------------------------------------------


def test_a_container_that_closes_its_output(start: Start) -> None:
    container = start("close", "1", ",", "close", "2", ",", "sleep", "700", ",", "exit", "6")
    assert container.watched is not None
    time.sleep(0.2)
    before = cpu_ticks(container.watched.monitor_pid)
    time.sleep(0.3)
    assert cpu_ticks(container.watched.monitor_pid) - before <= 2
    assert container.end()["code"] == 6


def test_a_child_that_keeps_the_pipes(start: Start) -> None:
    """With a pid namespace of its own it dies with process 1: nothing is waited for."""
    begun = time.monotonic()
    container = start("child", "x", ",", "out", "parent\\n")
    container.end()
    assert time.monotonic() - begun < 5
    assert container.output() == b"parent\n"


@needs_root
def test_a_child_that_outlives_process_1(start: Start) -> None:
    """In the host's pid namespace, with no control group to kill: the monitor waits a second for its output."""
    container = start("child", "x", ",", "out", "parent\\n", ",", "sleep", "100", pid="host")
    assert container.watched is not None
    orphans = []

    def children() -> bool:
        path = Path(f"/proc/{container.watched.pid}/task/{container.watched.pid}/children")  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            orphans.extend(int(word) for word in path.read_text().split())
        return bool(orphans)

    assert eventually(children)
    try:
        assert readable(container.watched.pidfd)
        begun = time.monotonic()
        container.end()
        assert 0.5 < time.monotonic() - begun < 5
        assert container.output() == b"parent\n"
    finally:
        os.kill(orphans[0], signal.SIGKILL)


@needs_root
def test_all_processes_die_with_process_1(start: Start) -> None:
    """Where the container has a cgroup.kill, that is used."""
    group = Cgroup.create(new_id(), Limits(), best_effort=True, accounting=True)
    try:
        if group.into_fd is None:
            pytest.skip("needs control groups of version 2")
        kill_fd = os.open("cgroup.kill", os.O_WRONLY | os.O_CLOEXEC, dir_fd=group.into_fd)
        container = start("child", "x", ",", "sleep", "100", pid="host", cgroup_fd=group.into_fd, kill_fd=kill_fd)
        os.close(kill_fd)
        container.end()
        assert eventually(lambda: not group.process_ids())
    finally:
        group.close()
        group.remove()


# ---- who is killed when ----------------------------------------------------------------------------------------------

CALLER = """
import os, sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from watching import WatchedContainer
container = WatchedContainer(Path({place!r}))
def created(watched):
    print("created", watched.pid, watched.start_time, watched.monitor_pid, watched.monitor_start, flush=True)
    {in_between}
watched = container.start(Path({layer!r}), *{words!r}, on_created=created, **{options!r})
print("steady", flush=True)
time.sleep(60)
"""


class Caller:
    """Another Python process that starts a container, and is about to be killed."""

    def __init__(self, place: Path, layer: Path, *words: str, in_between: str = "pass", **options: object) -> None:
        paths = [str(Path(__file__).parent), *sys.path]
        text = textwrap.dedent(CALLER).format(
            paths=paths, place=str(place), layer=str(layer), words=words, in_between=in_between, options=options
        )
        self.process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().split()
        assert line, self.process.communicate()[1].decode()
        return line

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def gone(pid: str, start: str) -> bool:
    return process_start_time(int(pid)) != int(start)


def test_the_caller_is_killed_before_the_container_runs(tmp_path: Path, layer: Path) -> None:
    caller = Caller(tmp_path / "container", layer, "forever", in_between="time.sleep(60)")
    _word, pid, start, monitor, monitor_start = caller.line()
    assert not gone(pid, start) and not gone(monitor, monitor_start)
    caller.kill()
    assert eventually(lambda: gone(pid, start) and gone(monitor, monitor_start))
    assert "signal=" in (tmp_path / "container/exit").read_text()


def test_the_caller_is_killed_when_the_container_runs(tmp_path: Path, layer: Path) -> None:
    caller = Caller(
        tmp_path / "container", layer, "out", "x\\n", ",", "sleep", "700", ",", "out", "end\\n", ",", "exit", "9"
    )
    _word, pid, start, monitor, monitor_start = caller.line()
    assert caller.line() == ["steady"]
    caller.kill()
    assert not gone(pid, start) and not gone(monitor, monitor_start)
    assert eventually(lambda: gone(pid, start) and gone(monitor, monitor_start))
    assert (tmp_path / "container/exit").read_text().startswith("code=9 signal=0 ")
    assert (tmp_path / "container/log").read_text().split("\n")[1].endswith(" stdout F end")


def test_the_caller_is_killed_at_any_moment(tmp_path: Path, layer: Path) -> None:
    """Either nothing is left, or a container that runs on with its monitor."""
    chance = random.Random()
    lived = 0
    for number in range(25):
        place = tmp_path / f"container{number}"
        caller = Caller(place, layer, "forever", in_between="time.sleep(0.005)")
        _word, pid, start, monitor, monitor_start = caller.line()
        time.sleep(chance.random() * 0.02)
        caller.kill()
        both = (pid, start), (monitor, monitor_start)
        # One that was not let go is gone at once; whether one is steady shows in its being there a second later.
        alive = not eventually(lambda: all(gone(*one) for one in both), 0.5)  # noqa: B023
        lived += alive
        assert [gone(*one) for one in both] == [not alive] * 2
        if alive:
            assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/workload\0forever\0"
            os.kill(int(pid), signal.SIGKILL)
            assert eventually(lambda: all(gone(*one) for one in both))  # noqa: B023
        # It was killed, or ended itself when it saw that its caller was gone.
        assert re.match(r"code=137 signal=9 |code=125 signal=0 ", (place / "exit").read_text())
    assert 0 < lived < 25  # else the moments were not where something happens


def test_the_monitor_is_killed(start: Start) -> None:
    """The container lives on; it merely has nobody who reads what it writes."""
    container = start("out", "x\\n", ",", "sleep", "500", ",", "out", "y\\n", ",", "exit", "0")
    watched = container.watched
    assert watched is not None
    with container.attach() as client:
        signal.pidfd_send_signal(watched.monitor_pidfd, signal.SIGKILL)
        assert client.wait(PATIENCE) is None
    assert readable(watched.monitor_pidfd)
    assert not readable(watched.pidfd, 0)
    assert readable(watched.pidfd)
    assert not (container.place / "exit").exists()
    assert attach(container.directory_fd) is None


def test_the_monitor_is_killed_during_the_start(container: WatchedContainer, layer: Path) -> None:
    pids = []

    def created(watched: object) -> None:
        pids.append((watched.pid, watched.start_time))  # type: ignore[attr-defined]
        signal.pidfd_send_signal(watched.monitor_pidfd, signal.SIGKILL)  # type: ignore[attr-defined]
        assert readable(watched.monitor_pidfd)  # type: ignore[attr-defined]

    with pytest.raises(StartError):
        container.start(layer, "forever", on_created=created)
    assert eventually(lambda: gone(*map(str, pids[0])))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1])
def test_signals_do_not_reach_the_monitor(start: Start, number: int) -> None:
    container = start("cat", interactive=True)
    assert container.watched is not None
    signal.pidfd_send_signal(container.watched.monitor_pidfd, number)
    with container.attach(stdin=True) as client:
        client.close_stdin()
        assert client.wait(PATIENCE) is not None
    container.end()


def test_what_is_recorded_at_creation_fails(container: WatchedContainer, layer: Path) -> None:
    seen = []

    def created(watched: object) -> None:
        seen.append(watched)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        container.start(layer, "out", "never", on_created=created)
    (watched,) = seen
    assert gone(str(watched.pid), str(watched.start_time))
    assert gone(str(watched.monitor_pid), str(watched.monitor_start))
    assert not (container.place / "log").read_bytes()


def test_a_command_that_is_not_there(container: WatchedContainer, layer: Path) -> None:
    shutil.move(layer / "workload", layer / "other")
    said = container.place / "said"
    with pytest.raises(CommandNotFound, match="/workload"):
        container.start(layer, "x", end_command=EndCommand(("/bin/sh", "-c", f"echo > {said}")))
    assert not said.exists()
    assert attach(container.directory_fd) is None


def test_an_entrusted_container_dies_with_its_program(tmp_path: Path, layer: Path) -> None:
    caller = Caller(tmp_path / "container", layer, "forever", entrusted=True)
    _word, pid, start, monitor, monitor_start = caller.line()
    assert caller.line() == ["steady"]
    assert not gone(pid, start)
    caller.kill()
    assert eventually(lambda: gone(pid, start) and gone(monitor, monitor_start))
    assert " signal=9 " in (tmp_path / "container/exit").read_text()


def test_descriptors_are_closed(container: WatchedContainer, layer: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    container.start(layer, "fds")
    container.end()
    assert container.output() == b"0 1 2 \n"
    assert container.watched is not None
    container.watched.close()
    container.watched = None
    with pytest.raises(CommandNotFound):
        shutil.move(layer / "workload", layer / "other")
        container.start(layer, "x")
    after = set(os.listdir("/proc/self/fd"))
    # The sealed helper and the warden's socket may be new.
    assert len(after - before) <= 2


def test_what_the_caller_left_inheritable(container: WatchedContainer, layer: Path) -> None:
    """It reaches neither the container nor the monitor."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        container.start(layer, "fds", ",", "cat", interactive=True)
        os.close(write_end)
        write_end = -1
        assert readable(read_end)  # its only other holder would be the monitor or the container
        assert os.read(read_end, 1) == b""
        assert eventually(lambda: container.output() == b"0 1 2 \n")
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)


@needs_root
def test_an_init_process_knows_nothing_of_the_caller(start: Start) -> None:
    """It is the monitor's child without a program in between; what the monitor was told is not in its memory."""
    command = EndCommand(("/bin/true",), ("SECRET=do-not-" + "show",))
    container = start("forever", init=True, end_command=command)
    assert container.watched is not None
    process = Path(f"/proc/{container.watched.pid}")
    assert (process / "comm").read_text() == "pyrtc-init\n"
    assert (process / "cmdline").read_bytes().startswith(b"pyrtc-init\0")
    assert "pyrtc-monitor" not in (process / "maps").read_text()
    assert (process / "environ").read_bytes() == b""
    assert not list((process / "fd").iterdir())


def pss(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) << 10


@needs_root
def test_the_monitor_is_small_and_holds_nothing(start: Start) -> None:
    container = start("flood", "3000000", ",", "cat", interactive=True)
    assert container.watched is not None
    pid = container.watched.monitor_pid
    with container.attach(stdin=True, output=False) as client:
        client.write(bytes(100_000))
        assert eventually(lambda: (container.place / "log").stat().st_size > 3_000_000)
        # It has become quiet: no buffer is left. Its stack takes one to three pages: where it begins is random.
        assert eventually(lambda: pss(pid) < MONITOR_PSS), pss(pid)
        process = Path(f"/proc/{pid}")
        links = [re.sub(r"\d", "", os.readlink(path)) for path in (process / "fd").iterdir()]
        place = re.sub(r"\d", "", str(container.place))
        expected = ["/dev/null"] * 3 + ["pipe:[]"] * 3 + [place, f"{place}/log", "socket:[]", "socket:[]"]
        assert [link for link in links if "pidfd" not in link] and len(links) == len(expected) + 1, links
        assert sorted(link for link in links if "pidfd" not in link) == sorted(expected)
        assert os.readlink(process / "cwd") == "/"
        assert (process / "comm").read_text() == "pyrtc-monitor\n"
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        assert int(fields[1]) != os.getpid()  # its parent
        assert int(fields[3]) == pid  # its session
        client.close_stdin()
        client.wait(PATIENCE)
    container.end()


def test_no_zombies(start: Start) -> None:
    """Launcher, monitor and process 1 are no children that a caller has to wait for."""
    earlier = set(zombies())  # of tests that interrupt a start
    container = start("exit", "0")
    assert container.watched is not None
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    assert not {str(container.watched.pid), str(container.watched.monitor_pid)} & set(children)
    container.end()
    assert set(zombies()) <= earlier


def zombies() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, tail = path.read_text().rpartition(")")
            if tail.split()[0] == "Z" and int(tail.split()[1]) == os.getpid():
                yield head


@needs_root
def test_a_user_namespace_of_its_own(layer: Path) -> None:
    ids = (Range(0, 1_000_000, 65536),)
    with tempfile.TemporaryDirectory() as directory:  # the way to it is open to the ids
        os.chmod(directory, 0o755)
        shared = Path(directory, "layer")
        shutil.copytree(layer, shared)
        container = WatchedContainer(Path(directory, "container"))
        try:
            for path in (container.place / "upper", container.place / "work", shared):
                os.chown(path, 1_000_000, 1_000_000)
            container.start(shared, "fds", maps=IdMaps(ids, ids, privileged=True))
            assert container.end()["code"] == 0
            assert container.output() == b"0 1 2 \n"
        finally:
            container.close()
