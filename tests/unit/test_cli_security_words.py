"""--security-opt, capabilities and --sysctl."""

import pytest

from pyrtc.cli.security_words import SecurityOptions, capability, sysctl
from pyrtc.errors import UsageError


def options(*words):
    made = SecurityOptions()
    for word in words:
        made.add(word)
    return made


def test_defaults_are_the_strict_ones():
    made = options()
    assert made.seccomp is None and made.no_new_privileges
    assert made.systempaths == "masked" and not made.mask and not made.unmask


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no-new-privileges", True),
        ("no-new-privileges=true", True),
        ("no-new-privileges:true", True),
        ("no-new-privileges=false", False),
        ("no-new-privileges:false", False),
    ],
)
def test_no_new_privileges(word, value):
    assert options("no-new-privileges=false" if value else "no-new-privileges", word).no_new_privileges is value


def test_seccomp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile = tmp_path / "a=b:c.json"
    profile.write_text("{}")
    assert options("seccomp=unconfined").seccomp == "unconfined"
    assert options("seccomp:unconfined").seccomp == "unconfined"
    assert options("seccomp=unconfined", "seccomp=builtin").seccomp is None
    assert options("seccomp=a=b:c.json").seccomp == str(profile)
    with pytest.raises(UsageError, match="no seccomp profile"):
        options("seccomp=missing.json")


def test_paths_add_up():
    made = options("mask=/a:/b", "mask=/c", "unmask=/proc/kcore", "unmask=ALL", "systempaths=unconfined")
    assert made.mask == ("/a", "/b", "/c")
    assert made.unmask == ("/proc/kcore", "ALL")
    assert made.systempaths == "unconfined"


def test_what_is_so_anyway_may_be_said():
    options("apparmor=unconfined", "label=disable", "label:disable")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("", "unknown option"),
        ("secomp=unconfined", "did you mean seccomp"),
        ("seccomp", "needs a value"),
        ("no-new-privileges=", "true or false"),
        ("no-new-privileges=maybe", "true or false"),
        ("systempaths=masked", "systempaths=unconfined"),
        ("mask=relative", "not an absolute path"),
        ("unmask=all", "not an absolute path"),
        ("apparmor=docker-default", "AppArmor"),
        ("label=type:x", "SELinux"),
    ],
)
def test_refused(word, text):
    with pytest.raises(UsageError, match=text):
        options(word)


def test_capability():
    assert capability("net_admin") == capability("CAP_NET_ADMIN") == "NET_ADMIN"
    assert capability("all") == "ALL"
    for word in ("", "CAP_", "NET-ADMIN", "a b", "É"):
        with pytest.raises(UsageError):
            capability(word)


def test_sysctl():
    assert sysctl("net.core.somaxconn=1024") == ("net.core.somaxconn", "1024")
    assert sysctl("kernel.sem=1 2 3 4") == ("kernel.sem", "1 2 3 4")
    assert sysctl("net.ipv4.conf.eth0/1.forwarding=1") == ("net.ipv4.conf.eth0/1.forwarding", "1")
    for word in ("", "=1", "a", "net..core=1", "../x=1", "a/../b=1", "a b=1", "a=1\n2", "a=\0", "kernel.x+kernel.y=1"):
        with pytest.raises(UsageError):
            sysctl(word)
