"""--userns auto and keep-id where root asks: ids of their own for containers that share layers with others.

That ranges are unique and layers untouched is in test_isolation.py; what an ordinary user's choices do is in
test_rootless.py.
"""

import fcntl
import os
from pathlib import Path

import pytest
from conftest import File, ImageFactory, Probe, needs_root

from pyrtc import Bind, Device, Volume
from pyrtc.api import make_options
from pyrtc.engine import Engine
from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.runtime.ids import AUTO_COUNT, AUTO_FIRST, automatic

pytestmark = needs_root

TREE = {"data": File(None, 0o750, 999, 998), "data/f": File(b"x", 0o600, 999, 998)}


def outside(probe: Probe, **options: object) -> int:
    """Return the id of the host that is 0 in a container."""
    inside, first, count = probe.one("cat /proc/self/uid_map", userns="auto", **options).split()
    assert (inside, count) == ("0", str(AUTO_COUNT))
    return int(first)


def test_ids_are_from_a_range_of_nobody(probe: Probe) -> None:
    first = outside(probe)
    assert first >= AUTO_FIRST
    assert first % AUTO_COUNT == 0


def test_ranges_are_given_back(tmp_path: Path) -> None:
    """A range is held by a lock, so that it is free when the process that holds it is gone, however it went."""
    taken = automatic(tmp_path)
    other = automatic(tmp_path)
    assert taken.maps != other.maps
    os.close(taken.lock_fd)
    again = automatic(tmp_path)
    assert again.maps == taken.maps
    for held in (other, again):
        fcntl.flock(held.lock_fd, fcntl.LOCK_UN)
        os.close(held.lock_fd)


def test_the_root_directory_belongs_to_the_containers_root(probe: Probe) -> None:
    answers = probe.ask("stat /", "create /new x", "stat /new", "mkdir /d", userns="auto")
    assert answers[0].split()[:3] == ["40755", "0", "0"]
    assert answers[1:] == ["1", answers[2], "0"]
    assert answers[2].split()[1:3] == ["0", "0"]


def test_a_kept_container_has_its_ids_on_disk(engine: Engine, probe: Probe) -> None:
    done = probe.run("create", "/new", "x", ",", "chown", "/new", "7", userns="auto", remove=False)
    upper = Path(engine.store.containers.path, done.id, "upper")
    assert (upper / "new").stat().st_uid - upper.stat().st_uid == 7
    assert upper.stat().st_uid >= AUTO_FIRST
    engine.containers.remove(done.id)


def test_volumes_have_the_hosts_ids_on_disk(engine: Engine, image: ImageFactory) -> None:
    """So a volume means the same to every container, whatever its range."""
    probe = Probe(engine, image(TREE))
    mounts = [Volume("shared", "/data")]
    answers = probe.ask("stat /data/f", "create /data/g y", "chown /data/g 5", userns="auto", mounts=mounts)
    assert answers[0].split()[:3] == ["100600", "999", "998"]
    path = Path(engine.store.volumes.get("shared").path)
    assert ((path / "f").stat().st_uid, (path / "g").stat().st_uid) == (999, 5)
    assert probe.one("stat /data/g", mounts=mounts).split()[1] == "5"
    engine.store.volumes.remove("shared")


def test_binds_keep_the_hosts_owners(probe: Probe, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "f").write_text("x")
    answers = probe.ask("stat /b/f", "create /b/g y", userns="auto", mounts=[Bind(str(shared), "/b")])
    assert answers[0].split()[1:3] == ["65534", "65534"]
    assert answers[1] == "!EACCES"


def test_binds_with_mapped_owners(probe: Probe, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "f").write_text("x")
    mounts = [Bind(str(shared), "/b", idmap=True)]
    answers = probe.ask("stat /b/f", "create /b/g y", "chown /b/g 7", userns="auto", mounts=mounts)
    assert answers[0].split()[1:3] == ["0", "0"]
    assert answers[1:] == ["1", "0"]
    assert (shared / "g").stat().st_uid == 7
    with pytest.raises(UsageError, match="belongs to root"):
        probe.one("stat /b/f", mounts=mounts)


def test_a_file_system_that_cannot_map(probe: Probe) -> None:
    with pytest.raises(UnsupportedError, match="its file system cannot map owners"):
        probe.one("stat /b", userns="auto", mounts=[Bind("/proc", "/b", idmap=True)])


def test_copies(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image(TREE))
    answers = probe.ask("stat /data/f", "create /new x", "stat /new", userns="auto", driver="copy")
    assert answers[0].split()[:3] == ["100600", "999", "998"]
    assert answers[2].split()[1:3] == ["0", "0"]


def test_the_host_as_image(engine: Engine) -> None:
    script = "stat -c %u /etc/passwd /etc; echo x >> /etc/passwd; tail -n 1 /etc/passwd; test -e $1/pyrtc.db || echo no"
    options = make_options(["sh", "-c", script, "sh", str(engine.store.root)], userns="auto")
    done = engine.run("host", options)
    assert done.stdout.split() == [b"0", b"0", b"x", b"no"], done.stderr
    assert Path("/etc/passwd").read_bytes().splitlines()[-1] != b"x"


@pytest.mark.parametrize("options", [{"network": "host"}, {"ipc": "host"}, {"uts": "host"}, {"cgroupns": "host"}])
def test_with_namespaces_of_the_host(probe: Probe, options: dict[str, str]) -> None:
    outside(probe, **options)


def test_devices_are_the_hosts_owners(probe: Probe) -> None:
    answers = probe.ask(
        "stat /dev/mine", "write /dev/mine x", userns="auto", devices=[Device("/dev/null", "/dev/mine")]
    )
    assert answers[0].split()[3] == "1:3"
    assert answers[1] == "1"


def test_limits_hold(probe: Probe) -> None:
    assert int(probe.one("forks 50", userns="auto", pids=10)) < 10


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"userns": "auto", "rw_layer": "memory"}, UnsupportedError, "R/W layer on disk"),
        ({"userns": "auto", "privileged": True}, UsageError, "contradict"),
        ({"userns": "auto", "user": "70000"}, UsageError, "65536 user and 65536 group ids"),
        ({"userns": "keep-id"}, UsageError, "for ordinary users"),
    ],
)
def test_what_is_refused(probe: Probe, options: dict[str, object], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        probe.one("ids", **options)
    assert not os.listdir(probe.engine.store.containers.path)


def test_the_owner_of_a_bind_as_root(probe: Probe, tmp_path: Path) -> None:
    """Without a user namespace idmap shows the source's owner as root: what root makes is the owner's."""
    shared = tmp_path / "mine"
    shared.mkdir(mode=0o755)
    (shared / "other").write_text("")
    (shared / "roots").write_text("")
    os.chown(shared, 1234, 2345)
    os.chown(shared / "other", 77, 78)
    mounts = [Bind(str(shared), "/b", idmap=True)]
    owner, other, roots = probe.ask("stat /b", "stat /b/other", "stat /b/roots", mounts=mounts)
    assert " 0 0" in owner and " 77 78" in other and " 0 0" not in roots, (owner, other, roots)
    probe.one(["create", "/b/new", "x"], mounts=mounts)
    about = (shared / "new").stat()
    assert (about.st_uid, about.st_gid) == (1234, 2345)
    os.chown(shared, 0, 0)
    with pytest.raises(UsageError, match="belongs to root"):
        probe.one("stat /b", mounts=mounts)
    with pytest.raises(UnsupportedError, match="cannot map owners"):
        probe.one("stat /b", mounts=[Bind(f"/proc/{os.getpid()}/task", "/b", idmap=True)], userns="auto")
