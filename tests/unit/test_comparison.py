"""The comparison's own arithmetic, its images and its page; nothing is timed."""

import json
import random
import re
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest

from benchmarks.comparison import instances
from benchmarks.comparison.claims import claims
from benchmarks.comparison.clock import Clock, level
from benchmarks.comparison.documenting import BEGIN, END, document
from benchmarks.comparison.experiments import Experiment, Measure, Results, Trial
from benchmarks.comparison.guest import archive
from benchmarks.comparison.images import Layer, Tree, layout, write_tree
from benchmarks.comparison.instances import CopiedTree, Instance, Source, Way
from benchmarks.comparison.isolation import FEATURES, judge, lacks
from benchmarks.comparison.many import measure_many
from benchmarks.comparison.page import page
from benchmarks.comparison.regressions import Change, changes, compare, repeated
from benchmarks.comparison.run import write_report
from benchmarks.comparison.statistics import Ratio, quartiles, ratio, spread
from pyrtc.image.images import Images
from pyrtc.store import Store

TIME = {"time": Measure("time", "ms")}


def results(tmp_path: Path, mode: str = "quick") -> Results:
    machine = {
        "processor": "one <of> many",
        "processors": 2,
        "virtual": True,
        "memory_mib": 2048,
        "kernel": "6.1",
        "system": "Debian",
        "cgroups": "2",
        "below": "ext4",
        "load": (0.5, 0, 0),
    }
    return Results(tmp_path / "results.json", machine, {"crun": "1.8", "runc": None}, mode)


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_quartiles() -> None:
    assert quartiles([5.0]) == (5.0, 5.0, 5.0)
    assert quartiles([1, 2, 3, 4, 5]) == (2, 3, 4)


def test_a_ratio_and_how_sure_it_is() -> None:
    numbers = random.Random(3)
    values = [numbers.gauss(20, 1) for _ in range(60)]
    base = [numbers.gauss(10, 1) for _ in range(60)]
    found = ratio(values, base)
    assert found.low < found.value < found.high
    assert found.low > 1.85 and found.high < 2.2
    assert found == ratio(values, base), "a report can be made again"
    assert ratio([4.0], [2.0]).low == ratio([4.0], [2.0]).high == 2.0


def test_few_samples_are_told_as_they_are() -> None:
    """Draws from two samples would be an interval that means nothing."""
    found = ratio([10.0, 30.0, 20.0], [2.0] * 20)
    assert (found.value, found.low, found.high, found.count) == (10, 5, 15, 3)
    assert str(found) == "10.0 (3 samples: 5.00 to 15.0)"
    turned = ratio([2.0] * 20, [10.0, 30.0, 20.0])
    assert (turned.low, turned.value, turned.high) == pytest.approx((2 / 30, 0.1, 0.2))
    assert str(ratio([4.0], [2.0])) == "2.00 (one sample)"
    assert spread([3.0, 1.0, 2.0]) == (1, 2, 3)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == quartiles([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


# ---- the clock ------------------------------------------------------------------------------------------------------


def test_time_is_shared_by_weight_and_what_is_left_goes_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(100, {"a": 30, "b": 10, "c": 10})
    assert clock.deadline("a") == 1060
    now = 1020.0  # it took less
    assert clock.deadline("b") == 1060
    now = 1090.0  # and this took more
    assert clock.deadline("c") == 1100
    assert not clock.is_over
    now = 1101.0
    assert clock.is_over and clock.deadline("d") == now


def test_who_needs_little_leaves_the_rest() -> None:
    assert level([1.0, 2.0], 10) == float("inf")
    assert level([1.0, 20.0, 30.0], 21) == 10
    assert level([5.0, 5.0], 4) == 2
    assert level([5.0], -3) == 0 and level([], 1) == float("inf")


def test_what_takes_long_is_measured_less_often(tmp_path: Path) -> None:
    def slow() -> dict[str, float]:
        time.sleep(0.3)
        return {"time": 300.0}

    kept = results(tmp_path)
    kept.limit(Clock(4.0, {"part/one": 1}))
    begun = time.monotonic()
    kept.run(
        Experiment("part/one", "One", "How.", TIME),
        [
            Trial("slow", "copy", slow, rounds=50, warm_up=0),
            Trial("fast", "layers", lambda: {"time": 1.0}, rounds=12, warm_up=0),
        ],
    )
    assert time.monotonic() - begun < 8
    slow_one, fast_one = kept.document["experiments"]["part/one"]["series"]
    assert 3 <= len(slow_one["load"]) < 12
    assert len(fast_one["load"]) == 12
    assert kept.document["notes"] == []


def test_nothing_is_begun_when_the_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = Experiment("part/one", "One", "How.", TIME)
    trial = Trial("a", "layers", lambda: {"time": 1.0}, rounds=2)
    kept = results(tmp_path)
    kept.limit(Clock(0.0, {"part/one": 1}))
    kept.run(experiment, [trial])
    assert kept.document["notes"] == ["One: not measured, the time was up; the same command again goes on"]
    again = results(tmp_path)
    again.run(experiment, [trial])
    assert len(again.document["experiments"]["part/one"]["series"][0]["load"]) == 2
    assert again.document["notes"] == [], "what was missing is there now"


def test_a_run_that_was_killed_goes_on_with_its_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = 0

    def run() -> dict[str, float]:
        nonlocal taken
        taken += 1
        if taken == 4:
            raise KeyboardInterrupt
        return {"time": float(taken)}

    experiment = Experiment("anatomy/caller", "One", "How.", TIME)
    trial = Trial("a", "layers", run, rounds=5)
    with pytest.raises(KeyboardInterrupt):
        results(tmp_path).run(experiment, [trial])
    kept = results(tmp_path)
    assert not kept.has("anatomy/caller")
    assert "1 more were begun" in capsys.readouterr().out
    assert "Not all of it was measured" in page(kept.document)
    kept.run(experiment, [trial])
    (series,) = kept.document["experiments"]["anatomy/caller"]["series"]
    assert series["values"]["time"] == [2, 3, 6, 7, 8], "the first of each run warms up"
    assert "gone on with, 2 samples are there" in capsys.readouterr().out
    assert "Not all of it was measured" not in page(kept.document)


# ---- samples --------------------------------------------------------------------------------------------------------


def test_turns_and_what_is_kept(tmp_path: Path) -> None:
    order = []

    def run(name: str) -> dict[str, float]:
        order.append(name)
        return {"time": float(len(order))}

    experiment = Experiment("anatomy/caller", "One", "How.", TIME)
    trials = [
        Trial("a", "layers", lambda: run("a"), rounds=3),
        Trial("b", "copy", lambda: run("b"), rounds=1, warm_up=0),
    ]
    kept = results(tmp_path)
    kept.run(experiment, trials)
    assert order == ["a", "b", "a", "a", "a"]
    series = {
        one["name"]: one
        for one in json.loads((tmp_path / "results.json").read_text())["experiments"]["anatomy/caller"]["series"]
    }
    assert series["a"]["values"] == {"time": [3.0, 4.0, 5.0]}, "the warm-up does not count, all else does"
    assert len(series["a"]["load"]) == 3
    results(tmp_path).run(experiment, trials)
    assert len(order) == 5, "what is there is not measured again"
    with pytest.raises(SystemExit, match="other settings"):
        results(tmp_path, "whole")


def test_what_does_not_work_is_named(tmp_path: Path) -> None:
    def fail() -> dict[str, float]:
        raise RuntimeError("it is\nmissing a part")

    kept = results(tmp_path)
    kept.run(
        Experiment("anatomy/caller", "One", "How.", TIME),
        [Trial("a", "peer", fail), Trial("b", "bare", lambda: {"time": 1.0})],
    )
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["notes"] == ["a does not work here: missing a part"]
    assert [one["name"] for one in document["experiments"]["anatomy/caller"]["series"]] == ["b"]


# ---- images ---------------------------------------------------------------------------------------------------------


def test_trees_have_their_size_and_are_the_same_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"x" * 1000)
    first = write_tree(tmp_path / "a", 2_000_000, program)
    second = write_tree(tmp_path / "b", 2_000_000, program)
    contents = [
        {path.relative_to(tree.path): path.read_bytes() for path in tree.path.rglob("*") if path.is_file()}
        for tree in (first, second)
    ]
    assert contents[0] == contents[1]
    assert first.size == sum(map(len, contents[0].values())) == 2_000_000
    assert first.files == len(contents[0]) > 20


@pytest.mark.parametrize("compressed", [False, True])
def test_layouts_are_images(tmp_path: Path, compressed: bool) -> None:
    trees = [write_tree(tmp_path / str(n), 20_000, None, seed=n + 1) for n in range(2)]
    for name, parts in (("one", trees[:1]), ("two", trees)):
        layout(tmp_path / "layout", name, [Layer(tree.path, "srv") for tree in parts], compressed=compressed)
    with Store(tmp_path / "store") as store:
        for name, count in (("one", 1), ("two", 2)):
            Images(store).load(f"oci:{tmp_path}/layout:{name}")
            assert len(store.image(name).layers) == count


def test_the_first_file_system_of_a_machine(tmp_path: Path) -> None:
    """As cpio(5) says: every header and every content at a multiple of four bytes."""
    program = tmp_path / "program"
    program.write_bytes(b"12345")
    content = archive([("init", program)])
    assert len(content) % 4 == 0
    header = content[:110]
    assert header[:6] == b"070701"
    fields = [int(header[place : place + 8], 16) for place in range(6, 110, 8)]
    assert (fields[1], fields[6], fields[11]) == (0o100755, 5, 5)
    assert content[110:115] == b"init\0" and content[116:121] == b"12345"
    assert b"TRAILER!!!\0" in content[124:]


# ---- isolation ------------------------------------------------------------------------------------------------------


def test_isolation_in_words() -> None:
    spaces = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    host = {name: f"{name}:[1]" for name in spaces} | {
        "CapBnd": "ff",
        "NoNewPrivs": "0",
        "Seccomp": "0",
        "groups": "/a",
    }
    host |= {"masked:/proc/kcore": "0", "readonly:/x": "0"}
    inside = {**host, "net": "net:[2]", "CapBnd": "03", "Seccomp": "2", "groups": "/b", "masked:/proc/kcore": "1"}
    found = judge(inside, host)
    assert tuple(found) == FEATURES
    assert [name for name, value in found.items() if value == "yes"] == [
        "network namespace",
        "own control group",
        "system call filter",
    ]
    assert found["capabilities"] == "2 of 8" and found["kernel's secrets masked"] == "1 of 1"


# ---- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path) -> Results:
    kept = results(tmp_path)
    sized = [
        {
            "name": name,
            "kind": kind,
            "x": x,
            "values": {"time": [base * x, base * x * 1.1, base * x * 0.9]},
            "load": [1.0],
        }
        for name, kind, base in (("pyrtc, layers, R/W layer on disk", "layers", 1.0), ("cp <b>", "copy", 30.0))
        for x in (2, 120)
    ]
    kept.put(Experiment("start/time", "Starts & <sizes>", "How.", TIME, x="MB"), sized, 1.0)
    plain = [
        {"name": name, "kind": kind, "x": None, "values": {"time": values}, "load": []}
        for name, kind, values in (("pyrtc.run", "layers", [2.0, 2.1, 2.2]), ("crun", "peer", [20.0, 22.0, 21.0]))
    ]
    kept.put(Experiment("anatomy/peers", "Peers", "How.", TIME), plain, 1.0)
    kept.put(Experiment("anatomy/trace", "Steps", "How.", TIME), plain, 1.0)
    many = [
        {
            "name": "cp",
            "kind": "copy",
            "x": None,
            "values": {"time": [1, 2], "total": [1, 3], "disk": [0, 5]},
            "load": [],
        }
    ]
    kept.put(
        Experiment(
            "many/instances", "Many", "How.", {**TIME, "total": Measure("t", "s"), "disk": Measure("d", "MB")}, x="n"
        ),
        many,
        1.0,
    )
    kept.fact("many/image_mb", 2)
    kept.fact("isolation", {"crun": dict.fromkeys(FEATURES, "yes"), "fork": dict.fromkeys(FEATURES, "no")})
    return kept


def test_a_page_needs_nothing_from_elsewhere(filled: Results, tmp_path: Path) -> None:
    write_report(filled, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#)', text), "every link stays in the page"
    assert "@import" not in text and "url(http" not in text
    assert "<b>" not in text and "one <of> many" not in text, "names are text"
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', text):
        assert target in names
    assert "prefers-color-scheme" in text and 'name="viewport"' in text
    assert "Not here: runc" in text


def test_pictures_stand_by_themselves(filled: Results, tmp_path: Path) -> None:
    write_report(filled, tmp_path)
    pictures = sorted((tmp_path / "pictures").glob("*.svg"))
    assert {path.stem for path in pictures} >= {"start-time-time", "anatomy-peers-time", "many-instances-disk"}
    for path in pictures:
        xml.etree.ElementTree.parse(path)


def test_claims_name_their_ratios(filled: Results) -> None:
    said = list(claims(filled.document))
    assert any(claim.startswith("crun takes 10") for claim in said)
    assert any("cp <b>: 3600 ms at 120 MB, 30.0 (" in claim for claim in said)
    assert "10 GB" in " ".join(said)


def test_no_ratio_compares_unequal_work_without_a_word(filled: Results) -> None:
    isolation = {"pyrtc.run": dict.fromkeys(FEATURES, "yes"), "crun": dict.fromkeys(FEATURES, "yes")}
    for found in isolation.values():
        found["capabilities"] = "14 of 41"
    assert lacks(isolation, "crun") == []
    isolation["crun"] |= {"capabilities": "20 of 41", "system call filter": "no", "own control group": "not seen"}
    assert lacks(isolation, "crun") == ["capabilities", "system call filter"]
    filled.fact("isolation", isolation)
    assert any(
        claim.endswith("it isolates less: capabilities, system call filter.") for claim in claims(filled.document)
    )
    text = page(filled.document)
    assert "crun *" in text and "pyrtc.run *" not in text


def test_the_documentation_of_a_run(filled: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs"
    (docs / "pictures").mkdir(parents=True)
    (docs / "pictures/old.svg").write_text("<svg/>")
    (docs / "benchmarks.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert document(tmp_path / "results.json", docs) == 0
        text = (docs / "benchmarks.md").read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
        assert text.count("- crun takes 10.0 ") == 1
        pictures = set(re.findall(r"\(pictures/([^)]+)\)", text))
        assert pictures == {path.name for path in (docs / "pictures").iterdir()} != set()
    (docs / "benchmarks.md").write_text("no place")
    assert document(tmp_path / "results.json", docs) == 1


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    assert "How it was measured" in page(results(tmp_path).document)


# ---- regressions ----------------------------------------------------------------------------------------------------


def documents(tmp_path: Path, own: float, machine: float) -> tuple[Path, Path]:
    """Two runs: pyrtc `own` times as long in the second, everything `machine` times."""
    numbers = random.Random(1)
    paths = []
    for run, (factor, scale) in enumerate(((1.0, 1.0), (own, machine))):
        series = [
            {
                "name": name,
                "kind": "layers",
                "x": None,
                "values": {"time": [numbers.gauss(10, 0.2) * by * scale for _ in range(30)]},
            }
            for name, by in (("pyrtc.run", factor), ("crun", 1.0), ("fork+exec", 1.0))
        ]
        path = tmp_path / f"{run}.json"
        experiment = {"title": "t", "measures": {"time": {}}, "series": series}
        path.write_text(json.dumps({"mode": "quick", "experiments": {"a/b": experiment}}))
        paths.append(path)
    return paths[0], paths[1]


@pytest.mark.parametrize(
    ("own", "machine", "code"), [(1.0, 1.0, 0), (1.0, 3.0, 0), (1.5, 1.0, 1), (1.5, 0.5, 1), (0.5, 1.0, 0)]
)
def test_what_became_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own: float, machine: float, code: int
) -> None:
    """A machine that is slower today does not make pyrtc slower."""
    old, new = documents(tmp_path, own, machine)
    assert compare(old, new) == code
    assert ("WORSE" in capsys.readouterr().out) == bool(code)
    (change,) = changes(json.loads(old.read_text()), json.loads(new.read_text()))
    assert change.ratio.value == pytest.approx(own, rel=0.05)
    assert change.is_better == (own < 0.9)


@pytest.mark.parametrize(("count", "is_worse"), [(1, False), (2, False), (3, True), (30, True)])
def test_one_sample_is_no_regression(count: int, is_worse: bool) -> None:
    assert Change("a/b", "pyrtc.run", "time", None, Ratio(2.0, 1.5, 2.5, count)).is_worse == is_worse
    assert Change("a/b", "pyrtc.run", "time", None, Ratio(0.5, 0.4, 0.6, count)).is_better == is_worse


def test_which_ratios_repeat(filled: Results, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old = json.loads((tmp_path / "results.json").read_text())
    new = json.loads((tmp_path / "results.json").read_text())
    for series in new["experiments"]["anatomy/peers"]["series"]:
        if series["name"] == "crun":
            series["values"]["time"] = [value * 1.3 for value in series["values"]["time"]]
    found = {name: (before.value, after.value) for name, before, after in repeated(old, new)}
    before, after = found["anatomy/peers: crun, time"]
    assert after == pytest.approx(before * 1.3)
    before, after = found["start/time: cp <b> at 120, time"]
    assert after == before == 30
    other = tmp_path / "new.json"
    other.write_text(json.dumps(new))
    compare(tmp_path / "results.json", other)
    said = capsys.readouterr().out
    assert re.search(r"anatomy/peers: crun, time: .*\+30 % DIFFERS", said)
    assert re.search(r"2 of 3 ratios repeat within 15 %", said), said


def test_nothing_in_common(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = documents(tmp_path, 1.0, 1.0)
    new.write_text(json.dumps({"mode": "whole", "experiments": {}}))
    assert compare(old, new) == 0
    assert "one run was quick" in capsys.readouterr().out


# ---- many instances -------------------------------------------------------------------------------------------------


class Fake(Way):
    """Instances that take a quarter of a second each, and fail at the ninth."""

    name, kind = "fake", "layers"

    def start(self, source: Source, number: int) -> Instance:
        if number % 100_000 == 8:
            raise RuntimeError("no more")
        return Instance(250.0)


def test_many_instances_add_up(tmp_path: Path) -> None:
    kept = results(tmp_path)
    source = Source("x", 2, Tree(tmp_path, 1, 1), tmp_path, tmp_path)
    measure_many(kept, tmp_path, source, [Fake()], most=20, seconds=60)
    (series,) = kept.document["experiments"]["many/instances"]["series"]
    assert series["values"]["time"] == [250.0] * 8
    assert series["values"]["total"] == [0.25 * n for n in range(1, 9)]
    assert len(series["values"]["disk"]) == 8
    assert kept.document["notes"] == ["fake: no instance after 8: no more"]


def test_a_way_stops_in_time(tmp_path: Path) -> None:
    kept = results(tmp_path)
    source = Source("x", 2, Tree(tmp_path, 1, 1), tmp_path, tmp_path)
    measure_many(kept, tmp_path, source, [Fake()], most=20, seconds=1.0)
    (series,) = kept.document["experiments"]["many/instances"]["series"]
    assert series["values"]["total"][-1] == 1.0


# ---- instances that do not begin ------------------------------------------------------------------------------------


def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Source:
    """Have chroot be a script; returns a source with one file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/chroot").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/chroot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    tree = write_tree(tmp_path / "tree", 1000, None)
    (tmp_path / "disk").mkdir()
    return Source("x", 1, tree, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("script", "message"), [("exec sleep 60", "said nothing within"), ("echo wrong; exit 3", "wrong")]
)
def test_an_instance_that_does_not_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    source = silent(tmp_path, monkeypatch, script)
    monkeypatch.setattr(instances, "PATIENCE", 0.3)
    with pytest.raises(RuntimeError, match=message):
        CopiedTree(tmp_path / "disk").start(source, 1)
    assert list((tmp_path / "disk").iterdir()) == []
