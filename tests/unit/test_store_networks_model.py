"""Networks and their addresses against a model that is a few dictionaries."""

import ipaddress
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyrtc.errors import NetworkError
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.store.networks import AddressesExhausted, Network

# Small, so that they are full after a few steps. What may be given of each, and the gateway.
POOLS = {
    "wide": ("10.1.0.0/29", "10.1.0.1", "", [f"10.1.0.{n}" for n in range(2, 7)]),
    "part": ("10.2.0.0/28", "10.2.0.8", "10.2.0.8/30", [f"10.2.0.{n}" for n in (9, 10, 11)]),
    "last": ("10.3.0.0/30", "10.3.0.2", "", ["10.3.0.1"]),
}
SIX = "fd00:1::/126", "fd00:1::2", ["fd00:1::1", "fd00:1::3"]
NAMES = [f"c{n}" for n in range(8)]
CHOSEN = st.one_of(st.just(""), st.integers(0, 15).map(lambda n: f"10.2.0.{n}"))


class Machine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.store = Store(f"{self.directory}/s")
        for index, (name, (subnet, gateway, part, _)) in enumerate(POOLS.items()):
            six = {"subnet6": SIX[0], "gateway6": SIX[1]} if name == "wide" else {}
            self.store.networks.create(
                Network(f"{index:064x}", name, "bridge", 1.0, f"d{index}", subnet, gateway, part, **six)
            )
        self.ids = {
            name: self.store.containers.allocate(name=name, image_id="x", options_json=b"{}", directory=False).id
            for name in NAMES
        }
        self.held: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in NAMES}

    def taken(self, network: str) -> set[str]:
        return {nets[network][0] for nets in self.held.values() if network in nets}

    def full(self, network: str) -> bool:
        four = set(POOLS[network][3]) <= self.taken(network)
        six = {nets["wide"][1] for nets in self.held.values() if "wide" in nets}
        return four or (network == "wide" and set(SIX[2]) <= six)

    def expect(self, name: str, network: str, chosen: str) -> type[Exception] | None:
        if network in self.held[name]:
            return NetworkError
        if network == "part" and chosen:
            if chosen in ("10.2.0.0", "10.2.0.8", "10.2.0.15") or chosen in self.taken("part"):
                return NetworkError
            return None
        return AddressesExhausted if self.full(network) else None

    def note(self, name: str, endpoint) -> None:
        self.held[name][endpoint.network.name] = (endpoint.ip4, endpoint.ip6)

    @rule(name=st.sampled_from(NAMES), networks=st.lists(st.sampled_from(list(POOLS)), unique=True), chosen=CHOSEN)
    def claim(self, name: str, networks: list[str], chosen: str) -> None:
        before, self.held[name] = self.held[name], {}
        wishes = [NetworkAttachment(each, ip=chosen if each == "part" else "") for each in networks]
        expected = next((error for each in networks if (error := self.expect(name, each, chosen))), None)
        try:
            endpoints = self.store.networks.claim(self.ids[name], wishes)
        except NetworkError as error:
            assert expected is not None and isinstance(error, expected), error
            self.held[name] = before  # all of it or nothing
            return
        assert expected is None
        assert [endpoint.device for endpoint in endpoints] == [f"eth{index}" for index in range(len(networks))]
        for endpoint in endpoints:
            self.note(name, endpoint)

    @rule(name=st.sampled_from(NAMES), network=st.sampled_from(list(POOLS)), chosen=CHOSEN)
    def claim_more(self, name: str, network: str, chosen: str) -> None:
        expected = self.expect(name, network, chosen)
        wish = NetworkAttachment(network, ip=chosen if network == "part" else "")
        try:
            endpoint = self.store.networks.claim_more(self.ids[name], wish)
        except NetworkError as error:
            assert expected is not None and isinstance(error, expected), error
            return
        assert expected is None
        self.note(name, endpoint)

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: str) -> None:
        self.store.networks.release(self.ids[name])
        self.held[name] = {}

    @rule(name=st.sampled_from(NAMES), network=st.sampled_from(list(POOLS)))
    def release_one(self, name: str, network: str) -> None:
        self.store.networks.release(self.ids[name], self.store.networks.get(network).id)
        self.held[name].pop(network, None)

    @rule(name=st.sampled_from(NAMES))
    def remove_container(self, name: str) -> None:
        self.store.containers.remove(self.ids[name])
        self.held[name] = {}
        made = self.store.containers.allocate(name=name, image_id="x", options_json=b"{}", directory=False)
        self.ids[name] = made.id

    @rule(network=st.sampled_from(list(POOLS)))
    def remove_network(self, network: str) -> None:
        made = self.store.networks.get(network)
        try:
            self.store.networks.remove(network)
        except NetworkError as error:
            assert self.taken(network) and "has active endpoints" in str(error)
        else:
            assert not self.taken(network)
            self.store.networks.create(made)

    @rule(seconds=st.sampled_from([-90.0, 20.0, 90.0]))
    def time_passes(self, seconds: float) -> None:
        self.store.database.execute("UPDATE released_addresses SET at = at - ?", (seconds,))

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        seen = set()
        for name, networks in self.held.items():
            endpoints = self.store.networks.endpoints_of(self.ids[name])
            assert {e.network.name: (e.ip4, e.ip6) for e in endpoints} == networks
            for endpoint in endpoints:
                key = (endpoint.network.name, endpoint.ip4)
                assert key not in seen and endpoint.ip4 != endpoint.gateway4
                seen |= {key, endpoint.mac, endpoint.host_device}
                assert ipaddress.ip_address(endpoint.ip4) in ipaddress.ip_network(endpoint.network.subnet4)
                assert "ip" in endpoint.wanted or endpoint.ip4 in POOLS[endpoint.network.name][3]
        assert len(seen) == 3 * sum(map(len, self.held.values()))
        for network in POOLS:
            on = self.store.networks.endpoints_on(self.store.networks.get(network).id)
            assert {endpoint.ip4 for endpoint in on} == self.taken(network)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestModel = Machine.TestCase
