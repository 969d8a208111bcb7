"""`pyrtc network`: what it prints and refuses, where no device is made."""

import json
import os

import pytest

from pyrtc import UsageError
from pyrtc.cli.main import main
from pyrtc.cli.network_settings import endpoint_id
from pyrtc.network.drivers import WantedNetwork, check_name, decide
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.store.networks import Network

WEB = Network(
    "ab" * 32, "web", "bridge", 1_700_000_000.5, "pyrtc-abababab", subnet4="10.77.0.0/24", gateway4="10.77.0.1",
    range4="10.77.0.128/25", subnet6="fd00:77::/64", gateway6="fd00:77::1", internal=True,
    labels=(("tier", "1"), ("x", "")), options=(("mtu", "1400"),),
    auxiliary=(("router", "10.77.0.9"), ("router6", "fd00:77::9")),
)  # fmt: skip
DB = Network("cd" * 32, "db", "macvlan", 1_700_000_001.5, "eth0", subnet4="10.78.0.0/24", gateway4="10.78.0.1")


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = tmp_path / "store"
    monkeypatch.setenv("PYRTC_ROOT", str(root))
    with Store(root) as opened:
        opened.networks.create(WEB)
        opened.networks.create(DB)
        yield opened


def container(store: Store, name: str, *networks: str, state: str = "exited") -> str:
    said = json.dumps({"networks": networks}).encode()
    made = store.containers.allocate(name=name, image_id="x", options_json=said, directory=False, remove=False)
    store.database.execute("UPDATE containers SET state = ? WHERE id = ?", (state, made.id))
    return made.id


def test_ls(store: Store, capsys) -> None:
    assert main(["network", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line.split()[1:] for line in lines[1:]] == [
        ["bridge", "bridge", "local"],
        ["db", "macvlan", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
        ["web", "bridge", "local"],
    ]
    assert lines[-1].startswith("ab" * 6 + " ")
    assert main(["network", "ls", "--no-trunc", "-q", "-f", "name=web"]) == 0
    assert capsys.readouterr().out == "ab" * 32 + "\n"
    assert main(["network", "ls", "-f", "id=abab", "--format", "json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == {
        "CreatedAt": "2023-11-14 22:13:20.500000 +0000 UTC", "Driver": "bridge", "ID": "ab" * 6, "IPv4": "true",
        "IPv6": "true", "Internal": "true", "Labels": "tier=1,x=", "Name": "web", "Scope": "local",
    }  # fmt: skip
    assert main(["network", "ls", "-f", "id=abab", "--format", '{{.Name}} {{.Label "tier"}}']) == 0
    assert capsys.readouterr().out == "web 1\n"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["driver=macvlan"], "db"),
        (["driver=macvlan", "driver=null"], "db none"),
        (["type=custom"], "db web"),
        (["type=builtin"], "bridge host none"),
        (["type=custom", "type=builtin"], "bridge db host none web"),
        (["label=tier"], "web"),
        (["label=tier=1", "label=x"], "web"),
        (["label=tier=1", "label=y"], ""),
        (["label=tier=2"], ""),
        (["name=b", "type=custom"], "db web"),
        (["scope=global"], ""),
        (["scope=local", "driver=bridge"], "bridge web"),
        (["dangling=true"], "db"),
        (["dangling=false"], "bridge host none web"),
    ],
)
def test_filters(store: Store, capsys, filters: list[str], names: str) -> None:
    store.networks.claim(container(store, "one", state="running"), [NetworkAttachment("web")])
    words = [word for text in filters for word in ("--filter", text)]
    assert main(["network", "ls", "--format", "{{.Name}}", *words]) == 0
    assert capsys.readouterr().out.split() == names.split()


@pytest.mark.parametrize(
    "words",
    [["ls", "x"], ["ls", "-f", "drivers=x"], ["ls", "-f", "dangling=maybe"], ["ls", "-f", "type=x"],
     ["ls", "-f", "name"], ["create"], ["create", "a", "b"], ["rm"], ["inspect"], ["prune", "x"],
     ["prune", "-f", "--filter", "x=y"], ["create", "a", "--label", "=x"], ["create", "a", "-o", "=x"], ["bake"]],
)  # fmt: skip
def test_misuse(store: Store, capsys, words: list[str]) -> None:
    assert main(["network", *words]) in (1, 125)
    about = "network" if words == ["bake"] else f"network {words[0]}"
    assert f"Run 'pyrtc {about} --help'" in capsys.readouterr().err


def test_inspect(store: Store, capsys) -> None:
    holder = container(store, "one", state="running")
    (endpoint,) = store.networks.claim(holder, [NetworkAttachment("web")])
    store.database.execute("UPDATE containers SET owner_pid = ?, pid = 1", (os.getpid(),))
    assert main(["network", "inspect", "web", "nope", "db"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "pyrtc: network nope not found\n"
    web, db = json.loads(captured.out)
    assert web == {
        "Name": "web", "Id": "ab" * 32, "Created": "2023-11-14T22:13:20.500000Z", "Scope": "local", "Driver": "bridge",
        "EnableIPv4": True, "EnableIPv6": True,
        "IPAM": {"Driver": "default", "Options": None, "Config": [
            {"Subnet": "10.77.0.0/24", "IPRange": "10.77.0.128/25", "Gateway": "10.77.0.1",
             "AuxiliaryAddresses": {"router": "10.77.0.9"}},
            {"Subnet": "fd00:77::/64", "IPRange": "", "Gateway": "fd00:77::1",
             "AuxiliaryAddresses": {"router6": "fd00:77::9"}},
        ]},
        "Internal": True, "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
        "Containers": {holder: {"Name": "one", "EndpointID": endpoint_id(endpoint),
                                "MacAddress": endpoint.mac, "IPv4Address": f"{endpoint.ip4}/24",
                                "IPv6Address": f"{endpoint.ip6}/64"}},
        "Options": {"mtu": "1400"}, "Labels": {"tier": "1", "x": ""}, "Device": "pyrtc-abababab",
    }  # fmt: skip
    assert db["Containers"] == {}
    assert main(["inspect", "--format", "{{.Driver}} {{(index .IPAM.Config 0).Subnet}}", "web"]) == 0
    assert capsys.readouterr().out == "bridge 10.77.0.0/24\n"
    assert main(["inspect", "--type", "network", "web", "--format", "{{.Name}}"]) == 0
    assert main(["inspect", "--type", "volume", "web"]) == 1


def test_rm(store: Store, capsys) -> None:
    holder = container(store, "one", state="running")
    store.database.execute("UPDATE containers SET owner_pid = ?", (os.getpid(),))
    store.networks.claim(holder, [NetworkAttachment("db")])
    assert main(["network", "rm", "none", "db", "cdcd", "nope", "web"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "web\n"
    active = f'error while removing network: network db has active endpoints (name:"one" id:"{holder[:12]}")'
    assert captured.err.splitlines() == [
        "pyrtc: none is a pre-defined network and cannot be removed",
        f"pyrtc: {active}",
        f"pyrtc: {active}",
        "pyrtc: network nope not found",
    ]
    assert main(["network", "rm", "-f", "nope"]) == 0
    assert capsys.readouterr() == ("", ""), "what is printed was removed"
    store.networks.release(holder)
    assert main(["network", "rm", "cdcd"]) == 0
    assert [item.name for item in store.networks.list()] == ["bridge", "host", "none"]


def test_prune_keeps_what_containers_will_want(store: Store, capsys, monkeypatch) -> None:
    container(store, "stopped", "cdcdcd")
    assert main(["network", "prune", "-f"]) == 0
    assert capsys.readouterr().out == "Deleted Networks:\nweb\n\n"
    store.networks.create(WEB)
    for filters, left in ((["until=2023-01-01"], 5), (["label!=tier"], 5), (["label=tier=1"], 4)):
        words = [word for text in filters for word in ("--filter", text)]
        assert main(["network", "prune", "-f", *words]) == 0
        assert len(store.networks.list()) == left
    store.containers.remove(store.containers.get("stopped").id)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    capsys.readouterr()
    assert main(["network", "prune"]) == 0
    assert "all custom networks not used by at least one container" in capsys.readouterr().out
    assert len(store.networks.list()) == 4  # nobody agreed
    assert main(["system", "prune", "-f"]) == 0
    assert "Deleted Networks:\ndb\n\n" in capsys.readouterr().out
    assert [item.name for item in store.networks.list()] == ["bridge", "host", "none"]


def test_overlay_networks_need_a_cluster(store: Store, capsys) -> None:
    assert main(["network", "create", "-d", "overlay", "mine"]) == 1
    assert "pyrtc cluster join" in capsys.readouterr().err
    for words in (["--ipv6"], ["--subnet", "fd00::/64"]):
        assert main(["network", "create", "-d", "overlay", "mine", *words]) == 1
    assert len(store.networks.list()) == 5


def test_ordinary_users_have_bridges(store: Store, capsys) -> None:
    if os.geteuid() == 0:
        pytest.skip("root has more")
    assert main(["network", "create", "mine"]) == 0
    assert store.networks.get("mine").subnet4
    assert main(["network", "create", "-d", "macvlan", "-o", "parent=lo", "others"]) == 1
    assert "cannot create the network others: only root makes networks of driver macvlan" in capsys.readouterr().err
    assert main(["network", "create", "-o", "com.docker.network.bridge.name=eth0", "others"]) in (1, 125)
    assert "no bridge of an ordinary user can be called eth0" in capsys.readouterr().err
    assert main(["network", "rm", "mine"]) == 0


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "a b", "a/b", "a:b", "x" * 129, "a\n", "bridge", "host", "none", "default"]
)
def test_names(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"driver": "host"}, "only one instance of host network is allowed"),
        ({"driver": "briidge"}, "unknown network driver 'briidge'"),
        ({"attachable": True}, "--attachable is for overlay networks"),
        ({"options": (("mtuu", "1"),)}, "unknown option mtuu of driver bridge"),
        ({"options": (("parent", "eth0"),)}, "unknown option parent of driver bridge"),
        ({"options": (("mtu", "67"),)}, "invalid MTU 67"),
        ({"options": (("mtu", "65536"),)}, "invalid MTU 65536"),
        ({"options": (("mtu", "1e3"),)}, "invalid MTU 1e3"),
        ({"options": (("mtu", "9" * 4000),)}, "invalid MTU 999"),
        ({"options": (("mtu", "1400"), ("com.docker.network.driver.mtu", "1500"))}, "two different MTUs: 1400, 1500"),
        ({"options": (("com.docker.network.bridge.name", "a/b"),)}, "no device can be called that"),
        ({"options": (("com.docker.network.bridge.name", "x" * 16),)}, "no device can be called that"),
        ({"driver": "macvlan", "internal": True}, "--internal is not for macvlan"),
        ({"driver": "macvlan"}, "say which with --opt parent=DEVICE"),
        ({"driver": "macvlan", "options": (("parent", ".."),)}, "no device can be called that"),
        ({"driver": "macvlan", "options": (("parent", "e"), ("macvlan_mode", "x"))}, "unknown macvlan_mode x"),
        ({"labels": (("", "x"),)}, "a label without a name"),
        ({"labels": tuple((f"l{i}", "") for i in range(257))}, "more than 256 labels"),
        ({"labels": (("x", "y" * 4096),)}, "longer than 4096"),
    ],
)
def test_what_cannot_be_made(words, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        decide(WantedNetwork(name="web", **words), 1.0)


def test_what_is_decided() -> None:
    options = (("com.docker.network.driver.mtu", "1400"), ("com.docker.network.bridge.name", "br-web"))
    made = decide(WantedNetwork(name="web", internal=True, labels=(("a", "1"), ("a", "2")), options=options), 7.0)
    assert (made.name, made.driver, made.created, made.device, made.mtu) == ("web", "bridge", 7.0, "br-web", 1400)
    assert (made.internal, made.labels, made.options, made.subnet4) == (True, (("a", "2"),), options, "")
    plain = decide(WantedNetwork(name="web"), 7.0)
    assert plain.device == f"pyrtc-{plain.id[:8]}" and plain.mtu == 0
    on_eth0 = decide(WantedNetwork(name="web", driver="macvlan", options=(("parent", "eth0.7"),)), 7.0)
    assert on_eth0.device == "eth0.7"


def test_a_container_that_is_being_started_keeps_what_it_claimed(store: Store) -> None:
    """Its row still says that it has ended; whoever holds it is at work."""
    holder = container(store, "one", "db")
    store.networks.claim(holder, [NetworkAttachment("db")])
    with store.lives.hold(holder):
        assert main(["network", "rm", "db"]) == 1
        assert len(store.networks.endpoints_of(holder)) == 1
