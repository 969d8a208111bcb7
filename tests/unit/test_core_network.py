"""What needs no rights of the network plumbing: words that are refused before anything is done, and own sockets."""

import errno
import os
import socket

import pytest

from pyrtc import core
from pyrtc.core import Link
from pyrtc.errors import NetworkError


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(), "name of a network device"),
        (Link("pv0", device=""), "name of a network device"),
        (Link("pv0", device="../x"), "name of a network device"),
        (Link("pv0", device="a/b"), "name of a network device"),
        (Link("pv0", device="sixteen-letters!"), "name of a network device"),
        (Link("a device", device="eth0"), "name of a network device"),
        (Link("pv0", mac="02:42"), "02:42"),
        (Link("pv0", mac="02:42:00:00:00:000"), "hardware address"),
        (Link("pv0", mac="02:42:00:00:00: 1"), "hardware address"),
        (Link("pv0", mac="0x:42:00:00:00:01"), "hardware address"),
        (Link("pv0", mac="01:42:00:00:00:00"), "group"),
        (Link("pv0", addresses4=("10.0.0.1",)), "10.0.0.1"),
        (Link("pv0", addresses4=("10.0.0.1/33",)), "10.0.0.1/33"),
        (Link("pv0", addresses4=("10.0.0.1/",)), "10.0.0.1/"),
        (Link("pv0", addresses4=("10.0.0.1/+8",)), "10.0.0.1/+8"),
        (Link("pv0", addresses4=("10.0.0/8",)), "10.0.0/8"),
        (Link("pv0", addresses6=("fd00::1/129",)), "fd00::1/129"),
        (Link("pv0", addresses6=("f" * 200 + "::/64",)), "address"),
        (Link("pv0", gateway4="10.0.0.1/8"), "10.0.0.1/8"),
        (Link("pv0", gateway6="nowhere"), "nowhere"),
    ],
)
def test_words_that_mean_nothing(link, words):
    with pytest.raises(NetworkError, match="cannot") as caught:
        core.attach(-1, link)
    assert caught.value.errno == errno.EINVAL
    assert words in str(caught.value)


def test_there_is_an_end_to_addresses():
    with pytest.raises(NetworkError, match="more than 16") as caught:
        core.attach(-1, Link("pv0", addresses4=tuple(f"10.0.0.{number}/8" for number in range(17))))
    assert caught.value.errno == errno.E2BIG


def test_indexes_of_devices():
    assert core.device_index("lo") == socket.if_nametoindex("lo")
    assert core.device_index("no-such-device") == 0
    with pytest.raises(NetworkError, match="name of a network device"):
        core.device_index("a/b")


def opened(*words, **options):
    return socket.socket(fileno=core.open_in(-1, *words, **options))


def test_a_socket_of_this_namespace():
    with opened(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 0, listen=1) as server:
        assert not os.get_inheritable(server.fileno())
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 20) as client, server.accept()[0] as accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
        with pytest.raises(NetworkError, match=f"127.0.0.1 port {port}.*EADDRINUSE") as caught:
            core.open_in(-1, socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", port)
        assert caught.value.errno == errno.EADDRINUSE


def test_a_socket_that_is_not_bound():
    with opened(socket.AF_INET, socket.SOCK_DGRAM, nonblocking=True) as datagrams:
        assert datagrams.getsockname() == ("0.0.0.0", 0)
        assert not os.get_blocking(datagrams.fileno())
    with pytest.raises(NetworkError, match=r"open a socket.*EAFNOSUPPORT"):
        core.open_in(-1, 250, socket.SOCK_DGRAM)


def test_an_address_of_another_family():
    for family, address in ((socket.AF_INET, "::1"), (socket.AF_INET6, "127.0.0.1"), (socket.AF_INET, "localhost")):
        with pytest.raises(NetworkError) as caught:
            core.open_in(-1, family, socket.SOCK_STREAM, address)
        assert caught.value.errno == errno.EINVAL


def test_what_is_no_namespace_is_not_entered():
    with open(os.devnull) as file, pytest.raises(NetworkError, match="enter the network namespace"):
        core.open_in(file.fileno(), socket.AF_INET, socket.SOCK_STREAM)
