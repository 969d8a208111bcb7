"""What pasta and slirp4netns are told, and what is made of what they say."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from pyrtc.errors import StartError, UnsupportedError
from pyrtc.network import pasta, rootless, slirp4netns
from pyrtc.options import NetworkAttachment, Port

WEB = Port(80, host=8080)


def option(words: list[str], name: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == name]


def test_what_pasta_is_told() -> None:
    ports = (WEB, Port(53, "udp", 5300, "127.0.0.1"), Port(81, host=8081, ip="::1"))
    words = pasta.arguments("/usr/bin/pasta", 77, ports, forward_dns=True)
    assert words[0] == "/usr/bin/pasta"
    assert option(words, "-t") == ["8080:80", "::1/8081:81"]
    assert option(words, "-u") == ["127.0.0.1/5300:53"]
    assert option(words, "-T") == option(words, "-U") == ["none"]
    assert option(words, "--netns") == ["/proc/77/ns/net"]
    assert option(words, "--userns") == ["/proc/77/ns/user"]
    assert option(words, "--dns-forward") == [pasta.FORWARDED_DNS]
    assert "--no-map-gw" in words


def test_pasta_forwards_nothing_unasked() -> None:
    """Its default is every port that somebody listens on."""
    words = pasta.arguments("/usr/bin/pasta", 77, (), forward_dns=False)
    assert option(words, "-t") == option(words, "-u") == ["none"]
    assert "--dns-forward" not in words


def test_an_address_for_the_host() -> None:
    words = pasta.arguments("/usr/bin/pasta", 77, (), forward_dns=False, map_host=True)
    assert option(words, "--map-guest-addr") == [pasta.HOST]
    assert not pasta.can_map_host("/none")


@pytest.mark.parametrize("text", ["no program", "#!/none/sh\n", "#!/bin/sh\nexec sleep 100\n"])
def test_a_pasta_that_says_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Starting it says why it does not work; asking for its version is no place for that, and ends."""
    monkeypatch.setattr(pasta, "_PATIENCE", 0.2)
    program = tmp_path / "pasta"
    program.write_text(text)
    program.chmod(0o755)
    assert pasta.is_silent(str(program))
    assert not pasta.can_map_host(str(program))


def test_two_targets_of_one_port() -> None:
    two = (Port(80, host=8080, ip="127.0.0.1"), Port(81, host=8080, ip="127.0.0.2"))
    with pytest.raises(UnsupportedError, match="publish different ports"):
        pasta.arguments("/usr/bin/pasta", 77, two, forward_dns=False)
    same = (Port(80, host=8080, ip="127.0.0.1"), Port(80, host=8080, ip="127.0.0.2"), Port(81, "udp", 8080))
    assert pasta.arguments("/usr/bin/pasta", 77, same, forward_dns=False)


@pytest.mark.parametrize(
    ("version", "help_text", "silent"),
    [
        ("pasta unknown version", "--config-net", True),
        ("pasta unknown version", "--map-host-loopback ADDR", False),
        ("pasta 0.0~git20230309.7c7625d", "", True),
        ("pasta 0.0~git20230627.289301b-1", "", False),
        ("pasta 2024_02_20.1e6f92b", "", False),
        ("pasta 2022_10_24.c11277b", "", True),
    ],
)
def test_pastas_that_keep_silent(tmp_path: Path, version: str, help_text: str, silent: bool) -> None:
    program = tmp_path / "pasta"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" || echo "{help_text}" >&2\n')
    program.chmod(0o755)
    assert pasta.is_silent(str(program)) is silent


def test_what_slirp4netns_is_told() -> None:
    words = slirp4netns.arguments("/usr/bin/slirp4netns", 77, "/run/user/1/pyrtc/x")
    assert words[-2:] == ["77", "eth0"]
    assert {"--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"} <= set(words)
    assert "--api-socket=/run/user/1/pyrtc/x" in words
    assert not [word for word in slirp4netns.arguments("/usr/bin/slirp4netns", 77, "") if "api-socket" in word]
    with pytest.raises(UnsupportedError, match="IPv4"):
        slirp4netns.heard([Port(80, host=8080, ip="::1")])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"return": {"id": 1}}', None),
        (b'{"error": {"desc": "bad request: add_hostfwd: slirp_add_hostfwd failed"}}', "slirp_add_hostfwd failed"),
        (b"", "no answer"),
        (b"[]", "8080"),
        (b"\xff{", "8080"),
    ],
)
def test_ports_of_slirp4netns(tmp_path: Path, answer: bytes, error: str | None) -> None:
    path = str(tmp_path / "orders")
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            taken, _ = listening.accept()
            with taken:
                while data := taken.recv(4096):
                    asked.append(data)
                taken.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            if error is None:
                slirp4netns.publish(path, slirp4netns.heard([WEB]))
            else:
                with pytest.raises(StartError, match=error):
                    slirp4netns.publish(path, slirp4netns.heard([WEB]))
        finally:
            serving.join()
    order = json.loads(b"".join(asked))
    assert order["execute"] == "add_hostfwd"
    assert order["arguments"] == {
        "proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8080, "guest_addr": "10.0.2.100", "guest_port": 80
    }  # fmt: skip


def test_slirp4netns_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot speak with slirp4netns"):
        slirp4netns.publish(str(tmp_path / "none"), [WEB])


@pytest.mark.parametrize("names", [["web"], ["bridge", "pasta"], []])
def test_networks_that_are_no_program(names: list[str]) -> None:
    with pytest.raises(UnsupportedError, match="or networks that the user has made"):
        rootless.decide([NetworkAttachment(name) for name in names])


def test_what_a_network_of_ones_own_would_take() -> None:
    with pytest.raises(UnsupportedError, match="--ip"):
        rootless.decide([NetworkAttachment("bridge", ip="10.0.0.2")])
    with pytest.raises(UnsupportedError, match="--ip"):
        rootless.decide([NetworkAttachment("bridge", ip6="fd00::2")])
    with pytest.raises(UnsupportedError, match="--network-alias"):
        rootless.decide([NetworkAttachment("bridge", aliases=("db",))])


def test_a_hardware_address_is_passed_on() -> None:
    mac = "02:00:00:00:00:07"
    assert option(pasta.arguments("/p", 77, (), forward_dns=False, mac=mac), "--ns-mac-addr") == [mac]
    assert f"--macaddress={mac}" in slirp4netns.arguments("/s", 77, "", mac)


@pytest.mark.skipif(os.geteuid() == 0, reason="is about an ordinary user")
def test_programs_that_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:relative")
    monkeypatch.setattr(rootless, "_TUN", "/dev/null")
    with pytest.raises(UnsupportedError, match="apt-get install passt"):
        rootless.decide([NetworkAttachment("bridge")])
    (tmp_path / "slirp4netns").write_text("")
    with pytest.raises(UnsupportedError, match="apt-get install passt"):  # it cannot be executed
        rootless.decide([NetworkAttachment("bridge")])
    (tmp_path / "slirp4netns").chmod(0o755)
    found = rootless.decide([NetworkAttachment("bridge")])
    assert (found.kind, found.program, found.nameservers) == ("slirp4netns", f"{tmp_path}/slirp4netns", ("10.0.2.3",))


@pytest.mark.skipif(os.geteuid() == 0, reason="is about an ordinary user")
def test_published_ports_are_not_left_to_a_pasta_that_keeps_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rootless, "_TUN", "/dev/null")
    (tmp_path / "pasta").write_text("#!/bin/sh\necho pasta unknown version\n")
    (tmp_path / "pasta").chmod(0o755)
    assert rootless.decide([NetworkAttachment("bridge")]).warnings == ()
    assert rootless.decide([NetworkAttachment("bridge")], publishes=True).warnings == (pasta.SILENT,)
    (tmp_path / "slirp4netns").write_text("")
    (tmp_path / "slirp4netns").chmod(0o755)
    assert rootless.decide([NetworkAttachment("bridge")]).kind == "pasta"
    assert rootless.decide([NetworkAttachment("bridge")], publishes=True).kind == "slirp4netns"
    named = rootless.decide([NetworkAttachment("pasta")], publishes=True)
    assert (named.kind, named.warnings) == ("pasta", (pasta.SILENT,))


def test_resolvers_on_this_host_are_not_elsewhere() -> None:
    assert rootless._elsewhere(["127.0.0.1", "::1"]) == (pasta.FORWARDED_DNS,)
    assert rootless._source_for("127.0.0.1") == "127.0.0.1"


def test_gone_without_a_program(tmp_path: Path) -> None:
    rootless.gone(str(tmp_path))
    (tmp_path / rootless.LOCK).write_text("")
    rootless.gone(str(tmp_path))
