"""The watcher of one host: tells the other hosts of its containers, and the kernel of theirs.

It is no daemon: it is there while a container of this store is on an overlay network. Nothing that runs needs it; what
is missed while there is none, or while etcd is away, is made good when it is back.
"""

import json
import os
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pyrtc.core.network import device_index
from pyrtc.errors import ClusterError, NetworkError, UnsupportedError
from pyrtc.network.kernel import ask_kernel
from pyrtc.network.names import write_names
from pyrtc.network.overlay import known, tunnel
from pyrtc.network.overlay.bell import BELL, FAILURE, STATUS, directory_of, open_bell, start
from pyrtc.network.overlay.membership import Membership, connect, membership, save
from pyrtc.network.overlay.mirror import Mirror
from pyrtc.network.overlay.network_row import VTEP
from pyrtc.network.overlay.networks import adopt_all
from pyrtc.network.overlay.publishing import own_endpoints, publish
from pyrtc.network.overlay.view import View
from pyrtc.network.overlay.vxlan import Peer, device_name, encrypted, program, wanted
from pyrtc.network.overlay.vxlan import ensure as ensure_vxlan
from pyrtc.store import Store
from pyrtc.values import replace

if TYPE_CHECKING:
    import socket

    from pyroute2 import IPRoute

    from pyrtc.store.networks import Network

__all__ = ["watch"]

_TIMEOUT = 1.0  # of etcd: what is cut off is to be noticed soon
_TICK = 5.0  # seconds after which everything is looked at though nobody called
_TOGETHER = 0.02  # seconds in which calls are answered together
_LINGER = 3.0  # seconds for which nobody may be on an overlay network before the watcher ends
_PATIENCE = 60.0  # seconds for which it waits for an etcd that must be told that they are gone


def watch(root: str, directory: str, *, succeeded: bool) -> None:
    """Be the watcher, with the lock of the directory held, until this host needs none.

    succeeded: the one before has ended in order, so nothing is left to tell.
    """
    with Store(root) as store:
        value = membership(store)
        if value is None or value.state == "joining" or directory_of(value.id) != directory:
            return
        if succeeded and not own_endpoints(store):
            return
        _Watcher(store, value, directory).run()


def _program(network: "Network", vteps: tuple[str, ...], peers: tuple[Peer, ...], kernel: "IPRoute") -> int:
    return program(kernel, network, vteps, peers)


class _Watcher:
    def __init__(self, store: Store, value: Membership, directory: str) -> None:
        self._store, self._value, self._directory = store, value, directory
        self._called = threading.Event()
        self._view: View | None = None
        self._seen = 0
        self._told: dict[str, tuple[known.Remote, ...]] = {}  # of each network the others whose names are written
        self._programmed: dict[str, tuple[object, float]] = {}  # of each network what was said to the kernel, and when
        self._tunnel: tuple[object, float] | None = None  # what was said to WireGuard, and when
        self._has_standby = False
        self._problems: tuple[str, ...] = ()
        self._busy = time.monotonic()  # when a container was on an overlay network last
        self._ensure_standby()  # before anything that may fail: it tries again
        self._etcd = connect(value, timeout=_TIMEOUT)

    def run(self) -> None:
        """Work until nobody is on an overlay network any more."""
        bell = self._listen()
        mirror = None
        try:
            self._program()  # by what was known: etcd may be away for long
            mirror = Mirror(self._etcd, self._value.id, self._called.set)
            while self._step(mirror):
                self._called.wait(_TICK if own_endpoints(self._store) else min(_TICK, _LINGER))
                self._called.clear()
                time.sleep(_TOGETHER)
                if self._may_end(mirror):
                    self._stop_listening(bell)
                    # Whoever got on a network since has rung a bell that nobody hears.
                    if not own_endpoints(self._store):
                        return
                    bell = self._listen()
        finally:
            self._stop_listening(bell)
            if mirror is not None:
                mirror.close()
            self._etcd.close()
            for name in (STATUS, FAILURE):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._directory}/{name}")

    def _listen(self) -> "socket.socket":
        bell = open_bell(self._directory)

        def hear() -> None:
            with bell, suppress(OSError):
                while bell.recv(16):
                    self._called.set()

        threading.Thread(target=hear, daemon=True).start()
        return bell

    def _stop_listening(self, bell: "socket.socket") -> None:
        import socket

        with suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{BELL}")
        with suppress(OSError):
            bell.shutdown(socket.SHUT_RDWR)

    def _may_end(self, mirror: Mirror) -> bool:
        now = time.monotonic()
        if own_endpoints(self._store):
            self._busy = now
            return False
        if now < self._busy + _LINGER:
            return False
        waited = now > self._busy + _PATIENCE
        if mirror.problem or not self._seen:
            return waited
        if self._view is None:
            return True  # etcd has not this host any more: there is nothing to tell
        found = self._view.endpoints.values()
        told = any(written.document.host == self._value.id for network in found for written in network.values())
        return not told or waited

    def _step(self, mirror: Mirror) -> bool:
        """Make true what has changed; False when this host is in no cluster any more."""
        if mirror.failure is not None:
            raise mirror.failure
        if not os.path.exists(f"{self._store.path}/pyrtc.db"):
            return False  # somebody has removed the store
        value = membership(self._store)
        if value is None or value.id != self._value.id:
            return False
        self._value = value
        problems = self._ensure_standby()
        problems += [mirror.problem] if mirror.problem else []
        news = mirror.view(self._seen)
        if news is not None:
            self._seen, view = news
            self._problems = self._take_over(view)
        problems += self._problems
        if self._view is not None and not mirror.problem and value.state == "member":
            try:
                _changes, untold = publish(self._store, self._etcd, value.id, self._view)
                problems += untold
            except ClusterError as error:
                problems.append(str(error))
        problems += self._program()
        self._write_status(problems)
        return True

    def _ensure_standby(self) -> list[str]:
        """Start the one that waits where there is something to watch; return in words why there is none."""
        if not self._has_standby and own_endpoints(self._store):
            try:
                start(self._store.path, self._directory)
            except NetworkError as error:  # a machine with too many processes may have room for one later
                return [str(error)]
            self._has_standby = True
        return []

    def _take_over(self, view: View) -> tuple[str, ...]:
        if view.cluster != self._value.cluster:
            self._view = None
            return (f"etcd has another cluster now, {view.cluster[:12] or 'none'}: was its data lost?",)
        if self._value.id not in view.hosts:
            self._view = None
            if self._value.state == "member":
                self._value = replace(self._value, state="removed")
                save(self._store, self._value)
            return ("another host has removed this one from the cluster",)
        self._view = view
        known.note(self._store, self._value.id, view)
        return (*view.wrong, *adopt_all(self._store, view))

    def _program(self) -> list[str]:
        """Tell the kernel and the resolvers who is where on the networks that this host has containers on.

        Returns
        -------
        What cannot be done, in words; it is looked at again soon.
        """
        networks = {endpoint.network.id: endpoint.network for endpoint in own_endpoints(self._store).values()}
        problems = []
        hidden = tuple(network for network in networks.values() if encrypted(network))
        steps = [partial(self._program_tunnel, hidden)]
        steps += [partial(work, network) for network in networks.values() for work in (self._program_one, self._name)]
        for step in steps:
            try:
                step()
            except (NetworkError, UnsupportedError) as error:  # a device that is being made or removed, say
                problems.append(str(error))
        return problems

    def _name(self, network: "Network") -> None:
        told = known.named(self._store, network.id)
        if self._told.get(network.id) != told:
            write_names(self._store, network)
            self._told[network.id] = told

    def _program_tunnel(self, networks: "tuple[Network, ...]") -> None:
        """Have WireGuard know who takes part, and nobody else; with what was removed of it made anew."""
        if not networks:
            self._tunnel = None
            return
        for network in networks:
            bridge = device_index(network.device)
            if bridge and not device_index(device_name(network)):  # the kernel removes it with what it stands on
                ensure_vxlan(self._store, network, bridge)
        name = tunnel.device_name(networks[0].option(VTEP))
        state = (tunnel.peers(self._store, self._value), device_index(name))
        now = time.monotonic()
        if self._tunnel is not None and self._tunnel[0] == state and now < self._tunnel[1] + _TICK:
            return
        self._tunnel = None
        ask_kernel("say whom this host encrypts for", lambda _kernel: tunnel.program(name, state[0]))
        self._tunnel = state, now

    def _program_one(self, network: "Network") -> None:
        """Say it where it is another thing than was said before to the same devices; and now and then in any case."""
        vteps, peers = wanted(self._store, network)
        devices = (device_index(network.device), device_index(device_name(network)))
        before = self._programmed.get(network.id)
        now = time.monotonic()
        if before is not None and before[0] == (vteps, peers, devices) and now < before[1] + _TICK:
            return
        self._programmed.pop(network.id, None)
        ask_kernel(f"say who is on network {network.name}", partial(_program, network, vteps, peers))
        self._programmed[network.id] = (vteps, peers, devices), now

    def _write_status(self, problems: list[str]) -> None:
        words = {"pid": os.getpid(), "problems": problems[:20]}
        making = f"{self._directory}/.{STATUS}"
        with open(making, "w") as file:
            json.dump(words, file)
        os.rename(making, f"{self._directory}/{STATUS}")
