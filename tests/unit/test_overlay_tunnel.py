"""What hosts tell one another for encrypted networks, with a real etcd; its hosts are stores. No devices are made."""

import base64
import os
import stat

import pytest
from test_overlay_control import container, enter, etcd, hosts, server, surroundings, tell, wanted

from pyrtc.errors import NetworkError, UnsupportedError, UsageError
from pyrtc.network.overlay import membership, networks, tunnel
from pyrtc.network.overlay.cluster import Cluster
from pyrtc.network.overlay.documents import PREFIX, HostDocument, dump, host_key, tunnel_address
from pyrtc.network.overlay.etcd import Delete, Put
from pyrtc.network.overlay.vxlan import encrypted
from pyrtc.network.overlay.vxlan import wanted as wanted_entries
from pyrtc.store import Store
from pyrtc.values import replace

__all__ = ["etcd", "hosts", "server", "surroundings"]

ENCRYPTED = (("encrypted", ""),)


def new_key():
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that has WireGuard, as far as these modules see; it makes a key for a host that asks for its device."""

    def ensure(store):
        value = membership.member(store)
        if not value.key:
            membership.save(store, replace(value, key=new_key()))

    monkeypatch.setattr(tunnel, "require", lambda: None)
    monkeypatch.setattr(tunnel, "ensure", ensure)


def key_of(store):
    return membership.member(store).key


def test_an_encrypted_network_leaves_room_for_two_envelopes(hosts, etcd, server, kernel, tmp_path):
    made = networks.create(hosts[0], wanted(options=ENCRYPTED))
    assert encrypted(made) and made.mtu == 1500 - 60 - 70
    assert made.option("vtep") == tunnel_address(membership.member(hosts[0]).id)
    theirs = networks.adopt(hosts[1], "web")
    assert encrypted(theirs) and theirs.option("vtep") == tunnel_address(membership.member(hosts[1]).id)
    etcd.transact([], [Delete(PREFIX, prefix=True)])
    with Store(tmp_path / "s5") as store:
        enter(store, etcd, server.url, 5, vtep="2001:db8::5")
        assert networks.create(store, wanted(options=ENCRYPTED)).mtu == 1500 - 80 - 70


def test_an_mtu_that_fits_without_encryption_only_is_refused(hosts, kernel):
    with pytest.raises(UsageError, match="1370 is the most"):
        networks.create(hosts[0], wanted(options=(*ENCRYPTED, ("mtu", "1400"))))


def test_a_host_tells_its_key_with_its_first_container(hosts, etcd, kernel):
    networks.create(hosts[0], wanted(options=ENCRYPTED))
    value = membership.member(hosts[0])
    assert value.key == ""
    endpoint = container(hosts[0], "db")
    networks.adopt(hosts[1], "web")
    tell(hosts[1], etcd)
    (peer,) = tunnel.peers(hosts[1], membership.member(hosts[1]))
    assert peer == tunnel.TunnelPeer(key_of(hosts[0]), "192.0.2.1", tunnel_address(value.id))
    assert tunnel.peers(hosts[0], membership.member(hosts[0])) == ()  # the others have none yet, and it is none itself
    vteps, peers = wanted_entries(hosts[1], hosts[1].networks.get("web"))
    assert vteps == (tunnel_address(value.id),)
    assert [(found.ip4, found.vtep) for found in peers] == [(endpoint.ip4, tunnel_address(value.id))]
    assert tell(hosts[0], etcd) == (0, ())


def test_networks_that_are_not_encrypted_need_no_key(hosts, etcd, kernel):
    networks.create(hosts[0], wanted())
    container(hosts[0], "db")
    assert key_of(hosts[0]) == ""
    tell(hosts[1], etcd)
    networks.adopt(hosts[1], "web")
    vteps, _peers = wanted_entries(hosts[1], hosts[1].networks.get("web"))
    assert set(vteps) == {"192.0.2.1", "192.0.2.3"}


def test_a_key_that_somebody_else_wrote_is_written_over(hosts, etcd, kernel):
    networks.create(hosts[0], wanted(options=ENCRYPTED))
    container(hosts[0], "db")
    value = membership.member(hosts[0])
    etcd.transact([], [Put(host_key(value.id), dump(HostDocument("h1", "192.0.2.1", 1500, "", new_key())))])
    assert tell(hosts[0], etcd)[0] == 1
    tell(hosts[1], etcd)
    assert [peer.key for peer in tunnel.peers(hosts[1], membership.member(hosts[1]))] == [value.key]
    etcd.transact([], [Put(f"{PREFIX}vtep/192.0.2.1", b"f" * 32)])
    etcd.transact([], [Put(host_key(value.id), dump(HostDocument("h1", "192.0.2.1", 1500, "", "")))])
    assert "cannot be told" in tell(hosts[0], etcd)[1][0]


def test_a_container_of_a_host_without_a_key_is_not_sent_anything(hosts, etcd, kernel):
    networks.create(hosts[0], wanted(options=ENCRYPTED))
    container(hosts[0], "db")
    container(hosts[1], "spy")
    spy = membership.member(hosts[1])
    etcd.transact([], [Put(host_key(spy.id), dump(HostDocument("h2", "192.0.2.2", 1500, "", key_of(hosts[0]))))])
    tell(hosts[2], etcd)
    networks.adopt(hosts[2], "web")
    assert tunnel.peers(hosts[2], membership.member(hosts[2])) == ()
    assert wanted_entries(hosts[2], hosts[2].networks.get("web")) == ((), ())
    assert "none of them is sent anything encrypted" in Cluster(hosts[2]).inspect().problems[0]


def test_a_host_that_is_removed_is_no_peer(hosts, etcd, kernel):
    networks.create(hosts[0], wanted(options=ENCRYPTED))
    container(hosts[0], "db")
    container(hosts[1], "web1")
    tell(hosts[0], etcd)
    assert [host.key for host in Cluster(hosts[0]).list() if host.name == "h2"] == [key_of(hosts[1])]
    assert len(tunnel.peers(hosts[0], membership.member(hosts[0]))) == 1
    Cluster(hosts[0]).remove_host("h2")
    assert tunnel.peers(hosts[0], membership.member(hosts[0])) == ()


def test_an_address_is_given_back_where_the_kernel_cannot_encrypt(hosts, monkeypatch):
    monkeypatch.setattr(tunnel, "require", lambda: None)
    networks.create(hosts[0], wanted(options=ENCRYPTED))

    def refuse(_store):
        raise UnsupportedError("no WireGuard")

    monkeypatch.setattr(tunnel, "ensure", refuse)
    with pytest.raises(UnsupportedError, match="no WireGuard"):
        container(hosts[0], "db")
    assert hosts[0].networks.endpoints_on(hosts[0].networks.get("web").id) == ()


def test_this_kernel_is_asked_before_etcd(hosts, etcd):
    """As root it may have WireGuard; an ordinary user may make no device in any case."""
    try:
        made = networks.create(hosts[0], wanted(options=ENCRYPTED))
    except UnsupportedError as error:
        assert "WireGuard" in str(error)
        assert not etcd.list(f"{PREFIX}net/").items
    else:
        assert encrypted(made)


def test_the_private_key_is_one_of_a_membership(hosts):
    store, path = hosts[0], f"{hosts[0].path}/tunnel.key"
    first = tunnel._private_key(store, "a" * 32)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert tunnel._private_key(store, "a" * 32) == first
    second = tunnel._private_key(store, "b" * 32)
    assert second != first
    assert len(base64.b64decode(second)) == 32
    with open(path, "wb") as file:
        file.write(b"\xff" * 1000)
    assert tunnel._private_key(store, "b" * 32) not in (first, second)  # rubbish is no key
    os.unlink(path)
    os.symlink("/dev/zero", path)
    with pytest.raises(NetworkError, match=r"tunnel\.key"):
        tunnel._private_key(store, "b" * 32)
    tunnel.remove(store, membership.member(store))
    assert not os.path.lexists(path)


def test_the_name_of_the_device_is_that_of_the_host():
    assert tunnel.device_name(tunnel_address("0123456789abcdef" + "f" * 16)) == "pyrtcw01234567"
    assert tunnel.device_name(tunnel_address("0" * 8 + "1" * 24)) == "pyrtcw00000000"
