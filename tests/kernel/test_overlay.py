"""Overlay networks between three hosts: containers reach each other, whatever is away or killed."""

import json
import os
import signal
import subprocess

import pytest
from overlay_hosts import Cloud, Host, cloud, eventually, open_cloud

__all__ = ["cloud"]

HEADERS = 28  # of IPv4 and ICMP


def reaches(host: Host, name: str, target: str) -> bool:
    return eventually(lambda: host.pings(name, target))


def knows(host: Host, name: str, other: str, address: str) -> bool:
    """Whether a container comes to find another one by its name."""

    def found() -> bool:
        answer = host.pyrtc("exec", name, "getent", "ahostsv4", other, check=False).stdout
        return address in answer.split()

    return eventually(found)


def forgets(host: Host, name: str, other: str) -> bool:
    return eventually(lambda: host.pyrtc("exec", name, "getent", "ahostsv4", other, check=False).returncode == 2)


def stream_passes(web: Cloud) -> bool:
    """Whether what the kernel cuts into packets late, and sums up late, arrives whole."""
    receive = (
        "import socket, sys\ns = socket.create_server(('', 5000)); print('up', flush=True)\n"
        "c, _ = s.accept(); total = 0\n"
        "while (chunk := c.recv(1 << 20)): total += len(chunk)\nprint(total)"
    )
    send = f"import socket; s = socket.create_connection(('{web.addresses['c1']}', 5000)); s.sendall(bytes(50 << 20))"
    words = [*web.hosts[1].netns("c1"), "python3", "-c", receive]
    receiver = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert receiver.stdout is not None and receiver.stdout.readline() == "up\n"
        subprocess.run([*web.hosts[0].netns("c0"), "python3", "-c", send], check=True, timeout=60)
        return receiver.communicate(timeout=60)[0] == f"{50 << 20}\n"
    finally:
        receiver.kill()
        receiver.wait()


@pytest.fixture
def web(cloud: Cloud) -> Cloud:
    """Three hosts in a cluster with a network, and a container on each: c0, c1, c2."""
    cloud.join()
    cloud.hosts[0].pyrtc("network", "create", "--driver", "overlay", "web")
    for number, host in enumerate(cloud.hosts):
        cloud.addresses[f"c{number}"] = host.container(f"c{number}")
    return cloud


def test_containers_of_all_hosts_reach_each_other(web: Cloud) -> None:
    assert len(set(web.addresses.values())) == 3
    for number, host in enumerate(web.hosts):
        for other, address in web.addresses.items():
            assert reaches(host, f"c{number}", address)
            assert knows(host, f"c{number}", other, address)
    # Not a byte less, and not one more: 1500 of the network between the hosts, 50 for VXLAN.
    assert web.hosts[0].pings("c0", "c1", 1450 - HEADERS)
    assert not web.hosts[0].pings("c0", "c1", 1451 - HEADERS)
    assert stream_passes(web)
    # What other hosts have is programmed ahead, as iproute2 sees it.
    networks = web.hosts[0].pyrtc("network", "ls", "--no-trunc", "--format", "{{.Name}} {{.ID}}").stdout.split()
    network_id = networks[networks.index("web") + 1]
    entries = json.loads(web.hosts[0].run("bridge", "-json", "fdb", "show", "dev", f"pyrtcx{network_id[:8]}").stdout)
    floods = {entry.get("dst") for entry in entries if entry["mac"] == "00:00:00:00:00:00"}
    assert floods == {web.hosts[1].address, web.hosts[2].address}
    programmed = {entry["dst"] for entry in entries if "extern_learn" in entry["flags"] and "dst" in entry}
    assert programmed == floods
    neighbours = json.loads(web.hosts[0].run("ip", "-json", "neigh", "show", "dev", f"pyrtc-{network_id[:8]}").stdout)
    assert {web.addresses["c1"], web.addresses["c2"]} <= {entry["dst"] for entry in neighbours}


def test_the_first_container_of_a_host_knows_the_others(cloud: Cloud) -> None:
    """It may be a job that is over before anybody could have told it anything."""
    cloud.join()
    cloud.hosts[0].pyrtc("network", "create", "--driver", "overlay", "web")
    address = cloud.hosts[0].container("c0")
    job = ("run", "--rm", "--network", "web", "host", "getent", "ahostsv4")
    assert address in cloud.hosts[1].pyrtc(*job, "c0").stdout.split()
    assert eventually(lambda: not cloud.hosts[1].watchers())
    cloud.etcd[0].stop()
    assert address in cloud.hosts[1].pyrtc(*job, "c0").stdout.split()  # as was heard last


def test_ports_are_published_on_the_host_of_the_container(web: Cloud) -> None:
    server = (
        "import socket\ns = socket.create_server(('', 80))\n"
        "while True:\n c, p = s.accept(); c.sendall(p[0].encode()); c.close()"
    )
    web.hosts[1].pyrtc(
        "run", "-d", "--name", "srv", "--network", "web", "-p", "8080:80", "host", "python3", "-c", server
    )
    client = f"import socket; print(socket.create_connection(('{web.hosts[1].address}', 8080), 10).recv(99).decode())"
    assert eventually(lambda: web.hosts[2].run("python3", "-c", client, check=False).stdout.strip() == "192.0.2.3")


def test_a_container_that_moves_with_its_address_is_reached(web: Cloud) -> None:
    subnet = json.loads(web.hosts[0].pyrtc("network", "inspect", "web").stdout)[0]["IPAM"]["Config"][0]["Subnet"]
    taken = {".".join(address.split(".")[:3]) for address in web.addresses.values()}
    base = ".".join(subnet.split(".")[:2])
    address = next(f"{base}.{third}.77" for third in range(1, 200) if f"{base}.{third}" not in taken)
    assert web.hosts[1].container("db", "--ip", address) == address
    assert reaches(web.hosts[0], "c0", address)
    refused = web.hosts[2].pyrtc("run", "--network", "web", "--ip", address, "host", "true", check=False)
    assert refused.returncode == 125 and "Address already in use" in refused.stderr
    web.hosts[1].pyrtc("rm", "-f", "db")

    def started() -> bool:
        words = ("run", "-d", "--name", "db", "--network", "web", "--ip", address, "host", "sleep", "100000")
        if web.hosts[2].pyrtc(*words, check=False).returncode == 0:
            return True
        web.hosts[2].pyrtc("rm", "-f", "db", check=False)
        return False

    assert eventually(started)  # as soon as the other host has told that it is free
    assert reaches(web.hosts[0], "c0", address)
    assert reaches(web.hosts[1], "c1", address)
    assert knows(web.hosts[0], "c0", "db", address)


def test_nothing_that_runs_needs_etcd(web: Cloud) -> None:
    for other in ("c1", "c2"):
        assert knows(web.hosts[0], "c0", other, web.addresses[other])
    web.etcd[0].stop()
    assert web.hosts[0].pings("c0", web.addresses["c1"])
    late = web.hosts[0].container("late")
    assert reaches(web.hosts[1], "c1", late)  # unknown there, so it is looked for everywhere
    assert reaches(web.hosts[0], "late", "c2")
    refused = web.hosts[0].pyrtc("network", "create", "-d", "overlay", "other", check=False)
    assert refused.returncode == 1 and "etcd cannot be reached" in refused.stderr
    web.hosts[2].pyrtc("rm", "-f", "c2")
    inspected = json.loads(web.hosts[0].pyrtc("cluster", "inspect").stdout)[0]
    assert not inspected["Etcd"]["Reachable"] and "etcd cannot be reached" in inspected["Problems"][0]
    web.etcd[0].start()
    assert knows(web.hosts[1], "c1", "late", late)
    assert forgets(web.hosts[1], "c1", "c2")
    assert web.hosts[1].pings("c1", "late")


def test_a_host_that_was_cut_off_has_all_when_it_is_back(web: Cloud) -> None:
    for number, host in enumerate(web.hosts):
        assert reaches(host, f"c{number}", web.addresses["c2"])
    web.cut(web.hosts[2])
    assert not web.hosts[0].pings("c0", web.addresses["c2"])
    new = web.hosts[0].container("new")
    inside = web.hosts[2].container("inside")
    web.hosts[1].pyrtc("rm", "-f", "c1")
    assert reaches(web.hosts[2], "inside", "c2")
    web.heal(web.hosts[2])
    assert reaches(web.hosts[0], "c0", web.addresses["c2"])
    assert knows(web.hosts[2], "c2", "new", new)
    assert knows(web.hosts[0], "c0", "inside", inside)
    assert forgets(web.hosts[2], "c2", "c1")
    assert web.hosts[2].pings("inside", "new")


def test_a_container_that_was_killed_with_its_monitor_is_forgotten(web: Cloud) -> None:
    host = web.hosts[0]
    assert knows(web.hosts[1], "c1", "c0", web.addresses["c0"])
    pid = int(host.pyrtc("inspect", "--format", "{{.State.Pid}}", "c0").stdout)
    for monitor in host.processes("pyrtc-monitor"):
        os.kill(monitor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert forgets(web.hosts[1], "c1", "c0")  # though no command of that host has put it right
    assert eventually(lambda: not host.watchers())
    host.pyrtc("rm", "-f", "c0")


def test_a_watcher_that_is_killed_has_a_successor(web: Cloud) -> None:
    first = web.hosts[0]
    assert eventually(lambda: len(first.watchers()) == 2)
    os.kill(first.watchers()[0], signal.SIGKILL)
    other = web.hosts[1].container("other")
    assert knows(first, "c0", "other", other)
    assert eventually(lambda: len(first.watchers()) == 2)
    for pid in reversed(first.watchers()):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not first.watchers())
    assert first.pings("c0", "c2")
    one_more = first.container("more")  # whoever starts one finds that nobody watches
    assert eventually(lambda: len(first.watchers()) == 2)
    assert knows(web.hosts[1], "c1", "more", one_more)


def test_the_end_leaves_nothing(web: Cloud) -> None:
    network_id = json.loads(web.hosts[0].pyrtc("network", "inspect", "web").stdout)[0]["Id"]
    for number, host in enumerate(web.hosts):
        in_use = host.pyrtc("network", "rm", "web", check=False)
        assert in_use.returncode == 1 and "active endpoints" in in_use.stderr
        host.pyrtc("rm", "-f", f"c{number}")
    for host in web.hosts:
        assert eventually(lambda host=host: not host.watchers())
        assert eventually(lambda host=host: not host.run("find", "/run/pyrtc/overlay", "-type", "f").stdout)
    statuses = web.hosts[1].pyrtc("cluster", "ls", "--format", "{{.Name}} {{.Status}}").stdout.splitlines()
    assert statuses == ["h1 idle", "h2 idle", "h3 idle"]
    assert f"pyrtcx{network_id[:8]}" in web.hosts[2].links()
    web.hosts[2].pyrtc("network", "prune", "-f")
    assert set(web.hosts[2].links()) == {"lo", "up0"}  # and the network is the others' still
    assert "web" in web.hosts[2].pyrtc("network", "ls", "--format", "{{.Name}}").stdout.split()
    # One that goes elsewhere goes here, too, when this host hears of it.
    web.hosts[1].pyrtc("network", "create", "-d", "overlay", "short")
    web.hosts[2].pyrtc("run", "--rm", "--network", "short", "host", "true")
    assert any(name.startswith("pyrtcx") for name in web.hosts[2].links())
    assert eventually(lambda: web.hosts[1].pyrtc("network", "rm", "short", check=False).returncode == 0)
    assert eventually(lambda: "short" not in web.hosts[2].pyrtc("network", "ls").stdout)
    assert eventually(lambda: set(web.hosts[2].links()) == {"lo", "up0"})
    assert eventually(lambda: {path.name for path in (web.hosts[2].root / "networks").iterdir()} <= {network_id})
    web.hosts[1].pyrtc("network", "rm", "web")
    assert f"pyrtcx{network_id[:8]}" not in web.hosts[1].links()
    for host in web.hosts:
        host.pyrtc("cluster", "leave")
        assert eventually(lambda host=host: set(host.links()) == {"lo", "up0"}), host.links().keys()
        refused = host.pyrtc("cluster", "ls", check=False)
        assert refused.returncode == 1 and "pyrtc cluster join --etcd" in refused.stderr
    keys = web.etcd[0].run(
        "etcdctl", "get", "--prefix", "--keys-only", "/pyrtc/", env={**os.environ, "ETCDCTL_API": "3"}
    )
    assert set(keys.stdout.split()) == {"/pyrtc/v1/cluster", "/pyrtc/v1/netseq"}


def test_a_member_of_etcd_is_killed(tmp_path) -> None:
    cloud = open_cloud(tmp_path, members=3, hosts=2)
    try:
        cloud.join()
        cloud.hosts[0].pyrtc("network", "create", "-d", "overlay", "web")
        cloud.hosts[0].container("c0")
        address = cloud.hosts[1].container("c1")
        assert knows(cloud.hosts[0], "c0", "c1", address)
        for number in range(3):
            cloud.etcd[number].stop()
            # A majority is there, or comes to be: the dead one may have led.
            made = ("network", "create", "-d", "overlay", f"n{number}")
            assert eventually(lambda made=made: cloud.hosts[0].pyrtc(*made, check=False).returncode == 0)
            late = cloud.hosts[1].container(f"late{number}")
            assert knows(cloud.hosts[0], "c0", f"late{number}", late)
            assert cloud.hosts[0].pings("c0", "c1")
            cloud.etcd[number].start()
            assert eventually(lambda number=number: healthy(cloud, number))
    finally:
        cloud.close()


def healthy(cloud: Cloud, number: int) -> bool:
    words = ("etcdctl", "--endpoints", cloud.etcd[number].url, "endpoint", "health")
    environment = {**os.environ, "ETCDCTL_API": "3"}
    return cloud.etcd[number].run(*words, check=False, env=environment).returncode == 0


def test_a_host_with_a_small_mtu_that_joins_late_is_told_so(cloud: Cloud) -> None:
    cloud.join(*cloud.hosts[:2])
    cloud.hosts[0].pyrtc("network", "create", "-d", "overlay", "web")
    cloud.hosts[2].run("ip", "link", "set", "up0", "mtu", "1400")
    cloud.join(cloud.hosts[2])
    refused = cloud.hosts[2].pyrtc("run", "--network", "web", "host", "true", check=False)
    assert refused.returncode == 125 and "1350 are the most that fit through up0" in refused.stderr
    assert cloud.hosts[2].pyrtc("ps", "-aq").stdout == ""
    cloud.hosts[0].pyrtc("network", "create", "-d", "overlay", "small")
    assert cloud.hosts[2].pyrtc("run", "--rm", "--network", "small", "host", "true").returncode == 0


def test_hosts_may_reach_each_other_over_ipv6(cloud: Cloud) -> None:
    for number, host in enumerate(cloud.hosts[:2]):
        host.run("ip", "addr", "add", f"2001:db8::{number}/64", "dev", "up0", "nodad")
    cloud.join(*cloud.hosts[:2], options=lambda host: ("--advertise", f"2001:db8::{cloud.hosts.index(host)}"))
    cloud.hosts[0].pyrtc("network", "create", "-d", "overlay", "web")
    for number, host in enumerate(cloud.hosts[:2]):
        cloud.addresses[f"c{number}"] = host.container(f"c{number}")
    assert reaches(cloud.hosts[0], "c0", cloud.addresses["c1"])
    assert knows(cloud.hosts[1], "c1", "c0", cloud.addresses["c0"])
    assert cloud.hosts[0].pings("c0", "c1", 1430 - HEADERS)
    assert not cloud.hosts[0].pings("c0", "c1", 1431 - HEADERS)


def test_a_stranger_on_the_host_cannot_join_twice(cloud: Cloud, tmp_path) -> None:
    cloud.join(cloud.hosts[0])
    again = cloud.hosts[0].pyrtc("cluster", "join", "--etcd", cloud.urls, check=False)
    assert again.returncode == 1 and "takes part in a cluster already" in again.stderr
    environment = {**cloud.hosts[0].environment, "PYRTC_ROOT": str(tmp_path / "second")}
    second = cloud.hosts[0].pyrtc("cluster", "join", "--etcd", cloud.urls, check=False, env=environment)
    assert second.returncode == 1 and "has the address 192.0.2.1" in second.stderr
    for words in (("--etcd", "http://192.0.2.99:2379"), ("--etcd", cloud.urls, "--advertise", "127.0.0.1")):
        refused = cloud.hosts[1].pyrtc("cluster", "join", *words, check=False)
        assert refused.returncode == 1 and ("cannot be reached" in refused.stderr or "--advertise" in refused.stderr)
    assert cloud.hosts[1].pyrtc("cluster", "join", "--etcd", cloud.urls, "--advertise", "up0").returncode == 0
