"""Each option of a run, looked at from inside the container."""

import hashlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, File, ImageFactory, Link, Probe, needs_root, tar_of

from pyrtc.api import make_options
from pyrtc.container import Outcome
from pyrtc.engine import Engine
from pyrtc.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    ImageNotFound,
    LimitError,
    PyrtcError,
    StartError,
    UnsupportedError,
    UsageError,
)
from pyrtc.image.images import Images
from pyrtc.options import Bind, Device, Tmpfs, Ulimit, Volume

# ---- names, variables, command -------------------------------------------------------------------------------------


def test_names_of_the_machine(probe: Probe) -> None:
    answers = probe.ask("hostname", "cat /etc/hostname", "cat /etc/hosts", hostname="box", domainname="example.org")
    assert answers[0] == "box example.org"
    assert answers[1] == "box\n"
    assert "127.0.0.1\tbox.example.org box\n" in answers[2]
    assert re.fullmatch(r"[0-9a-f]{12} .*", probe.one("hostname"))
    host = f"{os.uname().nodename} "
    assert probe.one("hostname", uts="host").startswith(host)
    for option in ({"hostname": "x"}, {"domainname": "x"}):
        with pytest.raises(UsageError, match="uts"):
            probe.run("hostname", uts="host", **option)


def test_variables(engine: Engine, image: ImageFactory) -> None:
    name = image({"etc/passwd": "app:x:0:0::/home/app:/bin/sh\n"}, "ENV FROM=image BOTH=image", "ENV PATH=/image/bin")
    variables = Probe(engine, name).one(
        "environment", env={"BOTH": "caller", "EMPTY": "", "EQUALS": "a=b", "LINES": "a\nb"}
    )
    lines = variables.splitlines()
    assert {"PATH=/image/bin", "FROM=image", "BOTH=caller", "EMPTY=", "EQUALS=a=b", "HOME=/home/app"} <= set(lines)
    assert "LINES=a\nb\n" in variables
    assert "HOME=/elsewhere" in Probe(engine, name).one("environment", env={"HOME": "/elsewhere"}).splitlines()


def test_entrypoint_and_command(engine: Engine, image: ImageFactory) -> None:
    """Docker's rules: a new command keeps the entrypoint, a new entrypoint drops the command."""
    name = image(None, 'ENTRYPOINT ["/probe", "words"]', 'CMD ["default", "two words"]')

    def said(command: list[str] | None, **options: object) -> list[str]:
        done = engine.run(name, make_options(command, **options))
        return done.stdout.decode().rstrip("\x1e\n").split("\n")

    assert said(None) == ["default", "two words"]
    assert said(["mine"]) == ["mine"]
    assert said(None, entrypoint=["/probe", "words", "x"]) == ["x"]
    assert said(["y"], entrypoint=["/probe", "words"]) == ["y"]
    assert said(["/probe", "words", "z"], entrypoint=[]) == ["z"]
    with pytest.raises(UsageError, match="no command"):
        engine.run(name, make_options(None, entrypoint=[]))
    with pytest.raises(TypeError):
        make_options("a string")


def test_programs_are_searched_in_the_containers_path(engine: Engine, image: ImageFactory, probe_binary: bytes) -> None:
    name = image(
        {
            "bin/a/tool": File(b"not a program", 0o644),
            "bin/b/tool": probe_binary,
            "bin/c/tool": "#!/missing\n",
            "bin/d/tool": "garbage",
        }
    )

    def run(path: str, command: str = "tool", **options: object) -> str:
        return engine.run(name, make_options([command, "cwd"], env={"PATH": path}, **options)).stdout.decode()

    assert run("/bin/a:/bin/b") == "/\x1e"
    assert run("/missing::/bin/b") == "/\x1e"
    assert run("relative", "bin/b/tool") == "/\x1e"
    with pytest.raises(CommandNotExecutable, match="permission denied") as refused:
        run("/bin/a:/missing")
    assert refused.value.exit_code == 126
    with pytest.raises(CommandNotFound, match=r"/bin/c/tool.*interpreter"):
        run("/bin/c:/bin/b")
    with pytest.raises(CommandNotExecutable, match="exec format error"):
        run("/bin/d")
    with pytest.raises(CommandNotFound, match="not found in") as missing:
        run("/bin")
    assert missing.value.exit_code == 127
    with pytest.raises((CommandNotExecutable, CommandNotFound)):
        run("/bin/b", "/bin")


def test_what_is_mounted_over_is_not_made_in_the_containers_layer(engine: Engine, image: ImageFactory) -> None:
    """One image has nothing but the probe, one its own /etc/hosts, one a link in the place of /etc."""
    for name in (image(), image({"etc/hosts": "1.2.3.4 mine\n"})):
        done = engine.run(name, make_options(["/probe", "cat", "/etc/hosts"], name="kept", remove=False))
        assert b"localhost" in done.stdout
        record = engine.store.containers.get("kept")
        assert os.listdir(f"{record.directory}/upper") == []
        engine.containers.remove("kept")
    linked = image({"etc": Link("real"), "real/hosts": "1.2.3.4 mine\n"})
    assert b"localhost" in engine.run(linked, make_options(["/probe", "cat", "/real/hosts"])).stdout


@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_an_opaque_root_hides_the_layers_below(
    engine: Engine, tmp_path: Path, probe_binary: bytes, driver: str
) -> None:
    layers = [
        tar_of({"secret": "s", "etc/passwd": "nobody:x:7:7::/:/probe\n"}),
        tar_of({".wh..wh..opq": "", "probe": probe_binary}),
    ]
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = [{"Config": "config.json", "RepoTags": ["opaque:1"], "Layers": ["0.tar", "1.tar"]}]
    entries = {"0.tar": layers[0], "1.tar": layers[1], "config.json": json.dumps(config)}
    (tmp_path / "image.tar").write_bytes(tar_of(entries | {"manifest.json": json.dumps(manifest)}))
    Images(engine.store).load(tmp_path / "image.tar")
    probe = Probe(engine, "opaque:1")
    assert probe.one("stat /secret", driver=driver) == "!ENOENT"
    with pytest.raises(StartError, match="unable to find user nobody"):
        probe.run("ids", user="nobody", driver=driver)


def test_working_directories(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(engine, image({"data/x": "x"}, "WORKDIR /from/image"))
    assert probe.ask("cwd", "stat .")[0] == "/from/image"
    assert probe.one("cwd", workdir="/data") == "/data"
    answer, about = probe.ask("cwd", "stat .", workdir="/new/deep/")
    assert answer == "/new/deep"
    assert about.split()[:3] == ["40755", "0", "0"]
    with pytest.raises(StartError, match=r"ENOTDIR.*no directory"):
        probe.run("cwd", workdir="/data/x")


def test_more_than_fits(probe: Probe, tmp_path: Path) -> None:
    """Limits of the kernel and of the plan are errors that say so."""
    with pytest.raises(StartError, match="E2BIG"):
        probe.run("ids", env={"LARGE": "x" * 200_000})
    with pytest.raises(StartError, match="E2BIG"):
        probe.run("ids", env={f"V{number}": "x" * 100_000 for number in range(200)})
    with pytest.raises(PyrtcError):
        probe.run(*["x"] * 70_000)
    assert probe.one("cwd", mounts=[Tmpfs(f"/mounts/{number}") for number in range(200)]) == "/"
    assert probe.one("cwd", env={f"V{number}": "x" * 1000 for number in range(1000)}) == "/"


def test_missing_images(engine: Engine) -> None:
    with pytest.raises(ImageNotFound):
        engine.run("missing:1", make_options(["/x"]))


# ---- users ---------------------------------------------------------------------------------------------------------


@needs_root
def test_users_and_groups(engine: Engine, image: ImageFactory) -> None:
    probe = Probe(
        engine,
        image(
            {
                "etc/passwd": "root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n# comment\nbad line\n",
                "etc/group": "app:x:1001:\nextra:x:2000:other,app\nwheel:x:10:app\nlone:x:3000:\n",
            },
            "USER app",
        ),
    )

    def ids(**options: object) -> tuple[str, str, str, str]:
        status, variables = probe.ask("cat /proc/self/status", "environment", **options)
        found = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
        home = next(line for line in variables.splitlines() if line.startswith("HOME="))
        return found["Uid"][0], found["Gid"][0], " ".join(sorted(found["Groups"])), home.removeprefix("HOME=")

    assert ids() == ("1000", "1001", "10 2000", "/home/app")
    assert ids(user="1000") == ("1000", "1001", "10 2000", "/home/app")
    assert ids(user="app:lone") == ("1000", "3000", "", "/home/app")
    assert ids(user="app:77") == ("1000", "77", "", "/home/app")
    assert ids(user="4321") == ("4321", "0", "", "/")
    assert ids(user="0") == ("0", "0", "", "/root")
    assert ids(user="4321:5", group_add=["extra", "99"]) == ("4321", "5", "2000 99", "/")
    assert ids(user="root", group_add=["10"]) == ("0", "0", "10", "/root")
    for user in ("nobody", "app:nobody", "bad line"):
        with pytest.raises(StartError, match="unable to find"):
            probe.run("ids", user=user)


# ---- file systems --------------------------------------------------------------------------------------------------


def test_a_read_only_root(engine: Engine, image: ImageFactory, tmp_path: Path) -> None:
    probe = Probe(engine, image({"file": "x"}))
    mounts = [Tmpfs("/tmp"), Bind(str(tmp_path), "/bind"), Volume("vol", "/volume")]
    answers = probe.ask(
        "create /new x",
        "write /file y",
        "mkdir /dir",
        "create /tmp/new x",
        "create /bind/new x",
        "create /volume/new x",
        "create /dev/shm/x y",
        read_only=True,
        workdir="/made/for/it",
        mounts=mounts,
    )
    assert answers == ["!EROFS", "!EROFS", "!EROFS", "1", "1", "1", "1"]
    assert (tmp_path / "new").read_text() == "x"


def test_tmpfs_options(probe: Probe) -> None:
    mounts = [
        Tmpfs("/a", size=1 << 20, mode=0o750),
        Tmpfs("/b", read_only=True),
        Tmpfs("/c", exec=True),
        Tmpfs("/deep/er/d"),
    ]
    answers = probe.ask(
        "stat /a", "create /b/x y", "cat /proc/self/mountinfo", "stat /deep/er/d", "pour 0 1", mounts=mounts
    )
    assert answers[0].split()[0] == "40750"
    assert answers[0].split()[-1] == "1021994"
    assert answers[1] == "!EROFS"
    flags = {line.split()[4]: line.split()[5].split(",") for line in answers[2].splitlines()}
    assert {"nosuid", "nodev", "noexec"} <= set(flags["/a"])
    assert "noexec" not in flags["/c"]
    assert "ro" in flags["/b"]
    sizes = {line.split()[4]: line.rpartition(" - ")[2] for line in answers[2].splitlines()}
    assert "size=1024k" in sizes["/a"]
    assert answers[3].split()[0] == "41777"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with, for root, a file system mounted below it."""
    path = tmp_path / "tree"
    (path / "sub").mkdir(parents=True)
    (path / "file").write_text("content")
    if ROOT:
        subprocess.run(["mount", "-t", "tmpfs", "none", path / "sub"], check=True)
        (path / "sub" / "inner").touch()
    yield path
    if ROOT:
        subprocess.run(["umount", path / "sub"], check=True)


def test_binds(probe: Probe, tree: Path) -> None:
    mounts = [Bind(str(tree), "/rw"), Bind(str(tree), "/ro", read_only=True), Bind(str(tree), "/flat", recursive=False)]
    answers = probe.ask(
        "create /rw/new x",
        "create /rw/sub/new x",
        "create /ro/new x",
        "create /ro/sub/new x",
        "list /rw/sub",
        "list /flat/sub",
        "cat /ro/file",
        mounts=mounts,
    )
    assert answers[:4] == ["1", "1", "!EROFS", "!EROFS"]
    assert "new" in answers[4]
    assert answers[5] == ("" if ROOT else "new\n")
    assert answers[6] == "content"
    assert (tree / "new").read_text() == "x"


def test_read_only_binds_cannot_be_made_writable(probe: Probe, tree: Path) -> None:
    tree.chmod(0o777)
    options = {"mounts": [Bind(str(tree), "/ro", read_only=True)], "seccomp": "unconfined"}
    remount_bind_rw = str(32 | 4096)
    answers = probe.ask(
        ["mount", "none", "/ro", "none", remount_bind_rw, ""],
        "create /ro/new x",
        "unmount /ro",
        "create /ro/new x",
        **options,
    )
    assert answers[0] == "!EPERM"
    assert answers[1] == "!EROFS"
    assert not (tree / "new").exists()


def test_binds_of_files(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("first")
    mounts = [Bind(str(tmp_path / "file"), "/a/new/name"), Bind(str(tmp_path / "file"), "/probe2", read_only=True)]
    answers = probe.ask("cat /a/new/name", "write /a/new/name FIRST", "write /probe2 x", mounts=mounts)
    assert answers == ["first", "5", "!EROFS"]
    assert (tmp_path / "file").read_text() == "FIRST"


def test_sources_that_are_not_there(probe: Probe, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "deep"
    with pytest.raises(UsageError, match="does not exist"):
        probe.run("ids", mounts=[Bind(str(missing), "/x")])
    with pytest.raises(StartError, match="a file over a file"):
        probe.run("ids", mounts=[Bind(str(tmp_path), "/probe")])
    with pytest.raises(StartError, match="the target is missing"):
        probe.run("ids", mounts=[Bind(str(tmp_path), "/sys/nothing")])
    assert not missing.exists()
    assert probe.one("create /x/made y", mounts=[Bind(str(missing), "/x", create=True)]) == "1"
    assert (missing / "made").exists()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(UsageError):
        probe.run("ids", mounts=[Bind(str(tmp_path / "dangling"), "/x")])


def test_targets_below_each_other(probe: Probe, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in-{name}").touch()
    mounts = [Bind(str(tmp_path / "inner"), "/a/b"), Bind(str(tmp_path / "outer"), "/a"), Tmpfs("/a/b/c")]
    answers = probe.ask("list /a", "list /a/b", mounts=mounts)
    assert answers == ["b\nin-outer\n", "c\nin-inner\n"]


def test_files_of_the_caller_replace_generated_ones(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("mine\n")
    assert probe.one("cat /etc/hosts", mounts=[Bind(str(tmp_path / "hosts"), "/etc//hosts")]) == "mine\n"


def test_a_directory_at_etc_does_not_take_the_names_away(probe: Probe, tmp_path: Path) -> None:
    """As in Docker: places for the files are made in it where it has none; what else is in it is seen."""
    (tmp_path / "passwd").write_text("of the caller")
    etc = Bind(str(tmp_path), "/etc")
    asked = ("cat /etc/hosts", "cat /etc/resolv.conf", "cat /etc/hostname", "cat /etc/passwd")
    said = probe.ask(*asked, mounts=(etc,), hostname="box", dns=("192.0.2.1",))
    assert "127.0.0.1\tbox\n" in said[0]
    assert said[1:] == ["nameserver 192.0.2.1\n", "box\n", "of the caller"]
    places = ("hosts", "resolv.conf", "hostname")
    assert all(not (tmp_path / name).read_bytes() for name in places)
    only_read = replace(etc, read_only=True)
    assert probe.one("cat /etc/hostname", mounts=(only_read,), hostname="box") == "box\n"
    (tmp_path / "hosts").write_text("of the caller, too")
    own = Bind(str(tmp_path / "hosts"), "/etc/hosts")
    for mounts in ((etc, own), (own, etc)):
        assert probe.one("cat /etc/hosts", mounts=mounts) == "of the caller, too"
    for name in places:
        (tmp_path / name).unlink()
    with pytest.raises(StartError, match=r"/etc/hosts: .*EROFS"):
        probe.run("hostname", mounts=(only_read,))


def test_volumes(engine: Engine, image: ImageFactory) -> None:
    name = image(
        {
            "data/from-image": File(b"x", 0o640, 7 if ROOT else 0, 8 if ROOT else 0),
            "data/link": Link("from-image"),
            "anonymous/y": "y",
        },
        "VOLUME /anonymous/",
    )
    probe = Probe(engine, name)
    first, second = Volume("kept", "/data"), Volume("kept", "/data", read_only=True)
    assert probe.ask("list /data", "create /data/new z", mounts=[first]) == ["from-image\nlink\n", "1"]
    answers = probe.ask("list /data", "create /data/more z", "stat /data/from-image", mounts=[second])
    assert answers[:2] == ["from-image\nlink\nnew\n", "!EROFS"]
    assert answers[2].split()[:3] == ["100640", *(["7", "8"] if ROOT else ["0", "0"])]
    assert probe.one("list /empty", mounts=[Volume("bare", "/empty")]) == ""
    assert probe.one("list /data", mounts=[Volume("uncopied", "/data", copy=False)]) == ""
    assert probe.ask("list /anonymous", "create /anonymous/z z") == ["y\n", "1"]
    assert {volume.name for volume in engine.store.volumes.list()} == {"kept", "bare", "uncopied"}
    assert probe.one("list /anonymous", mounts=[Tmpfs("/anonymous")]) == ""


@pytest.mark.parametrize("options", [{"driver": "copy"}, {"rw_layer": "memory"}, {"rw_layer": "disk"}], ids=str)
def test_roots(engine: Engine, image: ImageFactory, options: dict[str, str]) -> None:
    name = image({"file": "x", "dir/a": "a", "dir/link": Link("a"), "mode": File(b"m", 0o4711)})
    answers = Probe(engine, name).ask(
        "cat /file",
        "create /file changed",
        "cat /file",
        "list /dir",
        "stat /mode",
        "cat /proc/self/mountinfo",
        **options,
    )
    assert answers[:4] == ["x", "7", "changed", "a\nlink\n"]
    assert answers[4].split()[0] == "104711"
    root = next(line for line in answers[5].splitlines() if line.split()[4] == "/")
    assert ("overlay" in root) == (options.get("driver") != "copy")
    assert "nodev" in root.split()[5]


def test_roots_that_contradict(probe: Probe) -> None:
    for options in ({"driver": "copy", "rw_layer": "memory"}, {"rw_layer": "memory", "remove": False}):
        with pytest.raises(PyrtcError):
            probe.run("ids", **options)


def test_memory_for_shm(probe: Probe) -> None:
    for size, shown in ((None, "size=65536k"), ("2m", "size=2048k")):
        text = probe.one("cat /proc/self/mountinfo", **({"shm_size": size} if size else {}))
        line = next(line for line in text.splitlines() if line.split()[4] == "/dev/shm")
        assert shown in line.split(",") or line.endswith(shown) or f"{shown}," in line
    assert probe.one("stat /dev/shm").split()[0] == "41777"


# ---- the network and its files -------------------------------------------------------------------------------------


def test_files_of_the_network(probe: Probe) -> None:
    answers = probe.ask(
        "cat /etc/hosts",
        "cat /etc/resolv.conf",
        add_host={"db": "10.1.2.3", "six": "fe80::1"},
        dns=["9.9.9.9", "::1"],
        dns_search=["example.org", "b"],
        dns_option=["ndots:1"],
    )
    assert answers[0].endswith("10.1.2.3\tdb\nfe80::1\tsix\n")
    assert answers[1] == "nameserver 9.9.9.9\nnameserver ::1\nsearch example.org b\noptions ndots:1\n"
    assert probe.one("cat /etc/resolv.conf") == ""


def test_the_hosts_network(probe: Probe) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = f"{listening.getsockname()[1]:04X}"
        answers = probe.ask("readlink /proc/self/ns/net", "cat /etc/resolv.conf", "cat /proc/net/tcp", network="host")
    assert answers[0] == os.readlink("/proc/self/ns/net")
    if os.path.exists("/etc/resolv.conf"):
        assert answers[1] == Path("/etc/resolv.conf").read_text()
    assert f":{port} " in answers[2]
    with pytest.raises(UsageError, match="network host"):
        probe.run("ids", network="host", sysctls={"net.ipv4.ip_forward": "1"})


def test_settings(probe: Probe) -> None:
    settings = {"net.ipv4.ip_forward": "1", "net/ipv4/ip_default_ttl": "70"}
    answers = probe.ask(
        "cat /proc/sys/net/ipv4/ip_forward",
        "cat /proc/sys/net/ipv4/ip_default_ttl",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        sysctls=settings,
    )
    assert answers == ["1\n", "70\n", "0\n"]
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() == "64\n"
    if ROOT:
        before = Path("/proc/sys/kernel/shm_rmid_forced").read_text()
        answers = probe.ask(
            "cat /proc/sys/kernel/shm_rmid_forced",
            "cat /proc/sys/fs/mqueue/msg_max",
            sysctls={"kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "11"},
        )
        assert answers == ["1\n", "11\n"]
        assert Path("/proc/sys/kernel/shm_rmid_forced").read_text() == before
        assert probe.one("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "2147483647"]
    with pytest.raises(PyrtcError, match="no such setting"):
        probe.run("ids", sysctls={"net.ipv4.missing_thing": "1"})


# ---- namespaces that are shared ------------------------------------------------------------------------------------


def test_shared_namespaces(probe: Probe) -> None:
    for kind, option in (("uts", "uts"), ("ipc", "ipc"), ("cgroup", "cgroupns")):
        assert probe.one(f"readlink /proc/self/ns/{kind}", **{option: "host"}) == os.readlink(f"/proc/self/ns/{kind}")
        assert probe.one(f"readlink /proc/self/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_shared_memory_of_the_host(probe: Probe) -> None:
    path = Path(f"/dev/shm/pyrtc-test-{os.getpid()}")
    path.write_text("shared")
    try:
        assert probe.ask(f"cat {path}", ipc="host") == ["shared"]
        assert probe.ask(f"cat {path}") == ["!ENOENT"]
    finally:
        path.unlink()


def test_processes_of_the_host(engine: Engine, probe: Probe) -> None:
    try:
        listed, ids = probe.ask("list /proc", "ids", pid="host")
    except UnsupportedError:
        pytest.skip("needs a version 2 control group of its own")
    assert str(os.getpid()) in listed.split()
    assert ids.split()[0] != "1"
    word = f"pyrtc-pid-host-{os.urandom(4).hex()}"
    done = probe.run("words", word, ",", "away", "daemon", ",", "sleep", "1000", pid="host", timeout=0.3)
    assert done.outcome is Outcome.TIMEOUT
    done = probe.run("words", word, ",", "forks", "4", ",", "exit", "2", pid="host")
    assert done.returncode == 2
    left = [name for name in os.listdir("/proc") if name.isdigit() and _has(name, word)]
    assert not left


def _has(pid: str, word: str) -> bool:
    try:
        return word.encode() in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False


# ---- rights --------------------------------------------------------------------------------------------------------


def capabilities_of(status: str) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}


def test_capabilities(probe: Probe) -> None:
    net_admin, chown = 1 << 12, 1 << 0
    default = capabilities_of(probe.one("cat /proc/self/status"))
    added = capabilities_of(probe.one("cat /proc/self/status", cap_add=["NET_ADMIN"]))
    dropped = capabilities_of(probe.one("cat /proc/self/status", cap_drop=["CAP_CHOWN"]))
    none = capabilities_of(probe.one("cat /proc/self/status", cap_drop=["ALL"]))
    only = capabilities_of(probe.one("cat /proc/self/status", cap_drop=["all"], cap_add=["chown"]))
    for which in ("CapBnd", "CapPrm", "CapEff"):
        assert added[which] == default[which] | net_admin
        assert dropped[which] == default[which] & ~chown
        assert none[which] == 0
        assert only[which] == chown
    assert probe.one("chown /probe 5", cap_drop=["CHOWN"]) in ("!EPERM", "!EINVAL")
    with pytest.raises(UsageError, match="no capability"):
        probe.run("ids", cap_add=["NET_ADMON"])


def test_seccomp_profiles(probe: Probe, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],'
        ' "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}'
    )
    assert probe.ask("mkdir /x", "hostname", seccomp=str(profile))[0] == "!ENOSYS"
    assert probe.one("mkdir /x") == "0"
    status = probe.one("cat /proc/self/status", seccomp="unconfined")
    assert "Seccomp:\t0" in status
    with pytest.raises(PyrtcError):
        probe.run("ids", seccomp=str(tmp_path / "missing.json"))
    profile.write_text("not json")
    with pytest.raises(UsageError):
        probe.run("ids", seccomp=str(profile))


def test_new_privileges(probe: Probe) -> None:
    assert "NoNewPrivs:\t1" in probe.one("cat /proc/self/status")
    lifted = probe.one("cat /proc/self/status", no_new_privileges=False)
    assert "NoNewPrivs:\t0" in lifted
    assert "Seccomp:\t2" in lifted


def test_system_paths(probe: Probe) -> None:
    masked = "/proc/timer_list"
    assert " 1:3 " in probe.one(f"stat {masked}")
    assert " 0:0 " in probe.one(f"stat {masked}", unmask=[masked])
    assert " 0:0 " in probe.one(f"stat {masked}", unmask=["ALL"])
    assert " 0:0 " in probe.one(f"stat {masked}", systempaths="unconfined")
    answers = probe.ask(
        "list /sys/kernel",
        "create /sys/kernel/x y",
        "stat /etc/hosts",
        mask=["/sys/kernel", "/etc/hosts"],
        systempaths="unconfined",
    )
    assert answers[0] == ""
    assert answers[1] == "!EROFS"
    assert " 1:3 " in answers[2]


@needs_root
def test_devices(probe: Probe) -> None:
    for target in ("/dev/mine", "/elsewhere/mine"):
        assert probe.ask(f"open {target} w", f"stat {target}", devices=[Device("/dev/zero", target)])[0] == "0"
    assert probe.one("open /dev/kmsg") == "!ENOENT"
    with pytest.raises(UnsupportedError):
        probe.run("ids", devices=[Device("/dev/missing", "/dev/missing")])
    with pytest.raises(UsageError, match="device"):
        probe.run("ids", devices=[Device("/dev/zero", "/dev/x", "rx")])


@needs_root
def test_devices_for_reading_only(probe: Probe) -> None:
    """A bind cannot say that, a device control group can."""
    source = next((path for path in ("/dev/fuse", "/dev/net/tun", "/dev/loop0") if os.path.exists(path)), None)
    if source is None:
        pytest.skip("needs a device that containers do not have by default")
    try:
        answers = probe.ask("open /dev/full", "open /dev/x", "open /dev/x w", devices=[Device(source, "/dev/x", "r")])
    except LimitError as error:
        pytest.skip(f"needs device rules: {error}")
    assert answers == ["0", "0", "!EPERM"]
    assert probe.ask("open /dev/x", "open /dev/x w", devices=[Device(source, "/dev/x")]) == ["0", "0"]


def may_raise_limits() -> bool:
    """Root of a container may be without CAP_SYS_RESOURCE."""
    return bool(capabilities_of(Path("/proc/self/status").read_text())["CapEff"] >> 24 & 1)


def test_resource_limits(probe: Probe) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    answers = probe.ask(
        f"limit {resource.RLIMIT_NOFILE}",
        f"limit {resource.RLIMIT_CORE}",
        f"limit {resource.RLIMIT_CPU}",
        ulimits=[Ulimit("nofile", 123, min(456, hard)), Ulimit("core", 0, 0), Ulimit("cpu", 7, 9)],
    )
    assert answers == ["123 456", "0 0", "7 9"]
    if may_raise_limits():
        assert probe.one(f"limit {resource.RLIMIT_MEMLOCK}", ulimits=[Ulimit("memlock", -1, -1)]) == "-1 -1"
    with pytest.raises(UsageError, match="unknown ulimit"):
        probe.run("ids", ulimits=[Ulimit("files", 1, 1)])
    with pytest.raises(UsageError):
        probe.run("ids", ulimits=[Ulimit("nofile", 20, 10)])


def test_the_badness_for_the_oom_killer(probe: Probe) -> None:
    assert probe.one("cat /proc/self/oom_score_adj", oom_score_adj=500) == "500\n"
    if may_raise_limits():
        assert probe.one("cat /proc/self/oom_score_adj", oom_score_adj=-500) == "-500\n"
    else:
        with pytest.raises(StartError, match="CAP_SYS_RESOURCE"):
            probe.run("ids", oom_score_adj=-500)


def test_a_caller_that_is_spared_passes_that_on_to_nobody(probe: Probe) -> None:
    if not may_raise_limits():
        pytest.skip("needs CAP_SYS_RESOURCE")
    script = f"""if True:
        from pyrtc.api import make_options
        from pyrtc.engine import Engine
        open("/proc/self/oom_score_adj", "w").write("-900")
        options = make_options(["/probe", "cat", "/proc/self/oom_score_adj"])
        print(Engine({str(probe.engine.store.root)!r}).run({probe.image!r}, options).stdout.decode())
        """
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.startswith(
        "0\n"
    )


# ---- process 1, terminals ------------------------------------------------------------------------------------------


def test_a_process_that_reaps(probe: Probe) -> None:
    listed, ids, name = probe.ask("list /proc", "ids", "cat /proc/1/comm", init=True)
    assert [name for name in listed.split() if name.isdigit()] == ["1", "2"]
    assert ids.split()[:2] == ["2", "1"]
    assert name == "pyrtc-init\n"
    for code in (0, 3, 255):
        assert probe.run("exit", str(code), init=True).returncode == code
    done = probe.run("raise", "15", init=True)
    assert (done.returncode, done.outcome) == (143, Outcome.SIGNALED)
    with pytest.raises(CommandNotFound):
        probe.engine.run(probe.image, make_options(["/missing"], init=True))


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("user", ["0", "1000"])
def test_terminals(engine: Engine, probe: Probe, init: bool, user: str) -> None:
    if user != "0" and not ROOT:
        pytest.skip("needs root: an ordinary user may map one id only")
    words = [
        "/probe",
        "terminal",
        ",",
        "stat",
        "/dev/console",
        ",",
        "open",
        "/dev/tty",
        "w",
        ",",
        "stat",
        "/dev/pts/0",
        ",",
        "environment",
        ",",
        "list",
        "/dev/pts",
    ]
    options = replace(make_options(words, init=init, user=user), tty=True)
    with engine.start(probe.image, options, terminal_size=(33, 99)) as running:
        assert running.terminal_fd is not None
        text = b""
        while True:
            try:
                piece = os.read(running.terminal_fd, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        assert running.wait().returncode == 0
    answers = text.decode().replace("\r\n", "\n").split("\x1e")
    assert answers[0].startswith("tty=111 name=/dev/pts/0 size=33x99") or "name=/dev/console" in answers[0]
    assert "foreground=1" in answers[0]
    assert " 136:0 " in answers[1] or " 5:1 " in answers[1]
    assert answers[2] == "0"
    assert answers[3].split()[1] == user
    assert "TERM=xterm" in answers[4]
    assert answers[5].split() == ["0", "ptmx"]


def test_names_of_containers(engine: Engine, probe: Probe) -> None:
    with engine.start(probe.image, make_options(["/probe", "sleep", "100"], name="mine"), stdout=None) as running:
        assert running.name == "mine"
        with pytest.raises(ContainerError, match="already in use"):
            probe.run("ids", name="mine")
    assert probe.run("ids", name="mine").returncode == 0


def test_plans_show_every_option(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    options = (
        make_options(
            ["/probe", "ids"],
            hostname="shown",
            mounts=[Bind(str(tmp_path), "/target", read_only=True), Tmpfs("/t")],
            user="5:6",
            ulimits=[Ulimit("nofile", 1, 2)],
            sysctls={"net.ipv4.ip_forward": "1"},
            read_only=True,
            oom_score_adj=5,
            init=True,
        )
        if ROOT
        else make_options(
            ["/probe", "ids"], hostname="shown", mounts=[Bind(str(tmp_path), "/target", read_only=True), Tmpfs("/t")]
        )
    )
    text = engine.plan(probe.image, options)
    for shown in (
        "shown",
        str(tmp_path),
        "/t",
        "exec",
        "pivot",
        *(["nofile", "ip_forward", "root_readonly", "reaper", "oom_score"] if ROOT else []),
    ):
        assert shown in text, text
    assert not engine.store.containers.list()
