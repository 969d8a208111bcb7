"""What the files below /etc say, and that no option can write a line of its own into them."""

import os

import pytest

from pyrtc.errors import UsageError
from pyrtc.options import RunOptions
from pyrtc.runtime import etc_files
from pyrtc.runtime.etc_files import Names, PrivateFile, private_files


def written(hostname="web", covered=(), **options):
    return {file.target: file.content for file in private_files(RunOptions(**options), hostname, covered)}


def test_hosts_names_localhost_the_container_and_what_was_added():
    text = written(hostname="web", add_host=(("db", "10.0.0.2"), ("six", "fd00::2")))["/etc/hosts"].decode()
    lines = [line.split() for line in text.splitlines()]
    assert ["127.0.0.1", "localhost"] in lines
    assert ["127.0.0.1", "web"] in lines
    assert lines[-2:] == [["10.0.0.2", "db"], ["fd00::2", "six"]]


def test_hosts_of_the_hosts_network_are_the_hosts(monkeypatch):
    monkeypatch.setattr(etc_files, "_host_file", lambda path: f"# {path}\n".encode())
    made = written(network="host", add_host=(("db", "10.0.0.2"),))
    assert made["/etc/hosts"] == b"# /etc/hosts\n10.0.0.2\tdb\n"
    assert made["/etc/resolv.conf"] == b"# /etc/resolv.conf\n"


def test_resolv_conf_holds_what_was_named_and_without_a_network_nothing_else(monkeypatch):
    monkeypatch.setattr(etc_files, "_host_file", lambda _path: b"nameserver 192.0.2.1\n")
    assert written()["/etc/resolv.conf"] == b""
    asked = {"dns": ("1.1.1.1", "::1"), "dns_search": ("a.example", "."), "dns_option": ("ndots:2", "rotate")}
    expected = b"nameserver 1.1.1.1\nnameserver ::1\nsearch a.example .\noptions ndots:2 rotate\n"
    for network in ("none", "host"):
        assert written(network=network, **asked)["/etc/resolv.conf"] == expected
    assert written(network="host", dns_option=("rotate",))["/etc/resolv.conf"] == b"options rotate\n"


def named(names, **options):
    return {file.target: file.content.decode() for file in private_files(RunOptions(**options), "web", (), names)}


def test_in_a_network_the_host_name_has_every_address():
    names = Names(addresses=("172.18.0.2", "fd00::2"), gateway="172.18.0.1")
    text = named(names, network="n", domainname="example.org", add_host=(("me", "host-gateway"),))["/etc/hosts"]
    assert text.splitlines()[-3:] == [
        "172.18.0.2\tweb.example.org web",
        "fd00::2\tweb.example.org web",
        "172.18.0.1\tme",
    ]
    assert "127.0.0.1\tweb" not in text


@pytest.mark.parametrize(
    ("hostname", "domainname", "line"),
    [
        ("web", None, "web"),
        ("web.example.org", None, "web.example.org web"),
        ("web", "example.org", "web.example.org web"),
        ("web.lan", "example.org", "web.lan.example.org web"),
    ],
)
def test_the_bare_name_stands_beside_the_whole_one(hostname, domainname, line):
    for names, address in ((Names(addresses=("172.18.0.2",)), "172.18.0.2"), (None, "127.0.0.1")):
        options = RunOptions(domainname=domainname)
        text = private_files(options, hostname, (), names)[0].content.decode()
        assert text.splitlines()[-1] == f"{address}\t{line}"


def test_the_host_is_its_own_gateway_in_its_network(monkeypatch):
    monkeypatch.setattr(etc_files, "_host_file", lambda _path: b"")
    assert written(network="host", add_host=(("me", "host-gateway"),))["/etc/hosts"] == b"127.0.0.1\tme\n"


def test_resolv_conf_of_a_network_without_a_resolver_of_its_own():
    names = Names(nameservers=("192.0.2.1",), search=("lan",), options=("edns0",))
    assert named(names)["/etc/resolv.conf"] == "nameserver 192.0.2.1\nsearch lan\noptions edns0\n"
    asked = named(names, dns=("192.0.2.2",), dns_search=(".",), dns_option=("rotate",))
    assert asked["/etc/resolv.conf"] == "nameserver 192.0.2.2\noptions rotate\n"


def test_resolv_conf_of_a_container_with_a_resolver_of_its_own():
    names = Names(nameservers=("192.0.2.1",), search=("lan",), options=("edns0",), resolver=True)
    assert named(names)["/etc/resolv.conf"] == "nameserver 127.0.0.11\nsearch lan\noptions edns0 ndots:0\n"
    asked = named(names, dns=("192.0.2.2",), dns_option=("ndots:2",))
    assert asked["/etc/resolv.conf"] == "nameserver 127.0.0.11\nsearch lan\noptions ndots:2\n"


def test_shared_files_are_taken_as_they_are():
    names = Names(files=(PrivateFile("/etc/hosts", b"1.1.1.1\ta\n"),))
    assert named(names) == {"/etc/hosts": "1.1.1.1\ta\n"}
    assert not private_files(RunOptions(), "web", {"/etc/hosts"}, names)


def test_unreadable_files_of_the_host_are_empty_ones():
    assert etc_files._host_file("/proc/self/no-such-file") == b""


@pytest.mark.parametrize(
    "options",
    [
        {"dns": ("dns.example",)},
        {"dns": ("1.1.1.1\noptions x",)},
        {"dns": ("fe80::1%eth0\nnameserver 192.0.2.1",)},
        {"dns": ("",)},
        {"dns_search": ("",)},
        {"dns_search": ("a b",)},
        {"dns_option": ("a\nnameserver 192.0.2.1",)},
        {"add_host": (("", "1.1.1.1"),)},
        {"add_host": (("a b", "1.1.1.1"),)},
        {"add_host": (("a\n192.0.2.1 b", "1.1.1.1"),)},
        {"add_host": (("a", "host-gateway"),)},
        {"add_host": (("a", "fe80::1%x y"),)},
    ],
)
def test_no_word_can_break_out_of_its_line(options):
    with pytest.raises(UsageError):
        written(**options)


def test_scoped_addresses_are_addresses():
    assert b"nameserver fe80::1%eth0\n" in written(dns=("fe80::1%eth0",))["/etc/resolv.conf"]


def test_the_host_name_has_a_file_where_it_is_the_containers_own():
    assert written()["/etc/hostname"] == b"web\n"
    assert written(hostname=None)["/etc/hostname"] == f"{os.uname().nodename}\n".encode()


def test_what_is_mounted_over_is_not_written():
    assert set(written(covered={"/etc/hosts"})) == {"/etc/resolv.conf", "/etc/hostname"}
