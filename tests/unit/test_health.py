"""What the monitor writes about health, read back; and which check options and image ask for."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.checking import Check, check_words, decide_check
from pyrtc.cli.run import run
from pyrtc.cli.run_request import read_request
from pyrtc.errors import UsageError
from pyrtc.health import STARTING, Health, HealthResult, merged, parse
from pyrtc.image.config import Healthcheck, ImageConfig
from pyrtc.options import HealthCheck, RunOptions

IMAGE = Healthcheck(("CMD", "curl", "x"), interval=7.0, timeout=8.0, start_period=9.0, retries=4, start_interval=2.0)


def written(status, streak, results):
    lines = [b"status=%s streak=%d" % (status.encode(), streak)]
    for start, end, code, output in results:
        text = b"".join(bytes([byte]) if 32 <= byte < 127 and byte != 92 else b"\\x%02x" % byte for byte in output)
        lines.append(b"start=%d end=%d code=%d output=%s" % (start, end, code, text))
    return b"".join(line + b"\n" for line in lines)


results = st.tuples(
    st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1), st.integers(-1, 255), st.binary(max_size=200)
)


@given(
    st.sampled_from(["starting", "healthy", "unhealthy"]),
    st.integers(0, (1 << 32) - 1),
    st.lists(results, max_size=5),
)
def test_what_is_written_is_read(status, streak, log):
    assert parse(written(status, streak, log)) == Health(
        status,
        streak,
        tuple(
            HealthResult(start / 1e9, end / 1e9, code, output.decode(errors="replace"))
            for start, end, code, output in log
        ),
    )


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: STARTING + tail))
def test_anything_else_is_nothing_or_sound(text):
    found = parse(text)
    assert found is None or (found.status in ("starting", "healthy", "unhealthy") and len(found.log) <= 5)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"status=well streak=0\n",
        b"status=healthy streak=-1\n",
        b"status=healthy streak=0",
        b"status=healthy streak=0\nstart=1 end=2 code=0\n",
        b"status=healthy streak=0\nstart=1 end=2 code=0 output=cut o",
        written("healthy", 0, [(1, 2, 0, b"")] * 6),
    ],
)
def test_half_a_file_is_none(text):
    assert parse(text) is None


def test_the_first_word_of_a_check():
    assert parse(STARTING) == Health("starting")


def test_who_is_asked_first():
    assert merged(None, None) is None
    assert merged(None, IMAGE) == HealthCheck(IMAGE.test, 7.0, 8.0, 9.0, 2.0, 4)
    assert merged(HealthCheck(interval=1.0, retries=1), IMAGE) == HealthCheck(IMAGE.test, 1.0, 8.0, 9.0, 2.0, 1)
    assert merged(HealthCheck(("NONE",)), IMAGE) == HealthCheck(("NONE",))
    assert merged(HealthCheck(("CMD", "a")), None) == HealthCheck(("CMD", "a"))


@pytest.mark.parametrize(
    ("health", "config", "check"),
    [
        (None, ImageConfig(), None),
        (HealthCheck(("NONE",)), ImageConfig(healthcheck=IMAGE), None),
        (HealthCheck(interval=5.0), ImageConfig(), None),
        (None, ImageConfig(healthcheck=Healthcheck(("ODD", "x"))), None),
        (None, ImageConfig(healthcheck=Healthcheck(("CMD",))), None),
        (None, ImageConfig(healthcheck=Healthcheck(("NONE",))), None),
        (HealthCheck(("CMD", "a", "b")), ImageConfig(), Check(("a", "b"), 30.0, 30.0, 0.0, 5.0, 3)),
        (None, ImageConfig(healthcheck=IMAGE), Check(("curl", "x"), 7.0, 8.0, 9.0, 2.0, 4)),
        (HealthCheck(("CMD-SHELL", "a b")), ImageConfig(), Check(("/bin/sh", "-c", "a b"), 30.0, 30.0, 0.0, 5.0, 3)),
        (
            HealthCheck(("CMD-SHELL", "a b"), 1.0, 2.0, 3.0, 4.0, 5),
            ImageConfig(shell=("/bin/bash", "-ec")),
            Check(("/bin/bash", "-ec", "a b"), 1.0, 2.0, 3.0, 4.0, 5),
        ),
        (
            None,
            ImageConfig(healthcheck=Healthcheck(("CMD", "a"), interval=1e-9)),
            Check(("a",), 0.001, 30.0, 0.0, 5.0, 3),
        ),
    ],
)
def test_what_is_executed(health, config, check):
    assert decide_check(RunOptions(health=health), config) == check


@pytest.mark.parametrize(
    "asked",
    [
        HealthCheck(("curl",)),
        HealthCheck(("CMD",)),
        HealthCheck(("CMD-SHELL", "a", "b")),
        HealthCheck(("NONE", "x")),
        HealthCheck(("CMD", "a\0b")),
        HealthCheck(("CMD", "a"), interval=-1.0),
        HealthCheck(("CMD", "a"), timeout=1e-9),
        HealthCheck(("CMD", "a"), timeout=float("nan")),
        HealthCheck(("CMD", "a"), start_period=1e12),
        HealthCheck(("CMD", "a"), retries=-1),
    ],
)
def test_what_cannot_be_meant(asked):
    with pytest.raises(UsageError, match="health"):
        check_words(asked)


@pytest.mark.parametrize(
    "words",
    [
        ["--health-cmd", "a", "--no-healthcheck"],
        ["--health-interval", "soon"],
        ["--health-interval", "0.0001"],
        ["--health-retries", "-1"],
        ["--health-retries", "x"],
    ],
)
def test_words_that_are_refused(words):
    with pytest.raises(UsageError):
        read_request([*words, "image"], os.environ)


def test_the_foreground_has_no_monitor():
    with pytest.raises(UsageError, match="detached"):
        run(["--health-cmd", "true", "image"], lambda: pytest.fail("nothing is opened"))
