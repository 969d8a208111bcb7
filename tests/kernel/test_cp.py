"""`pyrtc cp`: Docker's table of what goes where, its refusals, tar streams; running and stopped."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pyrtc.api import make_options
from pyrtc.cli.copy import _size, _split
from pyrtc.cli.main import main
from pyrtc.files import Files

FILE, TREE = "file", {"a": "1", "sub": {"b": "2"}}


def put(path: Path, what: str | dict | None) -> None:
    """Make a file of a text, a directory of a dict, nothing of None."""
    if isinstance(what, str):
        path.write_text(what)
    elif what is not None:
        path.mkdir()
        for name, inner in what.items():
            put(path / name, inner)


def seen(path: Path) -> str | dict | None:
    if path.is_file():
        return path.read_text()
    if not path.is_dir():
        return None
    return {inner.name: seen(inner) for inner in sorted(path.iterdir())}


# source, its spelling, what is at the target, the target's spelling -> what is there then, or words of the refusal
TABLE = {
    "file to nothing": (FILE, "src", None, "dst", FILE),
    "file to nothing with a slash": (FILE, "src", None, "dst/", "no such directory"),
    "file over file": (FILE, "src", "old", "dst", FILE),
    "file to a file with a slash": (FILE, "src", "old", "dst/", "not a directory"),
    "file into directory": (FILE, "src", {"k": "x"}, "dst", {"k": "x", "src": FILE}),
    "file into directory with a slash": (FILE, "src", {"k": "x"}, "dst/", {"k": "x", "src": FILE}),
    "file over directory": (FILE, "src", {"src": {}}, "dst", "directory"),
    "file with a slash": (FILE, "src/", None, "dst", "not a directory"),
    "directory to nothing": (TREE, "src", None, "dst", TREE),
    "directory to nothing with a slash": (TREE, "src", None, "dst/", TREE),
    "contents to nothing": (TREE, "src/.", None, "dst", TREE),
    "directory over file": (TREE, "src", "old", "dst", "cannot copy directory"),
    "contents over file": (TREE, "src/.", "old", "dst", "cannot copy directory"),
    "directory into directory": (TREE, "src", {"k": "x"}, "dst", {"k": "x", "src": TREE}),
    "directory with a slash into directory": (TREE, "src/", {"k": "x"}, "dst", {"k": "x", "src": TREE}),
    "contents into directory": (TREE, "src/.", {"k": "x"}, "dst", {**TREE, "k": "x"}),
    "contents merged": (TREE, "src/.", {"sub": {"c": "3"}, "a": "9"}, "dst", {"a": "1", "sub": {"b": "2", "c": "3"}}),
    "directory over a file in directory": (TREE, "src", {"src": "old"}, "dst", "non-directory"),
    "to a directory that is missing": (FILE, "src", None, "no/dst", "no such"),
    "a source that is missing": (None, "src", None, "dst", "src"),
}


@pytest.fixture(params=["running", "stopped"])
def container(request, engine, image, monkeypatch):
    """A container's name and files; the command line uses the same store."""
    options = make_options(["/probe", "sleep", "60"], remove=False, name="box")
    handle = engine.start(image(), options, stdout=None, stderr=None)
    monkeypatch.setenv("PYRTC_ROOT", str(engine.store.root))
    if request.param == "stopped":
        handle.close()
    yield Files(engine.store, handle.id)
    handle.close()
    engine.containers.remove(handle.id, force=True)


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_into_the_container(container, tmp_path, capfd, case):
    source, spelled, before, target, after = case
    put(tmp_path / "src", source)
    container.mkdir("/w")
    if before is not None:
        put(tmp_path / "dst", before)
        container.copy_in(tmp_path / "dst", "/w/dst")
    code = main(["cp", f"{tmp_path}/{spelled}", f"box:/w/{target}"])
    container.copy_out("/w", tmp_path / "seen")
    judge(code, capfd, after, before, seen(tmp_path / "seen/dst"))


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_out_of_the_container(container, tmp_path, capfd, case):
    source, spelled, before, target, after = case
    container.mkdir("/w")
    if source is not None:
        put(tmp_path / "src", source)
        container.copy_in(tmp_path / "src", "/w/src")
    put(tmp_path / "dst", before)
    code = main(["container", "cp", f"box:w/{spelled}", f"{tmp_path}/{target}"])
    judge(code, capfd, after, before, seen(tmp_path / "dst"))


def judge(code, capfd, after, before, found):
    said = capfd.readouterr().err
    if isinstance(after, str) and after != FILE:
        assert code == 1
        assert after in said.lower()
        assert found == before
    else:
        assert (code, said) == (0, "")
        assert found == after


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "b"], "must specify at least one container source"),
        (["box:/a", "box:/b"], "copying between containers is not supported"),
        (["a"], "requires exactly 2 arguments"),
        (["nobody:/a", "/b"], "No such container: nobody"),
        (["box:", "/b"], "cannot be empty"),
        (["box:/nope", "/tmp"], "Could not find the file /nope in container box"),
        (["./nope", "box:/tmp"], "no such file or directory"),
        (["box:/dev/null", "./x"], "left out"),
    ],
)
def test_refusals(container, capfd, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    if words[0] == "box:/dev/null" and not container.exists("/dev/null"):
        pytest.skip("a stopped container has no devices")
    code = main(["cp", *words])
    assert (code, text in capfd.readouterr().err) == (0 if text == "left out" else 1, True)


def test_links(container, tmp_path):
    put(tmp_path / "real", TREE)
    (tmp_path / "link").symlink_to("real")
    assert main(["cp", f"{tmp_path}/link", "box:/link"]) == 0
    assert container.stat("/link", follow_symlinks=False).target == "real"
    assert main(["cp", "-L", f"{tmp_path}/link", "box:/followed"]) == 0
    assert [entry.name for entry in container.list("/followed")] == ["a", "sub"]
    assert main(["cp", f"{tmp_path}/real/.", "box:/real"]) == 0
    assert main(["cp", "box:/link", str(tmp_path / "out")]) == 0
    assert os.readlink(tmp_path / "out") == "real"
    assert main(["cp", "-L", "box:/link", str(tmp_path / "tree")]) == 0
    assert seen(tmp_path / "tree") == TREE
    # A link at the target is followed: in the container inside, here as the user named it.
    put(tmp_path / "one", "new")
    assert main(["cp", f"{tmp_path}/one", "box:/link"]) == 0
    assert container.read("/real/one") == b"new"


def test_a_hostile_tree_stays_in_its_copy(container, tmp_path):
    """First a link that leads out, then a directory of the same name with a file: the link is not followed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "one").symlink_to(tmp_path / "outside")
    put(tmp_path / "two", {"link": {"x": "x"}})
    container.copy_in(tmp_path / "one", "/link")
    container.copy_in(tmp_path / "two", "/two")
    (tmp_path / "dst").mkdir()
    assert main(["cp", "box:/link", f"{tmp_path}/dst"]) == 0
    assert main(["cp", "box:/two/.", f"{tmp_path}/dst"]) == 1
    assert os.listdir(tmp_path / "outside") == []


def pyrtc(*words, **options):
    command = [sys.executable, "-c", "from pyrtc.cli.main import program; program()", *words]
    return subprocess.run(command, capture_output=True, check=False, **options)


def test_streams(container, tmp_path):
    put(tmp_path / "src", TREE)
    container.copy_in(tmp_path / "src", "/src")
    done = pyrtc("cp", "box:/src", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["src", "src/a", "src/sub", "src/sub/b"]
    container.mkdir("/in")
    assert pyrtc("cp", "-", "box:/in", input=done.stdout).returncode == 0
    assert container.read("/in/src/sub/b") == b"2"
    refused = pyrtc("cp", "-", "box:/src/a", input=done.stdout)
    assert (refused.returncode, b'destination "box:/src/a" must be a directory' in refused.stderr) == (1, True)


def test_a_reader_that_has_enough_is_no_failure(container):
    container.write("/large", bytes(1 << 20))
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        command = [sys.executable, "-c", "from pyrtc.cli.main import program; program()", "cp", "box:/large", "-"]
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_stream_with_links_out_changes_nothing_of_the_host(container, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        inner = tarfile.TarInfo("l/made")
        inner.size = 1
        archive.addfile(inner, io.BytesIO(b"x"))
    pyrtc("cp", "-", "box:/", input=buffer.getvalue())
    assert not (tmp_path / "made").exists()


def test_words():
    assert _split("a:b:c") == ("a", "b:c")
    assert _split("./a:b") == ("", "./a:b")
    assert _split("/a:b") == ("", "/a:b")
    assert _split("a") == ("", "a")
    assert [_size(count) for count in (0, 999, 1536, 2_050_000)] == ["0B", "999B", "1.54kB", "2.05MB"]
