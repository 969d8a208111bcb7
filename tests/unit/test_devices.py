"""Which device nodes a container gets, and when a control group must watch."""

import os
import stat
from types import SimpleNamespace

import pytest

from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.ids import IdMaps, Range
from pyrtc.image.config import ImageConfig
from pyrtc.options import Device, RunOptions
from pyrtc.runtime import capabilities, devices
from pyrtc.runtime.cgroups import DEFAULT_DEVICE_RULES, DeviceRule
from pyrtc.runtime.devices import allowed_rules, host_devices
from pyrtc.runtime.spec import decide

NULL = Device("/dev/null", "/dev/other")
MAPS = IdMaps((Range(0, 1, 65536),), (Range(0, 1, 65536),), privileged=True)


@pytest.fixture(autouse=True)
def all_capabilities(monkeypatch):
    monkeypatch.setattr(capabilities, "own_bounding_set", lambda: (1 << 41) - 1)


def rules(maps=None, **options):
    chosen = RunOptions(**options)
    return allowed_rules(decide("a" * 64, ImageConfig(cmd=("c",)), (), chosen, maps), chosen)


@pytest.fixture
def dev(monkeypatch):
    """dev({path: mode of the node}) stands for the machine's /dev."""

    def make(nodes, *, readable=None, uid=0):
        def walk(top):
            assert top == "/dev"
            folders = sorted({path.split("/")[2] for path in nodes if path.count("/") > 2})
            yield top, folders, [path.split("/")[2] for path in nodes if path.count("/") == 2]
            for folder in folders:
                yield f"/dev/{folder}", [], [path.split("/")[3] for path in nodes if path.startswith(f"/dev/{folder}/")]

        def lstat(path):
            if path not in nodes:
                return real(path)
            if nodes[path] is None:
                raise FileNotFoundError(2, "No such file or directory")
            return SimpleNamespace(st_mode=nodes[path])

        real = os.lstat
        monkeypatch.setattr(devices.os, "walk", walk)
        monkeypatch.setattr(devices.os, "lstat", lstat)
        monkeypatch.setattr(devices.os, "geteuid", lambda: uid)
        monkeypatch.setattr(devices.os, "access", lambda path, _mode: path in (readable or ()))

    return make


# ---- which -----------------------------------------------------------------------------------------------------------


def test_no_device_but_the_default_ones_unless_asked_for():
    assert host_devices(RunOptions()) == ()
    assert host_devices(RunOptions(devices=(NULL,))) == (NULL,)


@pytest.mark.parametrize("permissions", ["", "x", "rwx", "r w", "RW"])
def test_permissions_that_are_none(permissions):
    with pytest.raises(UsageError, match="any of r, w and m"):
        host_devices(RunOptions(devices=(Device("/dev/null", "/dev/null", permissions),)))


@pytest.mark.parametrize(
    "device",
    [
        Device("dev/null", "/dev/x"),
        Device("/dev/null", "dev/x"),
        Device("/dev/nu\0ll", "/dev/x"),
        Device("/dev/null", "/dev/x\0"),
        Device("/dev/null", "/"),
        Device("/dev/null", "/proc/sysrq-trigger"),
        Device("", "/dev/x"),
    ],
)
def test_places_that_are_none(device):
    with pytest.raises(UsageError):
        host_devices(RunOptions(devices=(device,)))


def test_a_link_to_a_device_is_the_device_under_the_links_name(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    link = str(tmp_path / "link")
    assert host_devices(RunOptions(devices=(Device(link, link, "r"),))) == (Device("/dev/null", link, "r"),)


def test_targets_are_brought_into_one_form():
    assert host_devices(RunOptions(devices=(Device("/dev/null", "//dev/./x"),)))[0].target == "/dev/x"


def test_privileged_gets_the_machines_nodes_without_what_is_there_anyway(dev):
    nodes = {f"/dev/{name}": stat.S_IFCHR for name in ("null", "console", "ptmx", "tty", "fuse", "kvm")}
    nodes |= {
        "/dev/sda": stat.S_IFBLK,
        "/dev/log": stat.S_IFSOCK,
        "/dev/core": stat.S_IFLNK,
        "/dev/initctl": stat.S_IFIFO,
    }
    nodes |= {"/dev/gone": None, "/dev/snd/pcm": stat.S_IFCHR}
    dev(nodes)
    found = host_devices(RunOptions(privileged=True, devices=(NULL,)))
    assert found[-1] == NULL
    assert [device.source for device in found[:-1]] == ["/dev/fuse", "/dev/kvm", "/dev/sda", "/dev/snd/pcm"]
    assert all(device.source == device.target and device.permissions == "rwm" for device in found[:-1])


@pytest.mark.parametrize("folder", ["pts", "shm", "mqueue"])
def test_directories_that_are_mounts_of_their_own_are_not_looked_into(folder):
    assert folder in devices._SKIPPED


def test_a_device_that_comes_and_goes_is_looked_up_each_time(dev):
    dev({"/dev/sdb": stat.S_IFBLK})
    assert len(host_devices(RunOptions(privileged=True))) == 1
    dev({})
    assert host_devices(RunOptions(privileged=True)) == ()


def test_an_ordinary_user_gets_what_it_can_open(dev):
    dev({"/dev/fuse": stat.S_IFCHR, "/dev/sda": stat.S_IFBLK}, readable={"/dev/fuse"}, uid=1000)
    assert [device.source for device in host_devices(RunOptions(privileged=True))] == ["/dev/fuse"]


def test_there_is_an_end_to_it(dev):
    dev({f"/dev/loop{number}": stat.S_IFBLK for number in range(5000)})
    assert len(host_devices(RunOptions(privileged=True))) == devices._MAX_DEVICES


# ---- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"devices": (NULL,)}, {"devices": (Device("/dev/null", "/dev/x", "rw"),)}, {"cap_drop": ("ALL",)}]
)
def test_nodev_and_binds_say_it_all(options):
    assert rules(**options) is None


def test_one_that_may_mount_is_watched():
    made = rules(
        cap_add=("SYS_ADMIN",), devices=(Device("/dev/fuse", "/dev/fuse"),) if os.path.exists("/dev/fuse") else ()
    )
    assert made[: len(DEFAULT_DEVICE_RULES)] == DEFAULT_DEVICE_RULES
    assert rules(cap_add=("ALL",)) is not None


@pytest.mark.parametrize("permissions", ["r", "w", "m", "rm", "wm"])
def test_a_device_with_less_than_reading_and_writing_is_watched(permissions):
    about = os.stat("/dev/null")
    made = rules(devices=(Device("/dev/null", "/dev/x", permissions),))
    assert made[-1] == DeviceRule("c", os.major(about.st_rdev), os.minor(about.st_rdev), permissions)
    assert made[:-1] == DEFAULT_DEVICE_RULES


def test_with_one_limited_device_the_others_have_rules_too():
    made = rules(devices=(NULL, Device("/dev/zero", "/dev/z", "r")))
    assert [rule.access for rule in made[-2:]] == ["rwm", "r"]


def test_block_devices_have_block_rules(monkeypatch):
    node = SimpleNamespace(st_mode=stat.S_IFBLK, st_rdev=os.makedev(8, 17))
    monkeypatch.setattr(devices.os, "stat", lambda _path: node)
    assert devices._rule(Device("/dev/sdb1", "/dev/x", "r")) == DeviceRule("b", 8, 17, "r")


def test_a_missing_device_is_told():
    with pytest.raises(UnsupportedError, match="/dev/nosuch: No such file"):
        rules(devices=(Device("/dev/nosuch", "/dev/x", "r"),))


def test_privileged_is_not_watched():
    assert rules(privileged=True, devices=(Device("/dev/null", "/dev/x", "r"),)) is None


def test_in_a_user_namespace_a_device_is_given_whole_or_not():
    assert rules(MAPS, devices=(NULL,)) is None
    assert rules(MAPS, cap_add=("SYS_ADMIN",)) is None
    with pytest.raises(UnsupportedError, match="/dev/null with r: in a user namespace"):
        rules(MAPS, devices=(Device("/dev/null", "/dev/x", "r"),))
