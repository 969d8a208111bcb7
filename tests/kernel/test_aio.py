"""Containers in event loops: many at once, cancelled in each phase, and a loop that is never kept waiting."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from conftest import Probe

from pyrtc import aio
from pyrtc.container import Completed, Outcome, Running
from pyrtc.errors import CommandNotFound, ContainerFailed, ImageNotFound, UsageError

#: Far more than a loop's own turn takes on a busy machine, far less than what the tests below would block it for.
LAG = 0.5


class Watched:
    """An engine that tells which containers it started, and can be slow where a test wants to interrupt it."""

    def __init__(self, engine: Any, *, before: float = 0, after: float = 0) -> None:
        self.engine = engine
        self.before, self.after = before, after
        self.begun, self.started = threading.Event(), threading.Event()
        self.running: list[Running] = []

    def start(self, *words: Any, **options: Any) -> Running:
        self.begun.set()
        time.sleep(self.before)
        running = self.engine.start(*words, **options)
        self.running.append(running)
        self.started.set()
        time.sleep(self.after)
        return running

    def left(self) -> list[int]:
        """Process ids of its containers that are still there, or whose pidfd was not released."""
        return [running.pid for running in self.running if not running._ended or os.path.exists(f"/proc/{running.pid}")]


def run(probe: Probe, *words: str, engine: Any = None, **options: Any) -> Awaitable[Completed]:
    return aio.run(probe.image, ["/probe", *words], engine=engine or probe.engine, **options)


async def until(event: threading.Event, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not event.is_set():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def open_ends() -> int:
    """How many pipes, pidfds and sockets this process holds."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{name}")
            count += link.startswith(("pipe:", "pidfd:", "socket:", "anon_inode:[pidfd]"))
    return count


@asynccontextmanager
async def lag_below(most: float):
    """Fail where the loop was kept from its work for longer."""
    worst, stop = 0.0, False

    async def tick() -> None:
        nonlocal worst
        while not stop:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - begun)

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        stop = True
        await ticking
    assert worst < most, f"the loop stood still for {worst:.3f} seconds"


# ---- many ------------------------------------------------------------------------------------------------------------


def test_fifty_at_once_each_get_their_own_answer(probe: Probe) -> None:
    async def main() -> list[Completed]:
        async with lag_below(5):
            return await asyncio.gather(
                *(run(probe, "words", f"number {code}", ",", "exit", str(code)) for code in range(50))
            )

    for code, done in enumerate(asyncio.run(main())):
        assert done.returncode == code
        assert done.stdout == f"number {code}\n\x1e".encode()
        assert done.outcome is Outcome.EXITED
    assert len({done.id for done in asyncio.run(main())}) == 50


def test_fifty_that_wait_do_not_wait_for_each_other(probe: Probe) -> None:
    """There are fewer threads than containers: a thread is for the start, not for the life."""

    async def main() -> None:
        started = [Watched(probe.engine) for _ in range(50)]
        tasks = [asyncio.create_task(run(probe, "sleep", "600", engine=one)) for one in started]
        for one in started:
            await until(one.started, 60)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert [one.left() for one in started] == [[]] * 50

    asyncio.run(main())


def test_two_loops_in_two_threads(probe: Probe) -> None:
    answers: dict[int, list[Completed]] = {}
    errors: list[BaseException] = []

    def work(number: int) -> None:
        async def main() -> None:
            answers[number] = await asyncio.gather(*(run(probe, "words", f"{number}-{i}") for i in range(15)))

        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    for number in range(2):
        assert [done.stdout for done in answers[number]] == [f"{number}-{i}\n\x1e".encode() for i in range(15)]


def test_one_loop_after_the_other(probe: Probe) -> None:
    for _ in range(3):
        assert asyncio.run(_once(run(probe, "exit", "4"))).returncode == 4


async def _once(awaitable: Awaitable[Completed]) -> Completed:
    return await awaitable


# ---- cancellation ----------------------------------------------------------------------------------------------------


async def cancel_when(task: "asyncio.Task[Completed]", ready: Callable[[], Awaitable[None]], times: int = 1) -> None:
    await ready()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("phase", ["at once", "before the start", "in the start", "while it runs"])
def test_cancelled_in_each_phase_nothing_is_left(probe: Probe, phase: str, times: int) -> None:
    async def main() -> None:
        slow = {"before the start": {"before": 0.3}, "in the start": {"after": 0.3}}.get(phase, {})
        watched = Watched(probe.engine, **slow)
        task = asyncio.create_task(run(probe, "sleep", "600", engine=watched, input=b"x" * 100000))

        async def ready() -> None:
            if phase == "before the start":
                await until(watched.begun)
            elif phase == "in the start":
                await until(watched.started)
            elif phase == "while it runs":
                await until(watched.started)
                await asyncio.sleep(0.05)

        await cancel_when(task, ready, times)
        assert watched.left() == []
        assert len(watched.running) == (0 if phase == "at once" else 1)

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 3])
def test_cancelled_while_the_end_is_gathered_nothing_is_left(probe: Probe, times: int) -> None:
    async def main() -> None:
        gathering = threading.Event()

        class Slow(Watched):
            def start(self, *words: Any, **options: Any) -> Running:
                running = super().start(*words, **options)
                finish = running.finish

                def slowly(*words: Any, **options: Any) -> Completed:
                    gathering.set()
                    time.sleep(0.3)
                    return finish(*words, **options)

                running.finish = slowly  # type: ignore[method-assign]
                return running

        watched = Slow(probe.engine)
        task = asyncio.create_task(run(probe, "exit", "0", engine=watched))
        await cancel_when(task, lambda: until(gathering), times)
        assert watched.left() == []

    asyncio.run(main())


def test_cancelled_while_a_start_fails(probe: Probe) -> None:
    async def main() -> None:
        watched = Watched(probe.engine, before=0.2)
        task = asyncio.create_task(aio.run(probe.image, ["/missing"], engine=watched))
        await cancel_when(task, lambda: until(watched.begun))

    asyncio.run(main())


def test_cancelled_again_and_again_no_descriptor_is_left(probe: Probe) -> None:
    async def one(delay: float) -> None:
        task = asyncio.create_task(run(probe, "sleep", "600", input=b"x"))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        for _ in range(3):
            await one(0.05)
        before = open_ends()
        for number in range(30):
            await one(number / 1000)
        assert open_ends() <= before

    asyncio.run(main())


def test_a_timeout_of_asyncio_kills_it(probe: Probe) -> None:
    async def main() -> None:
        watched = Watched(probe.engine)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run(probe, "sleep", "600", engine=watched), 0.5)
        assert watched.left() == []

    asyncio.run(main())


def test_one_failure_in_a_group_ends_the_others(probe: Probe) -> None:
    async def main() -> None:
        watched = Watched(probe.engine)
        with pytest.raises(ExceptionGroup) as error:
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(run(probe, "sleep", "600", engine=watched))  # type: ignore[arg-type]
                group.create_task(run(probe, "sleep", "0.1", ",", "exit", "3", check=True))  # type: ignore[arg-type]
        assert [type(one) for one in error.value.exceptions] == [ContainerFailed]
        assert watched.left() == []

    asyncio.run(main())


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_timeout(probe: Probe) -> None:
    done = asyncio.run(_once(run(probe, "words", "before", ",", "sleep", "600", timeout=0.5)))
    assert done.outcome is Outcome.TIMEOUT
    assert done.returncode == 137


def test_timeout_of_one_that_never_stops_writing(engine: Any) -> None:
    async def main() -> Completed:
        async with lag_below(LAG):
            return await aio.run("host", ["yes"], engine=engine, timeout=0.7, max_output=1000)

    done = asyncio.run(main())
    assert done.outcome is Outcome.TIMEOUT
    assert done.truncated
    assert len(done.stdout) == 1000


def test_timeout_of_one_that_never_stops_writing_outside_a_loop(engine: Any) -> None:
    from pyrtc.api import make_options

    done = engine.run("host", make_options(["yes"], timeout=0.7), max_output=1000)
    assert done.outcome is Outcome.TIMEOUT


def test_output_limit(engine: Any) -> None:
    done = asyncio.run(_once(aio.run("host", ["yes"], engine=engine, max_output=5000, on_limit="kill", timeout=60)))
    assert done.outcome is Outcome.OUTPUT_LIMIT
    assert len(done.stdout) == 5000


def test_one_that_reads_its_own_output_does_not_stop_the_loop(engine: Any) -> None:
    """It takes from the pipe what the loop was woken for."""
    thief = "(while :; do cat /proc/self/fd/1 1<&1 >/dev/null; done) & yes | head -c 30000000; kill $!; exit 5"
    script = f"exec 3>&1; {thief.replace('/proc/self/fd/1 1<&1', '/proc/self/fd/3')}"

    async def main() -> Completed:
        async with lag_below(LAG * 2):
            return await aio.run("host", ["sh", "-c", script], engine=engine, timeout=30, max_output=100)

    done = asyncio.run(main())
    assert done.outcome is Outcome.EXITED
    assert done.returncode == 5


# ---- input and callbacks ---------------------------------------------------------------------------------------------


def test_input_larger_than_a_pipe(probe: Probe) -> None:
    data = os.urandom(3 << 20)
    done = asyncio.run(_once(run(probe, "echo", input=data)))
    assert done.stdout == data + b"\x1e"


def test_a_reader_that_ends_early(probe: Probe) -> None:
    done = asyncio.run(_once(run(probe, "exit", "3", input=b"x" * (1 << 20))))
    assert done.returncode == 3


class Refused(Exception):
    """What a callback raises."""


@pytest.mark.parametrize("rest", [("sleep", "600"), ("exit", "0")])
def test_what_a_callback_raises_ends_it_and_comes_out(probe: Probe, rest: tuple[str, ...]) -> None:
    def refuse(_stream: str, _piece: bytes) -> None:
        raise Refused

    async def main() -> None:
        watched = Watched(probe.engine)
        before = open_ends()
        for _ in range(10):
            with pytest.raises(Refused):
                # exec flushes what was written before
                words = ("words", "x", ",", "exec", "/probe", *rest)
                await run(probe, *words, engine=watched, on_output=refuse)
        assert watched.left() == []
        assert open_ends() <= before + 2

    asyncio.run(main())


def test_callbacks_are_called_in_the_loop(probe: Probe) -> None:
    """Also for what is left in the pipes when the container has ended."""

    async def main() -> None:
        for size in (10, 200_000):
            pieces: list[bytes] = []
            threads = set()

            def take(stream: str, piece: bytes) -> None:
                assert stream == "stdout"
                threads.add(threading.get_ident())  # noqa: B023
                asyncio.get_running_loop()
                pieces.append(piece)  # noqa: B023

            for _ in range(10):
                pieces.clear()
                done = await aio.run(
                    "host", ["head", "-c", str(size), "/dev/zero"], engine=probe.engine, on_output=take
                )
                assert done.stdout == b""
                assert sum(map(len, pieces)) == size
            assert threads == {threading.get_ident()}

    asyncio.run(main())


# ---- results ---------------------------------------------------------------------------------------------------------


def test_check(probe: Probe) -> None:
    with pytest.raises(ContainerFailed) as error:
        asyncio.run(_once(run(probe, "exit", "3", check=True)))
    assert error.value.completed.returncode == 3
    assert asyncio.run(_once(run(probe, "exit", "0", check=True))).returncode == 0


def test_exceptions_are_those_of_the_plain_call(probe: Probe) -> None:
    before = open_ends()
    with pytest.raises(CommandNotFound):
        asyncio.run(_once(aio.run(probe.image, ["/missing"], engine=probe.engine)))
    with pytest.raises(ImageNotFound):
        asyncio.run(_once(aio.run("no-such-image", ["/x"], engine=probe.engine)))
    with pytest.raises(UsageError):
        asyncio.run(_once(run(probe, "exit", "0", hostname="two words")))
    with pytest.raises(UsageError):
        asyncio.run(_once(run(probe, "exit", "0", nosuch=1)))
    with pytest.raises(TypeError):
        asyncio.run(_once(aio.run(probe.image, "true", engine=probe.engine)))  # type: ignore[arg-type]
    assert open_ends() <= before + 2  # the warden's socket, made with the first start


# ---- the loop goes on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_slow_start_does_not_stop_the_loop(probe: Probe, phase: str) -> None:
    async def main() -> None:
        async with lag_below(LAG):
            await run(probe, "exit", "0", engine=Watched(probe.engine, **{phase: LAG * 2.5}))

    asyncio.run(main())


def test_a_long_run_and_its_end_do_not_stop_the_loop(probe: Probe) -> None:
    async def main() -> None:
        async with lag_below(LAG):
            await asyncio.gather(*(run(probe, "sleep", "1.5", input=b"x" * 500_000) for _ in range(3)))

    asyncio.run(main())


def test_a_crowded_executor_of_the_loop_does_not_hold_up_starts(probe: Probe) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        release = threading.Event()
        crowd = [loop.run_in_executor(None, release.wait, 60) for _ in range(64)]
        try:
            done = await asyncio.wait_for(run(probe, "exit", "6"), 30)
        finally:
            release.set()
            await asyncio.gather(*crowd)
        assert done.returncode == 6

    asyncio.run(main())


def test_a_forked_child_can_run_containers_too(tmp_path: Any) -> None:
    """The threads of the parent stayed behind."""
    program = """
        import asyncio, os, signal, sys
        from pyrtc import aio, Engine
        def once(code):
            with Engine(sys.argv[1]) as engine:
                return asyncio.run(aio.run("host", ["sh", "-c", f"exit {code}"], engine=engine)).returncode
        print(once(3), flush=True)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(once(4))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), once(5))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout.split(), done.returncode) == (["3", "4", "5"], 0), done.stderr
