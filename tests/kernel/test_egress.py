"""Where containers may connect to: what they reach and what they cannot get around, as root in a place of their own."""

import json

import pytest
from network_place import HOST, OUTSIDE, OUTSIDE6, Place, eventually, place
from test_network_starts import about, clean, run, server, settings

__all__ = ["place"]

# Says for each address whether a TCP connection or its refusal came back, or nothing and why.
TRY = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit("/", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=10): print("connected")
    except ConnectionRefusedError: print("reached")
    except OSError as error: print("blocked" if error.errno in (1, 13, 113) else repr(error))
"""
RAW = """
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
"""


def reach(place: Place, name: str, *addresses: str) -> list[str]:
    """Return what each address/port is for a container: connected, reached, blocked."""
    return place.pyrtc("exec", name, "python3", "-c", TRY, *addresses).stdout.split()


def test_nothing_but_loopback(place: Place) -> None:
    server(place, "closed", "--network", "bridge", "--egress", "none", "-p", "8080:80")
    gateway = settings(place, "closed")["Gateway"]
    assert reach(place, "closed", f"{OUTSIDE}/9", f"{gateway}/9", f"{HOST}/9", "127.0.0.1/80") == [
        "blocked",
        "blocked",
        "blocked",
        "connected",
    ]
    # Who comes from outside is answered.
    ask = f"import socket; print(socket.create_connection(('{HOST}', 8080), 10).recv(99).decode())"
    assert "closed" in place.outside.run("python3", "-c", ask).stdout
    clean(place)


def test_what_is_named_is_reached(place: Place) -> None:
    words = ("--egress", f"{OUTSIDE}/32,192.0.2.0/24", "--egress", OUTSIDE6)
    run(place, "--name", "some", "--network", "bridge", *words)
    assert about(place, "some")["HostConfig"]["Egress"] == [f"{OUTSIDE}/32", "192.0.2.0/24", f"{OUTSIDE6}/128"]
    assert reach(place, "some", f"{OUTSIDE}/9", f"{HOST}/9", "198.51.100.77/9") == ["reached", "blocked", "blocked"]
    place.pyrtc("restart", "some")
    assert reach(place, "some", f"{OUTSIDE}/9", f"{HOST}/9") == ["reached", "blocked"], "in its next life"
    clean(place)


def test_ipv6(place: Place) -> None:
    place.pyrtc("network", "create", "--ipv6", "six")
    run(place, "--name", "some", "--network", "six", "--egress", OUTSIDE6)
    gateway = settings(place, "some", "six")["IPv6Gateway"]
    assert reach(place, "some", f"{OUTSIDE6}/9", f"{gateway}/9") == ["reached", "blocked"]
    clean(place)


def test_own_networks_and_names_in_them(place: Place) -> None:
    place.pyrtc("network", "create", "one")
    place.pyrtc("network", "create", "two")
    server(place, "first", "--network", "one")
    server(place, "second", "--network", "two")
    second = settings(place, "second", "two")["IPAddress"]
    run(place, "--name", "some", "--network", "one", "--egress", "local")
    assert reach(place, "some", "first/80", f"{OUTSIDE}/9", f"{second}/80") == ["connected", "blocked", "blocked"]
    place.pyrtc("network", "connect", "two", "some")
    assert reach(place, "some", "second/80", "first/80", f"{OUTSIDE}/9") == ["connected", "connected", "blocked"]
    place.pyrtc("network", "disconnect", "one", "some")
    assert reach(place, "some", "second/80", f"{OUTSIDE}/9") == ["connected", "blocked"]
    clean(place)


def test_names_of_others_are_not_asked_for(place: Place) -> None:
    """What is asked of a name server is sent out, too."""
    place.pyrtc("network", "create", "one")
    (place.root.parent / "asked").touch()
    listen = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 53))\n"
        "print('up', flush=True)\n"
        "while True: print(s.recv(999), flush=True)"
    )
    with (place.root.parent / "asked").open("w") as asked:
        resolver = place.popen("python3", "-c", listen, stdout=asked)
        try:
            read = (place.root.parent / "asked").read_text
            assert eventually(lambda: "up" in read())
            find = [
                "python3",
                "-c",
                "import socket\ntry: socket.getaddrinfo('secret.example', 80)\nexcept OSError: pass",
            ]
            words = (
                "--network",
                "one",
                "--dns",
                "127.0.0.1",
                "--dns-option",
                "timeout:1",
                "--dns-option",
                "attempts:1",
            )
            place.pyrtc("run", *words, "host", *find)
            assert "secret" in read(), "without --egress it is"
            place.pyrtc(
                "run", *words, "--egress", "local", "host", "python3", "-c", find[2].replace("secret", "hidden")
            )
            assert "hidden" not in read()
        finally:
            resolver.kill()
            resolver.wait()
    clean(place)


def test_it_cannot_be_got_around(place: Place) -> None:
    run(place, "--name", "some", "--network", "bridge", "--egress", "none")
    for command in (
        ["nft", "flush", "ruleset"],
        ["nft", "delete", "table", "inet", "pyrtc_egress"],
        ["ip", "link", "add", "x", "type", "veth"],
        ["python3", "-c", RAW],
    ):
        refused = place.pyrtc("exec", "some", *command, check=False)
        assert refused.returncode != 0, command
        assert "not permitted" in refused.stderr, refused.stderr
    assert reach(place, "some", f"{OUTSIDE}/9") == ["blocked"]
    joined = place.pyrtc("run", "--network", "container:some", "host", "true", check=False)
    assert joined.returncode == 125 and "--egress" in joined.stderr
    clean(place)


@pytest.mark.parametrize(
    "words",
    [
        ("--network", "none"),
        ("--network", "host"),
        ("--network", "bridge", "--privileged"),
        ("--network", "bridge", "--cap-add", "NET_ADMIN"),
        ("--network", "bridge", "--cap-add", "cap_net_raw"),
        ("--network", "bridge", "--cap-add", "ALL"),
    ],
)
def test_contradictions(place: Place, words: tuple[str, ...]) -> None:
    for command in ("run", "create"):
        refused = place.pyrtc(command, *words, "--egress", "none", "host", "true", check=False)
        assert refused.returncode == 125 and "--egress" in refused.stderr, refused
    clean(place)


def test_in_a_user_namespace_of_its_own(place: Place) -> None:
    words = ("run", "--network", "bridge", "--userns", "auto", "--egress", OUTSIDE, "host", "python3", "-c", TRY)
    done = place.pyrtc(*words, f"{OUTSIDE}/9", f"{HOST}/9")
    assert done.stdout.split() == ["reached", "blocked"]
    clean(place)


def test_rules_are_there_before_the_command(place: Place) -> None:
    """As the kernel tells them, from outside."""
    run(place, "--name", "some", "--network", "bridge", "--egress", "10.0.0.0/8,10.1.0.0/16,10.1.2.3")
    pid = about(place, "some")["State"]["Pid"]
    shown = place.run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "--json", "list", "ruleset").stdout
    listed = json.loads(shown)["nftables"]
    chains = {item["chain"]["name"]: item["chain"]["policy"] for item in listed if "chain" in item}
    assert chains == {"sent": "drop", "passed_on": "drop"}
    (four,) = [item["set"]["elem"] for item in listed if item.get("set", {}).get("name") == "allowed4"]
    assert four == [{"prefix": {"addr": "10.0.0.0", "len": 8}}], "what overlaps is one"
    clean(place)
