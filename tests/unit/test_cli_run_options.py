"""From the words of `pyrtc run` to RunOptions."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrtc.cli.run_options import GROUPS, UNAVAILABLE
from pyrtc.cli.run_request import read_request
from pyrtc.errors import UsageError
from pyrtc.options import (
    Bind,
    Device,
    HealthCheck,
    LogOptions,
    NetworkAttachment,
    Port,
    RestartPolicy,
    RunOptions,
    Tmpfs,
    Ulimit,
    Volume,
)
from pyrtc.runtime.cgroups import Limits

HOST = {"HOME": "/home/me"}


def options(*words):
    return read_request([*words, "debian"], HOST).options


def test_no_options_are_the_defaults_but_for_removal():
    request = read_request(["debian"], HOST)
    assert request.image == "debian"
    assert request.options == RunOptions(remove=False)
    assert request.signal_proxy and not request.plan and request.id_file is None


def test_help_comes_before_everything():
    assert read_request(["--help"], HOST) is None


def test_image_and_command():
    request = read_request(["--rm", "debian", "sh", "-c", "echo $0", "--rm"], HOST)
    assert request.image == "debian"
    assert request.options.command == ("sh", "-c", "echo $0", "--rm")
    assert request.options.remove


@pytest.mark.parametrize("words", [[], ["--rm"], [""], ["--rm", "--"]])
def test_image_is_needed(words):
    with pytest.raises(UsageError, match="image"):
        read_request(words, HOST)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--name", "web"], "name", "web"),
        (["-e", "A=1", "-e", "HOME", "-e", "MISSING", "-e", "A=2"], "env", (("A", "2"), ("HOME", "/home/me"))),
        (["-w", "/srv"], "workdir", "/srv"),
        (["-u", "www-data:33"], "user", "www-data:33"),
        (["--group-add", "audio", "--group-add", "5"], "group_add", ("audio", "5")),
        (["--entrypoint", "/bin/sh"], "entrypoint", ("/bin/sh",)),
        (["--entrypoint", ""], "entrypoint", ()),
        (["-h", "box"], "hostname", "box"),
        (["--domainname", "example.org"], "domainname", "example.org"),
        (["--read-only"], "read_only", True),
        (["--network", "host"], "network", "host"),
        (["--net=none"], "network", "none"),
        (["--network", "container:db"], "network", "container:db"),
        (["--net", "web"], "network", "web"),
        (["--net", "web", "--net", "default"], "networks", (NetworkAttachment("web"), NetworkAttachment("bridge"))),
        (
            ["--network", "name=web,alias=a,ip=10.0.0.2,alias=b"],
            "networks",
            (NetworkAttachment("web", "10.0.0.2", aliases=("a", "b")),),
        ),
        (
            ["--network", "web", "--ip6", "FD00::2", "--mac-address", "02:42:AC-11-00-02", "--network-alias", "db"],
            "networks",
            (NetworkAttachment("web", "", "fd00::2", "02:42:ac:11:00:02", ("db",)),),
        ),
        (["-p", "8080:80"], "ports", (Port(80, host=8080),)),
        (["-p", "8080:80"], "network", "bridge"),
        (["-P"], "networks", (NetworkAttachment("bridge"),)),
        (["-P"], "publish_all", True),
        (["--network", "web", "-P"], "network", "web"),
        (["--expose", "53-54/udp", "--expose", "53/udp"], "expose", (Port(53, "udp"), Port(54, "udp"))),
        (["--add-host", "me:host-gateway"], "add_host", (("me", "host-gateway"),)),
        (["--dns", "1.1.1.1", "--dns", "::1"], "dns", ("1.1.1.1", "::1")),
        (["--dns-search", "a.b"], "dns_search", ("a.b",)),
        (["--dns-opt", "ndots:2"], "dns_option", ("ndots:2",)),
        (["--add-host", "db:10.0.0.1"], "add_host", (("db", "10.0.0.1"),)),
        (["--health-cmd", "test -e /ok"], "health", HealthCheck(("CMD-SHELL", "test -e /ok"))),
        (
            ["--health-interval", "1m30s", "--health-timeout=500ms", "--health-retries", "2"],
            "health",
            HealthCheck(interval=90.0, timeout=0.5, retries=2),
        ),
        (
            ["--health-start-period", "10s", "--health-start-interval", "1s"],
            "health",
            HealthCheck(start_period=10.0, start_interval=1.0),
        ),
        (["--no-healthcheck"], "health", HealthCheck(("NONE",))),
        (["--best-effort"], "best_effort", True),
        (["--ulimit", "nofile=5:6"], "ulimits", (Ulimit("nofile", 5, 6),)),
        (["--shm-size", "1g"], "shm_size", 1 << 30),
        (["--shm-size", "0"], "shm_size", 64 << 20),
        (["--oom-score-adj", "-500"], "oom_score_adj", -500),
        (["--cap-add", "NET_ADMIN", "--cap-add", "all"], "cap_add", ("NET_ADMIN", "ALL")),
        (["--cap-drop", "cap_chown"], "cap_drop", ("CHOWN",)),
        (["--privileged"], "privileged", True),
        (["--security-opt", "seccomp=unconfined"], "seccomp", "unconfined"),
        (["--security-opt", "no-new-privileges=false"], "no_new_privileges", False),
        (["--security-opt", "systempaths=unconfined"], "systempaths", "unconfined"),
        (["--security-opt", "mask=/a:/b"], "mask", ("/a", "/b")),
        (["--security-opt", "unmask=ALL"], "unmask", ("ALL",)),
        (["--sysctl", "net.core.somaxconn=5"], "sysctls", (("net.core.somaxconn", "5"),)),
        (["--device", "/dev/fuse"], "devices", (Device("/dev/fuse", "/dev/fuse"),)),
        (["--userns", "keep-id"], "userns", "keep-id"),
        (["--pid", "host"], "pid", "host"),
        (["--ipc=private"], "ipc", "private"),
        (["--uts", "host"], "uts", "host"),
        (["--cgroupns", "host"], "cgroupns", "host"),
        (["--init"], "init", True),
        (["--stop-signal", "int"], "stop_signal", "SIGINT"),
        (["--stop-timeout", "0"], "stop_timeout", 0.0),
        (["--timeout", "1m30s"], "timeout", 90.0),
        (["--timeout", "0"], "timeout", None),
        (["-l", "a=b", "--label", "c"], "labels", (("a", "b"), ("c", ""))),
        (["--platform", "arm64"], "platform", "linux/arm64"),
        (["-t"], "tty", True),
        (["-it"], "interactive", True),
        (["--driver", "copy"], "driver", "copy"),
        (["--rw-layer", "memory"], "rw_layer", "memory"),
        (
            ["--tmpfs", "/run", "-v", "data:/data", "--mount", "type=bind,src=/a,dst=/b"],
            "mounts",
            (Volume("data", "/data"), Bind("/a", "/b"), Tmpfs("/run")),
        ),
    ],
)
def test_option(words, field, value):
    assert getattr(options(*words), field) == value


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["-m", "64m"], "memory", 64 << 20),
        (["-m", "64m", "--memory-swap", "-1"], "memory_swap", -1),
        (["-m", "64m", "--memory-swap=128m"], "memory_swap", 128 << 20),
        (["--memory-reservation", "32m"], "memory_reservation", 32 << 20),
        (["--cpus", "0.5"], "cpus", 0.5),
        (["-c", "512"], "cpu_shares", 512),
        (["--cpuset-cpus", "0"], "cpuset_cpus", "0"),
        (["--cpuset-mems", "0"], "cpuset_mems", "0"),
        (["--pids-limit", "-1"], "pids", -1),
        (["--blkio-weight", "300"], "blkio_weight", 300),
        (["--device-read-bps", "/dev/sda:1m"], "device_read_bps", (("/dev/sda", 1 << 20),)),
        (["--device-write-bps", "/dev/sda:1k"], "device_write_bps", (("/dev/sda", 1024),)),
        (["--device-read-iops", "/dev/sda:5"], "device_read_iops", (("/dev/sda", 5),)),
        (["--network-rate-in", "10mbit"], "network_in", 10_000_000),
        (["--network-rate-out", "0"], "network_out", None),
        (["--device-write-iops", "/dev/sda:6"], "device_write_iops", (("/dev/sda", 6),)),
        (["-m", "0", "--cpus=0", "-c0", "--blkio-weight=0"], "memory", None),
    ],
)
def test_limit(words, field, value):
    assert getattr(options(*words).limits, field) == value


def test_zero_limits_are_none():
    assert options("-m", "0", "--cpus=0", "-c0", "--blkio-weight=0", "--memory-swap=0").limits == Limits()


def test_request_options():
    request = read_request(["--plan", "--sig-proxy=false", "--cidfile", "id", "debian"], HOST)
    assert request.plan and not request.signal_proxy and request.id_file == "id"


def test_environment_file_comes_before_variables(tmp_path):
    (tmp_path / "one").write_text("A=file\nB=file\nHOME\n")
    (tmp_path / "two").write_text("B=two\n")
    made = options("-e", "A=word", "--env-file", str(tmp_path / "one"), "--env-file", str(tmp_path / "two"))
    assert dict(made.env) == {"A": "word", "B": "two", "HOME": "/home/me"}


def test_label_file(tmp_path):
    (tmp_path / "labels").write_text("a=1\nb\n")
    assert dict(options("--label-file", str(tmp_path / "labels"), "-l", "a=2").labels) == {"a": "2", "b": ""}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--network", "web", "--network", "host"], "cannot attach both"),
        (["--ip", "10.0.0.2"], "name it with --network"),
        (["--network", "web", "--ip", "10.0.0"], "not an IPv4 address"),
        (["--network", "name=web,ip=10.0.0.2", "--ip", "10.0.0.3"], "both --ip"),
        (["--link", "db"], "find each other by name"),
        (["-p", "80:x"], "invalid value \"80:x\" for -p, --publish: 'x' is not a port"),
        (["--pid", "container:x"], "invalid value .* for --pid: this version knows private and host"),
        (["--userns", "nomap"], "host and auto and keep-id"),
        (["--driver", "btrfs"], "overlay and copy"),
        (["-w", "srv"], "absolute path"),
        (["--oom-score-adj", "1001"], "-1000 to 1000"),
        (["--uts=host", "--hostname", "x"], "--uts=host"),
        (["-m", "1m"], "6MB"),
        (["--memory-swap", "64m"], "memory limit"),
        (["-m", "64m", "--memory-swap", "32m"], "cannot be smaller"),
        (["--cpus", "10000"], "CPUs"),
        (["--cpuset-cpus", "5-2"], "CPUs"),
        (["-a", "stdout"], "pyrtc start --attach"),
        (["--log-opt", "max-size=0"], "positive"),
        (["--log-opt", "max-file=0"], "from 1 to"),
        (["--log-opt", "compress=true"], "max-size=SIZE"),
        (["--log-driver", "syslog"], "local"),
        (["--log-driver", "none", "--log-opt", "max-file=2"], "keeps nothing"),
        (["--restart=sometimes"], "unless-stopped"),
        (["--restart=always:3"], "only on-failure"),
        (["--restart=on-failure:-1"], "negative"),
        (["--env-file", "/nonexistent/file"], 'invalid value "/nonexistent/file" for --env-file: cannot read it'),
        (["--security-opt", "apparmor=x"], 'invalid value "apparmor=x" for --security-opt'),
        (["--memry=1"], "did you mean --memory"),
    ],
)
def test_refused(words, text):
    with pytest.raises(UsageError, match=text):
        options(*words)


SPELLINGS = [name for group in GROUPS for option in group.options for name in option.spelling.split(", ")]


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from([*SPELLINGS, *UNAVAILABLE, "--", "image"])
        | st.text(alphabet=string.ascii_letters + string.digits + "/:=,.-\0\n é", max_size=16),
        max_size=8,
    )
)
def test_any_command_line_is_read_or_refused(words):
    try:
        request = read_request(words, HOST)
    except UsageError as error:
        assert str(error)
    else:
        assert request is None or request.image


def test_detached():
    request = read_request(
        ["-d", "--restart=on-failure:3", "--log-opt", "max-size=1m", "--log-opt=max-file=2", "image"], {}
    )
    assert request.detach
    assert request.options.restart == RestartPolicy("on-failure", 3)
    assert request.options.log == LogOptions("local", 1 << 20, 2)
    assert read_request(["--log-opt", "max-size=-1", "image"], {}).options.log.max_size == 0, "it grows"
    assert not read_request(["image"], {}).detach
