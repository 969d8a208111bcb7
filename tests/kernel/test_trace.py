"""Where the time of a start goes: what a trace says, and that nobody pays for one that was not asked for."""

import itertools
import subprocess
import sys

import pytest
from conftest import Probe
from descriptors import descriptors, left_open

import pyrtc
from pyrtc.engine import Engine


@pytest.fixture
def traced(engine: Engine, probe: Probe) -> pyrtc.Completed:
    return probe.run("ids", trace=True)


def test_steps_of_both_sides(traced: pyrtc.Completed) -> None:
    names = {where: [step.name for step in traced.trace if step.where == where] for where in ("caller", "container")}
    assert names["caller"][0] == "volumes and ids"
    assert "clone the first process" in names["caller"]
    assert names["caller"][-2:] == ["wait for the command's end", "clean up"]
    inside = names["container"]
    assert inside[-1] == "exec"
    assert inside.index("mount /proc") < inside.index("pivot") < inside.index("seccomp")


def test_times_add_up(traced: pyrtc.Completed) -> None:
    """The steps of one side follow one another, and the container's lie between the clone and the command."""
    for where in ("caller", "container"):
        steps = [step for step in traced.trace if step.where == where]
        for step, following in itertools.pairwise(steps):
            assert step.begin + step.microseconds == pytest.approx(following.begin, abs=0.01)
            assert step.microseconds >= 0
    caller = {step.name: step for step in traced.trace if step.where == "caller"}
    inside = [step for step in traced.trace if step.where == "container"]
    assert inside[0].begin > caller["plan"].begin
    ran = caller["wait for the command to run"]
    assert inside[-1].begin + inside[-1].microseconds == pytest.approx(ran.begin + ran.microseconds, abs=0.01)
    assert [step.begin for step in traced.trace] == sorted(step.begin for step in traced.trace)


def test_without_one(probe: Probe) -> None:
    assert probe.run("ids").trace == ()


def test_nothing_stays_open(probe: Probe) -> None:
    probe.run("ids")
    before = descriptors()
    probe.run("ids", trace=True)
    with pytest.raises(pyrtc.PyrtcError):
        probe.run("ids", trace=True, workdir="/probe")
    assert not [link for link in left_open(before).values() if "pyrtc-trace" in link]


def test_the_command_does_not_see_it(probe: Probe) -> None:
    """No descriptor and no mapping of it is left when the command runs."""
    open_there = probe.run("list", "/proc/self/fd", trace=True).stdout
    assert open_there == probe.run("list", "/proc/self/fd").stdout
    mapped = probe.run("cat", "/proc/self/maps", trace=True).stdout
    assert b"/probe" in mapped and b"memfd" not in mapped


def test_detached_ones_have_none(engine: Engine) -> None:
    with pytest.raises(pyrtc.UsageError, match="foreground"):
        engine.containers.run("host", ["true"], trace=True)


def test_on_the_command_line(engine: Engine) -> None:
    start = "from pyrtc.cli.main import program; program()"
    words = [sys.executable, "-c", start, "--root", engine.store.path, "run", "--rm", "--trace", "host", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert lines[0].split() == ["begin", "time", "step"]
    assert any(line.endswith("    exec") for line in lines)
