"""Restart policies: which ends they answer, how often, after which delay, and after a reboot."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ImageFactory

import pyrtc
from pyrtc.cli.lives import start as start_command
from pyrtc.engine import Engine
from pyrtc.errors import ContainerNotFound

PATIENCE = 20.0


def eventually(condition: object, patience: float = PATIENCE) -> bool:
    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def run(engine: Engine, image: ImageFactory) -> Iterator[object]:
    """Start a container that is removed after the test."""
    made: list[pyrtc.Container] = []
    name = image()

    def start(*words: str, **options: object) -> pyrtc.Container:
        made.append(engine.containers.run(name, ["/probe", *words], **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for container in made:
        with contextlib.suppress(ContainerNotFound):
            container.remove(force=True)


def events(engine: Engine, action: str) -> int:
    return sum(
        json.loads(line).get("action", json.loads(line).get("Action")) == action
        for line in Path(engine.store.path, "events").read_text().splitlines()
    )


def settled(container: pyrtc.Container) -> bool:
    """Whether it has ended and nothing is about to start it."""
    record = container.record
    return record.state == "exited" and not pyrtc_alive(record.monitor_pid)


def pyrtc_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_on_failure_gives_up(engine: Engine, run: object) -> None:
    container = run("exit", "3", restart="on-failure:2")  # type: ignore[operator]
    assert eventually(lambda: container.record.restarts == 2 and settled(container))
    assert (container.status, container.wait().returncode, container.inspect().restarts) == ("exited", 3, 2)
    assert events(engine, "die") == 3 == events(engine, "start")
    container.start()
    assert container.record.restarts == 0, "who starts it begins anew"


def test_on_failure_is_content_with_success(run: object) -> None:
    container = run("exit", "0", restart="on-failure")  # type: ignore[operator]
    assert eventually(lambda: settled(container))
    assert container.record.restarts == 0


def test_always_waits_longer_and_longer(engine: Engine, run: object) -> None:
    began = time.monotonic()
    container = run("exit", "0", restart="always")  # type: ignore[operator]
    assert eventually(lambda: container.record.restarts >= 3)
    assert time.monotonic() - began > 0.1 + 0.2, "100 ms, then 200 ms, then 400 ms"
    assert eventually(lambda: container.status == "restarting")
    assert container.wait().returncode == 0
    assert [one.id for one in engine.containers.list()] == [container.id], "it counts as running"
    container.stop()
    assert container.status == "exited"
    restarts = container.record.restarts
    time.sleep(1.0)
    assert (container.status, container.record.restarts) == ("exited", restarts), "what was stopped stays so"


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_what_is_stopped_or_killed_stays_so(run: object, policy: str) -> None:
    for end in (lambda container: container.stop(0), lambda container: container.kill()):
        container = run("sleep", "1000", restart=policy)  # type: ignore[operator]
        end(container)
        container.wait()
        assert eventually(lambda container=container: settled(container))
        time.sleep(0.3)
        assert (container.status, container.record.restarts) == ("exited", 0)


def test_a_crash_is_answered(run: object) -> None:
    """A signal that did not come from `kill`: the kernel's, or somebody's on the host."""
    container = run("sleep", "1000", restart="unless-stopped")  # type: ignore[operator]
    pid = container.pid
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: container.pid not in (None, pid))
    assert container.status == "running" and container.record.restarts == 1


def test_removing_ends_it(engine: Engine, run: object) -> None:
    container = run("exit", "1", restart="always")  # type: ignore[operator]
    assert eventually(lambda: container.status == "restarting")
    container.remove(force=True)
    time.sleep(0.5)
    assert engine.store.containers.list() == () and not os.listdir(engine.store.containers.path)


def test_who_would_start_it_again_is_killed(engine: Engine, run: object) -> None:
    container = run("exit", "1", restart="always")  # type: ignore[operator]
    assert eventually(lambda: container.record.restarts >= 3 and container.status == "restarting")
    os.kill(container.record.owner.pid, signal.SIGKILL)
    assert eventually(lambda: container.status == "exited")
    engine.containers.reap()
    assert container.record.state == "exited"
    container.start()


def test_a_start_that_fails_counts(engine: Engine, image: ImageFactory) -> None:
    """The program is gone after the first run: the policy tries, and gives up in the end."""
    container = engine.containers.run(
        image({"gone": None}), ["/probe", "unlink", "/probe", ",", "exit", "1"], restart="on-failure:2"
    )
    assert eventually(lambda: container.record.restarts == 2 and settled(container))
    assert container.inspect().last.returncode == 127  # type: ignore[union-attr]
    assert "no such file" in container.inspect().error
    container.remove()


def reboot(engine: Engine, *containers: pyrtc.Container) -> None:
    """Let the store look as after a power failure: everything is dead, and the boot is another."""
    for container in containers:
        record = container.record
        for pid in (record.monitor_pid, record.pid):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert eventually(lambda record=record: not pyrtc_alive(record.pid) and not pyrtc_alive(record.monitor_pid))
        engine.store.database.execute(
            "UPDATE containers SET owner_boot = '0a0a0a0a-0000-4000-8000-000000000000 4026531836' WHERE id = ?",
            (container.id,),
        )


def test_after_a_reboot(engine: Engine, run: object, capsys: pytest.CaptureFixture[str]) -> None:
    always = run("sleep", "1000", restart="always", name="always")  # type: ignore[operator]
    unless = run("sleep", "1000", restart="unless-stopped", name="unless")  # type: ignore[operator]
    stopped = run("sleep", "1000", restart="unless-stopped", name="stopped")  # type: ignore[operator]
    stopped_always = run("sleep", "1000", restart="always", name="stopped-always")  # type: ignore[operator]
    plain = run("sleep", "1000", name="plain")  # type: ignore[operator]
    failed = run("sleep", "1000", restart="on-failure", name="failed")  # type: ignore[operator]
    passing = run("sleep", "1000", remove=True, name="passing")  # type: ignore[operator]
    here = run("sleep", "1000", restart="always", name="here")  # type: ignore[operator]
    for container in (stopped, stopped_always, here):
        container.stop(0)
    reboot(engine, always, unless, stopped, stopped_always, plain, failed, passing)
    names = {container.name for container in engine.containers.restartable()}
    assert names == {"always", "unless", "failed", "stopped-always"}
    with pytest.raises(ContainerNotFound):
        _ = passing.status
    assert (plain.status, plain.wait().returncode) == ("exited", 255)
    assert start_command(["--all-restartable"], lambda: contextlib.nullcontext(engine)) == 0
    assert len(capsys.readouterr().out.split()) == 4
    assert {one.name for one in engine.containers.list()} == names
    assert not engine.containers.restartable(), "once"
