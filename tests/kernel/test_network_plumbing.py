"""Devices, sockets, rules and tracked connections as iproute2, nft, conntrack and packets see them.

Each test is a program in a network namespace of its own, for an ordinary user in a user namespace, too.
"""

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

BEGIN = """
import json, os, socket, struct, subprocess, sys, threading, time
from pyrtc import core
from pyrtc.core import Link
from pyrtc.errors import NetworkError, UnsupportedError

def command(*words, fd=None, check=True, **options):
    enter = [] if fd is None else ["nsenter", f"--net=/proc/{os.getpid()}/fd/{fd}", "--"]
    done = subprocess.run([*enter, *words], capture_output=True, text=True, check=False, **options)
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout

def ip(*words, fd=None):
    return json.loads(command("ip", "-json", "-details", *words, fd=fd) or "[]")

def names(fd=None):
    return {link["ifname"] for link in ip("link", fd=fd)}

def setting(name, fd):
    return command("cat", "/proc/sys/net/" + name, fd=fd).strip()

def bridge():
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge")
    command("ip", "addr", "add", "10.9.0.1/24", "dev", "br0")
    command("ip", "addr", "add", "fd00:9::1/64", "dev", "br0", "nodad")
    command("ip", "link", "set", "br0", "up")
    return core.device_index("br0")

def link(number=2, **changes):
    values = dict(host_device=f"pv{number}", master_index=core.device_index("br0"), mtu=1400,
                  mac=f"02:42:0a:09:00:{number:02x}", addresses4=(f"10.9.0.{number}/24",), gateway4="10.9.0.1")
    return Link(**{**values, **changes})

def eventually(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)

def answer(**values):
    print(json.dumps(values))
"""


def inside(program: str) -> Any:
    """Run a program in a network namespace of its own and return the values that it answers with."""
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if os.geteuid() != 0 and subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user can make no user namespace")
    done = subprocess.run(
        [*own, sys.executable, "-c", BEGIN + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_device_is_what_was_asked_for() -> None:
    seen = inside("""
        bridge()
        fd = core.make_netns()
        core.attach(fd, link(addresses6=("fd00:9::2/64",), gateway6="fd00:9::1", isolated=True))
        answer(port=ip("link", "show", "pv2"), inner=ip("addr", fd=fd), routes=ip("route", fd=fd),
               routes6=ip("-6", "route", "show", "default", fd=fd), ra=setting("ipv6/conf/eth0/accept_ra", fd))
    """)
    port = seen["port"][0]
    assert "UP" in port["flags"]
    assert (port["master"], port["mtu"], port["linkinfo"]["info_kind"]) == ("br0", 1400, "veth")
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert port["linkinfo"]["info_slave_data"]["isolated"] is True
    # By the time attach() returns, or the first packet of the container would be lost.
    assert port["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    devices = {device["ifname"]: device for device in seen["inner"]}
    assert set(devices) == {"lo", "eth0"}
    assert "UP" in devices["lo"]["flags"]
    eth0 = devices["eth0"]
    assert "UP" in eth0["flags"]
    assert (eth0["address"], eth0["mtu"]) == ("02:42:0a:09:00:02", 1400)
    addresses = {(a["local"], a["prefixlen"]): a for a in eth0["addr_info"] if a["scope"] == "global"}
    assert set(addresses) == {("10.9.0.2", 24), ("fd00:9::2", 64)}
    assert addresses["10.9.0.2", 24]["broadcast"] == "10.9.0.255"
    assert not addresses["fd00:9::2", 64].get("tentative"), "usable at once"
    routes = {(route["dst"], route.get("gateway")) for route in seen["routes"] + seen["routes6"]}
    assert {("default", "10.9.0.1"), ("default", "fd00:9::1"), ("10.9.0.0/24", None)} <= routes
    assert seen["ra"] == "0"


def test_a_device_without_an_ipv6_address_has_no_ipv6() -> None:
    seen = inside("""
        bridge()
        fd = core.make_netns()
        core.attach(fd, link(gateway4="", hairpin=False, announce=False))
        answer(off=setting("ipv6/conf/eth0/disable_ipv6", fd), lo=setting("ipv6/conf/lo/disable_ipv6", fd),
               notify=setting("ipv4/conf/eth0/arp_notify", fd), routes=ip("route", fd=fd),
               port=ip("link", "show", "pv2"))
    """)
    assert (seen["off"], seen["lo"], seen["notify"]) == ("1", "0", "0")
    assert [route["dst"] for route in seen["routes"]] == ["10.9.0.0/24"]
    assert seen["port"][0]["linkinfo"]["info_slave_data"]["hairpin"] is False


def test_neighbours_are_told() -> None:
    seen = inside("""
        bridge()
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        listener.bind(("br0", 3))
        listener.settimeout(20)
        fd = core.make_netns()
        core.attach(fd, link(addresses6=("fd00:9::2/64",)))
        mac, four, six = bytes.fromhex("02420a090002"), bytes([10, 9, 0, 2]), socket.inet_pton(10, "fd00:9::2")
        wanted = {"arp", "na"}
        while wanted:
            frame = listener.recv(2000)
            kind = frame[12:14].hex()
            if kind == "0806" and frame[22:32] == mac + four and frame[38:42] == four:
                wanted.discard("arp")
            if kind == "86dd" and frame[54:55] == bytes([136]) and frame[62:78] == six and frame[80:86] == mac:
                wanted.discard("na")
        answer(told=True)
    """)
    assert seen == {"told": True}


def test_traffic_passes_at_once_and_to_its_own_port() -> None:
    seen = inside("""
        bridge()
        first, second = core.make_netns(), core.make_netns()
        core.attach(first, link(2, addresses6=("fd00:9::2/64",)))
        core.attach(second, link(3, addresses6=("fd00:9::3/64",)))
        for target in ("10.9.0.1", "10.9.0.3", "fd00:9::1", "fd00:9::3"):
            command("ping", "-c1", "-W20", target, fd=first)
        isolated = core.make_netns()
        command("ip", "link", "set", "pv3", "type", "bridge_slave", "isolated", "on")
        core.attach(isolated, link(4, isolated=True))
        command("ping", "-c1", "-W20", "10.9.0.2", fd=isolated)
        answer(blocked=command("ping", "-c1", "-W1", "10.9.0.3", fd=isolated, check=False).count("bytes from"))
    """)
    assert seen["blocked"] == 0


@pytest.mark.parametrize(
    ("changes", "errno", "words"),
    [
        ("master_index=99999", "EINVAL", "make the veth pair"),
        ("host_device='lo'", "EEXIST", "make the veth pair"),
        ("gateway4='10.200.0.1'", "ENETUNREACH", "add the default route"),
        ("addresses4=('10.9.0.2/24', '10.9.0.2/24')", "EEXIST", "add an address"),
        ("mtu=10", "EINVAL|ERANGE", "make the veth pair"),
        ("master_index=1", "EINVAL|ENOTSUP", "make the veth pair"),
        ("macvlan='bridge', master_index=99999", "ENODEV", "make the macvlan device"),
    ],
)
def test_a_device_that_cannot_be_made_leaves_nothing(changes: str, errno: str, words: str) -> None:
    seen = inside(f"""
        bridge()
        fd = core.make_netns()
        before = names()
        try:
            core.attach(fd, link({changes}))
        except NetworkError as error:
            import errno
            eventually(lambda: names() == before and names(fd) == {{"lo"}})
            answer(errno=errno.errorcode[error.errno], text=str(error))
    """)
    assert seen["errno"] in errno.split("|"), seen
    assert words in seen["text"] and seen["errno"] in seen["text"], seen


def test_a_device_of_another_with_the_same_name_stays() -> None:
    seen = inside("""
        bridge()
        first, second = core.make_netns(), core.make_netns()
        core.attach(first, link(2))
        try:
            core.attach(second, link(2))
        except NetworkError as error:
            answer(text=str(error), host=sorted(names()), first=sorted(names(first)), second=sorted(names(second)))
    """)
    assert "EEXIST" in seen["text"]
    assert seen["host"] == ["br0", "lo", "pv2"]
    assert seen["first"] == ["eth0", "lo"]
    assert seen["second"] == ["lo"]


def test_devices_come_and_go_while_the_container_runs() -> None:
    seen = inside("""
        bridge()
        fd = core.make_netns()
        core.attach(fd, link(2))
        core.attach(fd, link(3, device="eth1", gateway4=""))
        both = sorted(names(fd))
        core.detach(fd, "eth1")
        try:
            core.detach(fd, "eth1")
        except NetworkError as error:
            answer(both=both, left=sorted(names(fd)), host=sorted(names()), text=str(error), errno=error.errno)
    """)
    assert seen["both"] == ["eth0", "eth1", "lo"]
    assert seen["left"] == ["eth0", "lo"]
    assert seen["host"] == ["br0", "lo", "pv2"]
    assert seen["errno"] == 19 and "eth1" in seen["text"]


def test_the_devices_go_with_the_namespace() -> None:
    assert inside("""
        bridge()
        fds = [core.make_netns() for _ in range(5)]
        for number, fd in enumerate(fds, 2):
            core.attach(fd, link(number))
        before = len(names())
        for fd in fds:
            os.close(fd)
        eventually(lambda: names() == {"lo", "br0"})
        answer(before=before)
    """) == {"before": 7}


def test_macvlan() -> None:
    seen = inside("""
        command("ip", "link", "add", "parent0", "type", "veth", "peer", "name", "parent1")
        command("ip", "link", "set", "parent0", "up")
        command("ip", "link", "set", "parent1", "up")
        command("ip", "addr", "add", "10.9.0.1/24", "dev", "parent1")
        fd = core.make_netns()
        core.attach(fd, link(2, macvlan="bridge", host_device="", master_index=core.device_index("parent0")))
        command("ping", "-c1", "-W20", "10.9.0.1", fd=fd)
        answer(link=ip("link", "show", "eth0", fd=fd), host=sorted(names()))
    """)
    assert seen["link"][0]["linkinfo"]["info_kind"] == "macvlan"
    assert seen["link"][0]["linkinfo"]["info_data"]["mode"] == "bridge"
    assert seen["link"][0]["address"] == "02:42:0a:09:00:02"
    assert seen["host"] == ["lo", "parent0", "parent1"]


def test_the_hosts_end_in_another_namespace() -> None:
    seen = inside("""
        host = core.make_netns()
        fd = core.make_netns()
        command("ip", "link", "add", "br0", "type", "bridge", fd=host)
        index = ip("link", "show", "br0", fd=host)[0]["ifindex"]
        core.attach(fd, link(2, master_index=index), host_netns_fd=host)
        answer(own=sorted(names()), host=sorted(names(host)), inner=sorted(names(fd)))
    """)
    assert seen == {"own": ["lo"], "host": ["br0", "lo", "pv2"], "inner": ["eth0", "lo"]}


def test_threads_and_an_event_loop_stay_where_they_are() -> None:
    seen = inside("""
        import asyncio
        bridge()
        own = os.readlink("/proc/self/ns/net")
        failures, fds = [], []

        def start(first):
            try:
                for number in range(first, first + 10):
                    fd = core.make_netns()
                    core.attach(fd, link(number, host_device=f"pv{number}"))
                    fds.append(fd)
            except BaseException as failure:
                failures.append(repr(failure))

        async def main():
            fd = core.make_netns()
            core.attach(fd, link(200))
            fds.append(fd)
            await asyncio.gather(*(asyncio.to_thread(start, 10 + 10 * number) for number in range(8)))
            return {os.readlink(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")}

        places = asyncio.run(main())
        states = [link["linkinfo"]["info_slave_data"]["state"] for link in ip("link", "show", "master", "br0")]
        answer(failures=failures, stayed=places == {own}, ports=states.count("forwarding"),
               namespaces=len({os.fstat(fd).st_ino for fd in fds}))
    """)
    assert seen == {"failures": [], "stayed": True, "ports": 81, "namespaces": 81}


def test_sockets_belong_to_their_namespace() -> None:
    seen = inside("""
        fd = core.make_netns()
        def opened(*words, **options):
            return socket.socket(fileno=core.open_in(fd, *words, **options))

        server = opened(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.11", 5300, listen=5)
        server.settimeout(20)
        client = "import socket; socket.create_connection(('127.0.0.11', 5300), 20).sendall(b'hello')"
        command(sys.executable, "-c", client, fd=fd)
        connection, _ = server.accept()
        texts = []
        for address, port in (("127.0.0.11", 5300), ("10.1.2.3", 80)):
            try:
                core.open_in(fd, socket.AF_INET, socket.SOCK_STREAM, address, port)
            except NetworkError as error:
                texts.append((error.errno, str(error)))
        free = opened(socket.AF_INET6, socket.SOCK_DGRAM, "fd00::7", 53, freebind=True, nonblocking=True)
        own = socket.socket()
        own.bind(("127.0.0.11", 5300))
        six = opened(socket.AF_INET6, socket.SOCK_STREAM, "::", 5300)
        answer(said=connection.recv(9).decode(), texts=texts, free=free.getsockname()[:2], six=six.getsockname()[1],
               blocking=os.get_blocking(free.fileno()), inheritable=os.get_inheritable(server.fileno()))
    """)
    assert seen["said"] == "hello"
    assert [errno for errno, _ in seen["texts"]] == [98, 99]
    assert "127.0.0.11 port 5300" in seen["texts"][0][1]
    assert seen["free"] == ["fd00::7", 53]
    assert (seen["blocking"], seen["inheritable"], seen["six"]) == (False, False, 5300)


def test_a_namespace_that_belongs_to_another_user_namespace() -> None:
    seen = inside("""
        import fcntl
        words = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo ready; exec sleep 1000"]
        holder = subprocess.Popen(words, stdout=subprocess.PIPE)
        try:
            holder.stdout.readline()
            userns = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
            fd = core.make_netns(userns)
            owner = fcntl.ioctl(fd, 0xB701)  # NS_GET_USERNS
            bridge()
            core.attach(fd, link(2))
            answer(same=os.fstat(owner).st_ino == os.fstat(userns).st_ino, inner=sorted(names(fd)))
        finally:
            holder.kill()
            holder.wait()
    """)
    assert seen == {"same": True, "inner": ["eth0", "lo"]}


RULES = "add table inet t\\nadd chain inet t c\\nadd rule inet t c tcp dport 80 accept"


def test_rules_are_set_where_they_are_meant() -> None:
    seen = inside(f"""
        fd = core.make_netns()
        core.nft("{RULES}")
        core.nft("add table ip inner", fd)
        chain = {{"family": "inet", "table": "t", "name": "c"}}
        listed = json.loads(core.nft(json.dumps({{"nftables": [{{"list": {{"chain": chain}}}}]}})))
        answer(here=command("nft", "list", "tables"), there=command("nft", "list", "tables", fd=fd),
               text=core.nft("list ruleset"), listed=listed)
    """)
    assert (seen["here"], seen["there"]) == ("table inet t\n", "table ip inner\n")
    assert "tcp dport 80 accept" in seen["text"]
    assert [item["rule"]["handle"] for item in seen["listed"]["nftables"] if "rule" in item]


def test_rules_that_are_refused_are_all_refused() -> None:
    seen = inside("""
        texts = []
        for commands in ("add table inet t\\nadd chain inet absent c", "add nonsense"):
            try:
                core.nft(commands)
            except NetworkError as error:
                texts.append(str(error))
        core.nft("add table inet later")
        answer(texts=texts, tables=command("nft", "list", "tables"))
    """)
    assert "No such file or directory" in seen["texts"][0]
    assert "syntax error" in seen["texts"][1]
    assert seen["tables"] == "table inet later\n"


def test_rules_from_threads_and_forked_children() -> None:
    seen = inside("""
        core.nft("add table inet t\\nadd set inet t s { type inet_service; }")
        fd = core.make_netns()
        failures = []

        def add(first):
            try:
                for port in range(first, first + 20):
                    core.nft(f"add element inet t s {{ {port} }}")
                    if port % 10 == 0:
                        core.nft(f"add table ip t{port}", fd)
            except BaseException as failure:
                failures.append(repr(failure))

        threads = [threading.Thread(target=add, args=(100 * number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        child = os.fork()
        if child == 0:
            try:
                core.nft("add element inet t s { 7 }")
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for thread in threads:
            thread.join()
        found = json.loads(command("nft", "-j", "list", "set", "inet", "t", "s"))["nftables"][1]["set"]["elem"]
        inner = command("nft", "list", "tables", fd=fd).splitlines()
        answer(failures=failures, code=code, elements=len(found), inner=len(inner))
    """)
    assert seen == {"failures": [], "code": 0, "elements": 161, "inner": 16}


def test_the_nft_program_does_it_where_the_library_is_missing() -> None:
    seen = inside("""
        from pyrtc.core import network
        def missing():
            raise UnsupportedError("cannot load libnftables.so.1")
        network._open_nft = missing
        fd = core.make_netns()
        core.nft("add table inet t")
        core.nft("add table inet inner", fd)
        listed = json.loads(core.nft('{"nftables": [{"list": {"tables": null}}]}'))
        texts = []
        try:
            core.nft("add nonsense")
        except NetworkError as error:
            texts.append(str(error))
        real = subprocess.run
        def nowhere(words, **_):
            raise FileNotFoundError(words[0])
        subprocess.run = nowhere
        try:
            core.nft("add table inet u")
        except UnsupportedError as error:
            texts.append(str(error))
        subprocess.run = real
        here, there = command("nft", "list", "tables"), command("nft", "list", "tables", fd=fd)
        answer(here=here, there=there, texts=texts,
               listed=[item["table"]["name"] for item in listed["nftables"] if "table" in item])
    """)
    assert (seen["here"], seen["there"], seen["listed"]) == ("table inet t\n", "table inet inner\n", ["t"])
    assert "syntax error" in seen["texts"][0]
    assert "apt-get install libnftables1" in seen["texts"][1]


def test_connections_to_a_port_are_forgotten_and_others_are_not() -> None:
    seen = inside("""
        bridge()
        fd = core.make_netns()
        core.attach(fd, link(2, addresses6=("fd00:9::2/64",), gateway6="fd00:9::1"))
        far = core.make_netns()
        core.attach(far, link(3))
        core.nft(
            "add table inet t\\n"
            "add chain inet t pre { type nat hook prerouting priority dstnat; }\\n"
            "add chain inet t post { type nat hook postrouting priority srcnat; }\\n"
            "add rule inet t pre ip daddr 10.9.0.1 udp dport 5000 dnat ip to 10.9.0.3:6000\\n"
            "add rule inet t post ip daddr 10.77.0.1 masquerade"
        )
        command("ip", "route", "add", "10.77.0.0/24", "via", "10.9.0.3")
        command("tee", "/proc/sys/net/ipv4/ip_forward", input="1")
        targets = ((2, "10.9.0.1", 5000), (2, "10.9.0.1", 5001), (10, "fd00:9::1", 5000), (2, "10.77.0.1", 5000))
        send = (f"import socket\\nfor family, host, port in {targets}:\\n"
                "    socket.socket(family, socket.SOCK_DGRAM).sendto(b'x', (host, port))")
        command(sys.executable, "-c", send, fd=fd)

        def ports():
            lines = [line.split() for family in ("ipv4", "ipv6")
                     for line in command("conntrack", "-L", "-p", "udp", "-f", family).splitlines()]
            return sorted([next(word for word in words if word.startswith(begin)) for begin in ("dst=", "dport=")]
                          for words in lines)

        eventually(lambda: len(ports()) >= 4)
        before = ports()
        count = core.forget_flows("udp", [80, 5000])
        after = ports()
        answer(before=before, count=count, after=after, again=core.forget_flows("udp", [80, 5000]),
               tcp=core.forget_flows("tcp", [5001]))
    """)
    assert len(seen["before"]) == 4
    assert seen["count"] == 2
    # What is merely on its way out through masquerading is none of ours.
    assert seen["after"] == [["dst=10.77.0.1", "dport=5000"], ["dst=10.9.0.1", "dport=5001"]]
    assert (seen["again"], seen["tcp"]) == (0, 0)
