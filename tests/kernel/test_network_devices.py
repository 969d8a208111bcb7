"""Bridges, as `ip` sees them, in a namespace of each test's own."""

import sys

from network_place import Place, place

__all__ = ["place"]

PYTHON = (sys.executable, "-c")
PROGRAM = """
import sys
from types import SimpleNamespace
from pyrtc.network import devices
S = SimpleNamespace(path="/s")
from pyrtc.network.host_lock import host_lock
from pyrtc.store.networks import Network
web = Network("ab" * 32, "web", "bridge", 1.0, "pyrtc-abababab", subnet4="10.77.0.0/24", gateway4="10.77.0.254",
              subnet6="fd00:77::/64", gateway6="fd00:77::1", mtu=1400)
plain = Network("cd" * 32, "plain", "bridge", 1.0, "pyrtc-cdcdcdcd", subnet4="10.78.0.0/30", gateway4="10.78.0.1")
"""


def test_a_bridge_is_whole(place: Place) -> None:
    indexes = place.python(PROGRAM + "print(devices.ensure(web, S), devices.ensure(plain, S))").split()
    again = place.python(PROGRAM + "print(devices.ensure(web, S), devices.ensure(plain, S))").split()
    links = place.links()
    web, plain = links["pyrtc-abababab"], links["pyrtc-cdcdcdcd"]
    assert indexes == again == [str(web["ifindex"]), str(plain["ifindex"])]
    assert web["linkinfo"]["info_kind"] == "bridge" and web["linkinfo"]["info_data"]["stp_state"] == 0
    assert (web["mtu"], plain["mtu"]) == (1400, 1500)
    assert "UP" in web["flags"] and "UP" in plain["flags"]
    assert web["ifalias"] == f"pyrtc network {'ab' * 32} of /s"
    said = [(a["family"], a["local"], a["prefixlen"], a.get("broadcast")) for a in web["addr_info"]]
    assert ("inet", "10.77.0.254", 24, "10.77.0.255") in said
    assert ("inet6", "fd00:77::1", 64, None) in said
    assert not any(a.get("tentative") for a in web["addr_info"])
    assert [(a["local"], a["prefixlen"]) for a in plain["addr_info"]] == [("10.78.0.1", 30)]  # and no IPv6
    assert int(web["address"][:2], 16) & 3 == 2
    for name, value in (("accept_ra", "0"), ("disable_ipv6", "0")):
        assert place.run("cat", f"/proc/sys/net/ipv6/conf/pyrtc-abababab/{name}").stdout.strip() == value
    # The gateway answers while no container is there, which means that it has its address and its route.
    place.run("ping", "-c1", "-W5", "10.77.0.254")
    place.run("ping", "-c1", "-W5", "fd00:77::1")
    place.python(PROGRAM + "with host_lock(): devices.take_down(web); devices.take_down(plain); devices.take_down(web)")
    place.assert_clean()


def test_its_address_does_not_come_from_its_ports(place: Place) -> None:
    place.python(PROGRAM + "devices.ensure(web, S)")
    before = place.links()["pyrtc-abababab"]["address"]
    place.run("ip", "link", "add", "low0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "low1")
    place.run("ip", "link", "set", "low0", "master", "pyrtc-abababab", "up")
    assert place.links()["pyrtc-abababab"]["address"] == before
    place.run("ip", "link", "del", "low0")


def test_a_bridge_is_made_again(place: Place) -> None:
    place.python(PROGRAM + "devices.ensure(web, S)")
    place.run("ip", "link", "del", "pyrtc-abababab")
    place.python(PROGRAM + "devices.ensure(web, S)")
    assert place.links()["pyrtc-abababab"]["mtu"] == 1400


def test_many_make_one(place: Place) -> None:
    processes = [
        place.popen(*PYTHON, PROGRAM + "print(devices.ensure(web, S))", stdout=-1, stderr=-1) for _ in range(4)
    ]
    answers = {process.communicate() for process in processes}
    assert len(answers) == 1 and answers.pop()[1] == b""
    assert set(place.links()) == {"lo", "wan0", "pyrtc-abababab"}


def test_what_a_killed_maker_left_is_taken_over(place: Place) -> None:
    place.run("ip", "link", "add", "pvnabababab", "type", "bridge")
    place.run("ip", "addr", "add", "10.77.0.254/24", "dev", "pvnabababab")
    place.python(PROGRAM + "devices.ensure(web, S)")
    assert set(place.links()) == {"lo", "wan0", "pyrtc-abababab"}


def test_the_kernel_s_reason_is_told_and_nothing_is_left(place: Place) -> None:
    done = place.run(*PYTHON, PROGRAM.replace("mtu=1400", "mtu=70000") + "devices.ensure(web, S)", check=False)
    assert (
        "NetworkError: cannot make the bridge pyrtc-abababab of network web: Invalid argument (EINVAL)" in done.stderr
    )
    # Here the last step fails.
    place.run("ip", "link", "add", "pvnother", "type", "bridge")
    done = place.run(
        *PYTHON,
        PROGRAM + "devices.device_index = lambda name: 0; from pyrtc.values import replace\n"
        "devices.ensure(replace(web, device='pvnother'), S)",
        check=False,
    )
    assert "File exists (EEXIST)" in done.stderr
    place.run("ip", "link", "del", "pvnother")
    place.assert_clean()


def test_a_subnet_that_this_host_uses_is_refused(place: Place) -> None:
    place.run("ip", "addr", "add", "10.77.0.9/16", "dev", "wan0")
    done = place.run(*PYTHON, PROGRAM + "devices.ensure(web, S)", check=False)
    assert "its subnet 10.77.0.0/24 overlaps with that of device wan0" in done.stderr
    place.assert_clean()


def test_without_rights_it_is_refused(place: Place) -> None:
    done = place.run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin",
                     *PYTHON, PROGRAM + "devices.ensure(web, S)", check=False)  # fmt: skip
    assert (
        "UnsupportedError: cannot make the bridge pyrtc-abababab of network web: Operation not permitted" in done.stderr
    )
    assert "ordinary users have networks beside it" in done.stderr


def test_inside_an_event_loop(place: Place) -> None:
    place.python(
        PROGRAM + "import asyncio, warnings; warnings.simplefilter('error')\n"
        "async def main(): return devices.ensure(web, S)\n"
        "assert asyncio.run(main()) > 1"
    )


def test_what_other_networks_left(place: Place) -> None:
    place.python(PROGRAM + "devices.make(web, '/one'); devices.make(plain, '/two')")
    place.run("ip", "link", "set", "wan0", "alias", "pyrtc network")
    program = PROGRAM + "print(*(device for _, device in devices.orphans(sys.argv[1], frozenset(sys.argv[2:]))))"
    assert place.python(program, "/one").split() == ["pyrtc-abababab"]
    assert place.python(program, "/one", "ab" * 32).split() == []
    assert place.python(program, "/two").split() == ["pyrtc-cdcdcdcd"]
    assert place.python(program, "/three").split() == []


def test_the_default_bridge_gets_a_subnet_that_nothing_here_uses(place: Place) -> None:
    """Everything but one subnet is routed somewhere: by a policy's table, too."""
    place.run("ip", "route", "add", "10.128.0.0/9", "via", "198.51.100.2")
    place.run("ip", "route", "add", "192.168.0.0/16", "via", "198.51.100.2", "table", "77")
    place.run("ip", "route", "add", "172.24.0.0/13", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.20.0.0/14", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.18.0.0/15", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.17.0.0/16", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.16.128.0/17", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.16.64.0/18", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.16.32.0/19", "via", "198.51.100.2")
    place.run("ip", "route", "add", "172.16.0.0/20", "via", "198.51.100.2")
    place.run("ip", "route", "add", "0.0.0.0/1", "via", "198.51.100.2")
    program = """
import sys
from pyrtc.network.claims import claim
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
with Store(sys.argv[1]) as store:
    made = store.containers.allocate(name="one", image_id="x", options_json=b"{}", directory=False)
    print(claim(store, made.id, [NetworkAttachment("bridge")])[0].ip4, store.networks.get("bridge").subnet4)
"""
    address, subnet = place.python(program, str(place.root)).split()
    assert subnet == "172.16.16.0/20" and address.startswith(("172.16.1", "172.16.2", "172.16.3"))
