"""Ports of this host that are held by sockets."""

import multiprocessing
import os
import socket
from contextlib import ExitStack

import pytest

from pyrtc.errors import NetworkError
from pyrtc.network.ports import Reserved, publish_all, reserve
from pyrtc.options import Port

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def bind(protocol, address, number, *options):
    """Bind a socket as another program would."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, KINDS[protocol]) as other:
        for option in options:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        other.bind((address, number))
        if protocol == "tcp":
            other.listen()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_free_port_is_chosen_for_both_families(protocol):
    with reserve([Port(80, protocol), Port(81, protocol)]) as reserved:
        assert [(port.container, port.protocol, port.ip, port.host_last) for port in reserved.ports] == [
            (80, protocol, "", 0),
            (81, protocol, "", 0),
        ]
        first, second = (port.host for port in reserved.ports)
        assert first and second and first != second
        assert [(one.port.host, one.family) for one in reserved.held] == [
            (first, 4),
            (first, 6),
            (second, 4),
            (second, 6),
        ]
        for one in reserved.held:
            with socket.socket(fileno=os.dup(one.fd)) as held:
                assert held.getsockname()[:2] == ("0.0.0.0" if one.family == 4 else "::", one.port.host)
                assert held.type == KINDS[protocol]
            assert not os.get_inheritable(one.fd) and not os.get_blocking(one.fd)
        for address in ("0.0.0.0", "127.0.0.1", "::", "::1"):
            for options in ((), (socket.SO_REUSEADDR,)):
                with pytest.raises(OSError, match="in use"):
                    bind(protocol, address, first, *options)
        with pytest.raises(NetworkError, match=f"^Bind for 0.0.0.0:{first} failed: port is already allocated$"):
            reserve([Port(1, protocol, first)])
        with pytest.raises(NetworkError, match=rf"^Bind for \[::1\]:{first} failed: port is already allocated$"):
            reserve([Port(1, protocol, first, "::1")])
        other = "udp" if protocol == "tcp" else "tcp"
        reserve([Port(1, other, second, "127.0.0.1")]).close()
    bind(protocol, "127.0.0.1", first)


def test_one_address_leaves_the_others():
    with reserve([Port(80, ip="127.0.0.1")]) as reserved:
        (port,), (held,) = reserved.ports, reserved.held
        assert held.family == 4
        reserve([Port(80, host=port.host, ip="127.0.0.2"), Port(80, host=port.host, ip="::1")]).close()
        with pytest.raises(NetworkError, match="already allocated"):
            reserve([Port(80, host=port.host)])


def free_range(count):
    """Return the first of so many free ports in a row."""
    for first in range(20000, 30000, count):
        try:
            reserve([Port(1, protocol, first + offset) for offset in range(count) for protocol in KINDS]).close()
        except NetworkError:
            continue
        return first
    raise AssertionError("no range is free")


def test_of_a_range_the_first_free_one_is_chosen():
    first = free_range(3)
    ranged = Port(80, host=first, host_last=first + 2)
    with reserve([Port(1, host=first + 1)]), reserve([ranged]) as one, reserve([ranged]) as two:
        assert [port.host for port in (*one.ports, *two.ports)] == [first, first + 2]
        with pytest.raises(NetworkError, match=f"Bind for 0.0.0.0:{first}-{first + 2} failed: all ports are allocated"):
            reserve([ranged])


def test_nothing_is_held_after_a_failure():
    first = free_range(3)
    before = set(os.listdir("/proc/self/fd"))
    with reserve([Port(1, host=first + 2, ip="127.0.0.1")]):
        with pytest.raises(NetworkError):
            reserve([Port(1, host=first), Port(1, "udp", first + 1), Port(1, host=first + 2)])
        reserve([Port(1, host=first), Port(1, "udp", first + 1)]).close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_connections_that_are_wound_up_do_not_refuse_the_next():
    with reserve([Port(80, ip="127.0.0.1")]) as reserved:
        (port,) = reserved.ports
        with socket.socket(fileno=os.dup(reserved.held[0].fd)) as listening:
            listening.setblocking(True)
            with socket.create_connection(("127.0.0.1", port.host)) as client:
                accepted, _ = listening.accept()
                accepted.close()  # first: this side keeps the port in TIME_WAIT
                assert client.recv(1) == b""
    with pytest.raises(OSError, match="in use"):
        bind("tcp", "127.0.0.1", port.host)
    reserve([port]).close()


def test_what_cannot_be_bound_is_explained():
    with pytest.raises(NetworkError, match=r"Bind for 192\.0\.2\.7:8080 failed: no device of this machine has"):
        reserve([Port(80, host=8080, ip="192.0.2.7")])
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        lowest = int(file.read())
    if os.geteuid() and lowest > 1:
        with pytest.raises(NetworkError, match=f"{lowest - 1} failed: permission denied: ports below"):
            reserve([Port(80, host=lowest - 1)])


def _take(first, last, count, start, answers):
    with ExitStack() as stack:
        start.wait()
        taken = []
        for _ in range(count):
            reserved = stack.enter_context(reserve([Port(80, host=first, host_last=last)]))
            taken.append(reserved.ports[0].host)
        answers.put(taken)
        start.wait()  # nobody lets go before all have theirs


def test_programs_at_once_never_get_the_same():
    first = free_range(40)
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(5), context.Queue()
    takers = [context.Process(target=_take, args=(first, first + 39, 10, start, answers)) for _ in range(4)]
    for taker in takers:
        taker.start()
    start.wait(60)
    taken = [number for _ in takers for number in answers.get(timeout=60)]
    start.wait(60)
    for taker in takers:
        taker.join(60)
    assert sorted(taken) == list(range(first, first + 40))


def test_publish_all():
    asked = (Port(80, host=8080), Port(53, "udp", host=5353))
    exposed = (Port(80), Port(443), Port(53), Port(53, "udp"), Port(443))
    assert publish_all(asked, exposed) == (*asked, Port(443), Port(53))
    assert publish_all((), ()) == ()


def test_nothing_reserved():
    with reserve([]) as reserved:
        assert reserved.ports == reserved.held == ()
    assert Reserved(()).ports == ()
