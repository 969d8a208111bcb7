"""`Container.attach` and its twin: a container's streams as a pair of pipes."""

import asyncio
import os
import threading

import pytest
from descriptors import descriptors, left_open

import pyrtc
from pyrtc import aio

PATIENCE = 20.0
LOOP = "while read line; do echo out:$line; echo err:$line >&2; done; exit 3"


@pytest.fixture
def run(engine):
    """Make a container of the host's files that is there until the end of the test."""
    made = []

    def make(script, *, start=True, **options):
        made.append(engine.containers.create("host", ["sh", "-c", script], **options))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for container in made:
        container.remove(force=True, volumes=True)


def output(pieces):
    found = {"stdout": b"", "stderr": b""}
    for stream, data in pieces:
        found[stream] += data
    return found


def test_both_directions_and_the_end(run):
    container = run(LOOP, interactive=True)
    with container.attach() as attachment:
        attachment.write(b"a\nb\n")
        attachment.close_stdin()
        assert attachment.exit is None
        assert output(attachment) == {"stdout": b"out:a\nout:b\n", "stderr": b"err:a\nerr:b\n"}
        assert (attachment.exit.code, attachment.exit.signal) == (3, 0)
        assert attachment.read() is None and attachment.wait() == attachment.exit
    assert container.wait().returncode == 3


def test_killed(run):
    container = run("exec sleep 60")
    with container.attach() as attachment:
        container.kill()
        assert attachment.wait(PATIENCE) == attachment.exit
        assert (attachment.exit.code, attachment.exit.signal) == (137, 9)


def test_a_fast_writers_first_byte_is_there(run):
    """Connected before its command is let go; each run anew, with what ends at once and what never stops."""
    container = run("echo first; echo second >&2", start=False)
    for _ in range(25):
        attached = []
        container.start(on_created=lambda to=attached: to.append(container.attach()))
        with attached[0] as attachment:
            assert output(attachment) == {"stdout": b"first\n", "stderr": b"second\n"}
        container.wait()
    endless = run("i=0; while :; do i=$((i+1)); echo $i; done", start=False)
    attached = []
    endless.start(on_created=lambda: attached.append(endless.attach()))
    with attached[0] as attachment:
        stream, data = attachment.read(PATIENCE)
        assert (stream, data[:2]) == ("stdout", b"1\n")


def test_leaving_lets_it_go_on(run):
    container = run(LOOP, interactive=True)
    with container.attach() as attachment:
        with pytest.raises(TimeoutError):
            attachment.read(0)
        with pytest.raises(TimeoutError):
            attachment.wait(0.05)
    for use in (attachment.read, attachment.fileno, lambda: attachment.write(b"x"), attachment.close_stdin):
        with pytest.raises(ValueError, match="closed"):
            use()
    attachment.close()  # again
    assert container.status == "running"
    with container.attach(output=False) as writer, container.attach() as reader:
        writer.write(b"c\n")
        assert output([reader.read(PATIENCE), reader.read(PATIENCE)]) == {"stdout": b"out:c\n", "stderr": b"err:c\n"}


def test_one_that_is_forgotten_leaves_no_descriptor(run):
    container = run("exec sleep 60")
    before = descriptors()
    for _ in range(5):
        container.attach()
    assert not left_open(before)


def test_much_in_both_directions(run):
    container = run("exec cat", interactive=True)
    data = os.urandom(3 << 20)
    with container.attach() as attachment:

        def feed():
            attachment.write(memoryview(data))
            attachment.close_stdin()

        thread = threading.Thread(target=feed)
        thread.start()
        assert output(attachment)["stdout"] == data
        thread.join()


def test_the_size_of_a_terminal(run):
    container = run("while read line; do stty size; done", tty=True, interactive=True)
    with container.attach() as attachment:
        attachment.resize(33, 101)
        attachment.write(b"\n")
        seen = b""
        while b"33 101" not in seen:
            stream, data = attachment.read(PATIENCE)
            assert stream == "stdout"
            seen += data


def test_without_a_stdin(run):
    container = run("exec sleep 60")
    with container.attach() as attachment:
        for use in (lambda: attachment.write(b"x"), attachment.close_stdin):
            with pytest.raises(pyrtc.UsageError, match="interactive=True"):
                use()
        attachment.resize(1, 1)  # means nothing, and ends nothing
        with pytest.raises(TimeoutError):
            attachment.read(0.1)


def test_writing_to_one_that_has_ended(run):
    container = run("exec cat", interactive=True)
    with container.attach() as attachment:
        container.kill()
        assert attachment.wait(PATIENCE)
        with pytest.raises(BrokenPipeError):
            while True:
                attachment.write(b"x")
        attachment.close_stdin()
        attachment.resize(10, 10)


def test_what_cannot_be_attached_to(engine, run):
    container = run("exec sleep 60", start=False)
    with pytest.raises(pyrtc.ContainerError, match="start it first"):
        container.attach()
    container.start()
    os.kill(container.record.monitor_pid, 9)
    with pytest.raises(pyrtc.ContainerError, match="its monitor"):  # once that is dead
        while True:
            container.attach().close()
    foreground = engine.start("host", pyrtc.RunOptions(command=("sleep", "60")))
    try:
        with pytest.raises(pyrtc.ContainerError, match="foreground of another program"):
            engine.containers.get(foreground.id).attach()
    finally:
        foreground.kill()
        foreground.close()


def test_of_a_block(engine):
    with (
        pyrtc.Container("host", ["sh", "-c", LOOP], engine=engine, interactive=True) as container,
        container.attach() as attachment,
    ):
        attachment.write(b"x\n")
        attachment.close_stdin()
        assert output(attachment) == {"stdout": b"out:x\n", "stderr": b"err:x\n"}


# ---- the twin --------------------------------------------------------------------------------------------------------


def test_the_twin(run):
    container = run(LOOP, interactive=True)

    async def work():
        async with await aio.Container.of(container).attach() as attachment:
            with pytest.raises(TimeoutError):
                await attachment.read(0.05)
            await attachment.write(b"a\n")
            await attachment.close_stdin()
            found = output([piece async for piece in attachment])
            return found, attachment.exit, await attachment.wait()

    found, ended, again = asyncio.run(work())
    assert found == {"stdout": b"out:a\n", "stderr": b"err:a\n"}
    assert ended == again and (ended.code, ended.signal) == (3, 0)


def test_the_twin_moves_much_both_ways(run):
    container = run("exec cat", interactive=True)
    data = os.urandom(3 << 20)

    async def work():
        async with await aio.Container.of(container).attach() as attachment:

            async def feed():
                await attachment.write(data)
                await attachment.close_stdin()

            feeding = asyncio.create_task(feed())
            found = output([piece async for piece in attachment])
            await feeding
            return found["stdout"]

    assert asyncio.run(work()) == data


def test_the_twin_is_cancelled_and_closed(run):
    """A read that is given up loses nothing; one that waits when it is closed does not wait for ever."""
    container = run(LOOP, interactive=True)

    async def work():
        before = descriptors()
        attachment = await aio.Container.of(container).attach()
        reading = asyncio.create_task(attachment.read())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await attachment.write(b"kept\n")
        assert await attachment.read(PATIENCE) == ("stdout", b"out:kept\n")
        assert await attachment.read(PATIENCE) == ("stderr", b"err:kept\n")
        reading = asyncio.create_task(attachment.read())
        await asyncio.sleep(0.05)
        attachment.close()
        with pytest.raises(ValueError, match="closed"):
            await reading
        return left_open(before)

    assert not asyncio.run(work())
    assert container.status == "running"


def test_the_twin_writes_to_one_that_does_not_read(run):
    container = run("exec sleep 60", interactive=True)

    async def work():
        async with await aio.Container.of(container).attach() as attachment:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await attachment.write(bytes(8 << 20))

    asyncio.run(work())
    assert container.status == "running"
