"""What is decided about a container before anything of it exists, without privilege."""

import dataclasses
import os
import posixpath
import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import UsageError
from pyrtc.ids import IdMaps, Range
from pyrtc.image.config import ImageConfig
from pyrtc.options import Bind, RunOptions, Tmpfs, Ulimit, Volume
from pyrtc.runtime import capabilities, kernel_settings, namespaces, spec
from pyrtc.runtime.spec import DEFAULT_PATH, decide, host_config, mount_target
from pyrtc.runtime.system import MASKED, READ_ONLY

ID = "0123456789abcdef" * 4
UNLIMITED = (1 << 64) - 1
ALL_IDS = IdMaps((Range(0, 100000, 65536),), (Range(0, 100000, 65536),), privileged=True)
ONE_ID = IdMaps((Range(0, 1000, 1),), (Range(0, 1000, 1),), privileged=False)


@pytest.fixture(autouse=True)
def all_capabilities(monkeypatch):
    """The same on every machine, whoever runs the tests."""
    monkeypatch.setattr(capabilities, "own_bounding_set", lambda: (1 << 41) - 1)
    monkeypatch.setattr(capabilities, "_last_cap", lambda: 40)
    monkeypatch.setattr(kernel_settings, "_own_oom_score", lambda: 0)


def decided(config=None, maps=None, layers=(), **options):
    config = config or ImageConfig(cmd=("/bin/sh",))
    spec._decide_common.cache_clear()
    return decide(ID, config, layers, RunOptions(**options), maps)


def files(made):
    return {file.target: file.content for file in made.files}


def env(made):
    return dict(entry.split("=", 1) for entry in made.env)


# ---- command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "asked_entrypoint", "asked", "expected"),
    [
        (None, ("c",), None, None, ("c",)),
        (("e",), None, None, None, ("e",)),
        (("e",), ("c",), None, None, ("e", "c")),
        (("e",), ("c",), None, ("x", "y"), ("e", "x", "y")),
        (None, ("c",), None, ("x",), ("x",)),
        # no word is no command: what the image says
        (("e",), ("c",), None, (), ("e", "c")),
        # a new entrypoint drops the image's command
        (("e",), ("c",), ("n",), None, ("n",)),
        (("e",), ("c",), ("n",), (), ("n",)),
        (("e",), ("c",), ("n", "-f"), ("x",), ("n", "-f", "x")),
        # an empty one clears the image's
        (("e",), ("c",), (), ("x",), ("x",)),
        ((), (), None, ("x",), ("x",)),
        (None, None, None, ("",), ("",)),
    ],
)
def test_command_by_dockers_rule(entrypoint, cmd, asked_entrypoint, asked, expected):
    made = decided(ImageConfig(entrypoint=entrypoint, cmd=cmd), entrypoint=asked_entrypoint, command=asked)
    assert made.argv == expected


@pytest.mark.parametrize(
    ("config", "options"),
    [(ImageConfig(), {}), (ImageConfig(entrypoint=("e",), cmd=("c",)), {"entrypoint": ()}), (ImageConfig(cmd=()), {})],
)
def test_no_command_at_all_is_refused(config, options):
    with pytest.raises(UsageError, match="no command specified"):
        decided(config, **options)


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"command": ("a\0b",)}, None),
        ({}, ImageConfig(cmd=("a\0b",))),
        ({}, ImageConfig(entrypoint=("a\0b",))),
        ({"env": (("A", "x\0y"),)}, None),
        ({"env": (("A\0B", "x"),)}, None),
        ({}, ImageConfig(cmd=("c",), env=(("A", "\0"),))),
        ({"workdir": "/a\0b"}, None),
        ({}, ImageConfig(cmd=("c",), workdir="/\0")),
        ({"hostname": "a\0b"}, None),
        ({"domainname": "a\0b"}, None),
        ({"mask": ("/proc/a\0b",)}, None),
        ({"mounts": (Tmpfs("/a\0b"),)}, None),
        ({}, ImageConfig(cmd=("c",), volumes=("/a\0b",))),
        ({"sysctls": (("net.x", "1\0"),)}, None),
        ({"sysctls": (("net.\0", "1"),)}, None),
        ({"dns": ("1.1.1.1\0",)}, None),
        ({"dns_search": ("a\0b",)}, None),
        ({"dns_option": ("a\0b",)}, None),
        ({"add_host": (("a\0b", "1.1.1.1"),)}, None),
        ({"stop_signal": "TERM\0"}, None),
        ({"ulimits": (Ulimit("nofile\0", 1, 1),)}, None),
    ],
)
def test_nul_is_refused_everywhere(options, config):
    """A NUL ends a string of the plan: what comes after it would be silently lost."""
    with pytest.raises(UsageError):
        decided(config, **options)


# ---- environment ---------------------------------------------------------------------------------------------------


def test_environment_is_the_callers_over_the_images_over_the_defaults(monkeypatch):
    monkeypatch.setenv("PYRTC_TEST_SECRET", "of the host")
    made = decided(
        ImageConfig(cmd=("c",), env=(("A", "image"), ("B", "image"))),
        env=(("B", "caller"), ("C", "x=y"), ("C", "last")),
    )
    assert env(made) == {
        "PATH": DEFAULT_PATH,
        "A": "image",
        "B": "caller",
        "C": "last",
        "HOME": "/",
        "HOSTNAME": ID[:12],
    }
    assert len(made.env) == len(env(made)), "a name twice"


def test_image_may_change_every_default():
    config = ImageConfig(cmd=("c",), env=(("PATH", "/p"), ("HOME", "/h"), ("HOSTNAME", "n"), ("TERM", "t")))
    assert env(decided(config, tty=True)) == {"PATH": "/p", "HOME": "/h", "HOSTNAME": "n", "TERM": "t"}


def test_term_is_for_terminals():
    assert env(decided(tty=True))["TERM"] == "xterm"
    assert "TERM" not in env(decided())


def test_empty_values_stay_and_values_may_hold_anything_but_nul():
    made = decided(env=(("EMPTY", ""), ("LINES", "a\nb"), ("RAW", "\udcff")))
    assert {"EMPTY=", "LINES=a\nb", "RAW=\udcff"} < set(made.env)


@pytest.mark.parametrize("name", ["", "A=B", "="])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(UsageError, match="environment variable name"):
        decided(env=((name, "x"),))


def test_environment_of_the_hosts_name_is_absent_with_the_hosts_uts():
    assert "HOSTNAME" not in env(decided(uts="host"))


# ---- working directory, user ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "asked", "expected"),
    [("", None, "/"), ("/w", None, "/w"), ("/w", "/x", "/x"), ("/a/../b//c/", None, "/b/c"), ("//x", None, "/x")],
)
def test_workdir(image, asked, expected):
    assert decided(ImageConfig(cmd=("c",), workdir=image), workdir=asked).workdir == expected


def test_relative_workdir_is_refused():
    with pytest.raises(UsageError, match="absolute"):
        decided(workdir="x")


def test_user_of_the_caller_goes_before_the_images():
    config = ImageConfig(cmd=("c",), user="7:8")
    assert (decided(config).identity.uid, decided(config).identity.gid) == (7, 8)
    assert decided(config, user="9").identity.uid == 9


def test_keep_id_is_the_caller_whatever_the_image_says(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 1235)
    config = ImageConfig(cmd=("c",), user="7")
    maps = IdMaps((Range(1234, 1234, 1),), (Range(1235, 1235, 1),), privileged=False)
    made = decided(config, maps, userns="keep-id")
    assert (made.identity.uid, made.identity.gid) == (1234, 1235)
    with pytest.raises(UsageError, match="not mapped"):
        decided(config, maps, userns="keep-id", user="7")


@pytest.mark.parametrize(("maps", "what"), [(ONE_ID, "/etc/subuid"), (ALL_IDS, "65536 user and 65536 group ids")])
@pytest.mark.parametrize("user", ["70000", "0:70000"])
def test_users_that_are_not_mapped_are_refused(maps, what, user):
    with pytest.raises(UsageError, match="not mapped") as error:
        decided(maps=maps, user=user)
    assert what in str(error.value)


@pytest.mark.parametrize(("maps", "what"), [(ONE_ID, "/etc/subuid"), (ALL_IDS, "65536 user and 65536 group ids")])
def test_a_group_that_is_not_mapped_is_refused_and_not_left_out(maps, what):
    with pytest.raises(UsageError, match="group 70000 is not mapped") as error:
        decided(maps=maps, group_add=("70000",))
    assert what in str(error.value)
    assert decided(maps=maps, group_add=("0",)).identity.groups == (0,)


def test_user_namespace_is_made_when_there_are_maps():
    assert decided(maps=ALL_IDS).clone_flags & namespaces.CLONE_NEWUSER
    assert not decided().clone_flags & namespaces.CLONE_NEWUSER


# ---- capabilities, seccomp -----------------------------------------------------------------------------------------


def test_only_root_has_effective_capabilities():
    root, user = decided(), decided(user="1000")
    assert root.effective == root.bounding == user.bounding != 0
    assert user.effective == 0


def test_privileged_lifts_what_it_says_and_nothing_else():
    made = decided(privileged=True)
    assert made.bounding == (1 << 41) - 1
    assert (made.seccomp, made.no_new_privileges, made.masked, made.read_only_paths) == ("unconfined", False, (), ())
    assert decided(privileged=True, seccomp="/profile").seccomp == "/profile"
    assert decided(privileged=True, mask=("/x",)).masked == ("/x",)
    usual = decided()
    assert (usual.seccomp, usual.no_new_privileges) == (None, True)
    assert made.clone_flags == usual.clone_flags


# ---- namespaces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("uts", namespaces.CLONE_NEWUTS),
        ("ipc", namespaces.CLONE_NEWIPC),
        ("pid", namespaces.CLONE_NEWPID),
        ("network", namespaces.CLONE_NEWNET),
    ],
)
def test_each_namespace_is_new_unless_it_is_the_hosts(option, flag):
    assert decided().clone_flags & flag
    shared = decided(**{option: "host"})
    assert not shared.clone_flags & flag
    assert shared.clone_flags | flag == decided().clone_flags
    assert shared.clone_flags & namespaces.CLONE_NEWNS


def test_cgroup_namespace_is_made_late(monkeypatch):
    assert decided().late_flags & namespaces.CLONE_NEWCGROUP
    assert not decided(cgroupns="host").late_flags & namespaces.CLONE_NEWCGROUP
    assert not decided().clone_flags & namespaces.CLONE_NEWCGROUP


def test_own_says_which_namespaces_there_are():
    made = decided(pid="host", network="host", ipc="host")
    assert (made.own_pids, made.own_network, made.own_ipc) == (False, False, False)
    made = decided()
    assert (made.own_pids, made.own_network, made.own_ipc) == (True, True, True)


# ---- names and files -----------------------------------------------------------------------------------------------


def test_hostname_is_the_start_of_the_id_unless_given():
    assert decided().hostname == ID[:12]
    made = decided(hostname="web", domainname="example.org")
    assert (made.hostname, made.domainname) == ("web", "example.org")
    assert files(made)["/etc/hostname"] == b"web\n"


@pytest.mark.parametrize("name", ["x" * 65, "ä" * 33, "two words", "line\nbreak", "tab\t"])
@pytest.mark.parametrize("option", ["hostname", "domainname"])
def test_names_the_kernel_or_the_files_cannot_hold(option, name):
    with pytest.raises(UsageError, match=option[:4]):
        decided(**{option: name})


def test_longest_names_are_taken():
    assert decided(hostname="h" * 64, domainname="d" * 64).hostname == "h" * 64


@pytest.mark.parametrize("option", ["hostname", "domainname"])
def test_the_hosts_name_cannot_be_set(option):
    with pytest.raises(UsageError, match="--uts host"):
        decided(uts="host", **{option: "x"})
    assert decided(uts="host").hostname is None
    assert files(decided(uts="host"))["/etc/hostname"] == f"{os.uname().nodename}\n".encode()


@pytest.mark.parametrize("target", ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc//hosts"])
def test_a_mount_takes_the_place_of_a_file(target):
    made = files(decided(mounts=(Bind("/src", target),)))
    assert posixpath.normpath(target) not in made
    assert len(made) == 2


# ---- mounts --------------------------------------------------------------------------------------------------------


def test_outer_mounts_go_first_and_equals_keep_their_order():
    mounts = (Tmpfs("/a/b/c"), Tmpfs("/z"), Tmpfs("/a"), Tmpfs("/a/b"))
    assert [mount.target for mount in decided(mounts=mounts).mounts] == ["/z", "/a", "/a/b", "/a/b/c"]


def test_targets_are_brought_into_one_form():
    made = decided(mounts=(Bind("/src", "//data/./x/../y/"),)).mounts[0]
    assert made == Bind("/src", "/data/y")


@pytest.mark.parametrize("second", ["/data", "/data/", "//data", "/x/../data"])
def test_two_mounts_on_one_place_are_refused(second):
    with pytest.raises(UsageError, match="duplicate mount point: /data"):
        decided(mounts=(Bind("/a", "/data"), Tmpfs(second)))


@pytest.mark.parametrize(
    "target",
    ["/proc", "/proc/", "//proc", "/x/../proc", "/proc/self", "/proc/sys", "/proc/cpuinfo/x", "/proc/self/fd/0"],
)
def test_nothing_goes_over_proc(target):
    with pytest.raises(UsageError, match="kernel's word"):
        decided(mounts=(Bind("/src", target),))
    with pytest.raises(UsageError, match="kernel's word"):
        decided(ImageConfig(cmd=("c",), volumes=(target,)))


@pytest.mark.parametrize("target", ["/proc/cpuinfo", "/proc/meminfo", "/process", "/a/proc"])
def test_what_only_looks_like_it_or_what_lxcfs_shows_may_be_mounted(target):
    assert decided(mounts=(Bind("/src", target),)).mounts[0].target == target


@pytest.mark.parametrize("target", ["/", "//", "/..", "/a/..", "relative", "", "."])
def test_targets_that_are_none(target):
    with pytest.raises(UsageError, match=r"cannot be /|absolute"):
        mount_target(target)


@given(st.text(alphabet="/.ap\0roc", max_size=20))
def test_every_accepted_target_is_absolute_plain_and_not_in_proc(path):
    try:
        target = mount_target(path)
    except UsageError:
        return
    assert target.startswith("/")
    assert not target.startswith("//")
    parts = target[1:].split("/")
    assert all(part and part not in (".", "..") for part in parts)
    assert parts[0] != "proc"
    assert mount_target(target) == target


def test_volumes_of_the_image_are_anonymous_unless_the_caller_mounts_there():
    config = ImageConfig(cmd=("c",), volumes=("/data", "/logs/", "/data/"))
    assert decided(config).mounts == (Volume("", "/data"), Volume("", "/logs"))
    bind = Bind("/src", "/logs")
    assert set(decided(config, mounts=(bind,)).mounts) == {Volume("", "/data"), bind}


@pytest.mark.parametrize(
    "tmpfs", [Tmpfs("/t", size=0), Tmpfs("/t", size=-1), Tmpfs("/t", mode=-1), Tmpfs("/t", mode=0o10000)]
)
def test_a_tmpfs_that_would_not_be_bounded_is_refused(tmpfs):
    with pytest.raises(UsageError, match="tmpfs on /t"):
        decided(mounts=(tmpfs,))


@pytest.mark.parametrize("size", [0, -1])
def test_shm_is_bounded(size):
    with pytest.raises(UsageError, match="/dev/shm"):
        decided(shm_size=size)


# ---- masks ---------------------------------------------------------------------------------------------------------


def test_defaults_are_masked_and_read_only():
    made = decided()
    assert set(MASKED) <= set(made.masked)
    assert made.read_only_paths == READ_ONLY


def test_unconfined_system_paths_leave_only_what_is_asked_for():
    made = decided(systempaths="unconfined", mask=("/proc/x",))
    assert (made.masked, made.read_only_paths) == (("/proc/x",), ())


@pytest.mark.parametrize("everything", ["ALL", "all", "/"])
def test_unmask_everything(everything):
    made = decided(unmask=(everything,), mask=("/secret",))
    assert (made.masked, made.read_only_paths) == (("/secret",), ())


@pytest.mark.parametrize(
    ("word", "gone", "kept"),
    [
        ("/proc/acpi", "/proc/acpi", "/proc/asound"),
        ("/proc/sys", "/proc/sys", "/proc/sysrq-trigger"),
        ("/sys/", "/sys/firmware", "/proc/kcore"),
    ],
)
def test_unmask_is_a_path_and_what_is_below_it(word, gone, kept):
    made = decided(unmask=(word,))
    hidden = {*made.masked, *made.read_only_paths}
    assert gone not in hidden
    assert kept in hidden


@pytest.mark.parametrize("word", ["", "proc", "none"])
def test_unmask_of_nothing_does_not_unmask_all(word):
    with pytest.raises(UsageError, match="unmask"):
        decided(unmask=(word,))


def test_mask_must_be_absolute():
    with pytest.raises(UsageError, match="mask"):
        decided(mask=("proc/x",))


# ---- sysctls -------------------------------------------------------------------------------------------------------


def test_default_sysctls_are_those_of_an_own_network():
    assert dict(decided().sysctls) == {
        "net/ipv4/ip_unprivileged_port_start": "0",
        "net/ipv4/ping_group_range": "0 2147483647",
    }
    assert dict(decided(maps=ALL_IDS).sysctls) == {"net/ipv4/ip_unprivileged_port_start": "0"}
    assert decided(network="host").sysctls == ()


@pytest.mark.parametrize("name", ["net.ipv4.ip_unprivileged_port_start", "net/ipv4/ip_unprivileged_port_start"])
def test_the_caller_may_change_a_default(name):
    assert dict(decided(sysctls=((name, "1024"),)).sysctls)["net/ipv4/ip_unprivileged_port_start"] == "1024"


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("kernel.shmmax", {"ipc": "host"}),
        ("kernel/msgmax", {"ipc": "host"}),
        ("fs.mqueue.msg_max", {"ipc": "host"}),
        ("net.core.somaxconn", {"network": "host"}),
    ],
)
def test_sysctls_of_own_namespaces_only(name, shared):
    assert (name.replace(".", "/"), "1") in decided(sysctls=((name, "1"),)).sysctls
    with pytest.raises(UsageError, match="shares it with the host"):
        decided(sysctls=((name, "1"),), **shared)


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "kernel.shmmax2",
        "vm.swappiness",
        "fs.file-max",
        "net",
        "kernel",
        "fs.mqueue",
        "",
        "netx.y",
    ],
)
def test_sysctls_of_the_machine_are_refused(name):
    with pytest.raises(UsageError, match="not separate"):
        decided(sysctls=((name, "1"),))


@pytest.mark.parametrize("name", ["net/../kernel/core_pattern", "net/..", "net..kernel", "net//x", "net./../../etc"])
def test_sysctls_cannot_lead_elsewhere(name):
    with pytest.raises(UsageError, match="not a setting"):
        decided(sysctls=((name, "1"),))


def test_a_sysctl_is_one_line():
    with pytest.raises(UsageError, match="not a setting"):
        decided(sysctls=(("net.core.somaxconn", "1\n2"),))


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (Ulimit("nofile", 10, 20), ("nofile", resource.RLIMIT_NOFILE, 10, 20)),
        (Ulimit("core", -1, -1), ("core", resource.RLIMIT_CORE, UNLIMITED, UNLIMITED)),
        (Ulimit("cpu", 5, -1), ("cpu", resource.RLIMIT_CPU, 5, UNLIMITED)),
        (Ulimit("core", 0, 0), ("core", resource.RLIMIT_CORE, 0, 0)),
    ],
)
def test_ulimits(limit, expected):
    assert decided(ulimits=(limit,)).ulimits == (expected,)


@pytest.mark.parametrize(
    "limit",
    [
        Ulimit("nosuch", 1, 1),
        Ulimit("", 1, 1),
        Ulimit("__class__", 1, 1),
        Ulimit("nofile", 20, 10),
        Ulimit("nofile", -1, 10),
        Ulimit("nofile", -2, -2),
        Ulimit("nofile", 1, 1 << 64),
    ],
)
def test_ulimits_that_cannot_be(limit):
    with pytest.raises(UsageError, match="ulimit"):
        decided(ulimits=(limit,))


@pytest.mark.parametrize("score", [-1000, 0, 1000, None])
def test_oom_score(score):
    assert decided(oom_score_adj=score).oom_score_adj == score


@pytest.mark.parametrize(
    ("own", "asked", "expected"), [(-900, None, 0), (-900, -900, -900), (0, None, None), (500, None, None)]
)
def test_a_spared_caller_does_not_spare_its_containers(monkeypatch, own, asked, expected):
    monkeypatch.setattr(kernel_settings, "_own_oom_score", lambda: own)
    assert decided(oom_score_adj=asked).oom_score_adj == expected


@pytest.mark.parametrize("score", [-1001, 1001])
def test_oom_score_beyond_its_range(score):
    with pytest.raises(UsageError, match="-1000 to 1000"):
        decided(oom_score_adj=score)


# ---- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "asked", "expected"),
    [
        (None, None, signal.SIGTERM),
        ("SIGQUIT", None, signal.SIGQUIT),
        ("SIGQUIT", "int", signal.SIGINT),
        (None, "9", 9),
        ("SIGRTMIN+3", None, signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", None, signal.SIGRTMAX - 1),
    ],
)
def test_stop_signal(image, asked, expected):
    assert decided(ImageConfig(cmd=("c",), stop_signal=image), stop_signal=asked).stop_signal == expected


@pytest.mark.parametrize("word", ["NOSUCH", "0", "65", "-1", "TERM+1", "²", "SIG", "RTMIN+99"])
def test_signals_that_are_none_are_named(word):
    with pytest.raises(UsageError, match="stop signal") as error:
        decided(ImageConfig(cmd=("c",), stop_signal=word))
    assert repr(word) in str(error.value)


# ---- the whole -----------------------------------------------------------------------------------------------------


def test_the_rest_is_passed_on():
    made = decided(read_only=True, tty=True, init=True, shm_size=1 << 20)
    assert (made.read_only_root, made.terminal, made.reaper, made.shm_size) == (True, True, True, 1 << 20)
    made = decided()
    assert (made.read_only_root, made.terminal, made.reaper, made.shm_size) == (False, False, False, 64 << 20)


def test_containers_with_the_same_options_differ_only_by_their_names():
    options, config = RunOptions(), ImageConfig(cmd=("c",))
    one, other = (decide(letter * 64, config, (), options, None) for letter in "ab")
    differing = {field for field in one.__slots__ if getattr(one, field) != getattr(other, field)}
    assert differing == {"hostname", "env", "files"}


def test_a_spec_can_be_compared_hashed_and_printed():
    assert decided() == decided()
    assert hash(decided()) == hash(decided())
    assert "argv=('/bin/sh',)" in repr(decided())
    with pytest.raises(dataclasses.FrozenInstanceError):
        decided().argv = ()


def test_the_host_is_a_shell():
    made = decided(host_config())
    assert made.argv == ("/bin/sh",)
    assert env(made)["PATH"] == DEFAULT_PATH


@given(st.lists(st.tuples(st.text("ABC=", max_size=3), st.text(st.characters(codec="utf-8"), max_size=5)), max_size=6))
def test_environment_never_holds_a_name_twice_or_a_nul(pairs):
    try:
        made = decided(env=tuple(pairs))
    except UsageError:
        assert any(not name or "=" in name or "\0" in value for name, value in pairs)
        return
    names = [entry.split("=", 1)[0] for entry in made.env]
    assert len(names) == len(set(names))
    assert {name: dict(pairs)[name] for name, _ in pairs}.items() <= env(made).items()
    assert not any("\0" in entry for entry in made.env)
