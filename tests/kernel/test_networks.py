"""Networks made, listed and removed by the command line and the library, with `ip` as the judge."""

import json
import sys
from ipaddress import IPv4Network

from network_place import Place, place

__all__ = ["place"]


def created(place: Place, *words: str) -> str:
    return place.pyrtc("network", "create", *words).stdout.strip()


def refused(place: Place, *words: str) -> str:
    done = place.pyrtc("network", *words, check=False)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


def inspected(place: Place, name: str) -> dict:
    return json.loads(place.pyrtc("network", "inspect", name).stdout)[0]


def test_life_of_a_network(place: Place) -> None:
    web = created(place, "web", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.9", "--subnet", "fd00:77::/64",
                  "--ip-range", "10.77.0.64/26", "--opt", "com.docker.network.driver.mtu=1400",
                  "--label", "a=b")  # fmt: skip
    link = place.links()[f"pyrtc-{web[:8]}"]
    assert (link["mtu"], link["linkinfo"]["info_kind"]) == (1400, "bridge")
    assert {(a["local"], a["prefixlen"]) for a in link["addr_info"] if a["scope"] == "global"} == {
        ("10.77.0.9", 24),
        ("fd00:77::1", 64),
    }
    found = inspected(place, "web")
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.77.0.0/24", "IPRange": "10.77.0.64/26", "Gateway": "10.77.0.9"},
        {"Subnet": "fd00:77::/64", "IPRange": "", "Gateway": "fd00:77::1"},
    ]
    assert place.pyrtc("network", "rm", "web").stdout == "web\n"
    told = place.pyrtc("events", "--since", "1h", "--until", "0s", "--filter", "type=network", "--format",
                       "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}")  # fmt: skip
    assert told.stdout.splitlines() == [f"create {web} web bridge", f"destroy {web} web bridge"]
    place.assert_clean()


def test_subnets_are_picked_where_nothing_is(place: Place) -> None:
    place.run("ip", "route", "add", "172.16.0.0/13", "via", "198.51.100.2")
    seen = set()
    for index in range(4):
        created(place, f"net{index}", *(["--ipv6"] if index % 2 else []))
        config = inspected(place, f"net{index}")["IPAM"]["Config"]
        picked = IPv4Network(config[0]["Subnet"])
        assert picked.subnet_of(IPv4Network("172.24.0.0/13")), "what is left of 172.16.0.0/12"
        assert [entry["Subnet"].startswith("fd") for entry in config[1:]] == [True] * (index % 2)
        seen |= {entry["Subnet"] for entry in config}
    assert len(seen) == 6
    assert set(place.pyrtc("network", "prune", "-f").stdout.split()[2:]) == {f"net{index}" for index in range(4)}
    place.assert_clean()


def test_what_is_refused(place: Place) -> None:
    created(place, "web", "--subnet", "10.77.0.0/24")
    assert "network with name web already exists" in refused(place, "create", "web")
    said = refused(place, "create", "b", "--subnet", "10.77.0.128/25")
    assert "Pool overlaps with other one on this address space: 10.77.0.128/25 with 10.77.0.0/24 of network web" in said
    said = refused(place, "create", "b", "--subnet", "198.51.100.0/25")
    assert "Pool overlaps with other one on this address space: 198.51.100.0/25 with that of device wan0" in said
    assert "device wan0 already" in refused(place, "create", "b", "-o", "com.docker.network.bridge.name=wan0")
    assert "IPv6 needs 1280 bytes" in refused(place, "create", "b", "--ipv6", "-o", "mtu=1000")
    assert "only overlay networks are encrypted" in refused(place, "create", "b", "--encrypt")
    assert "write NAME=ADDRESS" in refused(place, "create", "b", "--aux-address", "10.1.0.5")
    said = refused(place, "create", "b", "--aux-address", "router=10.1.0.5")
    assert "no matching subnet for aux-address 10.1.0.5" in said
    assert "no device nope" in refused(place, "create", "b", "-d", "macvlan", "-o", "parent=nope")
    assert "invalid subnet 10.1.0.1/16: it should be 10.1.0.0/16" in refused(
        place, "create", "b", "--subnet", "10.1.0.1/16"
    )
    assert place.pyrtc("network", "ls", "-q", "-f", "type=custom").stdout.count("\n") == 1
    place.pyrtc("network", "rm", "web")
    place.assert_clean()


def test_a_failure_leaves_no_row(place: Place) -> None:
    """The kernel refuses the bridge after the row was written."""
    words = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-m", "pyrtc.cli.main")
    done = place.run(*words, "network", "create", "web", check=False)
    assert done.returncode == 1 and "Operation not permitted (EPERM): only root makes networks" in done.stderr
    assert place.pyrtc("network", "ls", "-q", "-f", "type=custom").stdout == ""
    place.assert_clean()


def test_macvlan_takes_no_device_of_the_host_away(place: Place) -> None:
    created(
        place, "lan", "-d", "macvlan", "--subnet", "198.51.100.0/24", "--gateway", "198.51.100.2", "-o", "parent=wan0"
    )
    assert inspected(place, "lan")["Device"] == "wan0"
    place.pyrtc("network", "rm", "lan")
    place.assert_clean()


def test_auxiliary_addresses_are_no_container_s(place: Place) -> None:
    """A router and others of the link, which a macvlan network shares with them; and the same of a bridge."""
    for name, words in (("lan", ("-d", "macvlan", "-o", "parent=wan0")), ("web", ())):
        base = "198.51.100" if words else "10.77.0"
        kept = [word for last in (1, 2, 4) for word in ("--aux-address", f"a{last}={base}.{last}")]
        created(place, name, *words, "--subnet", f"{base}.0/29", "--gateway", f"{base}.6", *kept)
        (config,) = inspected(place, name)["IPAM"]["Config"]
        assert config["AuxiliaryAddresses"] == {f"a{last}": f"{base}.{last}" for last in (1, 2, 4)}
        run = ("run", "--rm", "--network", name)
        taken = place.pyrtc(*run, "--ip", f"{base}.2", "host", "true", check=False)
        assert taken.returncode == 125 and f"{base}.2 is reserved as a2 of network {name}" in taken.stderr
        found = {place.pyrtc(*run, "host", "hostname", "-I").stdout.strip() for _ in range(2)}
        assert found == {f"{base}.3", f"{base}.5"}  # the second while the first one rests
        place.pyrtc("network", "rm", name)
    place.assert_clean()


PROGRAM = """
import sys
from ipaddress import IPv4Network
from pyrtc import Engine, NetworkError, NetworkNotFound
with Engine() as engine:
    web = engine.networks.create("web", subnet="10.77.0.0/24", mtu=1400, labels={"a": "b"}, internal=True)
    assert engine.networks.get("web") == engine.networks.get(web.id[:6]) == web in engine.networks.list()
    assert (web.mtu, web.labels, web.internal, web.gateway4) == (1400, (("a", "b"),), True, "10.77.0.1")
    found = engine.networks.inspect("web")
    assert (found.network, found.endpoints) == (web, ())
    engine.networks.remove("web")
    engine.networks.remove("web", force=True)
    for name in ("web", "bridge"):
        try:
            engine.networks.remove(name)
        except NetworkError as error:
            print(type(error).__name__, error)
"""


def test_the_library(place: Place) -> None:
    said = place.python(PROGRAM).splitlines()
    assert said == [
        "NetworkNotFound network web not found",
        "NetworkError bridge is a pre-defined network and cannot be removed",
    ]
    place.assert_clean()


AIO = """
import asyncio
from pyrtc import Engine, aio
async def main(engine):
    networks = aio.Networks(engine)
    made = await asyncio.gather(*(networks.create(f"n{index}", ipv6=True) for index in range(6)))
    assert len({n.subnet4 for n in made}) == len({n.subnet6 for n in made}) == 6
    assert {n.name for n in await networks.list()} >= {n.name for n in made}
    await networks.remove("n0")
    assert (await networks.inspect("n1")).endpoints == ()
    assert sorted(await networks.prune()) == ["n1", "n2", "n3", "n4", "n5"]
with Engine() as engine:
    asyncio.run(main(engine))
"""


def test_inside_an_event_loop(place: Place) -> None:
    place.python(AIO)
    place.assert_clean()


def test_processes_and_stores_make_networks_at_once(place: Place, tmp_path) -> None:
    command = (sys.executable, "-m", "pyrtc.cli.main")
    processes = [
        place.popen(
            *command, "--root", tmp_path / f"s{index % 2}", "network", "create", f"n{index}", stdout=-1, stderr=-1
        )
        for index in range(6)
    ]
    for process in processes:
        _, error = process.communicate()
        assert process.returncode == 0 and error == b"", error
    bridges = {name: link for name, link in place.links().items() if name.startswith("pyrtc-")}
    addresses = {a["local"] for link in bridges.values() for a in link["addr_info"] if a["family"] == "inet"}
    assert len(bridges) == len(addresses) == 6
    for index in range(2):
        place.pyrtc("--root", str(tmp_path / f"s{index}"), "system", "prune", "-f")
    place.assert_clean()


def test_a_device_whose_network_is_gone_is_pruned(place: Place) -> None:
    """As when a removal is killed between the row and the device; that of another store stays."""
    program = "import sys; from pyrtc.store import Store; Store(sys.argv[1]).networks.remove('web')"
    created(place, "web")
    place.python(program, str(place.root))
    assert len(place.links()) == 3
    place.pyrtc("--root", str(place.root) + "2", "network", "prune", "-f")
    assert len(place.links()) == 3
    place.pyrtc("network", "prune", "-f")
    place.assert_clean()
