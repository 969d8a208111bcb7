"""The copy of what etcd says stays true, whatever happens to etcd and to the connection."""

import signal
import threading

import pytest
from etcd_server import EtcdServer, eventually

from pyrtc.network.overlay.documents import CLUSTER, PREFIX, HostDocument, dump, host_key, live_key
from pyrtc.network.overlay.etcd import Delete, Etcd, Put
from pyrtc.network.overlay.gateway import Gateway
from pyrtc.network.overlay.mirror import Mirror

OWN = "a" * 32


@pytest.fixture
def server(tmp_path):
    server = EtcdServer(tmp_path)
    yield server
    server.stop()


class Watched:
    """A mirror, and the last view that it gave."""

    def __init__(self, server):
        self.calls = threading.Event()
        self.etcd = Etcd(Gateway([server.url], timeout=1))
        self.mirror = Mirror(self.etcd, OWN, self.calls.set)
        self._seen, self._view = 0, None

    @property
    def view(self):
        news = self.mirror.view(self._seen)
        if news is not None:
            self._seen, self._view = news
        return self._view

    def knows(self, host_id):
        return eventually(lambda: self.view is not None and host_id in self.view.hosts)

    def forgets(self, host_id):
        return eventually(lambda: self.view is not None and host_id not in self.view.hosts)


@pytest.fixture
def watched(server):
    client = server.client()
    client.transact([], [Put(CLUSTER, b"e" * 32), put(OWN, 1)])
    watched = Watched(server)
    yield watched
    watched.mirror.close()
    watched.etcd.close()
    client.close()


def put(host_id, number):
    return Put(host_key(host_id), dump(HostDocument(f"h{number}", f"192.0.2.{number}", 1500)))


def test_it_follows_and_keeps_the_host_alive(server, watched):
    client = server.client()
    assert watched.knows(OWN)
    client.transact([], [put("b" * 32, 2)])
    assert watched.knows("b" * 32)
    assert watched.calls.is_set()
    client.transact([], [Delete(host_key("b" * 32))])
    assert watched.forgets("b" * 32)
    assert eventually(lambda: OWN in watched.view.live)
    # A lease that is lost, as after a long cut, is made anew.
    client.transact([], [Delete(live_key(OWN))])
    assert eventually(lambda: client.get(live_key(OWN)) is not None)
    watched.mirror.close()
    assert client.get(live_key(OWN)) is None
    client.close()


def test_what_happens_while_etcd_says_nothing_is_heard_afterwards(server, watched):
    assert watched.knows(OWN)
    server.process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: "does not answer in time" in watched.mirror.problem)
    assert OWN in watched.view.hosts
    server.process.send_signal(signal.SIGCONT)
    client = server.client()
    client.transact([], [put("b" * 32, 2)])
    assert watched.knows("b" * 32)
    assert eventually(lambda: not watched.mirror.problem)
    client.close()


def test_an_etcd_that_was_killed_is_followed_again(server, watched):
    assert watched.knows(OWN)
    server.stop()
    assert eventually(lambda: bool(watched.mirror.problem))
    server.start()
    client = server.client()
    client.transact([], [put("b" * 32, 2)])
    latest = client.transact([], [put("c" * 32, 3)]).revision
    client.gateway.call("/v3/kv/compaction", f'{{"revision": "{latest}"}}'.encode())
    assert watched.knows("b" * 32) and watched.knows("c" * 32)
    assert watched.mirror.failure is None
    client.close()


def test_a_host_that_was_removed_gets_no_lease(server, watched):
    client = server.client()
    assert eventually(lambda: client.get(live_key(OWN)) is not None)
    client.transact([], [Delete(host_key(OWN)), Delete(live_key(OWN))])
    assert watched.forgets(OWN)
    assert eventually(lambda: watched.mirror._lease == 0)
    assert client.get(live_key(OWN)) is None
    assert [item.key for item in client.list(PREFIX).items] == [CLUSTER]
    client.close()
