"""Containers of an ordinary user, with and without a range of subordinate ids.

Run by an ordinary user the tests below are about that user. Run by root this file is run again for two users who exist
only in a mount namespace of that run: one with a range in /etc/subuid and /etc/subgid, one without.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, File, ImageFactory, Probe

from pyrtc import Bind, Device, RunOptions, Tmpfs, Ulimit, Volume
from pyrtc.api import make_options
from pyrtc.container import Completed, Outcome
from pyrtc.engine import Engine
from pyrtc.errors import LimitError, StartError, UnsupportedError, UsageError
from pyrtc.ids import ordinary_user
from pyrtc.runtime.cgroups import detect

UID = 64321  # of the user that root makes up; nobody's on a usual system
FIRST = 0x4000_0000
COUNT = 70_000

ordinary = pytest.mark.skipif(ROOT, reason="is about an ordinary user: test_as_ordinary_user runs it as one")
ranged = pytest.mark.skipif(
    ROOT or ordinary_user().single, reason="needs a range in /etc/subuid and /etc/subgid, newuidmap and newgidmap"
)
single = pytest.mark.skipif(ROOT or not ordinary_user().single, reason="is about a user without subordinate ids")

USERS = """\
for file in passwd subuid subgid; do mount --bind "$1/$file" /etc/$file || exit 99; done
cd "$1/home" && shift
exec setpriv --reuid {uid} --regid {uid} --clear-groups "$@"
"""


@pytest.mark.skipif(not ROOT, reason="needs root, to become several ordinary users")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["ranged", "single"])
def test_as_ordinary_user(kind: str, request: pytest.FixtureRequest) -> None:
    missing = [name for name in ("unshare", "setpriv") if shutil.which(name) is None]
    if kind == "ranged":
        missing += [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if not all(os.stat(path).st_mode & stat.S_IXOTH for path in Path(__file__).parents):
        pytest.skip("needs the tests to be readable by everybody")
    base = Path(tempfile.mkdtemp(prefix="pyrtc-rootless-"))
    try:
        base.chmod(0o755)
        (base / "passwd").write_text(
            f"{Path('/etc/passwd').read_text()}pyrtc-test:x:{UID}:{UID}::{base}/home:/bin/sh\n"
        )
        for name in ("subuid", "subgid"):
            (base / name).write_text(f"pyrtc-test:{FIRST}:{COUNT}\n" if kind == "ranged" else "")
            if not Path(f"/etc/{name}").exists():
                pytest.skip(f"needs a file /etc/{name} to mount another one on")
        (base / "home").mkdir()
        os.chown(base / "home", UID, UID)
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", USERS.format(uid=UID), "sh", str(base)]
        command += [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command += [f"--basetemp={base}/home/tests", f"--rootdir={request.config.rootpath}", str(Path(__file__))]
        environment = {**os.environ, "HOME": f"{base}/home", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
        environment.pop("XDG_RUNTIME_DIR", None)
        environment.pop("PYTEST_XDIST_WORKER", None)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout
    finally:
        shutil.rmtree(base)


def host(engine: Engine, script: str, **options: Any) -> Completed:
    """Run a script in a container of the host's own files."""
    return engine.run("host", make_options(["sh", "-c", script], **options))


def words(engine: Engine, script: str, **options: Any) -> str:
    """The same, returning what it wrote; it must end well."""
    done = host(engine, script, **options)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.decode().strip()


# ---- the host as an image ------------------------------------------------------------------------------------------


@ordinary
def test_host_shows_the_system(engine: Engine) -> None:
    assert words(engine, "id -u; id -g") == "0\n0"
    assert words(engine, "ls /usr").split() == sorted(os.listdir("/usr"))
    links = [name for name in os.listdir("/") if os.path.islink(f"/{name}")]
    assert words(engine, " ".join(f"readlink /{name};" for name in sorted(links))).split() == [
        os.readlink(f"/{name}") for name in sorted(links)
    ]


@ordinary
@pytest.mark.parametrize("memory", [False, True])
def test_host_can_be_written_to(engine: Engine, memory: bool) -> None:
    script = "for f in /new /usr/new /usr/local/new /usr/local/bin/new /root/new /tmp/new; do echo $f | tee $f; done"
    done = host(engine, script, rw_layer="memory" if memory else "disk")
    assert done.returncode == 0, done.stderr
    made = done.stdout.decode().split()
    assert len(made) == 6
    assert not any(os.path.exists(path) for path in made)


@ordinary
def test_host_keeps_others_files_as_they_are(engine: Engine) -> None:
    file = "/usr/bin/env"
    before = os.stat(file)
    assert before.st_uid == 0
    assert host(engine, f"echo x >> {file}").returncode != 0
    assert words(engine, f"rm {file}; echo mine > {file}; cat {file}") == "mine"
    after = os.stat(file)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


@ordinary
@pytest.mark.parametrize("memory", [False, True])
def test_read_only_host(engine: Engine, memory: bool, tmp_path: Path) -> None:
    places = ["/", "/usr", "/usr/local", "/etc", "/run", "/tmp", "/root"]
    script = "".join(f"touch {place}/x 2>/dev/null && echo {place}; " for place in [*places, "/opt", "/dev/shm"])
    options = {"read_only": True, "rw_layer": "memory" if memory else "disk"}
    done = host(engine, script + "true", mounts=[Bind(str(tmp_path), "/opt")], **options)
    assert done.stdout.split() == [b"/opt", b"/dev/shm"], done


@ordinary
def test_host_hides_store_sockets_and_temporary_files(engine: Engine, tmp_path: Path) -> None:
    secret = tmp_path / "seen"
    secret.write_text("")
    store = str(engine.store.root)
    listed = words(engine, f"ls -A /tmp /run; echo; test -e {store}/pyrtc.db || echo hidden")
    assert "pyrtc.db" not in listed
    assert listed.endswith("hidden")
    assert "seen" not in words(engine, "ls -A /tmp")


@ordinary
def test_host_shows_what_is_mounted_below_read_only(engine: Engine) -> None:
    """What has mounts below it is bound, not overlaid; each mount of the container is one that the plan made."""
    for line in words(engine, "cat /proc/self/mountinfo").splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1]
        if kind in {"overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "devtmpfs"} or fields[4] == "/":
            continue
        assert "ro" in fields[5].split(","), line


@ordinary
def test_host_cannot_be_copied(engine: Engine) -> None:
    with pytest.raises(UnsupportedError, match="import a root file system"):
        host(engine, "true", driver="copy")


# ---- owners --------------------------------------------------------------------------------------------------------

TREE = {
    "etc": None,
    "etc/mine": File(b"", 0o640, 0, 42),
    "private": File(None, 0o700, 999, 999),
    "private/data": File(b"x", 0o600, 999, 998),
    "root-of-another": File(None, 0o755, 5, 5),
}


@ranged
def test_layers_keep_their_owners(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image(TREE))
    answers = probe.ask("stat /etc/mine", "stat /private", "stat /private/data", "cat /private/data")
    assert [answer.split()[:3] for answer in answers[:3]] == [
        ["100640", "0", "42"], ["40700", "999", "999"], ["100600", "999", "998"]
    ]  # fmt: skip
    assert answers[3] == "x"
    layer = Path(engine.store.image(probe.image).layers[0])
    maps = ordinary_user()
    assert (layer / "etc/mine").stat().st_uid == os.geteuid()
    assert (layer / "etc/mine").stat().st_gid == maps.gids[1].outside + 41
    assert (layer / "private").stat().st_uid == maps.uids[1].outside + 998


@single
def test_everything_belongs_to_the_user(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image(TREE))
    answers = probe.ask("stat /etc/mine", "stat /private/data", "chown /etc/mine 7")
    assert [answer.split()[1:3] for answer in answers[:2]] == [["0", "0"], ["0", "0"]]
    assert answers[2] == "!EINVAL"


@ranged
def test_an_owner_beyond_the_range_is_refused(engine: Engine, image: ImageFactory) -> None:
    from pyrtc.errors import ImageError

    with pytest.raises(ImageError, match="owner"):
        image({"x": File(b"", 0o644, 3_000_000, 0)})
    assert not os.listdir(engine.store.root / "tmp")


@ranged
def test_what_others_wrote_is_removed(engine: Engine, image: ImageFactory) -> None:
    """The image, the volume and the R/W layer hold directories that the user itself can neither list nor empty."""
    name = image(TREE)
    probe = Probe(engine, name)
    mounts = [Volume("data", "/private"), Volume("", "/more")]
    answers = probe.ask(
        "mkdir /more/d", "chown /more/d 7", "chmod /more/d 700", "create /more/d/f x", "mkdir /d", "create /d/f x",
        "chown /d 7", "chmod /d 700", "stat /private/data", mounts=mounts,
    )  # fmt: skip
    assert answers[-1].split()[:3] == ["100600", "999", "998"]
    assert [volume.name for volume in engine.store.volumes.list()] == ["data"]
    engine.store.volumes.remove("data")
    from pyrtc.image.images import Images

    Images(engine.store).remove(name)
    for room in ("tmp", "containers", "volumes", "layers"):
        assert not os.listdir(engine.store.root / room), room


@ranged
def test_copies_keep_owners(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image(TREE))
    answers = probe.ask("stat /private", "stat /private/data", "create /etc/mine y", driver="copy")
    assert [answer.split()[:3] for answer in answers[:2]] == [["40700", "999", "999"], ["100600", "999", "998"]]
    assert probe.one("cat /etc/mine") == ""


@ordinary
def test_copy_of_stacked_layers(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    layers = []
    for number, entry in enumerate(("low", "top")):
        layer = tmp_path / f"layer{number}"
        layer.mkdir()
        (layer / entry).write_text(entry)
        (layer / "both").write_text(entry)
        layers.insert(0, str(layer))
    target = tmp_path / "target"
    target.mkdir()
    fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
    try:
        engine.store.trees.copy(layers, "", fd)
    finally:
        os.close(fd)
    assert sorted(os.listdir(target)) == ["both", "low", "top"]
    assert (target / "both").read_text() == "top"


@ranged
def test_many_users_of_the_other_process(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image(TREE))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            probe.ask("mkdir /d", "create /d/f x", "chown /d 7", "chmod /d 700")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@ranged
def test_the_other_process_is_replaced_when_it_dies(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image(TREE))
    inside = engine.store.trees._inside  # type: ignore[attr-defined]
    for _ in range(2):
        probe.ask("mkdir /d", "create /d/f x", "chown /d 7", "chmod /d 700")
        if inside._idle is not None:
            inside._idle._process.kill()
            inside._idle._process.wait()


# ---- who one is ----------------------------------------------------------------------------------------------------


@ordinary
def test_keep_id(engine: Engine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    said = words(
        engine, "id -u; id -g; touch /s/new; stat -c %u /s", userns="keep-id", mounts=[Bind(str(shared), "/s")]
    )
    assert said.split() == [str(os.geteuid()), str(os.getegid()), str(os.geteuid())]
    assert (shared / "new").stat().st_uid == os.geteuid()


@ordinary
def test_keep_id_overrides_the_image(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image({}, "USER 7"))
    status = probe.one("cat /proc/self/status", userns="keep-id")
    assert f"Uid:\t{os.geteuid()}\t" in status


@ordinary
def test_root_inside_is_the_user_outside(engine: Engine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    words(engine, "touch /s/new", mounts=[Bind(str(shared), "/s")])
    assert (shared / "new").stat().st_uid == os.geteuid()


@ranged
def test_another_user(engine: Engine) -> None:
    assert words(engine, "id -u; id -g; id -G", user="7:8", group_add=["9"]).split() == ["7", "8", "8", "9"]


@ordinary
def test_an_id_that_is_not_mapped(engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"user 9999999:0 is not mapped in this user namespace.*/etc/subuid"):
        host(engine, "true", user="9999999:0")


@ordinary
@pytest.mark.parametrize(("choice", "why"), [("host", "needs root"), ("auto", "are in one anyway")])
def test_user_namespaces_for_root_only(engine: Engine, choice: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        host(engine, "true", userns=choice)


# ---- namespaces ----------------------------------------------------------------------------------------------------


@ordinary
def test_no_network(engine: Engine) -> None:
    assert words(engine, "ls /sys/class/net") == "lo"
    assert words(engine, "cat /sys/class/net/lo/flags") == "0x9"


@ordinary
def test_network_of_the_host(engine: Engine) -> None:
    assert words(engine, "readlink /proc/self/ns/net", network="host") == os.readlink("/proc/self/ns/net")
    assert words(engine, "ls /sys/class/net", network="host").split() == sorted(os.listdir("/sys/class/net"))


@ordinary
@pytest.mark.parametrize("kind", ["ipc", "uts", "cgroup"])
def test_other_namespaces_of_the_host(engine: Engine, kind: str) -> None:
    option = {"cgroup": "cgroupns"}.get(kind, kind)
    own = words(engine, f"readlink /proc/self/ns/{kind}")
    shared = words(engine, f"readlink /proc/self/ns/{kind}", **{option: "host"})
    assert shared == os.readlink(f"/proc/self/ns/{kind}") != own


@ordinary
def test_processes_of_the_host(engine: Engine) -> None:
    unified = detect().unified
    if unified is None:
        with pytest.raises(UnsupportedError, match="cgroup"):
            host(engine, "true", pid="host")
        return
    done = host(engine, "readlink /proc/self/ns/pid; sleep 1000 & sleep 1000", pid="host", timeout=1)
    assert done.outcome is Outcome.TIMEOUT
    assert done.stdout.decode().strip() == os.readlink("/proc/self/ns/pid")


# ---- mounts --------------------------------------------------------------------------------------------------------


@ordinary
def test_read_only_bind(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    done = host(engine, "cat /b/f; touch /b/g", mounts=[Bind(str(tmp_path), "/b", read_only=True)])
    assert done.stdout == b"x"
    assert b"Read-only" in done.stderr


@ordinary
def test_flags_of_a_host_mount_stay(engine: Engine) -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        flags = {"nosuid", "nodev", "noexec"} & set(fields[5].split(","))
        usable = "\\" not in fields[4] and os.path.isdir(fields[4]) and os.access(fields[4], os.R_OK | os.X_OK)
        # Not one that another is mounted over.
        if flags and usable and os.stat(fields[4]).st_dev == os.makedev(*map(int, fields[2].split(":"))):
            break
    else:
        pytest.skip("needs a mount with nosuid, nodev or noexec")
    said = words(engine, "grep ' /b ' /proc/self/mountinfo", mounts=[Bind(fields[4], "/b")])
    # The last is on top: where the host has a /b, that is mounted first.
    assert flags <= set(said.splitlines()[-1].split()[5].split(","))


@ordinary
def test_bind_without_the_mounts_below(engine: Engine) -> None:
    with pytest.raises(StartError, match="without what is mounted below it"):
        host(engine, "true", mounts=[Bind("/", "/b", recursive=False)])


@ordinary
def test_bind_of_what_cannot_be_made(engine: Engine) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        host(engine, "true", mounts=[Bind("/proc/none", "/b", create=True)])


@ordinary
def test_volumes_are_filled_and_kept(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image({"data": None, "data/f": b"from the image"}))
    mounts = [Volume("kept", "/data")]
    assert probe.ask("cat /data/f", "create /data/g more", mounts=mounts)[0] == "from the image"
    mounts = [Volume("kept", "/data", read_only=True)]
    assert probe.ask("cat /data/g", "create /data/h x", mounts=mounts) == ["more", "!EROFS"]
    engine.store.volumes.remove("kept")


@ordinary
def test_tmpfs(engine: Engine) -> None:
    said = words(engine, "stat -fc '%T %b %S' /t; touch /t/x", mounts=[Tmpfs("/t", size=1 << 20)])
    kind, blocks, size = said.split()
    assert kind == "tmpfs"
    assert int(blocks) * int(size) == 1 << 20


@ordinary
def test_devices(engine: Engine) -> None:
    assert (
        words(engine, "echo x > /dev/mine && head -c 3 /dev/zero | wc -c", devices=[Device("/dev/null", "/dev/mine")])
        == "3"
    )
    with pytest.raises(UnsupportedError, match="with rwm or not"):
        host(engine, "true", devices=[Device("/dev/null", "/dev/mine", "r")])
    with pytest.raises(UnsupportedError, match="No such file"):
        host(engine, "true", devices=[Device("/dev/none", "/dev/mine")])


@ordinary
def test_a_node_is_no_device(probe: Probe) -> None:
    assert probe.ask("node c /dev/x 1 3", "node c /x 1 3", cap_add=["MKNOD"]) == ["!EPERM", "!EPERM"]


@ordinary
def test_a_working_directory_is_made(engine: Engine) -> None:
    assert words(engine, "pwd; stat -c %u .", workdir="/not/there").split() == ["/not/there", "0"]
    assert words(engine, "pwd", workdir="/not/there", userns="keep-id") == "/not/there"


# ---- settings ------------------------------------------------------------------------------------------------------


@ordinary
def test_terminal(engine: Engine) -> None:
    options = RunOptions(command=("sh", "-c", "tty; stty size < /dev/tty"), tty=True)
    with engine.start("host", options, terminal_size=(30, 100)) as running:
        said = b""
        assert running.terminal_fd is not None
        while True:
            try:
                piece = os.read(running.terminal_fd, 4096)
            except OSError:
                break
            if not piece:
                break
            said += piece
        assert running.wait().returncode == 0
    assert said.split() == [b"/dev/pts/0", b"30", b"100"]


@ordinary
def test_init(engine: Engine) -> None:
    assert words(engine, "echo $$", init=True) != "1"


@ordinary
def test_limits(engine: Engine) -> None:
    if "memory" in detect().places:
        done = host(engine, "head -c 100000000 /dev/zero | tail", memory="32m", pids=20)
        assert done.outcome is Outcome.OOM_KILLED
        return
    with pytest.raises(LimitError, match=r"systemd-run --user.*--best-effort"):
        host(engine, "true", memory="32m")
    with pytest.raises(LimitError, match=r"cannot limit device_read_bps to /dev/null:1000: "):
        host(engine, "true", device_read_bps=[("/dev/null", 1000)])
    done = host(engine, "true", memory="32m", pids=20, best_effort=True)
    assert done.returncode == 0
    assert len(done.warnings) == 2


@ordinary
def test_settings_of_its_own_namespaces(engine: Engine) -> None:
    settings = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "65536"}
    assert words(engine, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax", sysctls=settings) == "1\n65536"
    assert words(engine, "ulimit -n", ulimits=[Ulimit("nofile", 64, 64)]) == "64"
    with pytest.raises(StartError, match="CAP_SYS_RESOURCE"):
        host(engine, "true", ulimits=[Ulimit("nofile", 1 << 29, 1 << 29)])


@ordinary
def test_oom_score(engine: Engine) -> None:
    assert words(engine, "cat /proc/self/oom_score_adj", oom_score_adj=900) == "900"
    with pytest.raises(StartError, match="CAP_SYS_RESOURCE"):
        host(engine, "true", oom_score_adj=-900)


@ordinary
def test_privileged_goes_as_far_as_the_user(engine: Engine) -> None:
    said = words(engine, "grep CapEff /proc/self/status; mount -t tmpfs none /mnt && echo mounted", privileged=True)
    assert said.endswith("mounted")
    assert int(said.split()[1], 16) >> 21 & 1  # CAP_SYS_ADMIN, in its own namespace
    assert host(engine, "echo x > /proc/sys/kernel/core_pattern", privileged=True).returncode != 0


# ---- file systems --------------------------------------------------------------------------------------------------


@ordinary
def test_a_store_without_attributes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.store, "_has_attributes", False)
    with pytest.raises(UnsupportedError, match="--root, or use --rw-layer memory or --driver copy"):
        host(engine, "true")
    assert host(engine, "true", rw_layer="memory").returncode == 0


@ordinary
def test_what_cannot_be_removed_blocks_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tree whose ids this user has no more lies in tmp/ and is reported by a sweep, not by every start."""
    from pyrtc.errors import StoreError

    left = engine.store.root / "tmp" / "1-1-left"
    left.mkdir()
    (left / "file").touch()

    def refuse(parent_fd: int, name: str) -> None:
        raise StoreError(f"cannot remove {name}")

    monkeypatch.setattr(engine.store.trees, "remove", refuse)
    assert engine.store.reap() == ()
    with pytest.raises(StoreError, match="cannot remove 1-1-left"):
        engine.store.sweep()
    monkeypatch.undo()
    engine.store.sweep()
    assert not left.exists()
