"""Containers that live without whoever started them: their states, their ends, and what is left of them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, ImageFactory, needs_root

import pyrtc
from pyrtc import aio, watched
from pyrtc.container import Outcome
from pyrtc.engine import Engine
from pyrtc.errors import (
    CommandNotFound,
    ContainerError,
    ContainerNotFound,
    ImageError,
    PyrtcError,
    UnsupportedError,
    UsageError,
)
from pyrtc.options import Bind
from pyrtc.runtime.cgroups import Cgroup
from pyrtc.store.container_rows import OWNED

PATIENCE = 20.0
TREE = Path(__file__).parents[2]


def eventually(condition: object, patience: float = PATIENCE) -> bool:
    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends between open and read
        return True
    return state in "ZX"


def has_group(container_id: str) -> bool:
    with contextlib.suppress(ContainerNotFound):
        Cgroup.open(container_id)
        return True
    return False


@pytest.fixture
def sleeping(engine: Engine, image: ImageFactory) -> Iterator[pyrtc.Container]:
    """A detached container that runs until somebody ends it; SIGTERM does not."""
    container = engine.containers.run(image(), ["/probe", "sleep", "1000"])
    yield container
    with contextlib.suppress(ContainerNotFound):
        container.remove(force=True, volumes=True)


# ---- one life --------------------------------------------------------------------------------------------------------


def test_from_creation_to_removal(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.create(image(), ["/probe", "create", "/here", "x", ",", "sleep", "1000"], name="web")
    assert (container.status, container.pid, container.name) == ("created", None, "web")
    assert engine.containers.list() == () and [one.id for one in engine.containers.list(all=True)] == [container.id]
    with pytest.raises(ContainerError, match="has not been started"):
        container.wait()
    container.start()
    assert container.status == "running" and container.pid
    assert [one.id for one in engine.containers.list()] == [container.id]
    container.start()  # runs already
    pid = container.pid
    container.rename("shop")
    assert engine.containers.get("shop").pid == pid
    with pytest.raises(ContainerNotFound):
        engine.containers.get("web")
    assert eventually(lambda: Path(f"{container.record.directory}/upper/here").exists())
    with pytest.raises(ContainerError, match="stop the container before removing it"):
        container.remove()
    container.stop(timeout=0)
    assert (container.status, container.pid) == ("exited", None)
    done = container.wait()
    assert (done.returncode, done.outcome, done.signal) == (137, Outcome.SIGNALED, 9)
    assert not has_group(container.id) and is_gone(pid)
    container.stop()  # has ended already
    container.remove()
    with pytest.raises(ContainerNotFound):
        _ = container.status
    with pytest.raises(ContainerNotFound):
        engine.containers.get("shop")


def test_its_layer_outlives_a_restart(engine: Engine, image: ImageFactory) -> None:
    """What it wrote stays; the control group, the pid and the monitor are new."""
    words = ["/probe", "mkdir", "/data", ",", "sleep", "1000"]
    container = engine.containers.run(image(), words)
    first = container.record
    made = Path(f"{first.directory}/upper/data")
    assert eventually(made.is_dir)
    number = made.stat().st_ino
    container.restart(0)
    second = container.record
    assert container.status == "running"
    assert (second.pid, second.monitor_pid) != (first.pid, first.monitor_pid) and is_gone(first.pid)
    assert made.stat().st_ino == number
    assert second.restarts == 0, "somebody asked for it, no policy"
    container.remove(force=True)


@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_starts_again_and_again(engine: Engine, image: ImageFactory, driver: str) -> None:
    container = engine.containers.run(image({"kept": "1"}), ["/probe", "create", "/kept", "2"], driver=driver)
    for _ in range(3):
        assert container.wait().returncode == 0
        assert Path(f"{container.record.directory}/upper/kept").read_text() == "2"
        container.start()
    container.wait()
    container.remove()


def test_the_running_system_starts_again(engine: Engine) -> None:
    """Several overlays below one directory, each to be mounted again."""
    script = "echo x >> /tmp/here; test -d /var/lib && (echo x >> /var/lib/pyrtc-test) 2>/dev/null; wc -l < /tmp/here"
    container = engine.containers.run("host", ["sh", "-c", script])
    container.wait()
    container.start()
    assert container.wait().returncode == 0
    log = Path(f"{container.record.directory}/log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in log] == ["1", "2"]
    if not ROOT:  # what its overlays are mounted with must not have become a way out
        etc = Path(f"{container.record.directory}/upper/etc")
        etc.rename(etc.with_name("old"))
        etc.symlink_to("/etc")
        with pytest.raises(UnsupportedError, match="has replaced its /etc"):
            container.start()
    container.remove()


@needs_root
def test_its_own_user_ids_stay_its_own(engine: Engine, image: ImageFactory) -> None:
    name = image()
    words = ["/probe", "create", "/mine", "x", ",", "sleep", "1000"]
    first = engine.containers.run(name, words, userns="auto")
    ids = first.record.ids
    assert ids and os.stat(f"{first.record.directory}/upper").st_uid == ids
    others = [engine.containers.run(name, words, userns="auto") for _ in range(2)]
    assert len({ids, *(other.record.ids for other in others)}) == 3, "while they run without their starters"
    first.stop(0)
    later = engine.containers.run(name, words, userns="auto")
    assert later.record.ids != ids, "what the stopped one wrote belongs to its ids"
    first.start()
    assert first.record.ids == ids
    assert Path(f"/proc/{first.pid}/uid_map").read_text().split()[1] == str(ids)
    assert eventually(lambda: Path(f"{first.record.directory}/upper/mine").exists())
    assert os.stat(f"{first.record.directory}/upper/mine").st_uid == ids
    for container in (first, later, *others):
        container.remove(force=True)


@needs_root
def test_user_ids_of_the_foreground_are_kept_too(engine: Engine, image: ImageFactory) -> None:
    """Others run in between, and it gave "/" to another of its ids, which must not move them."""
    name = image()
    command = ("/probe", "create", "/mine", "x", ",", "chown", "/mine", "7", ",", "chown", "/", "5")
    done = engine.run(name, pyrtc.RunOptions(command=command, userns="auto", remove=False, name="kept"))
    container = engine.containers.get("kept")
    ids = container.record.ids
    assert ids and os.stat(f"{container.record.directory}/upper").st_uid == ids + 5
    other = engine.containers.run(name, ["/probe", "sleep", "1000"], userns="auto")
    assert other.record.ids != ids
    assert container.files.stat("/mine").uid == 7
    assert done.returncode == 0
    container.start()
    assert container.wait().returncode == 0
    assert os.stat(f"{container.record.directory}/upper/mine").st_uid == ids + 7
    container.remove()
    other.remove(force=True)


@pytest.mark.parametrize("remove", [False, True])
def test_only_what_goes_is_mounted_volatile(engine: Engine, image: ImageFactory, remove: bool) -> None:
    """What is kept must be on the disk when the machine goes down; what goes may be lost, and restarts all the same."""
    container = engine.containers.run(image(), ["/probe", "sleep", "1000"], remove=remove)
    mounts = Path(f"/proc/{container.pid}/mountinfo").read_text()
    assert ("volatile" in mounts) == remove
    container.restart(0)
    assert container.status == "running"
    container.remove(force=True)


def test_a_container_of_the_foreground_starts_again(engine: Engine, image: ImageFactory) -> None:
    done = engine.run(image(), pyrtc.RunOptions(command=("/probe", "exit", "3"), remove=False, name="kept"))
    container = engine.containers.get("kept")
    assert (container.status, container.wait().returncode) == ("exited", 3)
    assert container.wait().usage.wall_seconds == pytest.approx(done.usage.wall_seconds)
    container.start()
    assert container.wait().returncode == 3 and container.record.detached
    container.remove()


def test_how_it_ended(engine: Engine, image: ImageFactory) -> None:
    name = image()
    for words, code, outcome in (
        (["exit", "7"], 7, Outcome.EXITED),
        (["sleep", "1000"], 137, Outcome.SIGNALED),
    ):
        container = engine.containers.run(name, ["/probe", *words])
        if outcome is Outcome.SIGNALED:
            container.kill()
        done = container.wait()
        assert (done.returncode, done.outcome) == (code, outcome), words
        assert container.status == "exited" and container.wait() == done
        assert 0 < done.usage.wall_seconds < PATIENCE
        assert container.inspect().last == done
        container.remove()


def test_usage(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.run(image(), ["/probe", "burn", "0.3"])
    usage = container.wait().usage
    assert 0.25 < usage.cpu_seconds < 2 and usage.wall_seconds > 0.25
    container.remove()


@needs_root
def test_out_of_memory(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.run(image(), ["/probe", "take", str(256 << 20)], memory="32m", memory_swap="32m")
    done = container.wait()
    assert (done.outcome, done.returncode) == (Outcome.OOM_KILLED, 137)
    assert done.usage.memory_peak and done.usage.memory_peak > 16 << 20
    container.remove()


def test_its_time_is_up(engine: Engine, image: ImageFactory) -> None:
    """The monitor sees to it, whether or not there is a program that waits."""
    name = image()
    container = engine.containers.run(name, ["/probe", "sleep", "1000"], timeout=0.3)
    done = container.wait(PATIENCE)
    assert (done.outcome, done.returncode) == (Outcome.TIMEOUT, 137)
    assert 0.25 < done.usage.wall_seconds < 5
    container.start()
    assert container.wait(PATIENCE).outcome is Outcome.TIMEOUT, "each run has its time"
    container.remove()
    container = engine.containers.run(name, ["/probe", "exit", "0"], timeout=0.3)
    assert container.wait().outcome is Outcome.EXITED
    container.remove()
    if ROOT:
        container = engine.containers.run(name, ["/probe", "sleep", "1000"], timeout=0.5)
        container.pause()
        assert container.wait(PATIENCE).outcome is Outcome.TIMEOUT, "a paused one, too"
        container.remove()


def test_wait_ends_in_time(sleeping: pyrtc.Container) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="still runs"):
        sleeping.wait(0.1)
    assert time.monotonic() - began < 5
    waiting = threading.Thread(target=sleeping.wait)
    waiting.start()
    sleeping.kill()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_signals(engine: Engine, image: ImageFactory, sleeping: pyrtc.Container) -> None:
    sleeping.kill("TERM")  # process 1 of a pid namespace has no handler for it
    time.sleep(0.1)
    assert sleeping.status == "running"
    sleeping.kill()
    assert sleeping.wait().signal == 9
    with pytest.raises(ContainerError, match="is not running"):
        sleeping.kill()
    with pytest.raises(UsageError):
        sleeping.kill("NOPE")
    helped = engine.containers.run(image(), ["/probe", "sleep", "1000"], init=True, stop_signal="INT")
    began = time.monotonic()
    helped.stop()
    done = helped.wait()
    assert (done.returncode, done.signal, done.outcome) == (130, 2, Outcome.SIGNALED)
    assert time.monotonic() - began < 5
    helped.remove()
    plain = engine.containers.run(image(), ["/probe", "exit", "130"], init=True)
    done = plain.wait()
    assert (done.returncode, done.signal, done.outcome) == (130, None, Outcome.EXITED)
    plain.remove()


@pytest.mark.skipif(not ROOT, reason="control groups of an ordinary user need a delegation")
def test_pause(sleeping: pyrtc.Container) -> None:
    with pytest.raises(ContainerError, match="not paused"):
        sleeping.unpause()
    sleeping.pause()
    assert sleeping.status == "paused" and sleeping.pid
    with pytest.raises(ContainerError, match="already paused"):
        sleeping.pause()
    with pytest.raises(TimeoutError):
        sleeping.wait(0.05)
    sleeping.unpause()
    assert sleeping.status == "running"
    sleeping.pause()
    began = time.monotonic()
    sleeping.stop(timeout=0.1)
    assert sleeping.status == "exited" and time.monotonic() - began < 5
    with pytest.raises(ContainerError, match="not running"):
        sleeping.pause()


@pytest.mark.skipif(ROOT, reason="root has control groups")
def test_pause_without_a_control_group(sleeping: pyrtc.Container) -> None:
    if has_group(sleeping.id):
        pytest.skip("this user may make control groups")
    with pytest.raises(UnsupportedError, match="no control group"):
        sleeping.pause()


def test_a_failed_start_leaves_nothing(engine: Engine, image: ImageFactory) -> None:
    with pytest.raises(CommandNotFound):
        engine.containers.run(image(), ["/nothing"])
    assert engine.containers.list(all=True) == ()
    container = engine.containers.create(image(), ["/nothing"])
    with pytest.raises(CommandNotFound):
        container.start()
    assert container.status == "created" and not has_group(container.id)
    container.remove()


def test_why_a_start_failed(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    container = engine.containers.create(image(), ["/probe", "exit", "3"], mounts=[Bind(str(source), "/data")])
    source.rmdir()
    with pytest.raises(PyrtcError) as failed:
        container.start()
    found = container.inspect()
    assert found.error == str(failed.value) and found.last is None and found.status == "created"
    with pytest.raises(ContainerError, match="not been started"):
        container.wait()
    source.mkdir()
    container.start()
    assert container.wait(timeout=PATIENCE).returncode == 3
    assert container.inspect().error == ""
    source.rmdir()
    with pytest.raises(PyrtcError):
        container.start()
    found = container.inspect()
    assert found.error and found.last is not None and found.last.returncode == 3
    container.remove()


def test_what_contradicts_itself(engine: Engine, image: ImageFactory) -> None:
    name = image()
    with pytest.raises(UsageError, match="conflicting"):
        engine.containers.run(name, ["/probe"], remove=True, restart="always")
    with pytest.raises(UsageError, match="block"), pyrtc.Container(name, restart="always", engine=engine):
        raise AssertionError
    with pytest.raises(UsageError):
        pyrtc.run(name, ["/probe"], restart="always", engine=engine)  # type: ignore[call-arg]


def test_removed_at_its_end(engine: Engine, image: ImageFactory) -> None:
    """By the monitor's end command: nobody waits for it."""
    container = engine.containers.run(image({}, "VOLUME /v"), ["/probe", "sleep", "0.2"], remove=True)
    directory = container.record.directory
    assert directory and engine.store.volumes.list()
    assert eventually(lambda: not engine.store.containers.list() and not Path(directory).exists())
    assert eventually(lambda: not engine.store.volumes.list()), "anonymous volumes go with it"
    assert eventually(lambda: not has_group(container.id))
    with pytest.raises(ContainerNotFound):
        container.wait()


def test_anonymous_volumes(engine: Engine, image: ImageFactory) -> None:
    name = image({}, "VOLUME /v")
    container = engine.containers.run(name, ["/probe", "create", "/v/here", "1"])
    container.wait()
    (volume,) = engine.store.volumes.list()
    container.start()
    container.wait()
    assert engine.store.volumes.list() == (engine.store.volumes.get(volume.name),), "the same one again"
    container.remove()
    assert [left.name for left in engine.store.volumes.list()] == [volume.name], "kept without volumes=True"
    engine.store.volumes.remove(volume.name)
    container = engine.containers.run(name, ["/probe"])
    container.wait()
    container.remove(volumes=True)
    assert engine.store.volumes.list() == ()


def test_an_image_stays_while_a_container_needs_it(engine: Engine, image: ImageFactory) -> None:
    name = image()
    container = engine.containers.create(name, ["/probe", "exit", "5"])
    with pytest.raises(ImageError, match="must"):
        engine.images.remove(name)
    engine.images.remove(name, force=True)
    assert engine.images.prune(all_unused=True).deleted == ()
    container.start()
    assert container.wait().returncode == 5, "by its id the image is still there"
    container.remove()
    assert engine.images.prune().deleted


def test_the_root_descriptor(sleeping: pyrtc.Container) -> None:
    fd = sleeping.root_fd()
    try:
        assert "probe" in os.listdir(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    sleeping.stop(0)
    with pytest.raises(ContainerError, match="not running"):
        sleeping.root_fd()


def test_options_and_image_are_told(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.create(image({}, "USER 7"), ["/probe"], env={"A": "1"}, labels={"l": "2"})
    assert container.options.env == (("A", "1"),) and container.image_config.user == "7"
    told = container.inspect()
    assert (told.status, told.labels, told.pid, told.last) == ("created", (("l", "2"),), None, None)
    container.remove()


# ---- with a block ----------------------------------------------------------------------------------------------------


def test_a_block(engine: Engine, image: ImageFactory) -> None:
    name = image({}, "VOLUME /v")
    unmade = pyrtc.Container(name, ["/probe", "sleep", "1000"], engine=engine)
    with pytest.raises(ContainerError, match="not made yet"):
        _ = unmade.id
    with unmade as container:
        assert container.status == "running" and container.record.detached == OWNED
        pid = container.pid
    assert pid and is_gone(pid) and engine.store.containers.list() == () and engine.store.volumes.list() == ()
    with pytest.raises(ZeroDivisionError), pyrtc.Container(name, ["/probe", "sleep", "9"], engine=engine) as container:
        _ = 1 / 0
    assert engine.store.containers.list() == ()
    with pytest.raises(CommandNotFound), pyrtc.Container(name, ["/nothing"], engine=engine):
        raise AssertionError
    with pyrtc.Container(name, ["/probe", "exit", "4"], engine=engine) as container:
        assert container.wait().returncode == 4


def test_a_block_whose_container_is_removed_in_it(engine: Engine, image: ImageFactory) -> None:
    with pyrtc.Container(image(), ["/probe", "sleep", "1000"], engine=engine) as container:
        container.remove(force=True)
    with pyrtc.Container(image(), ["/probe", "sleep", "1000"], engine=engine) as container:
        container.stop(0)


def program(tmp_path: Path, text: str) -> subprocess.Popen[bytes]:
    script = tmp_path / "program.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(TREE)!r})\nimport pyrtc\n{textwrap.dedent(text)}")
    return subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_block_whose_program_is_killed(engine: Engine, image: ImageFactory, tmp_path: Path, number: int) -> None:
    child = program(
        tmp_path,
        f"""
        engine = pyrtc.Engine({engine.store.path!r})
        with pyrtc.Container({image()!r}, ["/probe", "sleep", "1000"], engine=engine) as container:
            print(container.pid, flush=True)
            sys.stdin.read()
        """,
    )
    pid = int(child.stdout.readline())  # type: ignore[union-attr]
    assert not is_gone(pid)
    child.send_signal(number)
    child.communicate()
    assert eventually(lambda: is_gone(pid)), "the warden kills it"
    assert eventually(lambda: not engine.store.containers.list()), "its monitor's end command removes it"


def test_a_detached_one_outlives_its_program(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    child = program(
        tmp_path,
        f"""
        container = pyrtc.Engine({engine.store.path!r}).containers.run({image()!r}, ["/probe", "sleep", "1000"])
        print(container.id, flush=True)
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    name = child.communicate()[0].decode().strip()
    container = engine.containers.get(name)
    time.sleep(0.1)
    assert container.status == "running" and [one.id for one in engine.containers.list()] == [name]
    container.stop(0)
    assert container.wait().returncode == 137
    container.remove()


def test_a_block_of_asyncio(engine: Engine, image: ImageFactory) -> None:
    name = image()

    async def work() -> None:
        async with aio.Container(name, ["/probe", "sleep", "1000"], engine=engine) as container:
            await container.files.write("/words", "one")
            assert await container.files.read("/words") == b"one"
            assert container.status == "running"
            with pytest.raises(TimeoutError):
                await container.wait(0.05)
            waiting = asyncio.create_task(container.wait())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert container.status == "running", "giving up waiting ends nothing"
            await container.kill()
            assert (await container.wait()).returncode == 137
        assert engine.store.containers.list() == ()

        async def forever() -> None:
            async with aio.Container(name, ["/probe", "sleep", "1000"], engine=engine):
                await asyncio.sleep(1000)

        for delay in (0.0, 0.001, 0.003, 0.2):
            task = asyncio.create_task(forever())
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.store.containers.list() == ()

    asyncio.run(work())


# ---- when something is killed ----------------------------------------------------------------------------------------


def test_the_monitor_is_killed(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.run(image(), ["/probe", "sleep", "1000"])
    os.kill(container.record.monitor_pid, signal.SIGKILL)
    assert eventually(lambda: is_gone(container.record.monitor_pid))
    engine.containers.reap()
    assert container.status == "running" and container.pid, "it runs on"
    with pytest.raises(TimeoutError):
        container.wait(0.05)
    container.stop(0)
    done = container.wait()
    assert (container.status, done.outcome, done.returncode) == ("exited", Outcome.UNKNOWN, 255)
    with pytest.raises(pyrtc.ContainerFailed, match="unknown"):
        done.check()
    container.start()
    assert container.status == "running"
    os.kill(container.record.monitor_pid, signal.SIGKILL)
    container.remove(force=True)


def test_monitor_and_container_are_killed(engine: Engine, image: ImageFactory) -> None:
    """As when the machine goes down: the next command finds it."""
    name = image()
    kept = engine.containers.run(name, ["/probe", "sleep", "1000"])
    passing = engine.containers.run(name, ["/probe", "sleep", "1000"], remove=True)
    for container in (kept, passing):
        record = container.record
        os.kill(record.monitor_pid, signal.SIGKILL)
        os.kill(record.pid, signal.SIGKILL)
        assert eventually(lambda record=record: is_gone(record.pid) and is_gone(record.monitor_pid))
    assert kept.status == "exited"
    assert [info.id for info in engine.containers.infos(all=True)] == [kept.id]
    assert (kept.record.state, kept.wait().outcome) == ("exited", Outcome.UNKNOWN)
    assert not has_group(kept.id) and not has_group(passing.id)
    kept.remove()


def test_the_end_command_is_killed(engine: Engine, image: ImageFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none in a program that is no interpreter; the next command does the same."""
    name = image()
    assert watched._end_command("/s", "1")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/usr/sbin/uwsgi")
        assert watched._end_command("/s", "1") is None
    monkeypatch.setattr(watched, "_end_command", lambda *_: None)
    container = engine.containers.run(name, ["/probe", "exit", "6"])
    record = container.record
    assert eventually(lambda: is_gone(record.pid) and is_gone(record.monitor_pid))
    assert container.record.state == "running" and container.status == "exited"
    (info,) = engine.containers.infos(all=True)
    assert (info.state, info.returncode) == ("exited", 6)
    assert container.record.state == "exited"
    container.remove()


def test_many_do_what_is_due_at_once(engine: Engine, image: ImageFactory) -> None:
    container = engine.containers.run(image(), ["/probe", "sleep", "1000"])
    results: list[object] = []

    def act(what: object) -> None:
        try:
            results.append(what())  # type: ignore[operator]
        except Exception as error:
            results.append(error)

    acts = [container.wait, container.wait, lambda: container.stop(0), lambda: container.stop(0), container.kill]
    threads = [threading.Thread(target=act, args=(what,)) for what in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    ended = [result for result in results if isinstance(result, pyrtc.Completed)]
    assert len(ended) == 2 and {done.returncode for done in ended} == {137}
    events = Path(engine.store.path, "events").read_text().splitlines()
    dead = [line for line in map(json.loads, events) if line.get("action") == "die" or line.get("Action") == "die"]
    assert len(dead) == 1, "told once"
    container.remove()


def test_a_start_that_is_killed_leaves_what_was(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    """Whenever the program dies: the container runs, or it is what it was, or it is gone."""
    name = image()
    container = engine.containers.create(name, ["/probe", "sleep", "1000"])
    for delay in (0.0, 0.001, 0.002, 0.003, 0.005):
        child = program(
            tmp_path,
            f"""
            import os, signal, threading, time
            engine = pyrtc.Engine({engine.store.path!r})
            container = engine.containers.get({container.id!r})
            print(flush=True)
            threading.Thread(target=lambda: (time.sleep({delay}), os.kill(os.getpid(), signal.SIGKILL))).start()
            container.start()
            time.sleep(9)
            """,
        )
        child.communicate()
        time.sleep(0.1)
        engine.containers.reap()
        assert container.status in ("created", "exited", "running")
        container.start()
        assert container.status == "running"
        container.stop(0)
    container.remove()


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pyrtc_command(engine: Engine) -> object:
    def command(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pyrtc.cli.main", "--root", engine.store.path, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=TREE,
        )
        assert done.returncode == code, (words, done)
        return done.stdout if code == 0 else done.stderr

    return command


def test_commands(engine: Engine, image: ImageFactory, pyrtc_command: object, tmp_path: Path) -> None:
    pyrtc_ = pyrtc_command
    name = image()
    id_file = tmp_path / "id"
    container_id = pyrtc_("run", "-d", "--name", "web", "--cidfile", str(id_file), name, "/probe", "sleep", "1000")
    assert container_id == f"{id_file.read_text()}\n" and len(container_id) == 65
    assert pyrtc_("ps", "--format", "{{.Names}} {{.State}}") == "web running\n"
    assert "already in use" in pyrtc_("run", "-d", "--name", "web", name, "/probe", code=125)
    assert "already in use" in pyrtc_("create", "--name", "web", name, "/probe", code=1)
    assert "No such image" in pyrtc_("create", "nowhere", code=1)
    assert "name is 2 to 128" in pyrtc_("create", "--name", "!", name, code=125)
    assert "stop the container before removing" in pyrtc_("rm", "web", code=1)
    if ROOT:
        assert pyrtc_("pause", "web") == "web\n"
        assert pyrtc_("ps", "--format", "{{.State}}") == "paused\n"
        assert "is paused" in pyrtc_("exec", "web", "/probe", code=1)
        assert pyrtc_("container", "unpause", "web") == "web\n"
    assert pyrtc_("rename", "web", "shop") == ""
    assert pyrtc_("stop", "-t", "0", "shop") == "shop\n"
    assert pyrtc_("wait", "shop") == "137\n"
    assert "is not running" in pyrtc_("exec", "shop", "/probe", code=1)
    assert pyrtc_("start", "shop") == "shop\n"
    assert pyrtc_("restart", "-t", "0", "shop") == "shop\n"
    assert pyrtc_("kill", "shop", "nothing", code=1).count("No such container") == 1
    assert pyrtc_("wait", "shop") == "137\n"
    assert pyrtc_("rm", "shop") == "shop\n"
    made = pyrtc_("create", "--name", "made", name, "/probe", "exit", "3").strip()
    assert engine.containers.get("made").id == made
    assert pyrtc_("container", "start", "made") == "made\n"
    assert pyrtc_("wait", "made") == "3\n"
    assert made in pyrtc_("container", "prune", "-f")
    pyrtc_("create", "--name", "quick", name, "/probe", "words", "all of it")
    for _ in range(20):
        assert pyrtc_("start", "-a", "quick") == "all of it\n\x1e", "not a byte is missed"
    pyrtc_("rm", "quick")
    assert pyrtc_("rm", "-f", "made") == ""
    gone = pyrtc_("run", "-d", "--rm", name, "/probe", "sleep", "0.1").strip()
    assert eventually(lambda: gone not in {record.id for record in engine.store.containers.list()})
    assert pyrtc_("run", "-d", name, "/nothing", code=127)
    assert engine.store.containers.list() == ()


@pytest.mark.parametrize("seconds", [3e6, 3e8])
def test_times_longer_than_the_kernel_waits(engine: Engine, seconds: float) -> None:
    """poll(2) takes 24 days at most; ten years are allowed everywhere."""
    made: list[pyrtc.Container] = []

    def container(script: str) -> pyrtc.Container:
        made.append(engine.containers.run("host", ["sh", "-c", script]))
        return made[-1]

    try:
        assert container("sleep 0.5; exit 4").wait(timeout=seconds).returncode == 4
        with container("sleep 1; exit 5").attach() as attachment:
            ended = attachment.wait(timeout=seconds)
            assert ended is not None and ended.code == 5
        with pytest.raises(ContainerError, match="ended"):
            container("sleep 0.5").wait_for(log="never", timeout=seconds)
        running = container("trap 'exit 3' TERM; echo ready; sleep 1000 & wait")
        running.wait_for(log="ready", timeout=20)
        assert running.exec(["true"], timeout=seconds).returncode == 0
        assert running.popen(["true"]).wait(timeout=seconds) == 0
        assert running.popen(["echo", "x"]).communicate(timeout=seconds) == (b"x\n", b"")
        running.stop(timeout=seconds)
        assert running.wait().returncode == 3
    finally:
        for one in made:
            one.remove(force=True)
    assert pyrtc.run("host", ["true"], timeout=seconds, engine=engine).returncode == 0


def test_a_stop_that_never_kills(engine: Engine, pyrtc_command: object) -> None:
    command = pyrtc_command
    script = "trap '' TERM; echo ready; sleep 2; exit 7"
    command("run", "-d", "--name", "slow", "--stop-timeout", "-1", "host", "sh", "-c", script)
    try:
        container = engine.containers.get("slow")
        container.wait_for(log="ready", timeout=20)
        assert command("inspect", "-f", "{{.Config.StopTimeout}}", "slow") == "-1\n"
        command("stop", "-t", "-1", "slow")
        assert container.wait().returncode == 7
        container.start()
        container.stop()
        assert container.wait().returncode in (7, 143)
    finally:
        engine.containers.remove("slow", force=True)
