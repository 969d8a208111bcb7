"""What `pyrtc stats`, `top`, `update` and `port` print and refuse, with containers that are made up."""

import io
import time
from types import SimpleNamespace

import pytest

from pyrtc.cli.port import port
from pyrtc.cli.stats import binary_size, stats
from pyrtc.cli.top import top
from pyrtc.cli.update import update
from pyrtc.errors import ContainerError, ContainerNotFound, LimitError, UsageError
from pyrtc.options import Port, RestartPolicy
from pyrtc.processes import ProcessInfo, _terminal
from pyrtc.stats import Sampler, Stats

NOW = time.time()
SHELL = ProcessInfo(
    pid=10, ppid=1, uid=0, name="sh", command="sh -c x", state="S", started=NOW - 3725, cpu_seconds=65.5, threads=2,
    nice=0, priority=20, resident=2 << 20, virtual=4 << 20, tty="pts/0",
)  # fmt: skip
BUSY = Stats(
    id="a" * 64, name="busy", cpu_percent=150.5, cpu_seconds=3.0, memory=1_617_920, memory_limit=64 << 20,
    memory_percent=2.411, memory_peak=2 << 20, read_bytes=1_500_000, written_bytes=0, received_bytes=648,
    sent_bytes=1_260, pids=3, pids_limit=None,
)  # fmt: skip
UNKNOWN = Stats("b" * 64, "dark", *(None,) * 12)


class FakeContainer:
    def __init__(self, name, found=None):
        self.name = name
        self.found = found
        self.id = (name.encode().hex() * 64)[:64]
        self.changes = []

    def top(self):
        return (SHELL,)

    def update(self, **changes):
        if self.name == "stuck":
            raise LimitError("cannot limit memory to 1: busy")
        self.changes.append(changes)
        return ("take care",) if "memory" in changes else ()


class FakeEngine:
    def __init__(self, *containers):
        self.there = containers
        self.containers = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def get(self, name):
        for one in self.there:
            if one.name == name:
                return one
        raise ContainerNotFound(f"No such container: {name}")

    def list(self, *, all=False):
        return [one for one in self.there if all or one.found is not None]


@pytest.fixture
def sampled(monkeypatch):
    def take(_self, container):
        if container.found is None:
            raise ContainerError("not running")
        return container.found

    monkeypatch.setattr(Sampler, "take", take)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_stats(sampled, capsys):
    engine = FakeEngine(FakeContainer("busy", BUSY), FakeContainer("dark", UNKNOWN), FakeContainer("old"))
    assert stats(["--no-stream"], lambda: engine) == 0
    header, busy, dark = capsys.readouterr().out.splitlines()
    assert header.split("   ")[0] == "CONTAINER ID" and "MEM USAGE / LIMIT" in header
    assert busy.split()[:2] == ["a" * 12, "busy"] and "150.50%" in busy and "1.543MiB / 64MiB" in busy
    assert "2.41%" in busy and "648B / 1.26kB" in busy and "1.5MB / 0B" in busy and busy.endswith("3")
    assert dark.split()[2:] == ["--", "--", "/", "--", "--", "--", "--", "--"]
    stats(["--no-stream", "-a", "--no-trunc", "--format", "{{.ID}} {{.MemPerc}}"], lambda: engine)
    assert capsys.readouterr().out.splitlines()[2] == f"{FakeContainer('old').id} --"
    with pytest.raises(ContainerNotFound):
        stats(["--no-stream", "busy", "nobody"], lambda: engine)
    with pytest.raises(UsageError):
        stats(["--no-stream", "--format", "{{.Colour}}"], lambda: engine)


def test_stats_go_on(sampled, monkeypatch):
    """On a terminal each table takes the place of the one before; an interrupt ends them."""
    engine = FakeEngine(FakeContainer("busy", BUSY))

    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def flush(self):
            if self.getvalue().count("busy") == 3:
                raise KeyboardInterrupt

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    with pytest.raises(KeyboardInterrupt):
        stats([], lambda: engine)
    assert terminal.getvalue().count("\033[H") == 3


def test_stats_end_when_all_that_were_named_are_gone(sampled, monkeypatch, capsys):
    left = iter([BUSY, BUSY, BUSY])  # the third is the second table's

    def take(_self, container):
        for found in left:
            return found
        raise ContainerNotFound("No such container: busy")

    monkeypatch.setattr(Sampler, "take", take)
    assert stats(["busy", "--format", "{{.Name}}"], lambda: FakeEngine(FakeContainer("busy", BUSY))) == 0
    assert capsys.readouterr().out == "busy\nbusy\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "--"),
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1_617_920, "1.543MiB"),
        (5 << 40, "5TiB"),
        (1 << 60, "1.049e+06TiB"),
    ],
)
def test_binary_size(size, text):
    assert binary_size(size) == text


def test_shares_are_of_the_time_between_two_samples():
    sampler = Sampler()
    assert sampler._percent("a", 1.0, 100.0) is None
    assert sampler._percent("a", 1.5, 101.0) == 50.0
    assert sampler._percent("a", 4.5, 103.0) == 150.0
    assert sampler._percent("b", 0.0, 103.0) is None and sampler._percent("a", None, 104.0) is None


def shown(capsys, *words):
    assert top(["web", *words], lambda: FakeEngine(FakeContainer("web"))) == 0
    header, row = capsys.readouterr().out.splitlines()
    return header.split(), row.split()


def test_top(capsys, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    header, row = shown(capsys)
    assert header == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row[:4] == ["root", "10", "1", "1"] and row[5:] == ["pts/0", "00:01:05", "sh", "-c", "x"]
    assert shown(capsys, "-ef") == (header, row)
    header, row = shown(capsys, "aux")
    assert header[:6] == ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS"] and row[4:6] == ["4096", "2048"]
    assert shown(capsys, "-eo", "pid,etime,ni,pri,s") == (
        ["PID", "ETIME", "NI", "PRI", "S"], ["10", "01:02:05", "0", "20", "S"],
    )  # fmt: skip
    assert shown(capsys, "-o", "uid,comm", "-o", "etimes=AGE") == (["UID", "COMMAND", "AGE"], ["0", "sh", "3725"])


@pytest.mark.parametrize("words", [["-Q"], ["-o"], ["-o", "colour"], ["--sort=pid"], ["x", "y"]])
def test_options_of_ps_that_there_are_not(words):
    with pytest.raises(UsageError):
        top(["web", *words], lambda: FakeEngine(FakeContainer("web")))


def test_top_of_nothing(capsys):
    assert top(["--help"]) == 0 and "etime" in capsys.readouterr().out
    for words in ([], ["-ef"]):
        with pytest.raises(UsageError, match="container is missing"):
            top(words)


@pytest.mark.parametrize(
    ("number", "name"), [(0, ""), (0x8800, "pts/0"), (0x8903, "pts/259"), (0x0401, "tty1"), (0xE502, "229:2")]
)
def test_terminals(number, name):
    assert _terminal(number) == name


def test_update(capsys):
    web, stuck = FakeContainer("web"), FakeContainer("stuck")
    words = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "0", "--cpuset-cpus", "", "--restart", "on-failure:3",
             "--device-read-bps", "/dev/sda:1m", "--device-read-bps", "/dev/sdb:0"]  # fmt: skip
    assert update([*words, "stuck", "web", "nobody"], lambda: FakeEngine(web, stuck)) == 1
    done = capsys.readouterr()
    assert done.out == "web\n" and "warning: take care" in done.err and "busy" in done.err and "nobody" in done.err
    assert web.changes == [
        {
            "memory": 64 << 20,
            "cpus": 0.5,
            "pids": None,
            "cpuset_cpus": None,
            "restart": RestartPolicy("on-failure", 3),
            "device_read_bps": (("/dev/sda", 1 << 20), ("/dev/sdb", 0)),
        }
    ]


@pytest.mark.parametrize("words", [[], ["web"], ["-m", "64m"], ["-m", "much", "web"], ["--colour", "web"]])
def test_updates_that_mean_nothing(words):
    with pytest.raises(UsageError):
        update(words, lambda: FakeEngine(FakeContainer("web")))


def test_port(capsys):
    ports = (Port(80, host=8080), Port(53, "udp", 5353, "127.0.0.1"))
    engine = FakeEngine(SimpleNamespace(name="web", ports=ports))
    assert port(["web"], lambda: engine) == 0
    assert capsys.readouterr().out.splitlines() == [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "53/udp -> 127.0.0.1:5353",
    ]
    assert port(["web", "53/udp"], lambda: engine) == 0
    assert capsys.readouterr().out == "127.0.0.1:5353\n"
    with pytest.raises(ContainerError, match="no public port '53/tcp' published for web"):
        port(["web", "53"], lambda: engine)
    for words in ([], ["web", "http"], ["web", "1", "2"]):
        with pytest.raises(UsageError):
            port(words, lambda: engine)
