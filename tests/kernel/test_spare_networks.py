"""Spare network namespaces: each is a new one, used once, with nothing but a loopback device that is up."""

import os
import subprocess
import sys
import textwrap

from conftest import Probe, needs_root

from pyrtc import core
from pyrtc.runtime import spare_network
from pyrtc.runtime.spare_network import SpareNetworks

pytestmark = needs_root

# By ioctl: /sys shows the namespace that it was mounted in.
ASK = """
import fcntl, socket, struct
names = ",".join(name for _, name in socket.if_nameindex())
with socket.socket() as sock:
    answer = fcntl.ioctl(sock, 0x8913, struct.pack("16sh14x", b"lo", 0))
print(names, hex(struct.unpack("16sh14x", answer)[1] & 0xffff))
"""


def test_one_that_is_made_is_new_and_has_loopback_only() -> None:
    spares = SpareNetworks(2)
    for _ in range(2):
        assert spares.take() is None
    for _ in range(2):
        spares.refill()
    fds = [spares.take(), spares.take()]
    try:
        inodes = {os.fstat(fd).st_ino for fd in fds if fd is not None}
        assert len(inodes | {os.stat("/proc/self/ns/net").st_ino}) == 3
        for fd in fds:
            assert fd is not None
            assert not os.get_inheritable(fd)
            looked = subprocess.run(
                ["nsenter", f"--net=/proc/{os.getpid()}/fd/{fd}", sys.executable, "-c", ASK],
                capture_output=True,
                text=True,
                check=True,
            )
            names, flags = looked.stdout.split()
            assert names == "lo"
            assert int(flags, 16) & 1, "it is up"
    finally:
        for fd in fds:
            if fd is not None:
                os.close(fd)


def test_every_container_has_a_network_that_nobody_else_had(probe: Probe) -> None:
    networks = [probe.one("readlink /proc/self/ns/net") for _ in range(8)]
    assert len(set(networks)) >= 2, "numbers of ended ones may come again"
    assert os.readlink("/proc/self/ns/net") not in networks


def test_a_spare_one_is_used_and_has_a_loopback_device_that_is_up(probe: Probe, monkeypatch) -> None:
    used = []
    monkeypatch.setattr(spare_network, "CLOSE", float("inf"))
    real = spare_network.spare_networks.take

    def take() -> int | None:
        fd = real()
        used.append(None if fd is None else os.fstat(fd).st_ino)
        return fd

    monkeypatch.setattr(spare_network.spare_networks, "take", take)
    for _ in range(2):
        probe.one("readlink /proc/self/ns/net")
    answer = probe.ask("readlink /proc/self/ns/net", "cat /proc/self/net/route", "cat /proc/self/net/if_inet6")
    assert answer[0] == f"net:[{used[-1]}]"
    assert len(answer[1].splitlines()) == 1, "a head and no route"
    assert not answer[2] or [line.split()[-1] for line in answer[2].splitlines()] == ["lo"]


def test_a_users_container_never_gets_one(probe: Probe, monkeypatch) -> None:
    """It belongs to the host's user namespace, where that container has no rights."""
    monkeypatch.setattr(spare_network.spare_networks, "take", lambda: 1 / 0)
    assert probe.one("readlink /proc/self/ns/net", userns="auto").startswith("net:[")
    assert probe.one("readlink /proc/self/ns/net", network="host") == os.readlink("/proc/self/ns/net")


def test_the_stock_ends_with_its_process() -> None:
    program = """
        import os, sys
        from pyrtc.runtime.spare_network import spare_networks
        spare_networks.take(), spare_networks.take()
        for _ in range(9): spare_networks.refill()
        def held():
            links = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink(f"/proc/self/fd/{fd}"))
                except OSError:
                    pass  # that of the listing itself
            return [link for link in links if link.startswith("net:")]
        print(len(held()), len(set(held())), spare_networks._most, flush=True)
        if os.fork() == 0:
            print(len(held()), flush=True)
            os._exit(0)
        os.wait()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    numbers = sorted(map(int, done.stdout.split()))
    most = spare_network.spare_networks._most
    assert numbers == [0, most, most, most], done.stdout


def test_one_that_cannot_be_made_leaves_the_container_its_own(probe: Probe, monkeypatch) -> None:
    from pyrtc.errors import UnsupportedError

    def refuse() -> int:
        raise UnsupportedError("no")

    stock = spare_network.spare_networks
    monkeypatch.setattr(spare_network, "CLOSE", float("inf"))
    monkeypatch.setattr(stock, "_refused", False)  # and what the refusal makes of it is undone afterwards
    monkeypatch.setattr(core, "make_netns", refuse)
    for _ in range(stock._most + 3):
        assert probe.one("readlink /proc/self/ns/net") != os.readlink("/proc/self/ns/net")
    assert stock._refused
    assert stock._fds == []
