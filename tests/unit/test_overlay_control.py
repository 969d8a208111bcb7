"""Networks, blocks and addresses of a cluster, with a real etcd; its hosts are stores. No devices are made."""

import os
import subprocess
import sys
import tempfile
import threading

import pytest
from etcd_server import EtcdServer, eventually, refusing

from pyrtc.errors import ClusterError, ClusterUnreachable, NetworkError, NetworkNotFound, UnsupportedError, UsageError
from pyrtc.network import claims
from pyrtc.network.overlay import addresses, bell, known, membership, networks, watcher
from pyrtc.network.overlay.cluster import Cluster, _enter, _remove
from pyrtc.network.overlay.documents import PREFIX, block_key, dump, endpoint_key
from pyrtc.network.overlay.etcd import Delete, Put
from pyrtc.network.overlay.membership import Membership
from pyrtc.network.overlay.publishing import publish
from pyrtc.network.overlay.view import view_of
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.store.networks import Network
from pyrtc.values import replace


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """A busy disk may keep etcd waiting longer than a user is to wait; users have a runtime directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    connect = membership.connect
    monkeypatch.setattr(membership, "connect", lambda value, *, timeout=0.0: connect(value, timeout=30))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    yield server
    server.stop()


@pytest.fixture
def etcd(server):
    client = server.client()
    client.transact([], [Delete(PREFIX, prefix=True)])
    yield client
    client.close()


@pytest.fixture
def hosts(etcd, server, tmp_path):
    """Three hosts of one cluster."""
    stores = [Store(tmp_path / f"s{number}") for number in (1, 2, 3)]
    for number, store in enumerate(stores, start=1):
        enter(store, etcd, server.url, number)
    yield stores
    for store in stores:
        store.close()


def enter(store, etcd, url, number, *, vtep="", mtu=1500):
    address = vtep or f"192.0.2.{number}"
    value = Membership(os.urandom(16).hex(), f"h{number}", "", (url,), "", "", "", address, mtu, "joining")
    membership.save(store, _enter(etcd, value))


def wanted(name="web", **fields):
    return Network("", name, "overlay", 0.0, **fields)


def container(store, name, **words):
    record = store.containers.allocate(name=name, image_id="x", options_json=b"{}", directory=False)
    return claims.claim(store, record.id, [NetworkAttachment("web", **words)])[0]


def unsay(endpoint, etcd):
    """Let etcd not have heard of a container."""
    assert etcd.transact([], [Delete(endpoint_key(endpoint.network.id, endpoint.ip4))]).done


def tell(store, etcd):
    """Do what a host's watcher does once."""
    own = membership.member(store).id
    view = view_of(etcd.list(PREFIX).items)
    result = publish(store, etcd, own, view)
    known.note(store, own, view_of(etcd.list(PREFIX).items))
    return result


def test_a_network_is_known_to_all(hosts):
    made = networks.create(hosts[0], wanted(labels=(("a", "bb"),)))
    assert made == hosts[0].networks.get("web")
    assert made.driver == "overlay" and made.mtu == 1450 and made.subnet4.endswith("/16") and len(made.id) == 64
    assert networks.adopt(hosts[1], "web").id == made.id
    theirs = hosts[1].networks.get("web")
    assert (theirs.subnet4, theirs.gateway4, theirs.labels, theirs.device) == (
        made.subnet4, made.gateway4, made.labels, made.device,
    )  # fmt: skip
    assert dict(theirs.options) == {"vni": made.option("vni"), "vtep": "192.0.2.2"}
    assert networks.adopt_all(hosts[2]) == ()
    assert hosts[2].networks.get("web").id == made.id
    with pytest.raises(NetworkNotFound):
        networks.adopt(hosts[1], "other")
    with pytest.raises(NetworkError, match="already exists"):
        networks.create(hosts[1], wanted())


def test_a_network_is_taken_over_when_a_container_names_it(hosts):
    networks.create(hosts[0], wanted())
    endpoint = container(hosts[1], "c1")
    assert endpoint.network.name == "web" and endpoint.mtu == 1450
    record = hosts[1].containers.allocate(name="xx", image_id="x", options_json=b"{}", directory=False)
    with pytest.raises(NetworkNotFound):
        claims.claim(hosts[1], record.id, [NetworkAttachment("nobody")])


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"subnet4": "10.70.0.0/26"}, UsageError, "blocks"),
        ({"subnet4": "10.0.0.0/7"}, UsageError, "blocks"),
        ({"subnet4": "127.0.0.0/16"}, UsageError, "subnet"),
        ({"subnet4": "10.70.0.0/16", "gateway4": "10.71.0.1"}, UsageError, "gateway"),
        ({"subnet6": "fd00::/64"}, UnsupportedError, "IPv4"),
        ({"subnet4": "10.70.0.0/16", "range4": "10.70.1.0/27"}, UsageError, "blocks"),
        ({"subnet4": "10.70.0.0/16", "auxiliary": (("a", "10.71.0.5"),)}, UsageError, "auxiliary"),
        ({"options": (("encrypt", "wireguard"),)}, UsageError, "unknown option"),
        ({"options": (("encrypted", "false"),)}, UsageError, "leave it out"),
        ({"options": (("mtu", "1451"),)}, UsageError, "1450 is the most"),
        ({"options": (("mtu", "x"),)}, UsageError, "MTU"),
        ({"options": (("other", "x"),)}, UsageError, "unknown option"),
    ],
)
def test_networks_that_are_refused(hosts, fields, kind, words):
    with pytest.raises(kind, match=words):
        networks.create(hosts[0], wanted(**fields))
    assert all(network.driver != "overlay" for network in hosts[0].networks.list())


def test_networks_do_not_overlap(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/16", options=(("mtu", "1400"),)))
    assert hosts[0].networks.get("web").mtu == 1400
    with pytest.raises(NetworkError, match="overlaps"):
        networks.create(hosts[1], wanted("other", subnet4="10.70.128.0/20"))


def test_networks_made_at_once_share_nothing(hosts):
    failures = []

    def make(store, number):
        try:
            for step in range(3):
                networks.create(store, wanted(f"n{number}-{step}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(store, number), daemon=True) for number, store in enumerate(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert networks.adopt_all(hosts[0]) == ()
    found = [network for network in hosts[0].networks.list() if network.driver == "overlay"]
    assert len(found) == 9
    assert len({network.subnet4 for network in found}) == len({network.option("vni") for network in found}) == 9


def test_a_small_mtu_of_one_host_is_that_of_the_network(hosts, etcd, server, tmp_path):
    with Store(tmp_path / "s4") as store:
        enter(store, etcd, server.url, 4, mtu=1400)
        assert networks.create(hosts[0], wanted()).mtu == 1350


def test_hosts_reach_each_other_over_one_version_of_ip(hosts, etcd, server, tmp_path):
    with Store(tmp_path / "s4") as store, pytest.raises(ClusterError, match=r"2001:db8::4 and 192\.0\.2\.[123]"):
        enter(store, etcd, server.url, 4, vtep="2001:db8::4")
    etcd.transact([], [Delete(PREFIX, prefix=True)])
    with Store(tmp_path / "s5") as store:
        enter(store, etcd, server.url, 5, vtep="2001:db8::5")
        assert networks.create(store, wanted()).mtu == 1430


def test_addresses_come_from_a_block_of_the_host(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/24"))
    endpoints = [container(store, "cc") for store in hosts]
    blocks = [known.blocks_of(store, endpoints[0].network.id) for store in hosts]
    assert all(len(found) == 1 for found in blocks) and len(set(blocks)) == 3
    assert len({endpoint.ip4 for endpoint in endpoints}) == 3
    assert all(endpoint.ip4 != "10.70.0.1" for endpoint in endpoints)


def test_another_block_when_one_is_full_until_there_are_none(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/25"))
    assert container(hosts[0], "aa")
    first = known.blocks_of(hosts[0], hosts[0].networks.get("web").id)
    seen = {container(hosts[0], f"c{number}").ip4 for number in range(100)}
    assert len(seen) == 100
    assert len(known.blocks_of(hosts[0], hosts[0].networks.get("web").id)) == 2 and first
    with pytest.raises(NetworkError, match=r"all 2 blocks of 10\.70\.0\.0/25 belong to hosts"):
        container(hosts[1], "bb")


def test_blocks_come_from_the_range(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/16", range4="10.70.8.0/25"))
    assert networks.adopt(hosts[1], "web").range4 == "10.70.8.0/25"
    assert container(hosts[2], "chosen", ip="10.70.200.1").ip4 == "10.70.200.1"  # whoever chooses may, as in Docker
    assert container(hosts[0], "aa").ip4.startswith("10.70.8.")
    assert container(hosts[1], "bb").ip4.startswith("10.70.8.")
    with pytest.raises(NetworkError, match=r"all 2 blocks of 10\.70\.8\.0/25 belong to hosts; .* larger --ip-range"):
        container(hosts[2], "cc")


def test_auxiliary_addresses_are_nobody_s_on_any_host(hosts):
    """A subnet of two blocks, of which one has three addresses left for a container."""
    kept = {f"n{number}": f"10.70.0.{number}" for number in range(2, 61)}
    kept |= {f"m{number}": f"10.70.0.{number}" for number in range(64, 124)}
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/25", auxiliary=tuple(kept.items())))
    networks.adopt(hosts[1], "web")
    with pytest.raises(NetworkError, match="reserved as n5"):
        container(hosts[1], "db", ip="10.70.0.5")
    free = {f"10.70.0.{number}" for number in range(1, 127)} - set(kept.values()) - {"10.70.0.1"}
    assert len(free) == 6
    found = {container(store, f"c{number}").ip4 for number in range(3) for store in hosts[:2]}
    assert found == free
    with pytest.raises(NetworkError, match="all 2 blocks"):
        container(hosts[0], "late")


CLAIMER = """
import sys
from pyrtc.network import claims
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.network.overlay import membership
connect = membership.connect
membership.connect = lambda value, *, timeout=0.0: connect(value, timeout=30)
with Store(sys.argv[1]) as store:
    for number in range(25):
        record = store.containers.allocate(name=f"{sys.argv[2]}-{number}", image_id="x", options_json=b"{}",
                                           directory=False)
        print(claims.claim(store, record.id, [NetworkAttachment("web")])[0].ip4, flush=True)
"""


def test_processes_of_many_hosts_never_get_the_same_address(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/22"))
    children = [
        subprocess.Popen([sys.executable, "-c", CLAIMER, store.path, f"p{number}"], stdout=subprocess.PIPE, text=True)
        for store in hosts
        for number in range(2)
    ]
    try:
        found = [line for child in children for line in child.communicate(timeout=100)[0].split()]
    finally:
        for child in children:
            child.kill()
    assert all(child.returncode == 0 for child in children)
    assert len(found) == len(set(found)) == 150


def test_without_etcd_a_host_that_has_a_block_gives_addresses(hosts):
    networks.create(hosts[0], wanted())
    container(hosts[0], "aa")
    networks.adopt(hosts[1], "web")
    with refusing() as nobody:
        for store in hosts[:2]:
            membership.save(store, replace(membership.member(store), etcd=tuple(nobody)))
        assert container(hosts[0], "bb").ip4
        with pytest.raises(ClusterUnreachable):
            container(hosts[1], "cc")
        with pytest.raises(ClusterUnreachable):
            networks.create(hosts[0], wanted("other"))
        with pytest.raises(ClusterUnreachable):
            networks.remove(hosts[1], hosts[1].networks.get("web"))
        assert hosts[1].networks.get("web")  # put back
        assert not Cluster(hosts[0]).inspect().reachable
        # What it heard when its first container came; the other one has never heard of any.
        assert [[host.name for host in Cluster(store).list()] for store in hosts[:2]] == [["h1", "h2", "h3"], []]


def test_a_chosen_address_moves_between_hosts(hosts, etcd):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/16"))
    first = container(hosts[0], "db", ip="10.70.9.9")
    assert first.ip4 == "10.70.9.9"
    assert known.blocks_of(hosts[0], first.network.id) == ()
    with pytest.raises(NetworkError, match="Address already in use: a container of another host has"):
        container(hosts[1], "db2", ip="10.70.9.9")
    assert hosts[1].networks.endpoints_on(first.network.id) == ()  # given back
    assert container(hosts[1], "db3", ip="10.70.9.10").ip4 == "10.70.9.10"  # of the same block
    hosts[0].networks.release(first.container_id)
    tell(hosts[0], etcd)
    assert container(hosts[1], "db4", ip="10.70.9.9").ip4 == "10.70.9.9"


def test_a_chosen_address_of_the_run_before_is_still_ours(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/16"))
    first = container(hosts[0], "db", ip="10.70.9.9")
    hosts[0].networks.release(first.container_id)  # and nobody told etcd
    assert container(hosts[0], "db2", ip="10.70.9.9").ip4 == "10.70.9.9"


def test_an_address_of_another_hosts_block_is_not_given(hosts):
    networks.create(hosts[0], wanted(subnet4="10.70.0.0/16"))
    theirs = container(hosts[0], "aa").ip4
    block = known.blocks_of(hosts[0], hosts[0].networks.get("web").id)[0]
    with pytest.raises(NetworkError, match=f"{theirs} is in {block}"):
        container(hosts[1], "bb", ip=theirs)


def test_containers_are_told_and_forgotten(hosts, etcd):
    networks.create(hosts[0], wanted())
    endpoint = container(hosts[0], "db", aliases=("main",))
    assert tell(hosts[0], etcd) == (0, ())  # nobody watches, so it was told by who started it
    unsay(endpoint, etcd)
    assert tell(hosts[0], etcd) == (1, ())
    assert tell(hosts[0], etcd) == (0, ())
    networks.adopt(hosts[1], "web")
    tell(hosts[1], etcd)
    (remote,) = known.remotes(hosts[1], endpoint.network.id)
    assert (remote.ip4, remote.mac, remote.host) == (endpoint.ip4, endpoint.mac, membership.member(hosts[0]).id)
    assert remote.names == ("db", endpoint.container_id[:12], "main")
    assert known.remotes(hosts[0], endpoint.network.id) == ()  # the own ones are in the store
    hosts[0].networks.release(endpoint.container_id)
    assert tell(hosts[0], etcd) == (1, ())
    tell(hosts[1], etcd)
    assert known.remotes(hosts[1], endpoint.network.id) == ()


def test_names_of_a_host_that_is_away_for_long_are_not_answered(hosts, etcd):
    networks.create(hosts[0], wanted())
    endpoint = container(hosts[0], "db")
    tell(hosts[0], etcd)
    networks.adopt(hosts[1], "web")
    tell(hosts[1], etcd)
    assert known.named(hosts[1], endpoint.network.id)  # away for a moment
    hosts[1].database.execute("UPDATE overlay_hosts SET since = since - 61")
    assert known.named(hosts[1], endpoint.network.id) == ()
    assert known.remotes(hosts[1], endpoint.network.id)  # and reached all the same
    tell(hosts[1], etcd)
    assert known.named(hosts[1], endpoint.network.id) == ()  # the time is that of the change


def test_a_network_with_containers_is_not_removed(hosts, etcd):
    made = networks.create(hosts[0], wanted())
    endpoint = container(hosts[1], "db")
    tell(hosts[1], etcd)
    with pytest.raises(NetworkError, match=f'name:"db" address:{endpoint.ip4}'):
        networks.remove(hosts[0], made)
    assert hosts[0].networks.get("web") == made
    with pytest.raises(NetworkError, match="active endpoints"):
        networks.remove(hosts[1], hosts[1].networks.get("web"))
    hosts[1].networks.release(endpoint.container_id)
    tell(hosts[1], etcd)
    networks.remove(hosts[0], made)
    assert [item.key for item in etcd.list(f"{PREFIX}n").items if "netseq" not in item.key] == []
    assert etcd.list(f"{PREFIX}vni/").items == ()
    assert networks.adopt_all(hosts[1]) == ()
    with pytest.raises(NetworkNotFound):
        hosts[1].networks.get("web")


def test_a_network_that_another_host_removed_is_said_to_be_gone(hosts, etcd):
    made = networks.create(hosts[0], wanted())
    unsay(container(hosts[1], "db"), etcd)
    networks.remove(hosts[0], made)
    assert tell(hosts[1], etcd) == (0, ("network web is no network of the cluster any more",))
    assert "containers here are on it" in networks.adopt_all(hosts[1])[0]
    with pytest.raises(ClusterError, match="no network of the cluster any more"):
        addresses.more(hosts[1], hosts[1].networks.get("web"))


def test_a_block_that_was_claimed_by_a_killed_process_is_not_lost(hosts):
    made = networks.create(hosts[0], wanted())
    block = addresses.more(hosts[0], made)
    hosts[0].database.execute("DELETE FROM overlay_blocks")
    assert addresses.more(hosts[0], made) == block
    assert addresses.more(hosts[0], made) != block


def test_blocks_that_a_restored_etcd_does_not_know_are_claimed_anew(hosts, etcd):
    made = networks.create(hosts[0], wanted())
    endpoint = container(hosts[0], "db")
    tell(hosts[0], etcd)
    etcd.transact([], [Delete(f"{PREFIX}n/", prefix=True)])
    tell(hosts[0], etcd)
    tell(hosts[0], etcd)
    view = view_of(etcd.list(PREFIX).items)
    assert view.blocks[made.id] == {known.blocks_of(hosts[0], made.id)[0]: membership.member(hosts[0]).id}
    assert set(view.endpoints[made.id]) == {endpoint.ip4}


def test_a_block_that_another_host_has_is_given_up(hosts, etcd):
    made = networks.create(hosts[0], wanted())
    block = addresses.more(hosts[0], made)
    key = block_key(made.id, block)
    etcd.transact([], [Put(key, membership.member(hosts[1]).id.encode())])
    assert tell(hosts[0], etcd)[1] == (f"{block} of network {made.id[:12]} was this host's and is another's now",)
    assert known.blocks_of(hosts[0], made.id) == ()
    assert tell(hosts[0], etcd) == (0, ())


def test_a_host_that_is_removed_gives_no_addresses(hosts, etcd):
    made = networks.create(hosts[0], wanted())
    gone = container(hosts[1], "db")
    tell(hosts[1], etcd)
    tell(hosts[0], etcd)
    assert [(host.name, host.status, host.own) for host in Cluster(hosts[0]).list()] == [
        ("h1", "idle", True),
        ("h2", "away", False),
        ("h3", "idle", False),
    ]
    with pytest.raises(ClusterError, match="no such host"):
        Cluster(hosts[0]).remove_host("h9")
    with pytest.raises(ClusterError, match="cluster leave"):
        Cluster(hosts[0]).remove_host("h1")
    assert Cluster(hosts[0]).remove_host("h2").id == membership.member(hosts[1]).id
    assert etcd.get(endpoint_key(made.id, gone.ip4)) is None
    assert "removed" in Cluster(hosts[1]).inspect().problems[0]
    with pytest.raises(ClusterError, match="removed this one"):
        networks.create(hosts[1], wanted("other"))
    assert Cluster(hosts[1]).inspect().state == "removed"


@pytest.fixture
def runtime(monkeypatch):
    """A place for watchers, whose name is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="pyrtc-", dir="/tmp") as directory:
        monkeypatch.setattr(bell, "runtime_directory", lambda: directory)
        monkeypatch.setattr(watcher, "_LINGER", 0.1)
        yield directory


def watching(store):
    """Start a watcher in a thread; return it and its directory."""
    directory = bell.directory_of(membership.membership(store).id)
    os.makedirs(directory)
    words = {"args": (store.path, directory), "kwargs": {"succeeded": False}}
    thread = threading.Thread(target=watcher.watch, daemon=True, **words)
    thread.start()
    return thread, directory


def test_a_watcher_of_a_host_that_was_removed_ends(hosts, etcd, runtime):
    """Nobody is to be told of anything: neither an etcd without this host, nor one of another cluster."""
    Cluster(hosts[0]).remove_host("h2")
    removed, _directory = watching(hosts[1])
    removed.join(50)
    assert not removed.is_alive()
    assert membership.membership(hosts[1]).state == "removed"
    etcd.transact([], [Delete(PREFIX, prefix=True)])
    lost, _directory = watching(hosts[2])
    lost.join(50)
    assert not lost.is_alive()


def test_a_watcher_works_where_no_second_one_can_be_started(hosts, monkeypatch, runtime):
    networks.create(hosts[0], wanted())
    endpoint = container(hosts[0], "db")
    asked = []

    def refuse(root, directory):
        asked.append((root, directory))
        raise NetworkError("no room for another process")

    monkeypatch.setattr(watcher, "start", refuse)
    monkeypatch.setattr(watcher, "ask_kernel", lambda _purpose, _act: None)
    thread, directory = watching(hosts[0])
    try:
        assert eventually(lambda: "no room for another process" in bell.problems_of(directory))
        assert set(asked) == {(hosts[0].path, directory)}
    finally:
        hosts[0].networks.release(endpoint.container_id)
        bell.ring(directory)
        thread.join(50)
    assert not thread.is_alive()


def test_one_that_waits_is_there_before_anything_can_fail(hosts, monkeypatch, runtime):
    """It tries again what the first could not: certificates may be written at this moment."""
    networks.create(hosts[0], wanted())
    container(hosts[0], "db")
    membership.save(hosts[0], replace(membership.member(hosts[0]), etcd=("https://127.0.0.1:1",), tls_ca="/nowhere"))
    asked = []
    monkeypatch.setattr(watcher, "start", lambda root, directory: asked.append(directory))
    directory = bell.directory_of(membership.member(hosts[0]).id)
    with pytest.raises(UsageError, match="certificate"):
        watcher.watch(hosts[0].path, directory, succeeded=False)
    assert asked == [directory]


def test_a_host_that_is_alive_is_removed_by_force_only(hosts, etcd):
    own = membership.member(hosts[1]).id
    etcd.transact([], [Put(f"{PREFIX}live/{own}", b"")])
    with pytest.raises(ClusterError, match="is alive"):
        Cluster(hosts[0]).remove_host("h2")
    assert Cluster(hosts[0]).remove_host(own[:6], force=True).name == "h2"


def test_two_hosts_cannot_have_one_address(hosts, etcd, server, tmp_path):
    with Store(tmp_path / "s4") as store, pytest.raises(ClusterError, match=r"has the address 192\.0\.2\.1"):
        enter(store, etcd, server.url, 1)
    value = membership.member(hosts[0])
    assert _enter(etcd, value).cluster == value.cluster  # sent twice


def test_another_cluster_in_etcd_is_not_believed(hosts, etcd):
    networks.create(hosts[0], wanted())
    endpoint = container(hosts[0], "db")
    etcd.transact([], [Delete(PREFIX, prefix=True)])
    etcd.transact([], [Put(f"{PREFIX}cluster", b"f" * 32)])
    info = Cluster(hosts[0]).inspect()
    assert info.problems == ("etcd has another cluster now, ffffffffffff: was its data lost?",)
    assert info.state == "member" and info.networks == ("web",)
    assert "another cluster" in networks.adopt_all(hosts[0])[0]
    assert hosts[0].networks.endpoints_on(endpoint.network.id) == (endpoint,)
    assert container(hosts[0], "db2").ip4  # of the block that it has
    with pytest.raises(ClusterError):
        networks.create(hosts[0], wanted("other"))


def test_what_a_stranger_writes_is_left_out(hosts, etcd):
    made = networks.create(hosts[0], wanted(subnet4="10.70.0.0/16"))
    container(hosts[0], "db")
    tell(hosts[0], etcd)
    document = addresses.document_of(membership.member(hosts[1]).id, container(hosts[1], "spy"))
    etcd.transact([], [Put(endpoint_key(made.id, "10.70.200.200"), dump(document))])
    etcd.transact([], [Put(f"{PREFIX}host/x", b"\xff")])
    tell(hosts[2], etcd)
    assert "10.70.200.200" not in {remote.ip4 for remote in known.remotes(hosts[2], made.id)}
    assert len(Cluster(hosts[2]).inspect().problems) == 2


def test_without_a_cluster_it_is_said_what_to_do(tmp_path):
    with Store(tmp_path / "s") as store:
        for call in (Cluster(store).list, Cluster(store).inspect, lambda: networks.create(store, wanted())):
            with pytest.raises(UnsupportedError, match="pyrtc cluster join --etcd"):
                call()
        with pytest.raises(ClusterError, match="in no cluster"):
            Cluster(store).leave()


def test_a_host_leaves_nothing_in_etcd(hosts, etcd):
    networks.create(hosts[0], wanted())
    endpoint = container(hosts[1], "db")
    tell(hosts[1], etcd)
    value = membership.member(hosts[1])
    with pytest.raises(ClusterError, match="stop them first: db"):
        Cluster(hosts[1]).leave()
    hosts[1].networks.release(endpoint.container_id)
    _remove(etcd, value.id, value.vtep)
    assert not [item for item in etcd.list(PREFIX).items if value.id in item.key or value.id.encode() in item.value]
