import contextlib
import subprocess
import sys
import threading
import time

import pytest

from pyrtc.errors import ContainerNotFound, NetworkError, NetworkNotFound, UsageError
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.store.networks import MAX_ENDPOINTS, AddressesExhausted, Network, NoSubnet, Published


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s") as store:
        yield store


def network(name="web", *, id="a" * 64, subnet4="172.18.0.0/16", gateway4="172.18.0.1", driver="bridge", **fields):
    return Network(id, name, driver, 1.5, f"pyrtc-{id[:8]}", subnet4=subnet4, gateway4=gateway4, **fields)


def container(store: Store, name: str | None = None) -> str:
    return store.containers.allocate(name=name, image_id="x", options_json=b"{}", directory=False).id


def claim(store: Store, container_id: str, name: str = "web", **words):
    return store.networks.claim(container_id, [NetworkAttachment(name, **words)])[0]


def test_every_store_has_three(store: Store) -> None:
    bridge, host, none = store.networks.list()
    assert [(n.name, n.driver, n.predefined) for n in (bridge, host, none)] == [
        ("bridge", "bridge", True),
        ("host", "host", True),
        ("none", "null", True),
    ]
    assert bridge.device == f"pyrtc-{bridge.id[:8]}"
    assert len({n.id for n in (bridge, host, none)}) == 3
    assert all(len(n.id) == 64 and abs(n.created - time.time()) < 60 for n in (bridge, host, none))
    assert (bridge.subnet4, bridge.labels, bridge.options, bridge.internal) == ("", (), (), False)
    for n in (bridge, host, none):
        with pytest.raises(NetworkError, match=f"{n.name} is a pre-defined network and cannot be removed"):
            store.networks.remove(n.name)


def test_life_of_a_network(store: Store) -> None:
    made = network(
        subnet6="fd00:1::/64", gateway6="fd00:1::1", range4="172.18.5.0/24", mtu=1400, internal=True, attachable=True,
        labels=(("tier", "1"), ("empty", "")), options=(("mtu", "1400"),),
        auxiliary=(("router", "172.18.5.9"), ("router6", "fd00:1::9")),
    )  # fmt: skip
    store.networks.create(made)
    assert store.networks.get("web") == store.networks.get("a" * 64) == store.networks.get("aaa") == made
    assert made in store.networks.list()
    assert made.option("mtu") == "1400" and made.option("other", "-") == "-"
    assert store.networks.remove("web") == made
    for action in (store.networks.get, store.networks.remove):
        for word in ("web", "aaa", "", "a" * 64, "A", "%", "_"):
            with pytest.raises(NetworkNotFound, match="not found"):
                action(word)


def test_ids_names_and_prefixes(store: Store) -> None:
    store.networks.create(network("one", id="ab" * 32))
    store.networks.create(network("ab", id="ac" + "0" * 62, subnet4="10.0.0.0/24", gateway4="10.0.0.1"))
    assert store.networks.get("ab").name == "ab"  # a name goes before a prefix
    assert store.networks.get("aba").name == "one"
    with pytest.raises(NetworkError, match="ambiguous"):
        store.networks.get("a")


def test_names_and_subnets_are_had_once(store: Store) -> None:
    store.networks.create(network(subnet6="fd00:1::/64"))
    with pytest.raises(NetworkError, match="network with name web already exists"):
        store.networks.create(network(id="b" * 64, subnet4="10.0.0.0/24"))
    for fields in ({"subnet4": "172.18.4.0/24"}, {"subnet4": "172.16.0.0/12"}, {"subnet4": "", "subnet6": "fd00::/16"}):
        with pytest.raises(
            NetworkError, match=r"Pool overlaps with other one on this address space: .* of network web"
        ):
            store.networks.create(network("other", id="b" * 64, **fields))
    store.networks.create(network("other", id="b" * 64, subnet4="172.19.0.0/16", subnet6="fd00:2::/64"))


def test_a_claim_and_what_it_leaves(store: Store) -> None:
    store.networks.create(network(mtu=1400, internal=True))
    store.networks.create(
        network(
            "db", id="b" * 64, subnet4="10.1.0.0/24", gateway4="10.1.0.254", subnet6="fd00:1::/64", gateway6="fd00:1::1"
        )
    )
    one = container(store, "one")
    first, second = store.networks.claim(
        one, [NetworkAttachment("web"), NetworkAttachment("bb", aliases=("d", "db", "d"))]
    )
    assert (first.network.name, first.container_id, first.container_name, first.device) == ("web", one, "one", "eth0")
    assert first.ip4.startswith("172.18.") and (first.prefix4, first.gateway4) == (16, "172.18.0.1")
    assert (first.ip6, first.prefix6, first.gateway6, first.mtu, first.internal) == ("", 0, "", 1400, True)
    assert second.ip4.startswith("10.1.0.") and (second.prefix4, second.gateway4) == (24, "10.1.0.254")
    assert second.ip6.startswith("fd00:1::") and (second.prefix6, second.gateway6) == (64, "fd00:1::1")
    assert (second.device, second.aliases, second.wanted) == ("eth1", ("d", "db"), ())
    assert first.mac != second.mac and int(first.mac[:2], 16) & 3 == 2
    assert first.host_device != second.host_device
    assert all(len(e.host_device) == 15 and e.host_device.startswith(f"pv{one[:8]}") for e in (first, second))
    assert store.networks.endpoints_of(one) == (first, second)
    assert store.networks.endpoints_on("b" * 64) == (second,)
    with pytest.raises(NetworkError, match=rf'network db has active endpoints \(name:"one" id:"{one[:12]}"\)'):
        store.networks.remove("db")
    # A restart gets other names for its links, as those of the last run may still be there.
    again = claim(store, one)
    assert again.host_device != first.host_device
    assert store.networks.endpoints_of(one) == (again,)
    more = store.networks.claim_more(one, NetworkAttachment("db"))
    assert more.device == "eth1"
    # The order is that in which they came, whoever has gone.
    store.networks.release(one, "a" * 64)
    last = store.networks.claim_more(one, NetworkAttachment("web"))
    assert last.device == "eth2" and store.networks.endpoints_of(one) == (more, last)
    store.networks.release(one)
    assert store.networks.endpoints_of(one) == ()
    store.networks.release(one)
    store.networks.remove("db")


def test_many_networks_keep_their_order(store: Store) -> None:
    one = container(store)
    for index in range(MAX_ENDPOINTS + 1):
        store.networks.create(
            network(f"n{index}", id=f"{index:064x}", subnet4=f"10.0.{index}.0/24", gateway4=f"10.0.{index}.1")
        )
    wishes = [NetworkAttachment(f"n{index}") for index in range(MAX_ENDPOINTS)]
    store.networks.claim(one, wishes)
    assert [e.device for e in store.networks.endpoints_of(one)] == [f"eth{index}" for index in range(MAX_ENDPOINTS)]
    with pytest.raises(UsageError, match="more than 64 networks"):
        store.networks.claim_more(one, NetworkAttachment(f"n{MAX_ENDPOINTS}"))


def test_what_a_user_asks_for(store: Store) -> None:
    store.networks.create(network(subnet6="fd00:1::/64", gateway6="fd00:1::1", range4="172.18.5.0/24"))
    one, two = container(store, "one"), container(store, "two")
    got = claim(store, one, ip="172.18.9.9", ip6="FD00:1:0:0::9", mac="02-42-AC-11-00-02")
    assert (got.ip4, got.ip6, got.mac) == ("172.18.9.9", "fd00:1::9", "02:42:ac:11:00:02")
    assert got.wanted == ("ip", "ip6", "mac")
    assert store.networks.endpoints_of(one) == (got,)
    for words, said in (
        ({"ip": "172.18.9.9"}, "Address already in use: container one has 172.18.9.9 on network web"),
        ({"ip6": "fd00:1::9"}, "Address already in use: container one has fd00:1::9 on network web"),
        ({"ip": "172.18.0.1"}, "Address already in use: 172.18.0.1 is the gateway"),
        ({"ip": "172.18.0.0"}, "Address already in use: 172.18.0.0 is the network or broadcast address"),
        ({"ip": "172.18.255.255"}, "Address already in use: 172.18.255.255 is the network or broadcast address"),
        ({"ip6": "fd00:1::"}, "Address already in use"),
        ({"mac": "02:42:ac:11:00:02"}, "MAC address already in use: container one"),
    ):
        with pytest.raises(NetworkError, match=said):
            claim(store, two, **words)
    for words, said in (
        (
            {"ip": "10.0.0.1"},
            r"invalid address 10.0.0.1: It does not belong to any of this network's subnets: web has 172",
        ),
        ({"ip": "fd00:1::5"}, "invalid IPv4 address: fd00:1::5"),
        ({"ip6": "172.18.0.9"}, "invalid IPv6 address: 172.18.0.9"),
        ({"ip": "172.18.0.9/16"}, "not an IP address"),
        ({"mac": "01:00:5e:00:00:01"}, "invalid MAC address"),
        ({"aliases": ("a b",)}, "invalid network alias 'a b'"),
        ({"aliases": ("",)}, "invalid network alias"),
        ({"aliases": ("x" * 254,)}, "invalid network alias"),
        ({"aliases": ("a\n1.2.3.4 b",)}, "invalid network alias"),
        ({"aliases": tuple(f"a{i}" for i in range(65))}, "more than 64"),
    ):
        with pytest.raises(UsageError, match=said):
            claim(store, two, **words)
    assert store.networks.endpoints_of(two) == ()  # a claim is whole or nothing
    store.networks.release(one)
    assert claim(store, two, ip="172.18.9.9").ip4 == "172.18.9.9"  # who asks for it does not wait


def test_claims_that_cannot_be(store: Store) -> None:
    store.networks.create(network())
    one = container(store, "one")
    with pytest.raises(NetworkNotFound, match="network other not found"):
        claim(store, one, "other")
    with pytest.raises(ContainerNotFound):
        claim(store, "f" * 64)
    for name in ("host", "none"):
        with pytest.raises(UsageError, match="cannot be joined together with others"):
            claim(store, one, name)
    with pytest.raises(NetworkError, match="endpoint with name one already exists in network web"):
        store.networks.claim(one, [NetworkAttachment("web"), NetworkAttachment("aaaa")])
    assert store.networks.endpoints_of(one) == ()
    with pytest.raises(UsageError, match="no IPv6 subnet"):
        claim(store, one, ip6="fd00::1")


def test_the_default_bridge_gets_its_subnet_when_it_is_used(store: Store) -> None:
    one = container(store)
    with pytest.raises(NoSubnet) as caught:
        claim(store, one, "bridge")
    bridge = caught.value.network
    store.networks.create(network())
    with pytest.raises(NetworkError, match="overlaps"):
        store.networks.assign(bridge.id, "172.18.0.0/24", "172.18.0.1")
    store.networks.assign(bridge.id, "172.20.0.0/30", "172.20.0.1")
    store.networks.assign(bridge.id, "172.21.0.0/16", "172.21.0.1")  # somebody was quicker
    assert claim(store, one, "bridge").ip4 == "172.20.0.2"
    with pytest.raises(UsageError, match="supported on user defined networks only"):
        claim(store, one, "bridge", ip="172.20.0.2")
    with pytest.raises(UsageError, match="network-scoped alias"):
        claim(store, one, "bridge", aliases=("x",))
    assert not store.networks.unassign(bridge.id)
    store.networks.release(one)
    assert store.networks.unassign(bridge.id)
    assert store.networks.get("bridge").subnet4 == ""


def rested(store: Store, address: str, age: float) -> None:
    changed = "UPDATE released_addresses SET at = ? WHERE address = ?"
    assert store.database.execute(changed, (time.time() - age, address)) == 1


def test_addresses_rest(store: Store) -> None:
    """Of five addresses some are held and some were given back, at different times."""
    store.networks.create(network(subnet4="10.0.0.0/29", gateway4="10.0.0.1"))
    holders = [container(store) for _ in range(6)]
    addresses = [claim(store, holder).ip4 for holder in holders[:5]]
    assert sorted(addresses) == [f"10.0.0.{index}" for index in range(2, 7)]
    with pytest.raises(
        NetworkError, match=r"no available IPv4 addresses on this network's address pools: web \(a{64}\)"
    ):
        claim(store, holders[5])
    store.networks.release(holders[0])
    store.containers.remove(holders[1])  # its row takes the endpoint with it
    rested(store, addresses[0], 30)
    assert claim(store, holders[5]).ip4 == addresses[0]  # nothing else is free: the longest resting
    store.networks.release(holders[2])
    rested(store, addresses[1], 30)
    rested(store, addresses[2], 40)
    assert claim(store, holders[0]).ip4 == addresses[2]
    store.networks.release(holders[3])
    rested(store, addresses[3], 61)
    # One that has rested long enough goes before one that has not, and the record of it goes.
    assert claim(store, holders[2]).ip4 == addresses[3]
    assert addresses[3] not in {row[0] for row in store.database.rows("SELECT address FROM released_addresses")}


def test_a_resting_address_is_left_alone_where_others_are_free(store: Store) -> None:
    store.networks.create(network(subnet4="10.0.0.0/28", gateway4="10.0.0.1", range4="10.0.0.8/30"))
    one = container(store)
    seen = {claim(store, one).ip4}
    for _ in range(3):
        address = claim(store, one).ip4
        assert address not in seen
        seen.add(address)
    assert seen == {"10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.11"}


def test_auxiliary_addresses_are_nobody_s(store: Store) -> None:
    auxiliary = (("router", "10.0.0.3"), ("nas", "10.0.0.5"), ("router6", "fd00:1::2"))
    pools = {"subnet4": "10.0.0.0/29", "gateway4": "10.0.0.1", "subnet6": "fd00:1::/126", "gateway6": "fd00:1::1"}
    store.networks.create(network(**pools, auxiliary=auxiliary))
    holders = [container(store) for _ in range(4)]
    for address, words in (("10.0.0.3", "reserved as router"), ("10.0.0.5", "as nas"), ("10.0.0.1", "the gateway")):
        with pytest.raises(NetworkError, match=f"Address already in use: {address} is .*{words} of network web"):
            claim(store, holders[0], ip=address)
    with pytest.raises(NetworkError, match="fd00:1::2 is reserved as router6"):
        claim(store, holders[0], ip6="fd00:1::2")
    endpoint = claim(store, holders[0])
    assert endpoint.ip6 == "fd00:1::3"  # the only one that is left
    assert endpoint.ip4 in ("10.0.0.2", "10.0.0.4", "10.0.0.6")
    with pytest.raises(AddressesExhausted):
        claim(store, holders[1])
    store.networks.create(network("four", id="b" * 64, subnet4="10.0.1.0/29", gateway4="10.0.1.1",
                                  auxiliary=(("a", "10.0.1.3"), ("b", "10.0.1.5"))))  # fmt: skip
    assert {claim(store, holder, "four").ip4 for holder in holders[1:4]} == {"10.0.1.2", "10.0.1.4", "10.0.1.6"}
    with pytest.raises(AddressesExhausted):
        claim(store, container(store), "four")


def test_a_cluster_s_network_has_the_blocks_of_this_host(store: Store) -> None:
    store.networks.create(network(driver="overlay"))
    holders = [container(store) for _ in range(4)]
    with pytest.raises(AddressesExhausted) as caught:
        claim(store, holders[0])
    assert caught.value.network.name == "web"
    blocks = "INSERT INTO overlay_blocks (network_id, block) VALUES (?, ?)"
    store.database.execute(blocks, ("a" * 64, "172.18.0.0/31"))  # the subnet's own address and the gateway
    with pytest.raises(AddressesExhausted):
        claim(store, holders[0])
    for block in ("172.18.7.4/31", "172.18.9.8/32"):
        store.database.execute(blocks, ("a" * 64, block))
    got = {claim(store, holder).ip4 for holder in holders[:3]}
    assert got == {"172.18.7.4", "172.18.7.5", "172.18.9.8"}
    with pytest.raises(AddressesExhausted):
        claim(store, holders[3])
    store.networks.release(holders[0])
    assert claim(store, holders[3]).ip4 in got
    assert claim(store, holders[0], ip="172.18.200.1").ip4 == "172.18.200.1"


def test_a_clock_that_went_back(store: Store) -> None:
    store.networks.create(network(subnet4="10.0.0.0/30", gateway4="10.0.0.1"))
    one = container(store)
    claim(store, one)
    store.networks.release(one)
    store.database.execute("UPDATE released_addresses SET at = at + 86400")
    assert claim(store, one).ip4 == "10.0.0.2"


def test_removal_forgets_what_rests(store: Store) -> None:
    store.networks.create(network())
    one = container(store)
    claim(store, one)
    store.networks.release(one)
    assert store.database.rows("SELECT count(*) FROM released_addresses") == [(1,)]
    store.networks.remove("web")
    assert store.database.rows("SELECT count(*) FROM released_addresses") == [(0,)]


def test_ports(store: Store) -> None:
    one, two = container(store), container(store)
    ports = (Published(one, "tcp", "", 8080, 80), Published(one, "udp", "127.0.0.1", 8053, 53))
    store.networks.set_ports(one, ports)
    store.networks.set_ports(two, [Published(two, "tcp", "", 8081, 80)])
    assert set(store.networks.ports_of(one)) == set(ports)
    assert len(store.networks.ports()) == 3
    store.networks.set_ports(one, ports[:1])
    assert store.networks.ports_of(one) == ports[:1]
    store.containers.remove(one)
    store.networks.release(two)
    assert store.networks.ports() == ()


def test_what_dead_runs_left_is_found(store: Store) -> None:
    store.networks.create(network())
    one, two, three = (container(store) for _ in range(3))
    claim(store, one)
    claim(store, two)
    store.networks.set_ports(three, [Published(three, "tcp", "", 8080, 80)])
    for container_id, state in ((one, "exited"), (two, "running"), (three, "exited")):
        store.database.execute("UPDATE containers SET state = ? WHERE id = ?", (state, container_id))
    assert store.networks.abandoned() == tuple(sorted((one, three)))
    for container_id in store.networks.abandoned():
        store.networks.release(container_id)
    assert store.networks.abandoned() == ()
    assert [e.container_id for e in store.networks.endpoints_on("a" * 64)] == [two]


def test_threads_never_get_the_same(store: Store) -> None:
    """Eight threads want all of an address space that is just large enough, and give it back twice."""
    store.networks.create(network(subnet4="10.0.0.0/26", gateway4="10.0.0.1"))  # 61 addresses
    failures, seen = [], []
    lock = threading.Lock()

    def work() -> None:
        try:
            for _ in range(2):
                mine = [container(store) for _ in range(7)]
                got = [claim(store, each).ip4 for each in mine]
                with lock:
                    seen.append(set(got))
                assert len(set(got)) == 7
                assert [store.networks.endpoints_of(each)[0].ip4 for each in mine] == got
                for each in mine:
                    store.networks.release(each)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(seen) == 16
    assert store.networks.endpoints_on("a" * 64) == ()


PROCESS = """
import sys
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
with Store(sys.argv[1]) as store:
    for _ in range(25):
        made = store.containers.allocate(name=None, image_id="x", options_json=b"{}", directory=False).id
        got = store.networks.claim(made, [NetworkAttachment("web"), NetworkAttachment("db")])
        print(*(word for e in got for word in (e.ip4, e.ip6, e.mac, e.host_device)), flush=True)
    sys.stdin.read()
"""


def test_processes_never_get_the_same(store: Store) -> None:
    """Four processes fill two networks, one is killed meanwhile; all that was given is in the database, once."""
    store.networks.create(network(subnet4="10.0.0.0/25", gateway4="10.0.0.1"))  # 125 addresses for 100
    store.networks.create(
        network(
            "db", id="b" * 64, subnet4="10.0.1.0/25", gateway4="10.0.1.1", subnet6="fd00:1::/121", gateway6="fd00:1::1"
        )
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        lines = [process.stdout.readline().split() for process in processes[:3] for _ in range(25)]
        lines += [processes[3].stdout.readline().split() for _ in range(5)]
        processes[3].kill()
        for process in processes:
            process.stdin.close()
        lines += [line.split() for line in processes[3].stdout]
        assert [process.wait() for process in processes] == [0, 0, 0, -9]
    words = [word for line in lines for word in line if word]
    assert len(words) == len(set(words))
    held = store.networks.endpoints_on("a" * 64) + store.networks.endpoints_on("b" * 64)
    assert {e.ip4 for e in held} >= {line[0] for line in lines}
    assert len({e.ip4 for e in held}) == len(held)
    assert len({e.host_device for e in held}) == len(held)
    assert store.database.rows("PRAGMA foreign_key_check") == []
