"""What is decided about a command in a container, and in which order it is done. Nothing runs here."""

import os
from typing import Any

import pytest
from descriptors import descriptors, left_open

from pyrtc.errors import ContainerError, UsageError
from pyrtc.exec import exec_options
from pyrtc.exec_process import Streams
from pyrtc.ids import IdMaps, Range
from pyrtc.image.config import ImageConfig
from pyrtc.live import Container
from pyrtc.options import ExecOptions, RunOptions, Ulimit
from pyrtc.runtime.join import Target, assemble_exec, open_target
from pyrtc.runtime.plan import words
from pyrtc.runtime.spec import Spec, container_bounding, decide_exec
from pyrtc.runtime.users import Identity, identify_running
from pyrtc.store.owner import process_start_time
from pyrtc.values import replace

ID = "ab" * 32
ROOT = Identity(0, 0, (), "/root")
CONFIG = ImageConfig(env=(("PATH", "/opt"), ("A", "image")), workdir="/srv", user="app")
PLAIN = RunOptions()
TARGET = Target(1, 1, 0x20000, None)


def decide(options: RunOptions = PLAIN, identity: Identity = ROOT, maps: IdMaps | None = None, **asked: Any) -> Spec:
    return decide_exec(
        ID, CONFIG, options, ExecOptions(command=asked.pop("command", ("true",)), **asked), identity, maps
    )


def names(spec: Spec, target: Target = TARGET, **changes: Any) -> list[str]:
    """The operations of a plan, in order."""
    arguments: dict[str, Any] = {
        "seccomp": b"12345678",
        "bounding": spec.bounding,
        "tasks": 0,
        "terminal_size": (0, 0),
        "detached": False,
    }
    return [words(operation)[0] for operation in assemble_exec(spec, target, **(arguments | changes))]


def test_what_is_not_said_is_the_containers() -> None:
    options = RunOptions(
        env=(("A", "run"), ("B", "run")), workdir="/run", cap_drop=("CHOWN",), hostname="box", tty=True
    )
    spec = decide(options, env=(("B", "exec"),))
    assert spec.env == ("PATH=/opt", "A=run", "B=exec", "HOME=/root", "HOSTNAME=box")
    assert spec.workdir == "/run" and spec.argv == ("true",)
    assert not spec.effective & 1 and spec.no_new_privileges and not spec.terminal
    assert decide(workdir="/a/../b").workdir == "/b" and decide().workdir == "/srv"
    assert "TERM=xterm" in decide(tty=True).env
    assert decide(identity=Identity(5, 5, (), "/")).effective == 0


def test_privileged_changes_capabilities_and_nothing_else() -> None:
    options = RunOptions(cap_drop=("ALL",))
    plain, privileged = decide(options), decide(options, privileged=True)
    assert plain.bounding == 0 and privileged.bounding == container_bounding(RunOptions(privileged=True), None)
    same = replace(privileged, bounding=plain.bounding, effective=plain.effective)
    assert same == plain


def test_what_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="no command"):
        decide(command=())
    with pytest.raises(UsageError, match="absolute"):
        decide(workdir="relative")
    with pytest.raises(UsageError, match="NUL"):
        decide(env=(("A", "x\0y"),))
    with pytest.raises(UsageError, match="variable name"):
        decide(env=(("", "x"),))
    with pytest.raises(UsageError, match="not mapped"):
        ids = (Range(0, 1000, 1),)
        decide(identity=Identity(7, 7, (), "/"), maps=IdMaps(ids, ids, privileged=False))
    with pytest.raises(TypeError):
        exec_options("true")
    for unknown in ("detached", "memory"):
        with pytest.raises(TypeError, match=unknown):
            Container.of(None, "0" * 64).exec(["true"], **{unknown: True})
    assert exec_options(["a"], user=7).user == "7"
    for wrong in ({"env": ["A=1"]}, {"workdir": 5}, {"privileged": "no"}, {"tty": 1}):
        with pytest.raises(UsageError, match=f"^{next(iter(wrong))}="):
            exec_options(["a"], **wrong)


def test_rights_go_before_the_process_appears() -> None:
    order = names(decide(RunOptions(ulimits=(Ulimit("core", 0, 0),), oom_score_adj=5)), tasks=2)
    assert order == [
        "death_signal",
        "tasks",
        "tasks",
        "keyring",
        "oom_score",
        "join",
        "umask",
        "workdir",
        "rlimit",
        "bounding",
        "user",
        "capabilities",
        "no_new_privs",
        "fork",
        "entrusted",
        "seccomp",
        "exec",
    ]


def test_where_the_filter_is_loaded() -> None:
    traced = decide(RunOptions(cap_add=("SYS_PTRACE",)))
    order = names(traced)
    assert order.index("no_new_privs") < order.index("seccomp") < order.index("fork")
    ids = (Range(0, 100000, 65536),)
    apart = Target(1, 1, 0x10020000, IdMaps(ids, ids, privileged=False))
    assert names(traced, apart).index("seccomp") > names(traced, apart).index("fork")
    order = names(decide(RunOptions(no_new_privileges=False)))
    assert order.index("seccomp") < order.index("bounding") and "no_new_privs" not in order
    assert "seccomp" not in names(decide(), seccomp=None)


def test_detached_commands_wait_for_nobody() -> None:
    order = names(decide(detached=True, tty=True), detached=True)
    assert "death_signal" not in order and "entrusted" not in order
    assert order.index("join") < order.index("terminal") < order.index("fork")


def test_few_descriptors_are_a_limit_of_the_command_only() -> None:
    order = names(decide(RunOptions(ulimits=(Ulimit("nofile", 4, 4), Ulimit("nproc", 9, 9)))))
    assert [name for name in order if name in ("rlimit", "fork")] == ["rlimit", "fork", "rlimit"]


def test_only_the_process_that_was_meant_is_joined() -> None:
    start = process_start_time(os.getpid())
    assert start is not None
    target = open_target("me", os.getpid(), start)
    os.close(target.pidfd)
    assert target.flags == 0 and target.id_maps is None
    for pid, when in ((os.getpid(), start + 1), (0, 0), (2**22 - 1, 1)):
        with pytest.raises(ContainerError, match="container me is not running"):
            open_target("me", pid, when)


def test_names_in_a_running_root(tmp_path: Any) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("app:x:7:8::/home/app:/bin/sh\n")
    (tmp_path / "real").write_text("docs:x:9:app\nmore:x:10:\n")
    (tmp_path / "etc/group").symlink_to("/real")  # inside the root
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert identify_running("app", ("more",), fd) == Identity(7, 8, (9, 10), "/home/app", (10,))
        assert identify_running("app:docs", (), fd).gid == 9
        (tmp_path / "etc/passwd").write_text("app:x:70:8::/other:/bin/sh\n")
        assert identify_running("app", (), fd).home == "/other"
        (tmp_path / "etc/passwd").write_bytes(b"#" * (100 << 10) + b"\napp:x:71:8::/big:/bin/sh\n")
        assert identify_running("app", (), fd).home == "/big"
    finally:
        os.close(fd)


def test_streams_are_closed_unless_taken() -> None:
    before = descriptors()
    streams = Streams(-1, -1, -2)
    assert streams.theirs[1] == streams.theirs[2]
    streams.close()
    streams = Streams(None, -1, -1)
    stdin, stdout, stderr = streams.take()
    streams.close()
    assert stdin is None and stdout is not None and stderr is not None
    assert stdout.read() == b""
    stdout.close()
    stderr.close()
    with pytest.raises(UsageError):
        Streams(-1, -9, None)
    assert not left_open(before)
