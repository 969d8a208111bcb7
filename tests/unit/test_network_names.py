"""Files of names, as the attendants read them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyrtc.errors import StoreError
from pyrtc.network.names import (
    change_dns,
    has_names,
    open_names,
    remove_names,
    write_dns,
    write_names,
)
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.store.networks import Network


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s") as store:
        yield store


def network(store: Store, name: str = "Back", id: str = "ab" * 32, **fields) -> Network:
    made = Network(id, name, "bridge", 1.5, f"pyrtc-{id[:8]}", "172.18.0.0/16", "172.18.0.1", **fields)
    store.networks.create(made)
    return made


def join(store: Store, name: str, on: Network, **words) -> str:
    container_id = store.containers.allocate(name=name, image_id="x", options_json=b"{}", directory=False).id
    store.networks.claim(container_id, [NetworkAttachment(on.name, **words)])
    return container_id


def read(store: Store, on: Network) -> list[str]:
    text = (store.root / "networks" / on.id / "names").read_text(encoding="ascii")
    assert text.endswith("\n")
    return text.splitlines()


def test_names_aliases_and_ids(store: Store) -> None:
    back = network(store, subnet6="fd00::/64", gateway6="fd00::1")
    web = join(store, "Web_1", back, ip="172.18.0.9", ip6="fd00::9", aliases=("api", "a.b"))
    write_names(store, back)
    head, *lines = read(store, back)
    assert head == "pyrtc-names 1 Back"
    assert lines == sorted(lines)
    six = "fd000000000000000000000000000009"
    assert set(lines) == {
        *(f"{name} 4 ac120009" for name in ("web_1", web[:12], "api", "a.b")),
        *(f"{name} 6 {six}" for name in ("web_1", web[:12], "api", "a.b")),
        "9.0.18.172.in-addr.arpa p web_1.Back",
        f"{'.'.join(reversed(six))}.ip6.arpa p web_1.Back",
    }


def test_lines_are_in_the_order_of_their_bytes(store: Store) -> None:
    """The attendant searches by halves: a name that begins as another one does must not part its lines."""
    back = network(store)
    for number, name in enumerate(("web", "web-1", "web.x", "web_", "we")):
        join(store, name, back, ip=f"172.18.0.{number + 5}", aliases=("all",))
    write_names(store, back)
    lines = [line.encode() + b"\n" for line in read(store, back)[1:]]
    assert lines == sorted(lines)
    assert sum(line.startswith(b"all 4 ") for line in lines) == 5


def test_who_has_left_is_not_in_it(store: Store) -> None:
    back = network(store)
    first, second = join(store, "one", back), join(store, "two", back)
    write_names(store, back)
    before = os.stat(store.root / "networks" / back.id / "names").st_ino
    store.networks.release(first)
    write_names(store, back)
    assert not any("one" in line for line in read(store, back)[1:])
    assert any(line.startswith(f"{second[:12]} 4 ") for line in read(store, back))
    assert os.stat(store.root / "networks" / back.id / "names").st_ino != before  # replaced, never changed
    assert os.listdir(store.root / "networks" / back.id) == ["names"]


def test_names_that_no_question_can_ask_for_are_left_out(store: Store, monkeypatch) -> None:
    back = network(store)
    container_id = join(store, "ok", back)
    (endpoint,) = store.networks.endpoints_on(back.id)
    from pyrtc.values import replace

    odd = replace(endpoint, aliases=("", "a b", "c\nd", "é", "fine"))
    monkeypatch.setattr(type(store.networks), "endpoints_on", lambda _, __: (odd,))
    write_names(store, back)
    found = {line.split()[0] for line in read(store, back)[1:] if " p " not in line}
    assert found == {"ok", container_id[:12], "fine"}


def test_a_network_that_is_gone_leaves_nothing(store: Store) -> None:
    back = network(store)
    write_names(store, back)
    remove_names(store, back.id)
    remove_names(store, back.id)
    assert os.listdir(store.root / "networks") == []
    write_names(store, back)  # somebody was late
    assert read(store, back) == ["pyrtc-names 1 Back"]


def test_names_that_cannot_be_written(store: Store) -> None:
    back = network(store)
    (store.root / "networks").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write down who is on network Back: Not a directory"):
        write_names(store, back)


def test_an_unfinished_file_is_replaced(store: Store) -> None:
    back = network(store)
    write_names(store, back)
    directory = store.root / "networks" / back.id
    (directory / "names.new").write_text("half a fi")
    write_names(store, back)
    assert os.listdir(directory) == ["names"]


def test_many_writers_lose_nobody(store: Store) -> None:
    """Each writes down what it reads, and who read last writes last."""
    back = network(store)

    def start(first: int) -> None:
        with Store(store.root) as own:
            for number in range(first, first + 10):
                join(own, f"c{number}", back)
                write_names(own, back)

    threads = [threading.Thread(target=start, args=(first,)) for first in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = {line.split()[0] for line in read(store, back)[1:]}
    assert {f"c{first + number}" for first in (100, 200, 300, 400) for number in range(10)} <= found


def test_predefined_networks_have_no_names(store: Store) -> None:
    assert not has_names(store.networks.get("bridge"))
    assert has_names(network(store))


def dns(directory: Path, *arguments) -> str:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_dns(fd, *arguments)
    finally:
        os.close(fd)
    assert sorted(os.listdir(directory)) == ["dns"]
    return (directory / "dns").read_text(encoding="ascii")


def test_what_a_container_knows(store: Store, tmp_path: Path) -> None:
    back, bridge = network(store), store.networks.get("bridge")
    place = tmp_path / "c"
    place.mkdir()
    text = dns(place, [bridge, back], ["10.0.0.1", "nonsense", "fe80::1%lo", "fe80::1%nowhere", "1.1.1.1", "8.8.8.8"])
    assert text == (
        "pyrtc-dns 1\nforward\nserver 4 0a000001 53 0\nserver 6 fe800000000000000000000000000001 53 1\n"
        f"server 4 01010101 53 0\nnetwork {back.id}\n"
    )


def test_the_names_that_it_may_ask_for(store: Store, tmp_path: Path) -> None:
    back = network(store)
    inner = Network("cd" * 32, "in", "bridge", 1.5, "pyrtc-cdcdcdcd", "172.19.0.0/16", "172.19.0.1", internal=True)
    place = tmp_path / "c"
    place.mkdir()
    head = "pyrtc-dns 1\nforward\nserver 4 0a000001 53 0\n"
    known = f"network {back.id}\n"
    assert dns(place, [back], ["10.0.0.1"], ("b.example", "*.a.example", ".b-c.example", "*.b.example")) == (
        head
        + known
        + "allowed\na.example below\nb-c.example below\nb-c.example exact\nb.example below\nb.example exact\n"
    )
    assert dns(place, [back], ["10.0.0.1"], ()) == head.replace("forward\n", "") + known + "allowed\n"
    assert "forward" not in dns(place, [inner], ["10.0.0.1"], ("b.example",))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        change_dns(fd, [back], ("c.example",))
    finally:
        os.close(fd)
    assert (place / "dns").read_text() == head + known + "allowed\nc.example exact\n"


def test_internal_networks_lead_nowhere(store: Store, tmp_path: Path) -> None:
    inner = network(store, internal=True)
    place = tmp_path / "c"
    place.mkdir()
    assert "forward" not in dns(place, [inner], ["10.0.0.1"])
    assert "forward" in dns(place, [inner, store.networks.get("bridge")], ["10.0.0.1"])


def test_the_directory_of_names_is_private(store: Store) -> None:
    fd = open_names(store)
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o700
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_little_is_imported() -> None:
    source = "import sys, pyrtc.network.names; print({'socket', 'ipaddress', 'pathlib', 'hashlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_container_that_changes_networks_asks_the_same_servers(store: Store, tmp_path: Path) -> None:
    outward = network(store)
    inward = Network("cd" * 32, "in", "bridge", 1.5, "pyrtc-cdcdcdcd", "172.19.0.0/16", "172.19.0.1", internal=True)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        change_dns(fd, [outward])
        assert not (tmp_path / "dns").exists()  # it has no name server
        write_dns(fd, [outward], ["192.0.2.1", "2001:db8::1"])
        before = (tmp_path / "dns").read_text()
        change_dns(fd, [inward])
        assert "forward" not in (tmp_path / "dns").read_text().split()
        change_dns(fd, [outward])
        assert (tmp_path / "dns").read_text() == before
        change_dns(fd, [inward, outward])
        write_dns(fd, [outward], [])
        change_dns(fd, [inward, outward])
        both = (tmp_path / "dns").read_text()
        write_dns(fd, [inward, outward], [])
        assert (tmp_path / "dns").read_text() == both
    finally:
        os.close(fd)
