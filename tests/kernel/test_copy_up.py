"""--copy-up: files that are in the R/W layer before the command runs, and what an image could do against it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import ROOT, Entry, File, ImageFactory, Link, Node

import pyrtc
from pyrtc.api import make_options
from pyrtc.engine import Engine

FILES: dict[str, Entry] = {
    "etc/passwd": "root:x:0:0::/:/bin/sh\n",
    "data/a": File(b"a" * 100_000, mode=0o640, uid=0, gid=0),
    "data/below/b": "b",
    "data/below/empty": "",
    "data/link": Link("a"),
    "data/out": Link(f"/../../..{sys.executable}"),
    "data/pipe": Node("p"),
    "way": Link("data"),
}


@contextmanager
def changes(engine: Engine, image: str, *paths: str, **options: Any) -> Iterator[list[str]]:
    """What a container has changed that did nothing itself."""
    done = engine.run(image, make_options(["/probe", "ids"], copy_up=paths, remove=False, **options)).check()
    container = engine.containers.get(done.id)
    try:
        yield [change.path for change in container.diff()]
    finally:
        container.remove(force=True)


@pytest.fixture
def base(image: ImageFactory) -> str:
    return image(FILES)


def test_one_file(engine: Engine, base: str) -> None:
    with changes(engine, base, "/etc/passwd") as found:
        assert found == ["/etc", "/etc/passwd"]


@pytest.mark.parametrize("path", ["/data", "/data/", "/way", "/data/below/.."])
def test_every_file_below_a_directory(engine: Engine, base: str, path: str) -> None:
    """But no link, no pipe, and nothing that a link leads to."""
    with changes(engine, base, path) as found:
        assert found == ["/data", "/data/a", "/data/below", "/data/below/b", "/data/below/empty"]


def test_several(engine: Engine, base: str) -> None:
    with changes(engine, base, "/etc/passwd", "/data/link") as found:
        assert found == ["/data", "/data/a", "/etc", "/etc/passwd"]


def test_they_are_what_they_were(engine: Engine, base: str) -> None:
    words = ["/probe", "stat", "/data/a", ",", "stat", "/data/below/b", ",", "stat", "/etc/passwd"]
    plain = engine.run(base, make_options(words))
    copied = engine.run(base, make_options(words, copy_up=["/data", "/etc"]))
    assert plain.returncode == copied.returncode, (plain, copied)
    assert plain.stdout == copied.stdout


def test_a_link_leads_to_nothing_of_the_host(engine: Engine, base: str) -> None:
    """It is resolved in the container's root, where the image has no such file."""
    with pytest.raises(pyrtc.StartError, match=r"copy up /data/out: .*No such file"):
        engine.run(base, make_options(["/probe", "ids"], copy_up=["/data/out"]))


@pytest.mark.parametrize(("path", "why"), [("/nowhere", "No such file"), ("/data/pipe", "Invalid argument")])
def test_what_cannot_be_copied(engine: Engine, base: str, path: str, why: str) -> None:
    with pytest.raises(pyrtc.StartError, match=f"copy up {path}.*{why}"):
        engine.run(base, make_options(["/probe", "ids"], copy_up=[path], timeout=30))


def test_a_tree_too_deep(engine: Engine, image: ImageFactory) -> None:
    deep = image({"/".join(["d"] * 80) + "/file": "x"})
    with pytest.raises(pyrtc.StartError, match="copy up /d"):
        engine.run(deep, make_options(["/probe", "ids"], copy_up=["/d"]))


def test_the_image_stays_as_it_is(engine: Engine, base: str) -> None:
    with changes(engine, base, "/data", "/etc"), changes(engine, base) as found:
        assert found == []


def test_a_read_only_root(engine: Engine, base: str) -> None:
    with pytest.raises(pyrtc.UsageError, match="contradict"):
        engine.run(base, make_options(["/probe", "ids"], copy_up=["/etc"], read_only=True))


@pytest.mark.parametrize("relative", ["etc/passwd", "", "../etc"])
def test_paths_are_absolute(engine: Engine, base: str, relative: str) -> None:
    with pytest.raises(pyrtc.UsageError, match="--copy-up"):
        engine.run(base, make_options(["/probe", "ids"], copy_up=[relative]))


@pytest.mark.parametrize(
    "options", [{"rw_layer": "memory"}, {"driver": "copy"}, *([{"userns": "auto"}] if ROOT else [])]
)
def test_every_kind_of_root(engine: Engine, base: str, options: dict[str, Any]) -> None:
    done = engine.run(base, make_options(["/probe", "ids"], copy_up=["/data", "/etc/passwd"], **options))
    assert done.returncode == 0
    with pytest.raises(pyrtc.StartError, match=r"copy up /nowhere.*No such file"):  # so it is looked for here, too
        engine.run(base, make_options(["/probe", "ids"], copy_up=["/nowhere"], **options))
