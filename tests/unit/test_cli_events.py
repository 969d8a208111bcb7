"""`pyrtc events`."""

import json
import time

import pytest

from pyrtc.cli.events import events
from pyrtc.errors import UsageError
from pyrtc.events import Event

CONTAINER = Event(
    1_700_000_000_012_345_678, "container", "die", "c" * 64, (("exitCode", "3"), ("image", "app"), ("name", "web"))
)
VOLUME = Event(1_700_000_001_000_000_000, "volume", "prune", "", ())


class FakeEngine:
    def __init__(self, *told):
        self.told = told
        self.asked = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def events(self, **asked):
        self.asked = asked
        return iter(self.told)


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_text(capsys):
    assert events([], lambda: FakeEngine(CONTAINER, VOLUME)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2023-11-14T23:13:20.012345678+01:00 container die {'c' * 64} (exitCode=3, image=app, name=web)",
        "2023-11-14T23:13:21.000000000+01:00 volume prune ",
    ]


@pytest.mark.parametrize("form", ["json", "{{json .}}", "{{ json . }}"])
def test_json(capsys, form):
    events(["--format", form], lambda: FakeEngine(CONTAINER, VOLUME))
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "status": "die",
        "id": "c" * 64,
        "from": "app",
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "c" * 64, "Attributes": {"exitCode": "3", "image": "app", "name": "web"}},
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": 1_700_000_000_012_345_678,
    }
    assert "status" not in second and second["Actor"]["ID"] == ""


def test_template(capsys):
    form = "{{.Type}} {{.Action}} {{.ID}} {{.Actor.Attributes.name}} {{.From}} {{.TimeNano}}"
    events(["--format", form], lambda: FakeEngine(CONTAINER))
    assert capsys.readouterr().out == f"container die {'c' * 64} web app 1700000000012345678\n"


def test_times_and_filters():
    engine = FakeEngine()
    events(["--since", "10m", "--until", "1700000000.5", "-f", "type=image", "-f", "type=volume", "-f", "event=die"],
           lambda: engine)  # fmt: skip
    assert abs(engine.asked["since"] - (time.time() - 600)) < 5
    assert engine.asked["until"] == 1700000000.5
    assert engine.asked["filters"] == {"type": ["image", "volume"], "event": ["die"]} and engine.asked["follow"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--since", "soon"], "length of time"),
        (["x"], "unexpected"),
        (["--format", "{{.Colour}}"], "Colour"),
    ],
)
def test_what_is_wrong(words, text):
    with pytest.raises(UsageError, match=text) as caught:
        events(words, lambda: FakeEngine(CONTAINER))
    assert caught.value.exit_code == 1


def test_what_an_image_says_cannot_steer_the_terminal(capsys):
    forged = "\x1b[2J\n2023-11-14T23:13:21.000000000+01:00 container destroy other"
    events([], lambda: FakeEngine(Event(0, "container", "create", "c", (("x", forged),))))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\n") == 1, "one event is one line"
