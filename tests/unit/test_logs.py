"""Container logs: records in files, from the front and the back, damaged, rotated, growing."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrtc import log_files, log_follow, logs
from pyrtc.errors import StoreError, UsageError
from pyrtc.log_files import LogReader
from pyrtc.logs import LogLine, LogSelection, format_time, joined, moment_ns, select_lines
from pyrtc.store.owner import process_start_time

BASE = 1_795_000_000_000_000_000


def record(text, at=0, stream="stdout", tag="F"):
    return f"{format_time(BASE + at)} {stream} {tag} ".encode() + text + b"\n"


def write(directory, name, *records):
    with open(os.path.join(directory, name), "ab") as file:
        file.write(b"".join(records))


def read(directory, **selection):
    return list(log_follow.read_lines(str(directory), LogSelection(**selection)))


def texts(directory, **selection):
    return [line.data for line in read(directory, **selection)]


def test_lines_have_a_time_a_stream_and_exact_bytes(tmp_path):
    write(tmp_path, "log", record(b"a\x00\xff\r", 1), record(b"", 2, "stderr"))
    assert read(tmp_path) == [LogLine(BASE + 1, "stdout", b"a\x00\xff\r\n"), LogLine(BASE + 2, "stderr", b"\n")]
    assert read(tmp_path)[0].text == "a\0\ufffd\r" and read(tmp_path)[0].time == pytest.approx(BASE / 1e9)


def test_pieces_of_both_streams_are_joined(tmp_path):
    write(
        tmp_path,
        "log",
        record(b"one ", 1, tag="P"),
        record(b"err ", 2, "stderr", "P"),
        record(b"line", 3),
        record(b"or", 4, "stderr"),
        record(b"prompt> ", 5, tag="P"),
    )
    assert read(tmp_path) == [
        LogLine(BASE + 1, "stdout", b"one line\n"),
        LogLine(BASE + 2, "stderr", b"err or\n"),
        LogLine(BASE + 5, "stdout", b"prompt> "),
    ]
    assert texts(tmp_path, stdout=False) == [b"err or\n"]


def test_files_are_read_from_the_oldest(tmp_path):
    for number in range(12, 0, -1):
        write(tmp_path, f"log.{number}", record(b"%d" % number))
    write(tmp_path, "log", record(b"0"))
    (tmp_path / "log.x").write_bytes(record(b"no"))
    (tmp_path / "logs").write_bytes(record(b"no"))
    assert texts(tmp_path) == [b"%d\n" % number for number in range(12, -1, -1)]
    assert texts(tmp_path, tail=3) == [b"2\n", b"1\n", b"0\n"]


def test_no_log_is_an_empty_one(tmp_path):
    assert read(tmp_path) == [] and read(tmp_path, tail=4) == []
    (tmp_path / "log").touch()
    assert read(tmp_path) == [] and read(tmp_path, tail=4) == []


def test_a_link_or_a_pipe_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(record(b"secret"))
    (tmp_path / "log").symlink_to("secret")
    with pytest.raises(StoreError, match="log"):
        read(tmp_path)
    (tmp_path / "log").unlink()
    os.mkfifo(tmp_path / "log")
    with pytest.raises(StoreError, match="no regular file"):
        read(tmp_path)


def test_since_and_until(tmp_path):
    write(tmp_path, "log", *(record(b"%d" % number, number) for number in range(10)))
    assert texts(tmp_path, since_ns=BASE + 3, until_ns=BASE + 6) == [b"3\n", b"4\n", b"5\n"]
    assert texts(tmp_path, since_ns=BASE + 3, tail=2) == [b"8\n", b"9\n"]
    assert texts(tmp_path, since_ns=BASE + 8, tail=5) == [b"8\n", b"9\n"]
    assert texts(tmp_path, until_ns=BASE + 6, tail=2) == [b"4\n", b"5\n"]


@pytest.mark.parametrize(
    "junk",
    [
        b"no record at all\n",
        b"\n",
        b"\0" * 5000 + b"\n",
        b"2026-13-24T09:33:54.123456789Z stdout F month\n",
        b"2026-11-24T09:33:54.12345678Z stdout F digits\n",
        b"2026-11-24T09:33:54.123456789Z stdin F stream\n",
        b"2026-11-24T09:33:54.123456789Z stdout X tag\n",
        b"9" * (log_files.MAX_RECORD * 2) + b"\n",
        b"2026-11-24T09:33:54.123456789Z stdout F " + b"x" * log_files.MAX_RECORD + b"\n",
    ],
    ids=range(9),
)
def test_damaged_records_are_counted_and_left_out(tmp_path, junk):
    write(tmp_path, "log", record(b"before"), junk, record(b"after"))
    told = []
    batches = log_follow.read_batches(str(tmp_path), LogSelection(), told.append)
    assert [piece.data for pieces in batches for piece in pieces] == [b"before\n", b"after\n"]
    assert told == [1]
    assert texts(tmp_path, tail=2) == [b"before\n", b"after\n"]


def test_a_record_that_was_torn_off_is_left_out(tmp_path):
    write(tmp_path, "log.1", record(b"one"), record(b"torn")[:-3])
    write(tmp_path, "log", record(b"two"), record(b"unfinished")[:-1])
    assert texts(tmp_path) == [b"one\n", b"two\n"]
    assert texts(tmp_path, tail=9) == [b"one\n", b"two\n"]


def test_a_line_without_end_comes_in_parts(tmp_path):
    part = b"x" * (1 << 16)
    write(tmp_path, "log", *(record(part, tag="P") for _ in range(40)))
    lines = texts(tmp_path)
    assert b"".join(lines) == part * 40
    assert max(map(len, lines)) <= logs.MAX_LINE + len(part)


def test_a_log_that_grows_while_it_is_read_has_an_end(tmp_path):
    write(tmp_path, "log", record(b"a" * 1000) * 1000)
    reading = log_follow.read_lines(str(tmp_path), LogSelection())
    next(reading)
    write(tmp_path, "log", record(b"later"))
    assert b"later\n" not in [line.data for line in reading]


LINES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFP"), st.binary(max_size=40)), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(LINES, st.integers(0, 12), st.integers(1, 4), st.sampled_from([64, 200, 1 << 18]), st.booleans())
def test_the_tail_is_the_end_of_everything(tmp_path_factory, lines, count, files, block, only_stderr):
    directory = tmp_path_factory.mktemp("log")
    for position, (stream, tag, text) in enumerate(lines):
        number = files - 1 - position * files // len(lines)
        name = f"log.{number}" if number else "log"
        write(directory, name, record(text.replace(b"\n", b"\r"), position, stream, tag))
    saved, log_files._BLOCK = log_files._BLOCK, block
    try:
        everything = read(directory, stdout=not only_stderr)
        tail = read(directory, tail=count, stdout=not only_stderr)
    finally:
        log_files._BLOCK = saved
    # Those whose last records come last; of joined lines those without an end are shown at the end.
    ends, open_lines = [], {}
    for position, (stream, tag, _) in enumerate(lines):
        if not (only_stderr and stream == "stdout"):
            began = open_lines.pop(stream, (position, 0))[0]
            if tag == "F":
                ends.append((position, BASE + began, stream))
            else:
                open_lines[stream] = (began, position)
    ends += [(position, BASE + began, stream) for stream, (began, position) in open_lines.items()]
    wanted = {began_and_stream[1:] for began_and_stream in sorted(ends)[-count:]} if count else set()
    assert len(everything) == len(ends)
    assert tail == [line for line in everything if (line.time_ns, line.stream) in wanted]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([1, 7, 64, 1 << 18]), st.none() | st.integers(0, 5))
def test_any_bytes_can_be_read(tmp_path_factory, content, block, tail):
    directory = tmp_path_factory.mktemp("log")
    (directory / "log").write_bytes(content)
    saved, log_files._BLOCK = log_files._BLOCK, block
    try:
        assert len(read(directory, tail=tail)) <= content.count(b"\n")
    finally:
        log_files._BLOCK = saved


@settings(max_examples=100, deadline=None)
@given(LINES, st.sampled_from([1, 7, 64, 1 << 18]))
def test_no_byte_is_lost(tmp_path_factory, lines, block):
    directory = tmp_path_factory.mktemp("log")
    wanted = {"stdout": b"", "stderr": b""}
    for stream, tag, text in lines:
        text = text.replace(b"\n", b"\r")
        write(directory, "log", record(text, 0, stream, tag))
        wanted[stream] += text + (b"\n" if tag == "F" else b"")
    saved, log_files._BLOCK = log_files._BLOCK, block
    try:
        got = {"stdout": b"", "stderr": b""}
        for line in read(directory):
            got[line.stream] += line.data
    finally:
        log_files._BLOCK = saved
    assert got == wanted


def test_the_tail_of_a_large_log_is_read_from_its_end(tmp_path):
    line = record(b"x" * 200)
    with open(tmp_path / "log", "wb") as file:
        for _ in range(100):
            file.write(line * 4000)
    write(tmp_path, "log", record(b"last"))
    assert os.path.getsize(tmp_path / "log") > 90 << 20
    began = time.perf_counter()
    assert texts(tmp_path, tail=2) == [b"x" * 200 + b"\n", b"last\n"]
    assert time.perf_counter() - began < 0.5


# ---- growing --------------------------------------------------------------------------------------------------------


def rotate(directory, keep):
    names = sorted((int(name[4:]) for name in os.listdir(directory) if name.startswith("log.")), reverse=True)
    for number in names:
        if number >= keep:
            os.unlink(directory / f"log.{number}")
        else:
            os.rename(directory / f"log.{number}", directory / f"log.{number + 1}")
    os.rename(directory / "log", directory / "log.1")
    (directory / "log").touch()


def end(directory):
    (directory / "exit.tmp").write_text("code=0 signal=0 oom=0 finished=1 started=0\n")
    os.rename(directory / "exit.tmp", directory / "exit")


@pytest.fixture
def monitor():
    """A process that stands for a monitor."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def identity(process):
    return process.pid, process_start_time(process.pid)


def followed(directory, monitor, **selection):
    """Follow in a thread; returns it and the list it fills."""
    got = []

    def work():
        for line in log_follow.follow_lines(str(directory), LogSelection(**selection), identity(monitor)):
            got.append(line.data)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, got


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_following_ends_with_the_container(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))
    thread, got = followed(tmp_path, monitor)
    wait_until(lambda: got == [b"first\n"])
    write(tmp_path, "log", record(b"second"))
    wait_until(lambda: got == [b"first\n", b"second\n"])
    write(tmp_path, "log", record(b"third"))
    end(tmp_path)
    thread.join(10)
    assert not thread.is_alive() and got == [b"first\n", b"second\n", b"third\n"]


def test_following_ends_with_the_monitor(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))
    thread, got = followed(tmp_path, monitor)
    wait_until(lambda: got)
    assert thread.is_alive()
    monitor.kill()
    thread.join(10)
    assert not thread.is_alive()


def test_following_what_has_ended_ends_at_once(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))
    end(tmp_path)
    thread, got = followed(tmp_path, monitor)
    thread.join(10)
    assert got == [b"first\n"]
    assert [line.data for line in log_follow.follow_lines(str(tmp_path), LogSelection(), None)] == [b"first\n"]


def test_following_starts_before_there_is_a_log(tmp_path, monitor):
    thread, got = followed(tmp_path, monitor, tail=5)
    write(tmp_path, "log", record(b"first"))
    wait_until(lambda: got == [b"first\n"])
    end(tmp_path)
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("burst", [1, 50])
def test_following_survives_rotation(tmp_path, monitor, burst):
    thread, got = followed(tmp_path, monitor)
    write(tmp_path, "log")
    wanted = []
    for number in range(200):
        write(tmp_path, "log", record(b"%d" % number))
        wanted.append(b"%d\n" % number)
        if number % burst == burst - 1:
            wait_until(lambda: len(got) >= len(wanted) - 2 * burst)
            rotate(tmp_path, 3)
    end(tmp_path)
    thread.join(10)
    assert got == wanted


@pytest.mark.parametrize("rotations", [1, 2, 3])
@pytest.mark.parametrize("opened", ["log", "log.1", "log.2"])
def test_rotations_while_the_files_are_opened(tmp_path, monitor, monkeypatch, opened, rotations):
    """Each line comes once, and in its place, when files move on while the reader goes from one to the next."""
    write(tmp_path, "log", record(b"0"))
    thread, got = followed(tmp_path, monitor)
    wait_until(lambda: got)
    for number in (1, 2):
        rotate(tmp_path, 9)
        write(tmp_path, "log", record(b"%d" % number))
        wait_until(lambda wanted=number: len(got) > wanted)
    open_file, moved, writing = log_files._open_file, [], threading.Lock()

    def open_and_move(directory_fd, name):
        fd = open_file(directory_fd, name)
        with writing:  # the third line is in the file that was made for it
            pass
        if name == opened and not moved:
            for number in range(rotations):
                moved.append(number)
                rotate(tmp_path, 9)
                write(tmp_path, "log", record(b"%d" % (4 + number)))
        return fd

    monkeypatch.setattr(log_files, "_open_file", open_and_move)
    with writing:
        rotate(tmp_path, 9)
        write(tmp_path, "log", record(b"3"))
    wait_until(lambda: len(got) == 4 + rotations)
    end(tmp_path)
    thread.join(10)
    assert got == [b"%d\n" % number for number in range(4 + rotations)]


def test_following_an_emptied_log_starts_again(tmp_path, monitor):
    write(tmp_path, "log", record(b"one"), record(b"two"))
    thread, got = followed(tmp_path, monitor)
    wait_until(lambda: len(got) == 2)
    os.truncate(tmp_path / "log", 0)
    write(tmp_path, "log", record(b"3"))
    wait_until(lambda: len(got) == 3)
    end(tmp_path)
    thread.join(10)
    assert got == [b"one\n", b"two\n", b"3\n"]


def test_following_until_a_moment(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))
    began = time.monotonic()
    thread, _ = followed(tmp_path, monitor, until_ns=time.time_ns() + 300_000_000)
    thread.join(10)
    assert not thread.is_alive() and 0.2 < time.monotonic() - began < 5


def test_following_does_not_poll(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))
    thread, got = followed(tmp_path, monitor)
    wait_until(lambda: got)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05
    end(tmp_path)
    thread.join(10)


def test_following_in_an_event_loop(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))

    async def main():
        got = []
        lines = log_follow.follow_lines_async(str(tmp_path), LogSelection(), identity(monitor))
        async for line in lines:
            got.append(line.data)
            if len(got) == 1:
                write(tmp_path, "log", record(b"second"), record(b"rest", tag="P"))
                asyncio.get_running_loop().call_later(0.05, end, tmp_path)
        return got

    assert asyncio.run(asyncio.wait_for(main(), 20)) == [b"first\n", b"second\n", b"rest"]


def test_cancelling_closes_everything(tmp_path, monitor):
    write(tmp_path, "log", record(b"first"))
    before = len(os.listdir("/proc/self/fd"))

    async def main():
        async def follow():
            async for _ in log_follow.follow_lines_async(str(tmp_path), LogSelection(), identity(monitor)):
                pass

        task = asyncio.ensure_future(follow())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == before


def test_moments():
    from datetime import UTC, datetime

    assert moment_ns(None) is None and moment_ns(7) == 7_000_000_000
    assert moment_ns("2026-11-24T09:33:54.123456789Z") % 1_000_000_000 == 123456789
    assert moment_ns("1136073600.000000001") == 1136073600_000000001
    assert moment_ns(datetime(2026, 11, 24, tzinfo=UTC)) == moment_ns("2026-11-24T00:00:00Z")
    assert moment_ns("2026-11-24T01:00:00+01:00") == moment_ns("2026-11-24T00:00:00Z")
    assert abs(time.time_ns() - 90_000_000_000 - moment_ns("1m30s")) < 1_000_000_000
    for wrong in ("yesterday", "10 m", "", "2026-13-01", object()):
        with pytest.raises(UsageError):
            moment_ns(wrong)
    with pytest.raises(UsageError, match=r"^'yesterday' is no moment; write 10m, 2026-11-24T09:33:54Z or seconds$"):
        moment_ns("yesterday")


@pytest.mark.parametrize("tail", [-1, "x", "5", 1.5, True])
def test_a_tail_that_is_no_number_of_lines(tail):
    with pytest.raises(UsageError, match="number of lines"):
        select_lines(None, None, tail)


def test_a_time_is_written_as_it_is_read(tmp_path):
    for time_ns in (0, 1, BASE + 999_999_999, 253402300799_999999999):
        write(tmp_path, "log", f"{format_time(time_ns)} stdout F x\n".encode())
    assert [line.time_ns for line in read(tmp_path)] == [0, 1, BASE + 999_999_999, 253402300799_999999999]


def test_readers_close_their_files(tmp_path):
    write(tmp_path, "log", record(b"first"))
    before = len(os.listdir("/proc/self/fd"))
    reading = log_follow.read_lines(str(tmp_path), LogSelection())
    next(reading)
    reading.close()
    assert len(os.listdir("/proc/self/fd")) == before
    fd = os.open(tmp_path, os.O_RDONLY)
    with LogReader(fd, LogSelection(tail=1)) as reader:
        assert [line.data for line in joined(piece for pieces in reader.batches() for piece in pieces)] == [b"first\n"]
    os.close(fd)
