"""Health checks: executed by the monitor in the container, judged by Docker's rules, and harmless whatever they do."""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, ImageFactory, needs_root

import pyrtc
from pyrtc import aio
from pyrtc.cli.main import main
from pyrtc.engine import Engine
from pyrtc.errors import ContainerError, ContainerNotFound, UsageError
from pyrtc.events import MAX_SIZE
from pyrtc.health import Health
from pyrtc.listing import read_list
from pyrtc.options import HealthCheck

PATIENCE = 20.0


def eventually(condition: object, patience: float = PATIENCE) -> bool:
    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Patients:
    """Makes containers that sleep and are checked, and removes them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.made: list[pyrtc.Container] = []

    def __call__(
        self, check: HealthCheck | str | list[str] | None, command: str = "sleep 1000", image: str = "host", **more: Any
    ) -> pyrtc.Container:
        if check is not None:
            more["health"] = check
        container = self.engine.containers.run(image, ["sh", "-c", command], **more)
        self.made.append(container)
        return container


@pytest.fixture
def patient(engine: Engine) -> Iterator[Patients]:
    patients = Patients(engine)
    yield patients
    for container in patients.made:
        with contextlib.suppress(ContainerNotFound):
            container.remove(force=True)


def shell(line: str, interval: float = 0.05, timeout: float = 5.0, retries: int = 2, **more: Any) -> HealthCheck:
    return HealthCheck(("CMD-SHELL", line), interval, timeout, retries=retries, **more)


def health_of(container: pyrtc.Container) -> Health:
    found = container.health
    assert found is not None
    return found


def test_starting_healthy_unhealthy(patient: Patients) -> None:
    container = patient(shell("test -e /tmp/ok && echo fine || { echo ill >&2; exit 7; }", retries=3))
    assert health_of(container).status == "starting"
    assert eventually(lambda: health_of(container).status == "unhealthy")
    ill = health_of(container)
    assert ill.failing_streak >= 3 and len(ill.log) >= 3
    assert {(result.returncode, result.output) for result in ill.log} == {(7, "ill\n")}
    assert all(result.start <= result.end for result in ill.log)
    container.exec(["touch", "/tmp/ok"], check=True)
    assert eventually(lambda: health_of(container).status == "healthy")
    assert health_of(container).failing_streak == 0
    assert eventually(lambda: {result.output for result in health_of(container).log} == {"fine\n"})
    assert len(health_of(container).log) == 5


def test_where_it_is_told(patient: Patients, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    container = patient(shell("true"))
    other = patient(None)
    container.wait_for(healthy=True, timeout=PATIENCE)
    found = container.inspect().health
    assert found is not None and found.status == "healthy"
    assert other.health is None and other.inspect().health is None
    listed = {info.id: info.health for info in read_list(engine.store.path).containers}
    assert listed == {container.id: "healthy", other.id: "none"}
    chosen = engine.containers.list(filters={"health": "healthy"})
    assert [one.id for one in chosen] == [container.id]
    with pytest.raises(ContainerError, match="no health check"):
        other.wait_for(healthy=True)
    root = ["--root", str(engine.store.path)]
    assert main([*root, "ps", "--format", "{{.ID}} {{.Status}}"]) == 0
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines[container.id[:12]].endswith(" (healthy)") and "(" not in lines[other.id[:12]]
    assert main([*root, "inspect", "-f", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", container.id]) == 0
    assert capsys.readouterr().out == "healthy 0\n"
    container.stop(timeout=0)
    assert health_of(container).status == "unhealthy", "as Docker has it of one that ended"
    container.start()
    assert health_of(container).status in ("starting", "healthy")
    container.wait_for(healthy=True, timeout=PATIENCE)


def statuses(engine: Engine, container: pyrtc.Container) -> list[tuple[str, str | None]]:
    told = engine.events(filters={"container": container.id, "event": "health_status"})
    return [(event.action.removeprefix("health_status: "), event.attribute("name")) for event in told]


def test_changes_are_told(patient: Patients, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """One event for each change of the status, as Docker tells them: not for each check, nor for the beginning."""
    container = patient(shell("test -e /tmp/ok", retries=1), name="told", labels={"tier": "front", "é": '"\n'})
    assert eventually(lambda: statuses(engine, container) == [("unhealthy", "told")])
    container.exec(["touch", "/tmp/ok"], check=True)
    assert eventually(lambda: len(statuses(engine, container)) == 2)
    assert eventually(lambda: len(health_of(container).log) == 5)
    container.rename("other")
    container.exec(["rm", "/tmp/ok"], check=True)
    assert eventually(lambda: len(statuses(engine, container)) == 3)
    assert statuses(engine, container) == [("unhealthy", "told"), ("healthy", "told"), ("unhealthy", "other")]
    told = list(engine.events(filters={"event": "health_status: healthy"}))
    assert [(event.id, event.kind) for event in told] == [(container.id, "container")]
    assert told[0].attributes == (("image", "host"), ("name", "told"), ("tier", "front"), ("é", '"\n'))
    assert abs(told[0].time - time.time()) < 60
    words = ["--root", str(engine.store.path), "events", "--since", "1h", "--until", "0s"]
    assert main([*words, "-f", "event=health_status", "--format", "{{.Type}} {{.Action}}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "container health_status: unhealthy",
        "container health_status: healthy",
        "container health_status: unhealthy",
    ]


def test_a_change_begins_another_file_of_events(patient: Patients, engine: Engine) -> None:
    """The monitor heeds the rules of the file as all others do; a checked container alone does not fill the disk."""
    container = patient(shell("test -e /tmp/ok", retries=1))
    assert eventually(lambda: len(statuses(engine, container)) == 1)
    log = engine.store.root / "events"
    held = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.ftruncate(held, os.fstat(held).st_size + MAX_SIZE)
    fcntl.flock(held, fcntl.LOCK_SH)
    container.exec(["touch", "/tmp/ok"], check=True)
    assert eventually(lambda: health_of(container).status == "healthy")
    assert eventually(lambda: b"health_status: healthy" in log.read_bytes())
    assert not log.with_name("events.1").exists(), "it was given another name while somebody was writing to it"
    fcntl.flock(held, fcntl.LOCK_UN)
    container.exec(["rm", "/tmp/ok"], check=True)
    assert eventually(lambda: log.with_name("events.1").exists() and b"unhealthy" in log.read_bytes())
    assert b"unhealthy" not in log.with_name("events.1").read_bytes().rpartition(b"health_status: healthy")[2]
    os.close(held)


def test_the_start_period(patient: Patients) -> None:
    """Failures in it do not count and are looked at more often; the first success ends it."""
    container = patient(shell("test -e /tmp/ok", 0.05, 5.0, 1, start_period=1000.0, start_interval=0.02))
    assert eventually(lambda: len(health_of(container).log) == 5)
    assert (health_of(container).status, health_of(container).failing_streak) == ("starting", 0)
    container.exec(["touch", "/tmp/ok"], check=True)
    container.wait_for(healthy=True, timeout=PATIENCE)
    container.exec(["rm", "/tmp/ok"], check=True)
    assert eventually(lambda: health_of(container).status == "unhealthy")


def test_a_start_period_that_ends(patient: Patients) -> None:
    began = time.monotonic()
    container = patient(shell("false", 0.05, 5.0, 2, start_period=0.5, start_interval=0.05))
    assert eventually(lambda: health_of(container).status == "unhealthy")
    assert time.monotonic() - began >= 0.5


def test_it_is_as_an_exec_is(patient: Patients) -> None:
    """User, variables, directory, rights and file system are the container's."""
    line = 'echo "$(id -u) $A $(pwd) $HOSTNAME"; grep -E "Cap(Eff|Bnd)|NoNewPrivs|Seccomp:" /proc/self/status'
    told = {}
    user = {"user": "1000"} if ROOT else {}
    container = patient(shell(line), env={"A": "b"}, workdir="/usr", hostname="box", **user)
    container.wait_for(healthy=True, timeout=PATIENCE)
    told["check"] = health_of(container).log[-1].output
    told["exec"] = container.exec(["/bin/sh", "-c", line]).stdout.decode()
    assert told["check"] == told["exec"] and " b /usr box\n" in told["check"]


def test_what_a_check_holds(patient: Patients) -> None:
    """Standard streams and nothing else, of its own process; nothing that leads out."""
    container = patient(HealthCheck(("CMD", "ls", "-l", "/proc/self/fd"), 0.05))
    container.wait_for(healthy=True, timeout=PATIENCE)
    lines = health_of(container).log[-1].output.splitlines()
    held = dict(text.split()[-3::2] for text in lines if " -> " in text)
    assert set(held) - {"3"} == {"0", "1", "2"}
    assert held.get("3", "/proc/1/fd").endswith("/fd"), "the directory that is being read"
    assert held["0"] == "/dev/null" and held["1"] == held["2"] and held["1"].startswith("pipe:")


@needs_root
def test_it_needs_no_place_more_than_it_uses(patient: Patients) -> None:
    """What brought it into the container is gone when it begins: two processes are there, three are the check's."""
    container = patient(shell("true | cat | sleep 0"), "sleep 1000; true", pids=6)
    container.wait_for(healthy=True, timeout=PATIENCE)


def test_the_command_line(engine: Engine, image: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(engine.store.path)]
    words = ["--health-cmd", "exit 9", "--health-interval", "50ms", "--health-retries", "1", "--name", "ill"]
    assert main([*root, "run", "-d", *words, "host", "sleep", "1000"]) == 0
    container = engine.containers.get("ill")
    try:
        assert eventually(lambda: health_of(container).status == "unhealthy")
        capsys.readouterr()
        assert main([*root, "ps", "--filter", "health=unhealthy", "--format", "{{.Names}} {{.Status}}"]) == 0
        assert capsys.readouterr().out.endswith("(unhealthy)\n")
        assert main([*root, "run", "--health-cmd", "true", image(), "/probe"]) == 125
    finally:
        container.remove(force=True)


@pytest.mark.parametrize(
    ("line", "code", "output"),
    [
        ("kill -9 $$", 137, ""),
        ("kill -STOP $$", -1, "Health check exceeded timeout (300ms)"),
        ("echo begun; sleep 1000", -1, "Health check exceeded timeout (300ms): begun\n"),
        ("trap '' TERM HUP INT; setsid sleep 999 & sleep 998 & exit 5", 5, ""),
        ("yes | head -c 100000; exit 3", 3, "y\n" * 2048 + "..."),
        ("yes", -1, "Health check exceeded timeout (300ms): " + "y\n" * 2048 + "..."),
        ("printf '\\0\\\\x41\\n\\377'; exit 2", 2, "\0\\x41\n\ufffd"),
        ("exec /nowhere", 127, None),
    ],
)
def test_hostile_checks(patient: Patients, line: str, code: int, output: str | None) -> None:
    container = patient(shell(line, timeout=0.3))
    assert eventually(lambda: health_of(container).status == "unhealthy")
    assert {result.returncode for result in health_of(container).log} == {code}
    if output is not None:
        assert {result.output for result in health_of(container).log} == {output}
    assert all(result.end - result.start < 5 for result in health_of(container).log)


@needs_root
def test_nothing_of_a_check_is_left(patient: Patients) -> None:
    """What it started in sessions of its own is killed with its group, which goes."""
    container = patient(shell("for n in 1 2 3; do setsid sleep 999 </dev/null & done; exit 0", interval=0.3))
    container.wait_for(healthy=True, timeout=PATIENCE)
    for _ in range(3):
        assert eventually(lambda: not any(one.command == "sleep 999" for one in container.top()))
        time.sleep(0.2)
    children = Path(f"/proc/{container.record.monitor_pid}/task/{container.record.monitor_pid}/children")
    assert eventually(lambda: len(children.read_text().split()) == 1), "process 1"
    container.pause()
    path = container.cgroup_path
    assert path is not None and len([entry for entry in os.scandir(path) if entry.is_dir()]) <= 1
    container.unpause()


def test_no_shell_in_the_image(engine: Engine, image: ImageFactory) -> None:
    with pyrtc.Container(image(), ["/probe", "sleep", "1000"], engine=engine, health=shell("true")) as container:
        assert eventually(lambda: health_of(container).status == "unhealthy")
        result = health_of(container).log[-1]
        assert result.returncode == -1
        assert result.output == "cannot execute the health check: execve /bin/sh: no such file or directory"
        with pytest.raises(ContainerError, match=r"is unhealthy: its check says 'cannot execute"):
            container.wait_for(healthy=True, timeout=PATIENCE)


def test_the_image_asks_for_it(engine: Engine, image: ImageFactory) -> None:
    name = image(None, "HEALTHCHECK --interval=50ms --retries=1 CMD /probe exit 4")
    with pyrtc.Container(name, ["/probe", "sleep", "1000"], engine=engine) as container:
        assert eventually(lambda: health_of(container).status == "unhealthy")
    with pyrtc.Container(name, ["/probe", "sleep", "1000"], engine=engine, health="NONE") as container:
        assert container.health is None


@needs_root
def test_a_paused_container_is_not_checked(patient: Patients) -> None:
    container = patient(shell("date +%N"))
    container.wait_for(healthy=True, timeout=PATIENCE)
    container.pause()
    time.sleep(0.2)
    before = health_of(container)
    time.sleep(0.5)
    assert health_of(container) == before and before.status == "healthy"
    container.unpause()
    assert eventually(lambda: health_of(container).log[-1].start > before.log[-1].start)


@needs_root
def test_a_pause_in_the_middle_of_a_check_is_no_timeout(patient: Patients) -> None:
    # The check takes a sixth of its time-out, so that a busy machine does not make it one.
    container = patient(shell("sleep 0.5", interval=0.05, timeout=3.0))
    assert eventually(lambda: any("sleep 0.5" in one.command for one in container.top()))
    container.pause()
    time.sleep(3.5)
    container.unpause()
    assert eventually(lambda: len(health_of(container).log) >= 2)
    assert {result.returncode for result in health_of(container).log} == {0}


def test_it_ends_with_the_container(patient: Patients) -> None:
    container = patient(shell("sleep 1000", timeout=1000.0), "sleep 0.5; exit 3")
    began = time.monotonic()
    assert container.wait(timeout=PATIENCE).returncode == 3
    assert time.monotonic() - began < 10
    assert health_of(container).log == (), "it was killed with the container, which says nothing"
    quick = patient(shell("true"), "exit 0")
    assert quick.wait(timeout=PATIENCE).returncode == 0


def test_checks_that_are_killed_on_their_way_in(patient: Patients) -> None:
    """Whatever had been made of them by then is reaped, or the container could not end."""
    container = patient(shell("true", interval=0.01, timeout=0.001), "sleep 2; exit 3")
    began = time.monotonic()
    assert container.wait(timeout=PATIENCE).returncode == 3
    assert time.monotonic() - began < 6
    rare = patient(shell("true", interval=0.6, timeout=0.001), "sleep 1; exit 3")
    assert rare.wait(timeout=PATIENCE).returncode == 3


def test_a_check_dies_with_the_monitor(patient: Patients) -> None:
    container = patient(shell("exec sleep 997", timeout=1000.0))
    assert eventually(lambda: any("sleep 997" in one.command for one in container.top()))
    os.kill(container.record.monitor_pid, 9)
    assert eventually(lambda: not any("sleep 997" in one.command for one in container.top()))
    assert container.status == "running"


def test_memory_of_a_monitor_that_checks(patient: Patients) -> None:
    """No interpreter, and little more than a monitor that does not check."""
    container = patient(shell("head -c 5000 /dev/zero", interval=0.02))
    assert eventually(lambda: container.health is not None and len(container.health.log) == 5)
    try:
        rollup = Path(f"/proc/{container.record.monitor_pid}/smaps_rollup").read_text()
    except PermissionError:
        pytest.skip("nobody but root may look into a monitor")
    proportional = int(rollup.split("Pss:")[1].split()[0])
    assert proportional < 250


def test_what_is_refused(engine: Engine, image: ImageFactory) -> None:
    with pytest.raises(UsageError, match="health"):
        engine.containers.create(image(), ["/probe"], health=HealthCheck(("curl",)))
    with pytest.raises(UsageError, match="no option 'health'"):
        pyrtc.run(image(), ["/probe"], engine=engine, health="true")  # type: ignore[call-arg]


def test_waiting_in_asyncio(engine: Engine) -> None:
    async def scenario() -> None:
        async with aio.Container("host", ["sleep", "1000"], engine=engine, health=shell("true")) as container:
            await container.wait_for(healthy=True, timeout=PATIENCE)
            assert container.health is not None and container.health.status == "healthy"

    asyncio.run(scenario())
