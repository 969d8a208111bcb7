"""`pyrtc ps`."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from pyrtc.cli.containers import ps, quoted, status_text
from pyrtc.cli.tables import age
from pyrtc.errors import ContainerNotFound, UsageError
from pyrtc.listing import ContainerInfo


def info(
    name, state="running", command=("sleep", "60"), returncode=None, image="debian:12", seconds=5, labels=(), **more
):
    return ContainerInfo(
        id=(name.encode().hex() * 64)[:64],
        name=name,
        image=image,
        command=command,
        state=state,
        created=time.time() - seconds,
        returncode=returncode,
        labels=labels,
        **more,
    )


@dataclass
class FakeContainers:
    found: list = field(default_factory=list)

    def infos(self, *, all=False):
        return [one for one in self.found if all or one.state == "running"]

    def get(self, container_id):
        return next(FakeContainer(one) for one in self.found if one.id == container_id)


class FakeContainer:
    def __init__(self, one):
        self.one = one

    def size(self):
        if self.one.name == "gone":
            raise ContainerNotFound("gone")
        return SimpleNamespace(written=1500, total=7_801_500)


class FakeEngine:
    def __init__(self, *found):
        self.containers = FakeContainers(list(found))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_table(capsys):
    engine = FakeEngine(info("web"), info("job", "exited", returncode=3), info("old", "exited"))
    assert ps(["-a"], lambda: engine) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "CONTAINER ID"
    assert len(rows) == 3
    assert rows[0].startswith(info("web").id[:12])
    assert (
        '"sleep 60"' in rows[0] and "5 seconds ago" in rows[0] and "Up 5 seconds" in rows[0] and rows[0].endswith("web")
    )
    assert "Exited (3)" in rows[1]
    assert rows[2].split("  ")[-1].strip() == "old" and "Exited " in rows[2]


def test_only_running_unless_all(capsys):
    engine = FakeEngine(info("web"), info("job", "exited"))
    ps(["-q"], lambda: engine)
    assert capsys.readouterr().out == info("web").id[:12] + "\n"
    ps(["-aq", "--no-trunc"], lambda: engine)
    assert capsys.readouterr().out.splitlines() == [info("web").id, info("job").id]


def test_long_and_hostile_commands(capsys):
    engine = FakeEngine(info("web", command=("sh", "-c", "echo \x1b[2J and much more that is cut")))
    ps([], lambda: engine)
    output = capsys.readouterr().out
    assert "\x1b" not in output and '…"' in output
    ps(["--no-trunc"], lambda: engine)
    assert "and much more that is cut" in capsys.readouterr().out


def test_words():
    with pytest.raises(UsageError):
        ps(["x"])


def test_help(capsys):
    assert ps(["--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_age(seconds, words):
    assert age(seconds) == words


def test_quoted():
    assert quoted('a "b" \\ é \n\x1b') == '"a \\"b\\" \\\\ é \\n\\x1b"'


def test_format_and_filters(capsys):
    engine = FakeEngine(info("web", labels=(("tier", "front"), ("x", ""))), info("job", state="exited", returncode=3))

    def listed(*words):
        assert ps([*words, "--format", "{{.Names}}"], lambda: engine) == 0
        return capsys.readouterr().out.split()

    assert listed() == ["web"]
    assert listed("-a") == ["web", "job"]
    assert listed("--filter", "status=exited") == ["job"]
    assert listed("--filter", "exited=3") == ["job"]
    assert listed("--filter", "exited=0") == []
    assert listed("-a", "--filter", "name=o") == ["job"]
    assert listed("-a", "--filter", "name=o", "--filter", "name=w") == ["web", "job"]
    assert listed("--filter", "label=tier=front", "--filter", "label=none") == []
    assert listed("--filter", "label=tier=front", "--filter", "label=x") == ["web"]
    assert listed("--filter", "label=tier=back") == []
    assert listed("--filter", f"id={info('web').id[:5]}") == ["web"]
    ps(["--format", '{{.Label "tier"}} {{.State}} {{.Labels}}'], lambda: engine)
    assert capsys.readouterr().out == "front running tier=front,x=\n"
    ps(["--format", 'table {{.State}}\t{{.Label "org.example.my-tier"}}'], lambda: engine)
    assert capsys.readouterr().out.split("\n")[0] == "STATE     my tier"
    ps(["--format", "json"], lambda: engine)
    assert '"Names":"web"' in capsys.readouterr().out
    with pytest.raises(UsageError, match="containers are filtered by ancestor, "):
        ps(["--filter", "nmae=1"], lambda: engine)
    with pytest.raises(UsageError, match="invalid filter 'name': write KEY=VALUE"):
        ps(["--filter", "name"], lambda: engine)
    for words in (["--filter", "x=1"], ["--filter", "status=odd"], ["--filter", "exited=x"], ["--format", "{{.Nope}}"]):
        with pytest.raises(UsageError):
            ps(words, lambda: engine)


def test_the_last(capsys):
    engine = FakeEngine(info("new", "created"), info("web"), info("old", "exited"))
    for words, names in (
        (["-l"], "new"),
        (["-n", "2"], "new web"),
        (["-n", "0"], ""),
        (["-n", "1", "-f", "status=exited"], "old"),
        (["-n", "9"], "new web old"),
    ):
        ps([*words, "--format", "{{.Names}}"], lambda: engine)
        assert capsys.readouterr().out.split() == names.split()
    with pytest.raises(UsageError, match="how many"):
        ps(["-n", "x"], lambda: engine)


def test_sizes(capsys):
    engine = FakeEngine(info("web"), info("gone"))
    ps(["-s"], lambda: engine)
    header, web, gone = capsys.readouterr().out.splitlines()
    assert header.endswith("SIZE") and web.endswith("1.5kB (virtual 7.8MB)") and gone.endswith("gone")
    ps(["--format", "{{.Size}}"], lambda: engine)
    assert capsys.readouterr().out == "1.5kB (virtual 7.8MB)\n\n"


def test_all_fields(capsys):
    one = info("web", network="none", mounts=(("data", "/d"), ("/home/me/a-long-way", "/src")))
    form = "{{.Networks}} {{.LocalVolumes}} {{.Mounts}} [{{.Ports}}]"
    ps(["--format", form], lambda: FakeEngine(one))
    ps(["--no-trunc", "--format", form], lambda: FakeEngine(one))
    assert capsys.readouterr().out == "none 1 data,/home/me/a-lon… []\nnone 1 data,/home/me/a-long-way []\n"


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (info("a", started=1000.0), "Up 2 minutes"),
        (info("a", "paused", started=1000.0), "Up 2 minutes (Paused)"),
        (info("a", started=1000.0, health="healthy"), "Up 2 minutes (healthy)"),
        (info("a", started=1000.0, health="starting"), "Up 2 minutes (health: starting)"),
        (info("a", "exited", returncode=0, finished=1110.0), "Exited (0) 10 seconds ago"),
        (info("a", "exited", finished=1110.0), "Exited 10 seconds ago"),
        (info("a", "exited"), "Exited"),
        (info("a", "restarting", returncode=1, finished=1119.0), "Restarting (1) 1 second ago"),
        (info("a", "created"), "Created"),
        (info("a", "dead"), "Dead"),
    ],
)
def test_status(one, text):
    assert status_text(one, 1120.0) == text


def test_the_store_on_disk(capsys, tmp_path, monkeypatch):
    """Without a store there is nothing to list, and none is made."""
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    assert ps(["-aq"]) == 0
    assert capsys.readouterr().out == "" and not (tmp_path / "store").exists()
