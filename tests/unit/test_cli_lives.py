"""The commands that act on containers: each has its turn, and words go where they are meant to."""

import pytest

from pyrtc.cli.lives import kill, pause, rename, restart, rm, start, stop, unpause, wait
from pyrtc.container import Completed, Outcome, Usage
from pyrtc.errors import ContainerError, ContainerNotFound, UsageError


class FakeContainer:
    def __init__(self, name, calls):
        self.name = name
        self.calls = calls

    def __getattr__(self, verb):
        def act(*words, **options):
            if (self.name, verb) == ("busy", "remove") and not options["force"]:
                raise ContainerError("container busy is running")
            self.calls.append((verb, self.name, *words, options))

        return act

    def wait(self):
        outcome = Outcome.UNKNOWN if self.name == "lost" else Outcome.EXITED
        return Completed("0" * 64, (), 255 if self.name == "lost" else 3, outcome, Usage(0, 0, 0, 0))


class FakeContainers:
    def __init__(self):
        self.calls = []

    def reap(self):
        pass

    def get(self, name):
        if name == "nothing":
            raise ContainerNotFound("No such container: nothing")
        return FakeContainer(name, self.calls)

    def restartable(self):
        class One:
            id = "1" * 64

        return (One,)


class FakeEngine:
    def __init__(self):
        self.containers = FakeContainers()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.mark.parametrize(
    ("command", "words", "calls"),
    [
        (start, ["web"], [("start", "web", {})]),
        (stop, ["web"], [("stop", "web", None, {"signal": None})]),
        (stop, ["-t", "1500ms", "-s", "INT", "web"], [("stop", "web", 1.5, {"signal": 2})]),
        (stop, ["--time=3", "web"], [("stop", "web", 3.0, {"signal": None})]),
        (restart, ["-t0", "web"], [("restart", "web", 0.0, {"signal": None})]),
        (kill, ["web"], [("kill", "web", 9, {})]),
        (kill, ["--signal=SIGHUP", "web"], [("kill", "web", 1, {})]),
        (pause, ["web", "job"], [("pause", "web", {}), ("pause", "job", {})]),
        (unpause, ["web"], [("unpause", "web", {})]),
        (rm, ["web"], [("remove", "web", {"force": False, "volumes": False})]),
        (rm, ["-fv", "web"], [("remove", "web", {"force": True, "volumes": True})]),
    ],
)
def test_words(engine, command, words, calls, capsys):
    assert command(words, lambda: engine) == 0
    assert engine.containers.calls == calls
    assert capsys.readouterr().out.split() == [call[1] for call in calls]


@pytest.mark.parametrize("command", [start, stop, restart, kill, pause, unpause, rm])
def test_each_has_its_turn(engine, command, capsys):
    assert command(["a", "nothing", "b"], lambda: engine) == 1
    captured = capsys.readouterr()
    assert captured.out == "a\nb\n" and captured.err == "pyrtc: No such container: nothing\n"


def test_a_failed_removal(engine, capsys):
    assert rm(["busy", "web"], lambda: engine) == 1
    captured = capsys.readouterr()
    assert captured.out == "web\n" and "busy is running" in captured.err
    assert rm(["-f", "busy", "nothing"], lambda: engine) == 0, "what is missing is no failure of rm -f"
    captured = capsys.readouterr()
    assert captured.out == "busy\n" and "No such container" in captured.err


def test_wait_prints_codes(engine, capsys):
    assert wait(["web", "lost"], lambda: engine) == 0
    captured = capsys.readouterr()
    assert captured.out == "3\n255\n" and "nobody knows" in captured.err


def test_rename(engine, capsys):
    assert rename(["a", "b"], lambda: engine) == 0
    assert engine.containers.calls == [("rename", "a", "b", {})] and capsys.readouterr().out == ""
    for words in ([], ["a"], ["a", "b", "c"]):
        with pytest.raises(UsageError):
            rename(words, lambda: engine)


def test_start_what_ran_before_the_machine_went_down(engine, capsys):
    assert start(["--all-restartable"], lambda: engine) == 0
    assert engine.containers.calls == [("start", "1" * 64, {})]
    with pytest.raises(UsageError):
        start(["--all-restartable", "web"], lambda: engine)
    with pytest.raises(UsageError):
        start(["-a", "web", "job"], lambda: engine)


@pytest.mark.parametrize("command", [start, stop, restart, kill, pause, unpause, wait, rm, rename])
def test_help_and_nothing(engine, command, capsys):
    assert command(["--help"], lambda: engine) == 0
    assert "Usage:" in capsys.readouterr().out
    with pytest.raises(UsageError):
        command([], lambda: engine)
