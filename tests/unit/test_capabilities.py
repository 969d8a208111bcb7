"""Capabilities by name: Docker's meaning, and never more than the caller has."""

import re
from pathlib import Path

import pytest

from pyrtc.errors import UnsupportedError, UsageError
from pyrtc.runtime import capabilities
from pyrtc.runtime.capabilities import DEFAULT, NAMES, names_of, own_bounding_set, resolve

ALL = (1 << 41) - 1
DOCKER = 0xA80425FB  # CapBnd of a container that Docker started without options


def mask(*names: str) -> int:
    return sum(1 << NAMES.index(f"CAP_{name}") for name in names)


def on(add=(), drop=(), **options):
    """On a kernel with all capabilities, for a caller who has them."""
    return resolve(add, drop, last_cap=40, own=ALL, **options)


def test_the_names_are_those_of_the_kernel():
    assert len(NAMES) == len(set(NAMES)) == 41
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers to compare with")
    numbers = dict(re.findall(r"^#define (CAP_[A-Z_]+)\s+(\d+)$", header.read_text(), re.MULTILINE))
    assert {name: str(number) for number, name in enumerate(NAMES)} == numbers


def test_the_default_is_dockers():
    assert len(DEFAULT) == 14
    assert on() == DOCKER
    assert set(names_of(DOCKER)) == set(DEFAULT)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["NET_ADMIN"], [], DOCKER | mask("NET_ADMIN")),
        (["cap_net_admin", "Sys_Time"], [], DOCKER | mask("NET_ADMIN", "SYS_TIME")),
        ([], ["CHOWN", "cap_kill"], DOCKER & ~mask("CHOWN", "KILL")),
        ([], ["SYS_ADMIN"], DOCKER),
        ([], ["ALL"], 0),
        (["CHOWN"], ["all"], mask("CHOWN")),
        (["ALL"], [], ALL),
        (["ALL"], ["SYS_ADMIN", "MKNOD"], ALL & ~mask("SYS_ADMIN", "MKNOD")),
        (["MKNOD"], ["MKNOD"], DOCKER),
        (["ALL"], ["ALL"], ALL),
        (["CAP_ALL"], [], ALL),
    ],
)
def test_add_and_drop(add, drop, expected):
    assert on(add, drop) == expected


def test_privileged_is_all_but_what_is_dropped():
    assert on(privileged=True) == ALL
    assert on(drop=["SYS_MODULE"], privileged=True) == ALL & ~mask("SYS_MODULE")


@pytest.mark.parametrize(
    ("word", "near"), [("NET_ADMN", "NET_ADMIN"), ("cap_sysadmin", "SYS_ADMIN"), ("", "man 7"), ("12", "man 7")]
)
def test_an_unknown_name_lists_what_is_near(word, near):
    for arguments in (([word], []), ([], [word])):
        with pytest.raises(UsageError, match=near) as caught:
            on(*arguments)
        assert repr(word) in str(caught.value)


def test_an_older_kernel():
    assert resolve(["ALL"], last_cap=37, own=ALL) == (1 << 38) - 1
    assert resolve(drop=["BPF"], last_cap=37, own=ALL) == DOCKER
    with pytest.raises(UnsupportedError, match=r"CAP_BPF.*kernel"):
        resolve(["BPF"], last_cap=37, own=ALL)


def test_a_newer_kernel_has_no_nameless_capabilities():
    assert resolve(privileged=True, last_cap=45, own=(1 << 46) - 1) == ALL


def test_the_callers_bounding_set_is_the_limit():
    own = ALL & ~mask("SYS_RESOURCE", "MKNOD")
    assert resolve(last_cap=40, own=own) == DOCKER & ~mask("MKNOD")
    assert resolve(privileged=True, last_cap=40, own=own) == own
    assert resolve(["ALL"], last_cap=40, own=own) == own
    for drop in ([], ["ALL"]):
        with pytest.raises(UnsupportedError, match=r"CAP_SYS_RESOURCE.*bounding set"):
            resolve(["CHOWN", "SYS_RESOURCE"], drop, last_cap=40, own=own)
    assert resolve(["SYS_RESOURCE"], last_cap=40, own=0, user_namespace=True) == DOCKER | mask("SYS_RESOURCE")


def test_this_machine():
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    found = re.search(r"^CapBnd:\s+([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    assert own_bounding_set() == int(found[1], 16)
    assert resolve(privileged=True) == own_bounding_set() & ALL
    assert resolve(privileged=True, user_namespace=True) == ALL & (1 << (last + 1)) - 1
    capabilities.own_bounding_set.cache_clear()
