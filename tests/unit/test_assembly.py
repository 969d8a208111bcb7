"""The order of a plan is the order of privilege: what must come before what, and that nothing is lost."""

import os
import stat

import pytest
from test_plan import decode

from pyrtc._core import lib
from pyrtc.ids import IdMaps, Range
from pyrtc.image.config import ImageConfig
from pyrtc.options import Device, RunOptions, Tmpfs, Ulimit
from pyrtc.runtime import capabilities, kernel_settings, namespaces
from pyrtc.runtime.assembly import (
    BoundMount,
    DirectoryRoot,
    HostRoot,
    MountRoot,
    OverlayRoot,
    Resources,
    assemble,
)
from pyrtc.runtime.host_root import Beneath, Bound, Link, Made, Overlaid
from pyrtc.runtime.namespaces import NODEV, NOEXEC, NOSUID, RDONLY
from pyrtc.runtime.plan import NAMES
from pyrtc.runtime.spec import decide
from pyrtc.values import replace

ID = "c0ffee" * 10
OVERLAY = OverlayRoot(("/l/top", "/l/base"), "/c/upper", "/c/work", volatile=True, userxattr=False)
ALL_IDS = IdMaps((Range(0, 100000, 65536),), (Range(0, 100000, 65536),), privileged=True)
ONE_ID = IdMaps((Range(0, 1000, 1),), (Range(0, 1000, 1),), privileged=False)
KEPT_ID = IdMaps((Range(1000, 1000, 1),), (Range(1001, 1001, 1),), privileged=False)
FILTER = b"\x06\0\0\0\0\0\xff\x7f"


@pytest.fixture(autouse=True)
def all_capabilities(monkeypatch):
    monkeypatch.setattr(kernel_settings, "_own_oom_score", lambda: 0)
    monkeypatch.setattr(capabilities, "own_bounding_set", lambda: (1 << 41) - 1)


class Decoded:
    """A plan decoded, to ask about."""

    def __init__(self, plan):
        self.plan = plan
        self.ops = [decode(op) for op in plan.operations]
        self.names = [NAMES[op.code] for op in self.ops]

    def all(self, name):
        return [op for op in self.ops if NAMES[op.code] == name]

    def one(self, name):
        (op,) = self.all(name)
        return op

    def at(self, name, *strings):
        """The position of the only operation with this name whose strings begin or end so."""
        wanted = [text.encode() for text in strings]
        found = [
            index
            for index, op in enumerate(self.ops)
            if NAMES[op.code] == name and (not wanted or wanted[0] in op.strings)
        ]
        assert len(found) == 1, (name, strings, found)
        return found[0]

    def target(self, name, path):
        found = [op for op in self.all(name) if os.fsencode(path) in op.strings]
        assert len(found) == 1, (name, path)
        return found[0]


def made(maps=None, config=None, stdio=(10, 11, 12), resources=None, spec_changes=None, **options):
    config = config or ImageConfig(cmd=("/bin/sh",))
    spec = decide(ID, config, (), RunOptions(**options), maps)
    if spec_changes:
        spec = replace(spec, **spec_changes)
    return Decoded(assemble(spec, replace(Resources(root=OVERLAY, seccomp=FILTER), **(resources or {})), stdio))


#: One that has everything.
def everything(maps=None, **more):
    resources = {
        "hidden": ("/var/lib/pyrtc",),
        "mounts": (BoundMount("/data", False, True, "/src", os.makedev(8, 1), 42), Tmpfs("/cache", size=4096)),
        "tasks_fds": (30, 31),
        "cgroup_mounts": (("", "/sys"),),
        "devices": (Device("/dev/null", "/dev/other"),),
        **({} if maps else {"network_fd": 32}),
        "terminal_size": (24, 80),
        **more.pop("resources", {}),
    }
    options = {
        "command": ("a", "b"),
        "workdir": "/work/dir",
        "domainname": "example.org",
        "read_only": True,
        "ulimits": (Ulimit("nofile", 5, 6),),
        "oom_score_adj": 7,
        "sysctls": (("net.core.somaxconn", "9"),),
        "mask": ("/data/secret",),
        "init": True,
        "tty": True,
        **more,
    }
    return made(maps, resources=resources, stdio=(-1, -1, -1), **options)


# ---- order ---------------------------------------------------------------------------------------------------------

ROOTS = {"root_overlay", "root_bind", "root_tmpfs", "root_slot"}
MOUNTS = {"overlay", "mount", "bind", "bind_slot", "device", "symlink", "file", "mkdir"}
HIDING = {"mask", "readonly", "root_readonly"}
SETTINGS = {"hostname", "domainname", "loopback", "sysctl", "oom_score"}
LESS = {"rlimit", "umask", "workdir", "no_new_privs", "user", "bounding", "capabilities", "seccomp", "reaper", "exec"}


@pytest.fixture(params=["root", "user", "unfiltered", "privileges", "plain", "memory"])
def plan(request):
    return {
        "root": lambda: everything(),
        "user": lambda: everything(ALL_IDS),
        "unfiltered": lambda: everything(resources={"seccomp": None}),
        "privileges": lambda: everything(no_new_privileges=False),
        "plain": lambda: made(),
        "memory": lambda: made(resources={"root": replace(OVERLAY, upper=None, work=None)}),
    }[request.param]()


def first(plan, names):
    return min((index for index, name in enumerate(plan.names) if name in names), default=len(plan.names))


def last(plan, names):
    return max((index for index, name in enumerate(plan.names) if name in names), default=-1)


def test_death_and_control_groups_come_before_all_that_could_be_charged_or_left(plan):
    assert plan.names[0] == "death_signal"
    tasks = len(plan.all("tasks"))
    assert plan.names[1 : 1 + tasks] == ["tasks"] * tasks


def test_maps_come_before_anything_that_needs_rights(plan):
    if "await_maps" in plan.names:
        assert set(plan.names[: plan.at("await_maps")]) <= {"death_signal", "tasks"}


def test_cgroup_namespace_is_made_after_the_cgroup_was_entered(plan):
    assert last(plan, {"tasks", "await_maps"}) < plan.at("unshare") < first(plan, ROOTS)


def test_network_is_entered_before_its_settings_and_its_sysfs(plan):
    if "network" in plan.names:
        assert plan.at("network") < first(plan, {"mount", *SETTINGS})


def test_there_is_one_root_before_every_mount(plan):
    assert sum(name in ROOTS for name in plan.names) == 1
    assert last(plan, ROOTS) < first(plan, MOUNTS | HIDING)


def test_settings_are_made_while_sys_can_be_written(plan):
    assert last(plan, SETTINGS) < first(plan, {"readonly", "pivot", "root_readonly"})
    assert plan.at("mount", "/proc") < first(plan, {"sysctl", "oom_score"})


def test_private_files_come_before_the_callers_mounts_but_those_that_would_hide_them():
    plan = everything()
    assert last(plan, {"file"}) < plan.at("bind", "/data")
    assert last(plan, {"file"}) < plan.at("mount", "/cache")
    mounts = (Tmpfs("/etc/ssl"), Tmpfs("/etc"), Tmpfs("/etc/late"), Tmpfs("/etcetera"))
    plan = made(resources={"mounts": mounts})
    assert plan.at("mount", "/etc/ssl") < plan.at("mount", "/etc") < first(plan, {"file"})
    assert last(plan, {"file"}) < plan.at("mount", "/etc/late") < plan.at("mount", "/etcetera")
    assert len(plan.all("file")) == 3


def test_masks_come_after_the_callers_mounts_or_they_could_be_covered(plan):
    """CVE-2019-16884 and its like: what is masked must be what the container will see."""
    own_masks = [index for index, op in enumerate(plan.ops) if op.code == lib.PLAN_MASK][len(plan.all("mask")) - 1]
    assert last(plan, MOUNTS) < own_masks
    assert last(plan, MOUNTS) < first(plan, {"readonly"})
    assert plan.names.index("readonly") > last(plan, MOUNTS | {"terminal"})


def test_the_hosts_store_is_hidden_before_a_mount_could_lead_there():
    plan = everything()
    assert plan.at("root_overlay") < plan.at("mask", "/var/lib/pyrtc") < plan.at("bind", "/data")


def test_the_root_becomes_read_only_after_all_that_is_made_in_it():
    plan = everything()
    assert last(plan, MOUNTS | {"mask", "readonly", "terminal"}) < plan.at("root_readonly") < plan.at("pivot")


def test_the_terminal_is_made_in_the_containers_devpts():
    plan = everything()
    assert plan.at("mount", "/dev/pts") < plan.at("terminal") < plan.at("pivot")


def test_pivot_comes_after_every_mount_and_before_any_right_goes(plan):
    assert last(plan, MOUNTS | HIDING | SETTINGS | {"terminal"}) < plan.at("pivot") < first(plan, LESS)


def test_the_caller_is_released_only_once_the_warden_watches(plan):
    assert plan.at("entrusted") < plan.at("pivot")


def test_the_working_directory_is_entered_in_the_new_root_and_as_root(plan):
    assert plan.at("pivot") < plan.at("workdir") < plan.at("user")


def test_rights_go_bounding_then_user_then_capabilities(plan):
    """The bounding set needs CAP_SETPCAP, setgroups and setuid need theirs, capset takes the rest."""
    assert plan.at("bounding") < plan.at("user") < plan.at("capabilities")


def test_limits_are_raised_while_there_is_the_right_to():
    plan = everything()
    assert last(plan, {"rlimit"}) < plan.at("bounding")


def test_the_filter_is_last_with_no_new_privileges():
    for plan in (everything(), everything(ALL_IDS), made()):
        assert plan.at("capabilities") < plan.at("no_new_privs") < plan.at("seccomp")
        assert set(plan.names[plan.at("seccomp") + 1 :]) <= {"reaper", "exec"}


def test_without_no_new_privileges_the_filter_goes_before_the_right_to_load_it():
    plan = everything(no_new_privileges=False)
    assert plan.at("pivot") < plan.at("seccomp") < plan.at("bounding")
    assert plan.at("workdir") + 1 == plan.at("seccomp"), "as late as it can be"
    assert "no_new_privs" not in plan.names


def test_exec_is_the_last_and_the_reaper_just_before_it(plan):
    assert plan.at("exec") == len(plan.names) - 1
    if "reaper" in plan.names:
        assert plan.at("reaper") == len(plan.names) - 2


# ---- every option appears ------------------------------------------------------------------------------------------


def test_nothing_of_all_the_options_is_lost():
    plan = everything()
    assert set(plan.names) == (
        {"death_signal", "tasks", "network", "unshare", "keyring", "root_overlay", "mask", "mount", "symlink", "device"}
        | {
            "bind",
            "hostname",
            "domainname",
            "sysctl",
            "oom_score",
            "file",
            "mkdir",
            "terminal",
            "entrusted",
            "readonly",
        }
        | {"root_readonly", "pivot", "rlimit", "umask", "workdir", "bounding", "user", "capabilities", "no_new_privs"}
        | {"seccomp", "reaper", "exec"}
    )


def test_nothing_appears_that_was_not_asked_for():
    plan = made()
    absent = {"tasks", "network", "domainname", "oom_score", "mkdir", "terminal", "root_readonly", "rlimit", "reaper"}
    assert not absent & set(plan.names)


def test_command_and_environment():
    op = everything(env=(("A", "x y"),)).one("exec")
    assert op.strings[: op.a] == [b"a", b"b"]
    assert b"A=x y" in op.strings[op.a :]


def test_descriptors_become_slots():
    plan = everything(resources={"root": MountRoot(40), "mounts": (BoundMount("/v", True, True, fd=41),)})
    assert plan.plan.slots[:3] == [-1, -1, -1]
    slot = plan.plan.slots.__getitem__
    assert [slot(op.slot) for op in plan.all("tasks")] == [30, 31]
    assert slot(plan.one("network").slot) == 32
    assert slot(plan.one("root_slot").slot) == 40
    assert slot(plan.one("bind_slot").slot) == 41
    assert made().plan.slots == [10, 11, 12]


def test_maps_say_who_the_init_becomes():
    assert "await_maps" not in made().names
    op = made(KEPT_ID, user="1000:1001").one("await_maps")
    assert (op.a, op.b) == (1000, 1001)
    op = made(ALL_IDS).one("await_maps")
    assert (op.a, op.b) == (0, 0)


def test_late_namespaces():
    assert made().one("unshare").a & namespaces.CLONE_NEWCGROUP
    assert not made(cgroupns="host").one("unshare").a & namespaces.CLONE_NEWCGROUP


def test_loopback_is_brought_up_in_a_network_that_the_container_made():
    assert "loopback" in made().names
    assert "loopback" not in made(network="host").names
    assert "loopback" not in made(resources={"network_fd": 9}).names, "one made ahead has it up"


def test_identity_and_groups():
    op = made(user="5:6", group_add=("7", "8")).one("user")
    assert (op.a, op.b, op.flags) == (5, 6, 0)
    assert op.blob == b"\x07\0\0\0\x08\0\0\0"
    assert made(ONE_ID).one("user").flags == lib.PLAN_KEEP_GROUPS
    assert made(ALL_IDS).one("user").flags == 0


def test_capabilities():
    root, user = made(cap_add=("NET_ADMIN",)), made(user="5", cap_add=("NET_ADMIN",))
    assert root.one("bounding").a == root.one("capabilities").a == user.one("bounding").a
    assert root.one("bounding").a >> 12 & 1
    assert user.one("capabilities").a == 0


def test_filter():
    assert made().one("seccomp").blob == FILTER
    assert "seccomp" not in made(resources={"seccomp": None}).names


def test_limits_and_mask_of_new_files():
    op = everything().one("rlimit")
    assert (op.strings, op.mode, op.a, op.b) == ([b"nofile"], 7, 5, 6)
    assert made().one("umask").mode == 0o022


def test_settings():
    plan = everything(hostname="web")
    assert plan.one("hostname").strings == [b"web"]
    assert plan.one("domainname").strings == [b"example.org"]
    assert [b"net/core/somaxconn", b"9"] in [op.strings for op in plan.all("sysctl")]
    assert plan.one("oom_score").strings == [b"7"]
    assert made(oom_score_adj=0).one("oom_score").strings == [b"0"]
    assert "hostname" not in made(uts="host").names


def test_private_files():
    plan = made(hostname="web")
    assert {op.strings[0] for op in plan.all("file")} == {b"/etc/hosts", b"/etc/resolv.conf", b"/etc/hostname"}
    op = plan.target("file", "/etc/hostname")
    assert (op.blob, op.mode) == (b"web\n", 0o644)


def test_masks_and_read_only_paths():
    plan = made()
    assert b"/proc/kcore" in [op.strings[0] for op in plan.all("mask")]
    assert b"/proc/sys" in [op.strings[0] for op in plan.all("readonly")]
    plan = made(systempaths="unconfined")
    assert not {"mask", "readonly"} & set(plan.names)


def test_workdir_is_made_by_the_owner_of_the_root():
    op = everything().one("mkdir")
    assert (op.strings, op.a, op.b, op.mode) == ([b"/work/dir"], 0, 0, 0)
    op = made(KEPT_ID, user="1000:1001", workdir="/w").one("mkdir")
    assert (op.a, op.b) == (1000, 1001)
    assert made(workdir="/").one("workdir").strings == [b"/"]


def test_terminal_size():
    op = everything().one("terminal")
    assert (op.a, op.b) == (24, 80)


# ---- roots ---------------------------------------------------------------------------------------------------------


def test_overlay_on_disk():
    op = made().one("root_overlay")
    assert op.strings == [b"/c/upper", b"/c/work", b"/l/top", b"/l/base"]
    assert op.flags == lib.PLAN_VOLATILE
    kept = replace(OVERLAY, volatile=False, userxattr=True)
    assert made(resources={"root": kept}).one("root_overlay").flags == lib.PLAN_USERXATTR


def test_overlay_in_memory():
    root = OverlayRoot(("/l",), None, None, volatile=True, userxattr=False, mode=0o1755, uid=3, gid=4, size=4096)
    op = made(resources={"root": root}).one("root_overlay")
    assert op.strings == [b"upper", b"work", b"/l"]
    assert op.flags == lib.PLAN_VOLATILE | lib.PLAN_UPPER_TMPFS
    assert (op.mode, op.a, op.b, op.blob) == (0o1755, 3, 4, b"4096\0")
    assert made(resources={"root": replace(root, size=None)}).one("root_overlay").blob == b""


def test_directory():
    assert made(resources={"root": DirectoryRoot("/c/root")}).one("root_bind").strings == [b"/c/root"]


def test_device_nodes_in_the_root_work_only_for_privileged_containers_of_the_hosts_users():
    for root, name in ((OVERLAY, "root_overlay"), (DirectoryRoot("/c"), "root_bind")):
        assert made(resources={"root": root}, privileged=True).one(name).flags & lib.PLAN_DEVICES
        assert not made(resources={"root": root}).one(name).flags & lib.PLAN_DEVICES
        assert not made(ALL_IDS, resources={"root": root}, privileged=True).one(name).flags & lib.PLAN_DEVICES


DEVICE = os.makedev(8, 1)
PARTS = (
    Link("/bin", "usr/bin"),
    Made("/usr", 0o755),
    Made("/usr/local", 0o755),
    Overlaid("/usr", 0o755, 0, 0, DEVICE, 2),
    Bound("/mnt", DEVICE, 3),
    Made("/etc", 0o755),
    Overlaid("/etc", 0o750, 0, 0, DEVICE, 4),
)


@pytest.mark.parametrize("disk", [True, False])
def test_the_host_for_an_ordinary_user(disk):
    root = HostRoot(PARTS, "/c/upper" if disk else None, "/c/work" if disk else None, volatile=True)
    plan = made(KEPT_ID, user="1000:1001", resources={"root": root})
    if disk:
        assert plan.one("root_bind").strings == [b"/c/upper", b""]
    else:
        assert plan.one("root_tmpfs").mode == 0o755
    assert plan.target("symlink", "/bin").strings == [b"usr/bin", b"/bin"]
    overlays = plan.all("overlay")
    assert [op.strings[0] for op in overlays] == [b"/usr", b"/etc"]
    assert overlays[0].strings[3:] == [b"/usr"], "the host's own directory is the layer"
    assert overlays[0].strings[1] == (b"/c/upper/usr" if disk else b"upper/usr")
    assert len({op.strings[2] for op in overlays}) == 2, "each overlay has a work directory of its own"
    for op in overlays:
        assert op.flags & lib.PLAN_USERXATTR
        assert op.flags & lib.PLAN_VOLATILE
        assert bool(op.flags & lib.PLAN_UPPER_TMPFS) is not disk
    for op in plan.all("mkdir"):
        assert (op.a, op.b) == (1000, 1001)
    made_before = [index for index, op in enumerate(plan.ops) if op.code == lib.PLAN_MKDIR and b"/usr" in op.strings]
    assert made_before[0] < plan.ops.index(overlays[0]), "made in the layer before the overlay covers it"
    assert plan.target("mount", "/run").mode == NOSUID | NODEV


def test_what_is_bound_of_the_host_is_read_only_and_known_by_its_inode():
    root = HostRoot(PARTS, None, None, volatile=True)
    op = made(ONE_ID, resources={"root": root}).target("bind", "/mnt")
    assert op.strings == [b"/mnt", b"/mnt"]
    assert (op.a, op.b) == (8 << 32 | 1, 3)
    assert op.mode == NODEV | RDONLY
    assert op.flags == lib.PLAN_RECURSIVE | lib.PLAN_NO_LINKS


def test_no_file_is_put_where_the_host_is_read_only():
    root = HostRoot((Bound("/etc", DEVICE, 3),), None, None, volatile=True)
    files = {op.strings[0] for op in made(ONE_ID, resources={"root": root}).all("file")}
    assert files == {
        path.encode() for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname") if os.path.lexists(path)
    }


def test_what_a_mount_covers_is_not_looked_for_to_make_it_read_only():
    shown = [Overlaid(path, 0o755, 0, 0, DEVICE, 5) for path in ("/home", "/homes", "/mnt/below", "/mnt/below/it")]
    resources = {
        "root": HostRoot(tuple(shown), None, None, volatile=True),
        "mounts": (Tmpfs("/home"), Tmpfs("/mnt"), Tmpfs("/homes/deeper")),
    }
    plan = made(ONE_ID, read_only=True, resources=resources)
    assert [op.strings for op in plan.all("root_readonly")] == [[b"/homes"], [b"/run"], []]


BENEATH = Beneath(
    (Overlaid("/home", 0o755, 1, 2, DEVICE, 5), Overlaid("/srv/x", 0o700, 0, 0, DEVICE, 6)),
    (Bound("/media/cd", DEVICE, 7),),
)


@pytest.mark.parametrize("disk", [True, False])
def test_file_systems_below_the_hosts_root(disk):
    root = OVERLAY if disk else replace(OVERLAY, upper=None, work=None)
    plan = made(resources={"root": root, "beneath": BENEATH})
    home, inner = plan.all("overlay")
    assert home.strings[0] == home.strings[3] == b"/home"
    assert (home.mode, home.a, home.b) == (0o755, 1, 2)
    assert not set(home.strings[1:3]) & set(inner.strings[1:3])
    assert bool(home.flags & lib.PLAN_UPPER_TMPFS) is not disk
    if disk:
        assert home.strings[1].startswith(b"/c/beneath0/")
    assert plan.target("bind", "/media/cd").mode == NODEV | RDONLY
    assert bool([op for op in plan.all("mount") if b"/tmp" in op.strings]) is not disk
    assert plan.target("mount", "/run").strings[0] == b"tmpfs"


def test_without_an_overlay_the_hosts_file_systems_are_read_only():
    beneath = Beneath((), (Bound("/media/cd", DEVICE, 7),), cloned=(("/home", 50), ("/srv/x", 51)))
    plan = made(resources={"root": MountRoot(40), "beneath": beneath})
    assert plan.all("overlay") == []
    for path, fd in beneath.cloned:
        op = plan.target("bind_slot", path)
        assert plan.plan.slots[op.slot] == fd
        assert op.mode == NODEV | RDONLY
        assert op.flags & lib.PLAN_NO_LINKS
    assert plan.target("bind", "/media/cd").mode & RDONLY


# ---- mounts --------------------------------------------------------------------------------------------------------


def mount(one, name="bind", **options):
    return made(resources={"mounts": (one,)}, **options).target(name, one.target)


def test_bind_by_path_names_the_inode():
    op = mount(BoundMount("/data", False, True, "/src", os.makedev(259, 70000), 42))
    assert op.strings == [b"/src", b"/data"]
    assert (op.a, op.b) == (259 << 32 | 70000, 42)
    assert (op.mode, op.flags) == (NODEV, lib.PLAN_RECURSIVE)


def test_bind_options():
    assert mount(BoundMount("/data", True, False, "/src")).mode == NODEV | RDONLY
    assert mount(BoundMount("/data", True, False, "/src")).flags == 0
    assert mount(BoundMount("/data", False, False, "/src", devices=True)).mode == 0
    op = mount(BoundMount("/data", True, True, fd=41), "bind_slot")
    assert (op.strings, op.mode, op.flags) == ([b"/data"], NODEV | RDONLY, lib.PLAN_RECURSIVE)


def test_tmpfs_options():
    op = mount(Tmpfs("/t"), "mount")
    assert op.strings == [b"tmpfs", b"/t", b"mode=1777"]
    assert (op.mode, op.flags) == (NOSUID | NODEV | NOEXEC, 0)
    op = mount(Tmpfs("/t", size=4096, mode=0o700, read_only=True, exec=True), "mount")
    assert op.strings == [b"tmpfs", b"/t", b"mode=700", b"size=4096"]
    assert op.mode == NOSUID | NODEV | RDONLY


@pytest.mark.parametrize("one", [BoundMount("/proc/cpuinfo", True, True, "/s"), Tmpfs("/proc/cpuinfo")])
def test_what_is_mounted_in_proc_is_reached_without_links(one):
    assert mount(one, "mount" if isinstance(one, Tmpfs) else "bind").flags & lib.PLAN_NO_LINKS


def test_mounts_keep_their_order():
    mounts = tuple(Tmpfs(f"/t{number}") for number in range(5))
    plan = made(resources={"mounts": mounts})
    found = [op.strings[1] for op in plan.all("mount") if op.strings[1].startswith(b"/t")]
    assert found == [f"/t{number}".encode() for number in range(5)]


# ---- control groups and devices ------------------------------------------------------------------------------------


def test_one_cgroup_is_bound(tmp_path):
    (tmp_path / "c").mkdir()
    op = made(resources={"cgroup_mounts": (("", str(tmp_path / "c")),)}).target("bind", "/sys/fs/cgroup")
    assert op.mode == NOSUID | NODEV | NOEXEC | RDONLY
    assert op.b == os.stat(tmp_path / "c").st_ino
    op = made(resources={"cgroup_mounts": (("", str(tmp_path / "c")),)}, privileged=True).target(
        "bind", "/sys/fs/cgroup"
    )
    assert not op.mode & RDONLY


def test_a_directory_a_controller(tmp_path):
    shown = []
    for name in ("memory", "pids"):
        (tmp_path / name).mkdir()
        shown.append((name, str(tmp_path / name)))
    plan = made(resources={"cgroup_mounts": tuple(shown)})
    base = plan.target("mount", "/sys/fs/cgroup")
    assert base.mode == NOSUID | NODEV | NOEXEC
    assert base.flags & lib.PLAN_NO_LINKS
    for name in ("memory", "pids"):
        op = plan.target("bind", f"/sys/fs/cgroup/{name}")
        assert op.mode & RDONLY
        assert plan.ops.index(op) > plan.ops.index(base) > plan.at("mount", "/sys")


def test_devices_are_shown_in_the_new_dev():
    plan = everything()
    op = plan.target("device", "/dev/other")
    about = os.stat("/dev/null")
    assert op.a == os.major(about.st_rdev) << 32 | os.minor(about.st_rdev)
    assert op.b == stat.S_IFCHR
    assert plan.ops.index(op) > plan.at("mount", "/dev")
