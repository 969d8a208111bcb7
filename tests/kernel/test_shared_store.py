"""Two users and one store: root makes it, an ordinary user runs containers on its layers without copying them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, File, Link

from pyrtc.engine import Engine

pytestmark = pytest.mark.skipif(not ROOT, reason="needs root: acts as two users")

USER = 64323  # nobody's on a usual system

PROGRAM = """
import sys
sys.path[:] = {path!r}
from pyrtc.cli.main import program
sys.argv[0] = "pyrtc"
program()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach: pytest's own are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="pyrtc-shared-"))
    made.chmod(0o755)
    yield made
    deadline = time.monotonic() + 20
    while named_by_processes(made) and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(made)


def named_by_processes(place: Path) -> bool:
    """Whether somebody has it in its arguments: a monitor's end command may not have come to its own end."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if bytes(place) in line.read_bytes():
                return True
    return False


@pytest.fixture
def shared(place: Path, make_layered) -> Path:
    root = place / "shared"
    root.mkdir()
    (root / "config.toml").write_text('shared = "trusted"\n')
    with Engine(root) as engine:
        make_layered(engine)
    return root


@pytest.fixture
def make_layered(tmp_path: Path, probe_binary: bytes):
    """Bring an image with two layers into an engine."""
    import gzip
    import io
    import json
    import tarfile

    def tar(entries: dict[str, object]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, entry in entries.items():
                info = tarfile.TarInfo(name)
                if isinstance(entry, Link):
                    info.type, info.linkname = tarfile.SYMTYPE, entry.target
                    archive.addfile(info)
                    continue
                assert isinstance(entry, File)
                info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
                if entry.content is None:
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
                else:
                    content = entry.content if isinstance(entry.content, bytes) else entry.content.encode()
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def make(engine: Engine) -> None:
        import hashlib

        lower = tar(
            {
                "bin": File(None),
                "bin/probe": File(probe_binary),
                "etc": File(None),
                "etc/old": File(b"old\n", 0o644),
                "etc/gone": File(b"gone\n", 0o644),
                "etc/secret": File(b"secret\n", 0o600),
                "root": File(None, 0o700),
                "root/inside": File(b"x", 0o644),
                "tmp": File(None, 0o1777),
            }
        )
        upper = tar({"etc": File(None), "etc/.wh.gone": File(b""), "etc/new": File(b"new\n", 0o644)})
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in (lower, upper)],
            },
        }
        files = {
            "c.json": json.dumps(config).encode(),
            "0.tar": gzip.compress(lower),
            "1.tar": gzip.compress(upper),
            "manifest.json": json.dumps(
                [{"Config": "c.json", "RepoTags": ["two"], "Layers": ["0.tar", "1.tar"]}]
            ).encode(),
        }
        archive = tmp_path / "two.tar"
        archive.write_bytes(tar({name: File(content, 0o644) for name, content in files.items()}))
        engine.images.load(archive)

    return make


def as_user(place: Path, shared: Path, *words: str) -> subprocess.CompletedProcess[str]:
    home = place / "home"
    if not home.exists():
        home.mkdir()
        os.chown(home, USER, USER)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PYRTC_ADDITIONAL_STORES": str(shared),
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(path=sys.path), *words],
        user=USER,
        group=USER,
        extra_groups=[],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def can_unprivileged(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode == 125 and ("user namespace" in done.stderr or "cgroup" in done.stderr):
        pytest.skip(f"ordinary users cannot start containers here: {done.stderr}")


def test_a_container_on_somebody_elses_layers(place: Path, shared: Path) -> None:
    listed = as_user(place, shared, "images", "--format", "{{.Repository}}:{{.Tag}}")
    assert listed.stdout == "two:latest\n", listed.stderr
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in (shared / "layers").rglob("*"))

    def run(*command: str) -> str:
        done = as_user(place, shared, "run", "--rm", "two", "/bin/probe", *command)
        can_unprivileged(done)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\x1e")

    assert run("cat", "/etc/old") == "old\n"
    assert run("cat", "/etc/new") == "new\n"
    assert run("cat", "/etc/gone") == "!ENOENT"
    # The directories are the container's root's own, whoever owns them below; what nobody may read stays unread.
    assert not run("create", "/etc/made", "text").startswith("!")
    assert not run("create", "/root/made", "text").startswith("!")
    assert run("cat", "/etc/secret") == "!EACCES"
    after = sorted((str(path), path.lstat().st_mtime_ns) for path in (shared / "layers").rglob("*"))
    assert after == before
    own = place / "home/.local/share/pyrtc"
    assert os.listdir(own / "layers") == []
    assert as_user(place, shared, "system", "prune", "-f").returncode == 0
    assert os.listdir(own / "skeletons") == []


def test_a_load_uses_them(place: Path, shared: Path, tmp_path: Path) -> None:
    archive = place / "two.tar"
    shutil.copy(tmp_path / "two.tar", archive)
    archive.chmod(0o644)
    loaded = as_user(place, shared, "load", "-q", "-i", str(archive))
    assert loaded.stdout == "Loaded image: two:latest\n", loaded.stderr
    assert os.listdir(place / "home/.local/share/pyrtc/layers") == []
    done = as_user(place, shared, "run", "--rm", "two", "/bin/probe", "cat", "/etc/new")
    can_unprivileged(done)
    assert done.stdout == "new\n\x1e", done.stderr


def test_a_closed_store_stays_closed(place: Path, shared: Path) -> None:
    (shared / "config.toml").unlink()
    Engine(shared).close()
    done = as_user(place, shared, "images")
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


SECRET = "correct-horse-battery-staple"
READ_ALL = """
import os, sys
for directory, names, files in os.walk(sys.argv[1]):
    for name in files:
        try:
            with open(os.path.join(directory, name), "rb") as file:
                if sys.argv[2].encode() in file.read():
                    print(os.path.join(directory, name))
        except PermissionError:
            pass
"""


def shown_to_others(root: Path) -> str:
    """Return the files of a store in which an ordinary user finds the secret."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, root, SECRET],
        user=USER,
        group=USER,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_nobody_else_reads_what_containers_were_given(shared: Path) -> None:
    """Not while they are there, not in what SQLite leaves of them, and they can be started again all the same."""
    with Engine(shared) as engine:
        container = engine.containers.create("two", ["/bin/probe", "environment"], env={"PASSWORD": SECRET})
        assert container.options.env == (("PASSWORD", SECRET),)
        assert shown_to_others(shared) == ""
        container.start()
        assert container.wait(timeout=30).returncode == 0
        assert SECRET in container.log_text()
        container.update(pids=77)
        assert container.options.env == (("PASSWORD", SECRET),)
        assert container.options.limits.pids == 77
        assert shown_to_others(shared) == ""
        container.remove()
        assert os.listdir(shared / "specs") == []
        assert oct((shared / "specs").stat().st_mode & 0o777) == "0o700"


def test_a_store_that_becomes_shared_hides_what_it_has(shared: Path) -> None:
    settings = shared / "config.toml"
    said = settings.read_text()
    settings.write_text("")
    with Engine(shared) as engine:
        gone = engine.containers.create("two", ["/bin/probe"], env={"PASSWORD": SECRET * 50})
        kept = engine.containers.create("two", ["/bin/probe"], env={"PASSWORD": SECRET})
        gone.remove()
        assert SECRET.encode() in b"".join(path.read_bytes() for path in shared.glob("pyrtc.db*"))
    settings.write_text(said)
    with Engine(shared) as engine:
        assert shown_to_others(shared) == ""
        assert SECRET.encode() not in b"".join(path.read_bytes() for path in shared.glob("pyrtc.db*"))
        found = engine.containers.get(kept.id)
        assert found.options.env == (("PASSWORD", SECRET),)
    settings.write_text("")
    with Engine(shared) as engine:
        engine.containers.get(kept.id).remove()


def test_options_of_containers_that_are_gone_are_swept(shared: Path) -> None:
    with Engine(shared) as engine:
        kept = engine.containers.create("two", ["/bin/probe"])
        (shared / "specs" / ("0" * 64)).write_text("left by somebody who was killed")
        (shared / "specs" / f"{'1' * 64}.ab12").write_text("half")
        engine.store.sweep()
        assert os.listdir(shared / "specs") == [kept.id]
        kept.remove()
