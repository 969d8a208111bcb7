"""What the image commands print and how they end."""

import io
import json
import os
import re
import sys

import pytest
from image_builder import HELLO, WORLD, config, docker_archive, sha, simple_layout
from tar_builder import END, file

from pyrtc.cli.images import since
from pyrtc.cli.main import main
from pyrtc.cli.tables import size_text
from pyrtc.store import Store


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    root = tmp_path / "store"
    monkeypatch.setenv("PYRTC_ROOT", str(root))
    return root


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive((["app:1", "reg.io/app:2"], config(HELLO, WORLD), [HELLO, WORLD])))
    return str(path)


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


ID = sha(config(HELLO, WORLD))


def test_load(capsys, archive: str, root) -> None:
    printed = "Loaded image: app:1\nLoaded image: reg.io/app:2\n"
    assert run(capsys, "load", "-i", archive) == (0, printed, "")
    assert run(capsys, "image", "load", "--quiet", archive) == (0, printed, "")
    assert os.listdir(root / "tmp") == []


def test_load_from_standard_input(capsys, archive: str, monkeypatch, tmp_path) -> None:
    with open(archive) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(capsys, "load")[0] == 0
    unnamed = tmp_path / "u"
    unnamed.write_bytes(docker_archive(([], config(HELLO), [HELLO])))
    with open(unnamed) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(capsys, "load", "-i", "-")[1] == f"Loaded image ID: {sha(config(HELLO))}\n"


def test_load_a_layout(capsys, tmp_path) -> None:
    path = simple_layout("tool").write(tmp_path / "layout")
    assert run(capsys, "load", f"oci:{path}:tool") == (0, "Loaded image: tool:latest\n", "")


def test_failures_end_with_1(capsys, archive: str, tmp_path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(file("x", b"y") + END)
    for words, reason in (
        (("load", "-i", str(damaged)), "no image archive"),
        (("load", "-i", str(tmp_path / "missing")), "No such file"),
        (("load", archive, archive), "one archive at a time"),
        (("load", "--platform", "linux/s390x", archive), "no image for linux/s390x"),
        (("import",), "a file and a name are needed"),
        (("rmi",), "the image is missing"),
        (("rmi", "nothing"), "No such image: nothing:latest"),
        (("image", "inspect", "nothing"), "No such image"),
        (("image", "nope"), "unknown command: image nope"),
        (("images", "--format", "{{.Nope}}"), "can't evaluate field Nope"),
        (("images", "--filter", "refrence=x"), "did you mean reference"),
        (("images", "a", "b"), "one name at a time"),
    ):
        code, _, error = run(capsys, *words)
        assert code == 1, words
        assert reason in error, words


def test_images(capsys, archive: str) -> None:
    assert run(capsys, "images")[1] == "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n"
    run(capsys, "load", "-i", archive)
    lines = run(capsys, "images")[1].splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert re.fullmatch(rf"app +1 +{ID[7:19]} +\d+ \w+ ago +12B", lines[1])
    assert re.fullmatch(rf"reg.io/app +2 +{ID[7:19]} +\d+ \w+ ago +12B", lines[2])
    assert run(capsys, "images", "-q")[1] == f"{ID[7:19]}\n"
    for word in ("ls", "list"):  # Docker's other name, of every noun
        assert run(capsys, "image", word, "-q", "--no-trunc")[1] == f"{ID}\n"
    assert "list" not in run(capsys, "image", "--help")[1].split()
    assert len(run(capsys, "images", "app")[1].splitlines()) == 2
    assert len(run(capsys, "images", "app:2")[1].splitlines()) == 1
    assert run(capsys, "images", "--format", "{{.Repository}}:{{.Tag}}")[1] == "app:1\nreg.io/app:2\n"
    assert run(capsys, "images", "--format", r"table {{.Tag}}\t{{.Size}}")[1] == "TAG   SIZE\n1     12B\n2     12B\n"
    first = json.loads(run(capsys, "images", "--format", "json")[1].splitlines()[0])
    assert (first["Repository"], first["ID"], first["Digest"]) == ("app", ID[7:19], "<none>")
    assert "DIGEST" in run(capsys, "images", "--digests")[1]


def test_filters(capsys, archive: str) -> None:
    run(capsys, "load", "-i", archive)
    for text, count in (
        ("reference=app", 2),
        ("reference=reg.io/*", 2),
        ("reference=x*", 0),
        ("dangling=true", 0),
        ("dangling=false", 2),
        ("label=x", 0),
    ):
        assert len(run(capsys, "images", "-q", "--no-trunc", "--filter", text)[1].splitlines()) == min(count, 1), text


def test_rmi(capsys, archive: str) -> None:
    run(capsys, "load", "-i", archive)
    assert run(capsys, "rmi", "app:1") == (0, "Untagged: app:1\n", "")
    code, out, error = run(capsys, "rmi", "missing", "reg.io/app:2")
    assert (code, error) == (1, error)
    assert "No such image: missing:latest" in error
    assert out.splitlines() == [
        "Untagged: reg.io/app:2",
        f"Deleted: {ID}",
        f"Deleted: {sha(HELLO)}",
        f"Deleted: {sha(WORLD)}",
    ] or sorted(out.splitlines()[2:]) == sorted([f"Deleted: {sha(HELLO)}", f"Deleted: {sha(WORLD)}"])


def test_inspect(capsys, archive: str, root) -> None:
    run(capsys, "load", "-i", archive)
    (found,) = json.loads(run(capsys, "image", "inspect", "app:1")[1])
    assert found["Id"] == ID
    assert found["RepoTags"] == ["app:1", "reg.io/app:2"]
    assert found["RepoDigests"] == []
    assert found["Config"]["Cmd"] == ["/bin/sh"]
    assert found["RootFS"] == {"Type": "layers", "Layers": [sha(HELLO), sha(WORLD)]}
    assert found["Comment"] == "made here"
    assert found["GraphDriver"]["Data"]["LowerDir"] == f"{root}/layers/{sha(HELLO)[7:]}"
    assert run(capsys, "image", "inspect", "-f", "{{.Id}} {{.Config.Cmd}}", "app:1")[1] == f"{ID} [/bin/sh]\n"
    assert json.loads(run(capsys, "image", "inspect", "--format", "json", "app:1")[1]) == [found]
    code, out, _ = run(capsys, "image", "inspect", "nothing", "app:1")
    assert (code, len(json.loads(out))) == (1, 1)


def test_import(capsys, tmp_path) -> None:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(HELLO)
    code, out, _ = run(capsys, "import", "-c", 'CMD ["sh"]', "--change", "ENV A=1", "-m", "mine", str(path), "my/root")
    assert code == 0
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", out)
    assert run(capsys, "image", "inspect", "-f", "{{.Config.Env}} {{.Comment}}", "my/root")[1] == "[A=1] mine\n"


def test_prune(capsys, archive: str, tmp_path, monkeypatch) -> None:
    run(capsys, "load", "-i", archive)
    assert run(capsys, "image", "prune", "-f")[1] == "Total reclaimed space: 0B\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert "Are you sure" in run(capsys, "image", "prune", "-a")[1]
    assert run(capsys, "images", "-q")[1]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, _ = run(capsys, "image", "prune", "--all")
    assert code == 0
    assert "untagged: app:1\n" in out
    assert f"deleted: {ID}\n" in out
    assert re.search(r"\n\nTotal reclaimed space: [1-9][0-9.]*kB\n$", out)
    assert run(capsys, "images", "-q")[1] == ""


def test_help(capsys) -> None:
    for words in (("load",), ("import",), ("images",), ("rmi",), ("image",), ("image", "inspect"), ("image", "prune")):
        code, out, _ = run(capsys, *words, "--help")
        assert code == 0
        assert out.startswith(f"Usage:  pyrtc {words[0]}")
    assert run(capsys, "image")[1].startswith("Usage:")


def test_commands_put_right_what_a_killed_one_left(capsys, archive: str, root) -> None:
    Store(root).close()
    (root / "tmp" / "1-2-abc").mkdir()
    (root / "layers" / ("0" * 64)).mkdir()
    run(capsys, "load", "-i", archive)
    assert os.listdir(root / "tmp") == []
    assert "0" * 64 not in os.listdir(root / "layers")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1_982_296, "1.98MB"),
        (116_660_264, "117MB"),
        (999_999, "1e+03kB"),
        (5e12, "5TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text.replace("1e+03kB", "1000kB")


@pytest.mark.parametrize(
    "created", ["", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999+14:00", "1970-01-01T00:00:00-12:00"]
)
def test_any_time_can_be_written(created: str) -> None:
    assert since(created) == "N/A" or since(created).endswith(" ago")


def test_history(capsys, archive: str) -> None:
    run(capsys, "load", "-q", archive)
    code, out, _ = run(capsys, "history", "app:1")
    lines = out.splitlines()
    assert (code, lines[0].split()) == (0, ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"])
    # Two layers, and a history that tells of one.
    assert [line.split()[0] for line in lines[1:]] == [ID[7:19], "<missing>"]
    assert "made here" in lines[2]
    assert run(capsys, "image", "history", "-q", "--no-trunc", "app:1")[1].splitlines()[0] == ID
    assert run(capsys, "history", "-H", "false", "--format", "{{.Size}}", "app:1")[1] == "6\n6\n"
    assert run(capsys, "history")[0] == 1
    assert run(capsys, "history", "-H", "x", "app:1")[0] == 125


def test_filters_by_time(capsys, tmp_path) -> None:
    old = config(HELLO, created="2020-01-01T00:00:00Z")
    new = config(WORLD, created="2021-01-01T00:00:00Z")
    (tmp_path / "a.tar").write_bytes(docker_archive((["old"], old, [HELLO]), (["new"], new, [WORLD])))
    run(capsys, "load", "-q", str(tmp_path / "a.tar"))

    def listed(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        code, out, _ = run(capsys, "images", "--format", "{{.Repository}}", *words)
        assert code == 0
        return sorted(out.split())

    assert listed("before=new") == ["old"]
    assert listed("since=old") == ["new"]
    assert listed(f"since={sha(old)[7:20]}") == ["new"]
    assert listed("until=2020-06-01T00:00:00Z") == ["old"]
    assert listed("until=1h") == ["new", "old"]
    assert listed("since=old", "before=new") == []
    assert run(capsys, "images", "--filter", "before=none")[0] == 1
    assert run(capsys, "images", "--filter", "until=soon")[0] == 1
