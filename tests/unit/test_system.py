"""Measuring, checking and pruning a store."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_builder import DEEP, HELLO, IMPLIED, WORLD, config, docker_archive, layer, sha, simple_layout
from tar_builder import directory, file

from pyrtc.cli.main import main
from pyrtc.engine import Engine
from pyrtc.errors import DigestMismatch, StoreError
from pyrtc.moments import until
from pyrtc.start_image import find_image
from pyrtc.store import Store
from pyrtc.system import PruneFilter


@pytest.fixture
def engine(tmp_path):
    with Engine(tmp_path / "store") as engine:
        yield engine


def load(engine: Engine, tmp_path, *entries):
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive(*((names, config(*layers), layers) for names, layers in entries)))
    return engine.images.load(path)


def container(engine: Engine, image_id: str, *, ended: bool = True, **options):
    made = engine.store.containers.allocate(
        name=None, image_id=image_id, options_json=json.dumps(options).encode(), directory=True, remove=False
    )
    Path(made.directory, "upper/file").write_bytes(b"x" * 10000)
    if ended:
        engine.store.containers.exited(made.id, b"{}")
    return made.id


def leave_behind(root: Path) -> None:
    """Be killed in the middle of things."""
    program = (
        "import os, sys\n"
        "from pyrtc.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "name, lock = store.staging._make()\n"
        "open(f'{sys.argv[1]}/tmp/{name}/junk', 'wb').write(b'x' * 50000)\n"
        "store.containers.allocate(name=None, image_id='host', options_json=b'{}', directory=True)\n"
        "os.mkdir(f'{sys.argv[1]}/layers/' + 'a' * 64)\n"
        "os.makedirs(f'{sys.argv[1]}/blobs/sha256/aa', exist_ok=True)\n"
        "open(f'{sys.argv[1]}/blobs/sha256/aa/' + 'a' * 64, 'wb').write(b'x' * 9000)\n"
        "os.mkdir(f'{sys.argv[1]}/volumes/gone')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(root)], check=False)


# ---- df -------------------------------------------------------------------------------------------------------------


def blocks(path: Path) -> int:
    """What `du` says."""
    return int(subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=True).stdout.split()[0])


def test_df(engine: Engine, tmp_path) -> None:
    one, two = load(engine, tmp_path, (["one"], [HELLO, WORLD]), (["two"], [HELLO]))
    container(engine, two.id)
    container(engine, two.id, ended=False)
    engine.store.volumes.create("named")
    usage = engine.system.df()
    assert (usage.images.total, usage.images.active) == (2, 1)
    assert (usage.containers.total, usage.containers.active) == (2, 1)
    assert (usage.volumes.total, usage.volumes.active) == (1, 0)
    assert usage.leftovers.total == 0
    details = {use.image.id: use for use in usage.image_details}
    assert details[two.id].containers == 2
    assert usage.images.reclaimable == details[one.id].unique
    root = engine.store.root
    assert details[one.id].unique >= blocks(root / "layers" / sha(WORLD)[7:])
    assert usage.containers.reclaimable * 2 == usage.containers.size
    assert usage.volumes.reclaimable == blocks(root / "volumes/named")


def test_what_df_says_is_freed(engine: Engine, tmp_path) -> None:
    big = layer(directory("d"), *(file(f"d/{number}", os.urandom(9000)) for number in range(50)))
    one, _ = load(engine, tmp_path, (["one"], [big, HELLO, WORLD]), (["two"], [HELLO, DEEP, IMPLIED]))
    container(engine, one.id)
    engine.store.volumes.create("")
    Path(engine.store.volumes.create("mine").path, "data").write_bytes(b"x" * 70000)
    leave_behind(engine.store.root)
    root = engine.store.root

    def everything() -> int:
        return sum(blocks(root / name) for name in ("blobs", "layers", "containers", "volumes", "tmp"))

    usage = engine.system.df()
    parts = (usage.containers, usage.volumes, usage.leftovers)
    # The image that a container stands on becomes free with the container.
    promised = sum(use.reclaimable for use in parts) + usage.images.size
    before = everything()
    said = engine.system.prune(all_images=True, volumes=True).reclaimed
    said += engine.system.prune_volumes(named=True).reclaimed
    assert before - everything() == promised
    # The leftovers of containers were removed before anybody counted, by the look at what there is.
    assert said <= promised
    after = engine.system.df()
    assert all(use.size == 0 for use in (after.images, after.containers, after.volumes, after.leftovers))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a file system")
def test_the_file_system_agrees(tmp_path) -> None:
    """statvfs before and after on a file system that nobody else uses."""
    program = """
import os, subprocess, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from pyrtc.engine import Engine
from image_builder import HELLO, WORLD, config, docker_archive, layer
from tar_builder import directory, file
root = Path(sys.argv[1])
big = layer(directory("d"), *(file(f"d/{number}", os.urandom(5000)) for number in range(300)))
(root / "a.tar").write_bytes(docker_archive((["one"], config(big, HELLO), [big, HELLO])))
def free():
    os.sync()
    status = os.statvfs(root)
    return status.f_bfree * status.f_frsize
with Engine(root / "s") as engine:
    engine.images.load(root / "a.tar")
    promised = engine.system.df().images.reclaimable
    before = free()
    said = engine.system.prune(all_images=True).reclaimed
    print(promised, said, free() - before)
"""
    image = tmp_path / "disk"
    with image.open("wb") as disk:
        disk.truncate(64 << 20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True)
    (tmp_path / "m").mkdir()
    script = 'mount -o loop "$1" "$2" && shift && exec "$@"'
    # The words after the script: $0, the image, the mount point, and the command with the mount point as its argument.
    script = 'mount -o loop "$1" "$2" || exit 77; at=$2; shift 2; exec "$1" -c "$2" "$at" "$3"'
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            "-",
            image,
            tmp_path / "m",
            sys.executable,
            program,
            Path(__file__).parent,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"needs loop devices: {done.stderr}")
    assert done.returncode == 0, done.stderr
    promised, said, freed = map(int, done.stdout.split())
    # The file that holds the database grows by what was written into it meanwhile.
    assert promised == said
    assert abs(promised - freed) <= 128 << 10
    assert promised > 300 * 8192


# ---- check ----------------------------------------------------------------------------------------------------------


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


def test_sound(engine: Engine, tmp_path) -> None:
    load(engine, tmp_path, (["one"], [HELLO, WORLD]), (["two"], [DEEP, IMPLIED]))
    engine.images.load(f"oci:{simple_layout('three').write(tmp_path / 'l')}")
    for deep in (False, True):
        report = engine.system.check(deep=deep)
        assert (report.problems, report.images, report.layers, report.unverified) == ((), 2, 4, 0)
        assert report.clean


def test_leftovers(engine: Engine, tmp_path) -> None:
    load(engine, tmp_path, (["one"], [HELLO]))
    leave_behind(engine.store.root)
    report = engine.system.check()
    assert kinds(report) == ["leftover"] * 5
    assert report.clean
    assert kinds(engine.system.check(repair=True)) == ["leftover"] * 5
    assert engine.system.check().problems == ()
    assert engine.system.df().leftovers.size == 0


def damage_size(path: Path) -> None:
    (path / "etc/hello").write_bytes(b"")


def damage_mode(path: Path) -> None:
    (path / "etc/hello").chmod(0o600)


def damage_more(path: Path) -> None:
    (path / "etc/more").write_bytes(b"")


def damage_all(path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize("damage", [damage_size, damage_mode, damage_more, damage_all])
def test_a_damaged_layer(engine: Engine, tmp_path, damage) -> None:
    load(engine, tmp_path, (["one"], [HELLO, WORLD]), (["two"], [WORLD]))
    path = engine.store.root / "layers" / sha(HELLO)[7:]
    damage(path)
    report = engine.system.check()
    assert (kinds(report), report.clean) == (["layer"], False)
    assert report.problems[0].subject == sha(HELLO)
    assert engine.images.get("one").damaged is False
    report = engine.system.check(repair=True)
    assert (kinds(report), report.clean) == (["layer"], True)
    assert "docker.io/library/one:latest" in report.problems[0].text
    assert not path.exists()
    assert (engine.images.get("one").damaged, engine.images.get("two").damaged) == (True, False)
    assert engine.store.layers.find([sha(HELLO)]) == (None,)
    with pytest.raises(StoreError, match="damaged"):
        find_image(engine.store, "one", None)
    report = engine.system.check()
    assert (kinds(report), report.clean) == (["image"], False)
    # The next load brings it again.
    engine.images.load(tmp_path / "archive.tar")
    assert engine.system.check().problems == ()
    assert engine.images.get("one").damaged is False
    assert (path / "etc/hello").read_bytes() == b"hello\n"


def test_changed_data(engine: Engine, tmp_path) -> None:
    """The size and all attributes are as before: only reading tells."""
    load(engine, tmp_path, (["one"], [HELLO]))
    victim = engine.store.root / "layers" / sha(HELLO)[7:] / "etc/hello"
    times = victim.stat()
    victim.write_bytes(b"jello\n")
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert engine.system.check().problems == ()
    report = engine.system.check(deep=True, repair=True)
    assert (kinds(report), report.clean) == (["layer"], True)


def test_without_its_blob_a_layer_cannot_be_verified(tmp_path) -> None:
    with Engine(tmp_path / "store", blobs="drop") as engine:
        load(engine, tmp_path, (["one"], [HELLO]))
        assert engine.system.check(deep=True).unverified == 1
        assert engine.system.check().unverified == 0


def test_a_layer_under_a_running_container_stays(engine: Engine, tmp_path) -> None:
    (one,) = load(engine, tmp_path, (["one"], [HELLO]))
    running = container(engine, one.id, ended=False)
    damage_mode(engine.store.root / "layers" / sha(HELLO)[7:])
    report = engine.system.check(repair=True)
    assert (kinds(report), report.clean) == (["layer"], False)
    assert running[:12] in report.problems[0].text


def test_a_damaged_blob(engine: Engine, tmp_path) -> None:
    load(engine, tmp_path, (["one"], [HELLO]))
    blob = engine.store.layer_blobs.all()[0]
    place = engine.store.root / "blobs/sha256" / blob.digest[7:9] / blob.digest[7:]
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    assert engine.system.check().problems == ()
    report = engine.system.check(deep=True)
    assert set(kinds(report)) == {"layer", "blob"}
    place.write_bytes(content[:-1])
    report = engine.system.check(repair=True)
    assert (kinds(report), report.clean) == (["blob"], True)
    assert engine.store.layer_blobs.all() == []
    assert engine.images.get("one").damaged is False
    assert engine.system.check().problems == ()


def test_a_damaged_document(engine: Engine, tmp_path) -> None:
    (one,) = load(engine, tmp_path, (["one"], [HELLO]))
    place = engine.store.root / "blobs/sha256" / one.id[7:9] / one.id[7:]
    place.write_bytes(b"{}")
    assert kinds(engine.system.check()) == ["image"]
    assert engine.system.check(repair=True).clean
    assert engine.images.get("one").damaged
    engine.images.load(tmp_path / "archive.tar")
    assert engine.system.check().problems == ()
    assert engine.images.documents(engine.images.get("one"))[0] == config(HELLO)


def test_a_damaged_document_is_replaced_by_a_load(engine: Engine, tmp_path) -> None:
    (one,) = load(engine, tmp_path, (["one"], [HELLO]))
    (engine.store.root / "blobs/sha256" / one.id[7:9] / one.id[7:]).write_bytes(b"{}")
    with pytest.raises(DigestMismatch):
        engine.images.documents(one)


def test_a_broken_database(tmp_path) -> None:
    root = tmp_path / "store"
    with Engine(root) as engine:
        load(engine, tmp_path, (["one"], [HELLO]))
    with (root / "pyrtc.db").open("r+b") as database:
        database.seek(4096 * 3)
        database.write(b"\xff" * 4096 * 4)
    with Engine(root) as engine:
        report = engine.system.check(repair=True)
        assert set(kinds(report)) == {"database"}
        assert not report.clean


def test_names_of_a_missing_image(engine: Engine, tmp_path) -> None:
    load(engine, tmp_path, (["one"], [HELLO]))
    with engine.store.database.writing() as connection:
        connection.execute("PRAGMA defer_foreign_keys=ON")
    with engine.store.database.reading() as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("INSERT INTO names VALUES ('x', 'sha256:none', NULL)")
        connection.execute("PRAGMA foreign_keys=ON")
    assert kinds(engine.system.check()) == ["database"]


# ---- prune ----------------------------------------------------------------------------------------------------------


def test_prune_with_filters(engine: Engine, tmp_path) -> None:
    (one,) = load(engine, tmp_path, ([], [HELLO]))
    kept = container(engine, "host", labels={"keep": "yes"})
    gone = container(engine, "host", labels={"a": "b"})
    assert engine.system.prune(only=PruneFilter(until=1.0)).containers == ()
    assert engine.system.prune(only=PruneFilter(labels=(("a", "c"),))).containers == ()
    pruned = engine.system.prune(only=PruneFilter(labels=(("a", None),), without=(("keep", None),)))
    assert (pruned.containers, pruned.deleted) == ((gone,), ())
    pruned = engine.system.prune(only=PruneFilter(until=time.time() + 1))
    assert pruned.containers == (kept,)
    assert pruned.deleted == (one.id, sha(HELLO))


def test_anonymous_volumes_go(engine: Engine) -> None:
    engine.store.volumes.create("named")
    anonymous = engine.store.volumes.create("").name
    assert engine.system.prune().volumes == ()
    assert engine.system.prune(volumes=True).volumes == (anonymous,)
    assert engine.system.prune_volumes(named=True).volumes == ("named",)


@pytest.mark.parametrize(
    ("text", "ago"), [("24h", 86400), ("1h30m", 5400), ("1.5s", 1.5), ("10ms", 0.01), ("2d", 172800)]
)
def test_until(text: str, ago: float) -> None:
    assert until(text) == pytest.approx(time.time() - ago, abs=1)


def test_until_a_time() -> None:
    assert until("1700000000") == 1700000000
    assert until("2023-11-14T22:13:20Z") == 1700000000
    for text in ("yesterday", "", "5 h"):
        with pytest.raises(ValueError):
            until(text)


# ---- commands -------------------------------------------------------------------------------------------------------


def test_commands(engine: Engine, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(engine.store.root))
    load(engine, tmp_path, (["one"], [HELLO]))
    ended = container(engine, "host")
    assert main(["system", "df"]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert main(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]) == 0
    assert capfd.readouterr().out == "Images=1\nContainers=1\nLocal Volumes=0\nSnapshots=0\nLeftovers=0\n"
    assert main(["system", "df", "-v"]) == 0
    assert "UNIQUE SIZE" in capfd.readouterr().out
    assert main(["system", "check"]) == 0
    assert capfd.readouterr().out.endswith("Everything is sound.\n")
    damage_mode(engine.store.root / "layers" / sha(HELLO)[7:])
    assert main(["system", "check", "-q"]) == 1
    assert sha(HELLO) in capfd.readouterr().out
    assert main(["system", "check", "--repair"]) == 0
    capfd.readouterr()
    assert main(["container", "prune", "-f", "--filter", "until=1h"]) == 0
    assert capfd.readouterr().out == "Total reclaimed space: 0B\n"
    assert main(["container", "prune", "-f"]) == 0
    assert capfd.readouterr().out.startswith(f"Deleted Containers:\n{ended}\n\nTotal")
    assert main(["image", "prune", "-af", "--filter", "label=x"]) == 0
    assert capfd.readouterr().out == "Total reclaimed space: 0B\n"
    assert main(["system", "prune", "-af"]) == 0
    assert "untagged: one:latest\n" in capfd.readouterr().out
    for words in (["system", "prune", "--filter", "x=1"], ["system", "nope"], ["system", "df", "x"]):
        assert main(words) == 1


def test_volume_commands(engine: Engine, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYRTC_ROOT", str(engine.store.root))
    assert main(["volume", "create", "mine"]) == 0
    assert main(["volume", "create"]) == 0
    assert capfd.readouterr().out.startswith("mine\n")
    assert main(["volume", "ls", "-q", "--filter", "name=min"]) == 0
    assert capfd.readouterr().out == "mine\n"
    assert main(["volume", "ls"]) == 0
    assert capfd.readouterr().out.splitlines()[0].split() == ["DRIVER", "VOLUME", "NAME"]
    assert main(["volume", "inspect", "-f", "{{.Mountpoint}}", "mine"]) == 0
    assert capfd.readouterr().out == f"{engine.store.root}/volumes/mine/data\n"
    assert main(["volume", "rm", "mine", "none"]) == 1
    assert main(["volume", "rm", "-f", "none"]) == 0
    capfd.readouterr()
    assert main(["volume", "prune", "-f"]) == 0
    assert capfd.readouterr().out.startswith("Deleted Volumes:\n")
    assert engine.store.volumes.list() == ()


def test_a_check_beside_others(tmp_path) -> None:
    """What is removed while it is looked at is no damage."""
    path = tmp_path / "archive.tar"
    path.write_bytes(docker_archive((["one"], config(HELLO, WORLD), [HELLO, WORLD])))
    program = (
        "import sys; from pyrtc.engine import Engine\n"
        "with Engine(sys.argv[1]) as engine:\n"
        "    for _ in range(15): engine.images.load(sys.argv[2]); engine.images.remove('one')"
    )
    with Store(tmp_path / "store"):
        pass
    words = [sys.executable, "-c", program, str(tmp_path / "store"), str(path)]
    with Engine(tmp_path / "store") as engine, subprocess.Popen(words) as other:
        while other.poll() is None:
            problems = engine.system.check().problems
            assert [problem for problem in problems if problem.kind != "leftover"] == []
    assert other.returncode == 0
