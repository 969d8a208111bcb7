"""What containers that live have written, and waiting until they are of use."""

import asyncio
import re
import subprocess
import sys
import time

import pytest

import pyrtc
from pyrtc import aio
from pyrtc.errors import ContainerError, UsageError

SERVER = """
import socket, sys, time
kind, family, wait = sys.argv[1:4]
time.sleep(float(wait))
s = socket.socket(getattr(socket, family), getattr(socket, kind))
s.bind(("::1" if family == "AF_INET6" else "127.0.0.1", 4711))
if kind == "SOCK_STREAM":
    s.listen()
print("listens", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(engine):
    """Start a container of the host's files that is there until the end of the test."""
    made = []

    def start(*command, **options):
        made.append(engine.containers.create("host", list(command), **options))
        made[-1].start()
        return made[-1]

    yield start
    for container in made:
        container.remove(force=True, volumes=True)


def shell(run, script, **options):
    return run("sh", "-c", script, **options)


def test_lines_of_both_streams(run):
    container = shell(run, "printf 'a\\0b\\n'; echo oops >&2; printf end")
    container.wait(20)
    lines = list(container.logs())
    assert {(line.stream, line.data) for line in lines} == {
        ("stdout", b"a\0b\n"),
        ("stderr", b"oops\n"),
        ("stdout", b"end"),
    }
    assert all(abs(line.time - time.time()) < 60 for line in lines)
    assert container.log_text(tail=5).count("\n") == 2
    assert next(iter(container.logs(stdout=False))).text == "oops"
    assert list(container.logs(since="1h", until="30m")) == []
    assert re.match(r"\d{4}-\d\d-\d\dT[0-9:.]{18}Z ", container.log_text(timestamps=True))


def test_following_ends_with_the_run(run):
    container = shell(run, "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 3")
    assert [line.text for line in container.logs(follow=True)] == ["1", "2", "3"]
    assert container.wait(20).returncode == 3


def test_everything_of_a_flood_is_followed(run):
    container = shell(run, "seq 1 200000", log=pyrtc.LogOptions(max_size=100_000_000))
    text = b"".join(line.data for line in container.logs(follow=True))
    assert text == b"".join(b"%d\n" % number for number in range(1, 200001))


def test_a_log_that_is_not_kept(run):
    container = shell(run, "sleep 60", log=pyrtc.LogOptions(driver="none"))
    with pytest.raises(ContainerError, match="keeps no log"):
        container.logs()
    with pytest.raises(UsageError, match="tail"):
        container.logs(tail=-1)


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_waiting_for_a_port(run, family):
    container = run(sys.executable, "-c", SERVER, "SOCK_STREAM", family, "0.3")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"listen on port 4711/tcp, but not within 0\.05 s"):
        container.wait_for(port=4711, timeout=0.05)
    container.wait_for(port=4711, timeout=20)
    assert time.monotonic() - began > 0.1
    container.wait_for(port="4711/tcp", log="listens", timeout=20)


def test_waiting_for_a_datagram_port(run):
    container = run(sys.executable, "-c", SERVER, "SOCK_DGRAM", "AF_INET", "0")
    container.wait_for(port="4711/udp", timeout=20)


@pytest.mark.parametrize("log", ["ready>", b"ready>", re.compile(r"^ready\W$"), re.compile(rb"y>")])
def test_waiting_for_a_prompt(run, log):
    container = shell(run, "echo one; sleep 0.2; printf 'ready>'; sleep 60")
    container.wait_for(log=log, timeout=20)


def test_waiting_for_what_does_not_come(run):
    container = shell(run, "echo this went wrong >&2; sleep 60")
    container.wait_for(log="wrong", timeout=20)
    with pytest.raises(TimeoutError, match=r"not within 0\.2 s; its log ends with:\nthis went wrong$"):
        container.wait_for(log="ready", timeout=0.2)


@pytest.mark.parametrize("what", [{"log": "ready"}, {"port": 80}])
def test_waiting_ends_when_the_container_does(run, what):
    container = shell(run, "sleep 0.2; echo no such table >&2; exit 9")
    with pytest.raises(ContainerError, match=r"ended with 9; its log ends with:\nno such table"):
        container.wait_for(**what, timeout=20)


def test_waiting_ends_when_the_container_goes(engine):
    with (
        pyrtc.Container("host", ["sh", "-c", "sleep 0.3; echo no such table; exit 9"], engine=engine) as container,
        pytest.raises(ContainerError, match=r"ended with 9; its log ends with:\nno such table"),
    ):
        container.wait_for(port=80, timeout=20)


def test_the_last_words_count(run):
    container = shell(run, "sleep 0.2; echo ready")
    container.wait_for(log="ready", timeout=20)


def test_an_earlier_run_does_not_count(engine):
    container = engine.containers.create("host", ["sh", "-c", "sleep 0.3; echo ready; sleep 60"])
    try:
        container.start()
        container.wait_for(log="ready", timeout=20)
        container.stop(0.1)
        container.start()
        with pytest.raises(TimeoutError):
            container.wait_for(log="ready", timeout=0.05)
        container.wait_for(log="ready", timeout=20)
        assert [line.text for line in container.logs()] == ["ready", "ready"]
    finally:
        container.remove(force=True, volumes=True)


@pytest.mark.parametrize(
    "what", [{}, {"port": 0}, {"port": 65536}, {"port": "x"}, {"log": ""}, {"log": "a\nb"}], ids=str
)
def test_nothing_to_wait_for(run, what):
    container = shell(run, "sleep 60")
    with pytest.raises(UsageError):
        container.wait_for(**what)


def test_in_an_event_loop(run):
    container = aio.Container.of(shell(run, "echo one; sleep 0.3; echo two"))

    async def main():
        await container.wait_for(log="two", timeout=20)
        waiting = asyncio.create_task(container.wait_for(port=1))
        with pytest.raises((ContainerError, asyncio.TimeoutError)):
            await asyncio.wait_for(waiting, 20)
        assert await container.log_text() == "one\ntwo\n"
        return [line.text async for line in container.logs(follow=True)]

    assert asyncio.run(main()) == ["one", "two"]


def test_cancelling_a_wait(run):
    container = aio.Container.of(shell(run, "sleep 60"))

    async def main():
        tasks = [asyncio.create_task(container.wait_for(log="never")) for _ in range(20)]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert all(isinstance(error, asyncio.CancelledError) for error in done)

    asyncio.run(main())
    assert container.status == "running"


def command(engine, *words, **keywords):
    argv = [sys.executable, "-m", "pyrtc.cli.main", "--root", engine.store.path, *words]
    return subprocess.run(argv, capture_output=True, timeout=60, check=False, **keywords)


def test_the_command(engine, run):
    container = shell(run, "echo out; echo err >&2; printf rest; sleep 60")
    container.wait_for(log="rest", timeout=20)
    container.wait_for(log="err", timeout=20)
    done = command(engine, "logs", container.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\nrest", b"err\n")
    done = command(engine, "logs", "-t", "--tail", "1", container.id[:12])
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT[0-9:.]{18}Z (err\n|rest)", done.stdout + done.stderr)
    done = command(engine, "logs", "--since", "soon", container.name)
    assert done.returncode == 1 and b"--since" in done.stderr
    assert command(engine, "logs", "nobody").returncode != 0
    argv = [sys.executable, "-m", "pyrtc.cli.main", "--root", engine.store.path, "logs", "-f", container.name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout.read(8) == b"out\nrest"
        container.kill()
        assert following.communicate(timeout=20) == (b"", b"err\n")
        assert following.returncode == 0
