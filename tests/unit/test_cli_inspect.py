"""`pyrtc inspect`: a container as Docker describes it."""

import json

import pytest

from pyrtc import Bind, Device, Limits, RunOptions, Tmpfs, Ulimit, Volume
from pyrtc.cli.container_document import container_document, timestamp
from pyrtc.cli.main import main
from pyrtc.container import Completed, Outcome, Usage
from pyrtc.engine import Engine
from pyrtc.image.config import Healthcheck, ImageConfig
from pyrtc.inspection import ContainerSize, Inspection, MountInfo
from pyrtc.options import NetworkAttachment, Port
from pyrtc.preparation import Preparation
from pyrtc.start_image import find_image
from pyrtc.store.network_records import Endpoint, Network
from pyrtc.values import replace

USAGE = Usage(2.0, 0.5, 0.4, 0.1, 1 << 20, 3, 10, 20)
IMAGE = ImageConfig(
    env=(("A", "image"), ("B", "image")),
    entrypoint=("/entry",),
    cmd=("serve",),
    user="app",
    workdir="/srv",
    volumes=("/data",),
    ports=("80/tcp",),
    stop_signal="SIGQUIT",
    healthcheck=Healthcheck(("CMD", "check"), interval=1.5, retries=2),
)
BARE = Inspection(
    id="c" * 64,
    name="web",
    image="app",
    image_id="sha256:77",
    command=("/entry", "serve"),
    status="running",
    pid=42,
    monitor_pid=None,
    created=1_700_000_000.25,
    started=1_700_000_001.0,
    finished=None,
    restarts=2,
    remove=False,
    last=None,
    error="",
    directory="/store/containers/c",
    cgroup="/sys/fs/cgroup/pyrtc/c",
    volumes=(),
    options=RunOptions(remove=False),
    labels=(("tier", "a"),),
    image_config=IMAGE,
    usage=USAGE,
    log_path="/store/containers/c/log",
    env=(("PATH", "/bin"), ("A", "image"), ("B", "mine")),
)


def test_a_container_that_runs():
    found = container_document(BARE)
    assert json.loads(json.dumps(found)) == found
    assert found["State"] == {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 42,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2023-11-14T22:13:21.000000Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    assert (found["Id"], found["Name"], found["Image"], found["RestartCount"]) == ("c" * 64, "/web", "sha256:77", 2)
    assert (found["Path"], found["Args"], found["Created"]) == ("/entry", ["serve"], "2023-11-14T22:13:20.250000Z")
    assert found["LogPath"] == "/store/containers/c/log" and found["GraphDriver"]["Data"]["UpperDir"].endswith(
        "c/upper"
    )
    assert "SizeRw" not in found and found["Usage"]["MemoryPeak"] == 1 << 20 and found["Usage"]["PidsPeak"] == 3


def test_what_the_image_says_and_what_is_said_over_it():
    config = container_document(BARE)["Config"]
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("app", "/srv", "SIGQUIT")
    assert repr(config["StopTimeout"]) == "10", "a whole number, as Docker's clients read it"
    assert (config["Entrypoint"], config["Cmd"], config["Hostname"]) == (["/entry"], ["serve"], "c" * 12)
    assert config["Env"] == ["PATH=/bin", "A=image", "B=mine"]
    assert config["ExposedPorts"] == {"80/tcp": {}} and config["Volumes"] == {"/data": {}}
    assert config["Healthcheck"]["Interval"] == 1_500_000_000 and config["Labels"] == {"tier": "a"}
    options = RunOptions(entrypoint=(), command=("sh",), user="me", hostname="h", workdir="/w")
    config = container_document(replace(BARE, options=options))["Config"]
    assert (config["Entrypoint"], config["Cmd"], config["User"], config["Hostname"]) == ([], ["sh"], "me", "h")
    assert config["WorkingDir"] == "/w"


def test_how_it_is_confined():
    limits = Limits(
        memory=64 << 20, cpus=0.5, pids=10, cpu_shares=512, cpuset_cpus="0", device_read_bps=(("/dev/sda", 1024),)
    )
    options = RunOptions(
        remove=False,
        limits=limits,
        cap_add=("NET_ADMIN",),
        read_only=True,
        network="host",
        devices=(Device("/dev/fuse", "/dev/fuse"),),
        ulimits=(Ulimit("nofile", 10, 20),),
        sysctls=(("net.x", "1"),),
        seccomp="unconfined",
        pid="host",
    )
    mounts = (
        MountInfo("volume", "data", "/store/volumes/data/data", "/data", read_only=False),
        MountInfo("bind", "", "/src", "/dst", read_only=True),
        MountInfo("tmpfs", "", "", "/tmp", read_only=False),
    )
    found = container_document(replace(BARE, options=options, mounts=mounts), ContainerSize(5, 12))
    host = found["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 128 << 20, 500_000_000)
    assert (host["PidsLimit"], host["CpuShares"], host["CpusetCpus"]) == (10, 512, "0")
    assert host["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1024}]
    assert (host["CapAdd"], host["ReadonlyRootfs"], host["NetworkMode"]) == (["NET_ADMIN"], True, "host")
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 20, "Soft": 10}] and host["PidMode"] == "host"
    assert host["SecurityOpt"] == ["seccomp=unconfined"] and host["Sysctls"] == {"net.x": "1"}
    assert host["Binds"] == ["data:/data", "/src:/dst:ro"] and host["Tmpfs"] == {"/tmp": ""}
    assert [mount["Type"] for mount in found["Mounts"]] == ["volume", "bind", "tmpfs"]
    assert found["Mounts"][1]["RW"] is False and found["Mounts"][0]["Name"] == "data"
    assert (found["SizeRw"], found["SizeRootFs"]) == (5, 12)
    assert list(found["NetworkSettings"]["Networks"]) == ["host"]


def test_one_that_ran_out_of_memory():
    done = Completed("c" * 64, (), 137, Outcome.OOM_KILLED, USAGE, signal=9)
    found = replace(BARE, status="exited", pid=None, finished=1_700_000_002.0, last=done, oom_killed=True)
    state = container_document(found)["State"]
    assert (state["Running"], state["OOMKilled"], state["ExitCode"], state["Pid"]) == (False, True, 137, 0)
    assert state["FinishedAt"] == timestamp(1_700_000_002.0)


def test_one_whose_options_are_not_kept():
    found = container_document(
        replace(BARE, options=None, image_config=None, directory=None, log_path=None, remove=True)
    )
    assert found["HostConfig"]["AutoRemove"] and found["Config"]["Cmd"] == ["/entry", "serve"]
    assert found["GraphDriver"]["Data"] is None and found["LogPath"] == ""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    with Engine() as engine:
        yield engine


def test_names_of_every_kind(root, capsys):
    options = RunOptions(
        name="both",
        command=("sleep", "1"),
        env=(("A", "1"),),
        remove=False,
        mounts=(Bind("/etc", "/x", read_only=True), Volume("data", "/data"), Tmpfs("/t")),
    )
    prepared = Preparation(root.store, find_image(root.store, "host", None), "host", options)
    record = prepared.allocate(prepared.volumes())
    root.store.volumes.create("both")
    assert main(["inspect", "both", "data", "-f", "{{.Name}}"]) == 0
    assert capsys.readouterr().out == "/both\ndata\n"
    assert main(["inspect", "--type", "volume", "both", "-f", "{{.Driver}}"]) == 0
    assert capsys.readouterr().out == "local\n"
    assert main(["inspect", "-s", record.id[:9]]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["Config"]["Env"][1:] == ["A=1"]
    assert found["SizeRw"] == found["SizeRootFs"] >= 0 and found["State"]["Status"] == "created"
    assert [(mount["Type"], mount["Destination"]) for mount in found["Mounts"]] == [
        ("volume", "/data"),
        ("bind", "/x"),
        ("tmpfs", "/t"),
    ]
    assert main(["inspect", "nobody", "data"]) == 1
    done = capsys.readouterr()
    assert "No such object: nobody" in done.err and json.loads(done.out)[0]["Name"] == "data"
    assert main(["container", "inspect", "data"]) == 1
    assert "No such container: data" in capsys.readouterr().err
    for words in ([], ["--type", "colour", "x"]):
        assert main(["inspect", *words]) == 1
    for form in ("{{.x", "{{.Nmae}}"):
        assert main(["inspect", "-f", form, "data"]) == 1
    assert "can't evaluate field Nmae" in capsys.readouterr().err
    assert main(["inspect", "-f", "{{.SizeRw}}", "--type", "container", "both"]) == 0, "a field without a value"
    capsys.readouterr()
    assert main(["inspect", "-f", "json", "data"]) == 0
    assert '"Name":"data"' in capsys.readouterr().out


def test_networks_and_ports():
    network = Network("f" * 64, "web", "bridge", 0.0, "pyrtc-ffffffff", "172.18.0.0/16", "172.18.0.1")
    endpoint = Endpoint(
        network,
        "c" * 64,
        "web1",
        "eth0",
        "pv1",
        "172.18.0.2",
        16,
        "172.18.0.1",
        "",
        0,
        "",
        "02:00:00:00:00:01",
        ("db",),
    )
    options = RunOptions(
        network="web",
        networks=(NetworkAttachment("web", "172.18.0.2", aliases=("db",)),),
        ports=(Port(80), Port(81, host=8000, host_last=8010), Port(82, host=8082, ip="::1")),
        publish_all=True,
        expose=(Port(53, "udp"),),
    )
    ports = (Port(80, host=32768), Port(81, host=8003), Port(82, host=8082, ip="::1"))
    found = container_document(replace(BARE, options=options, endpoints=(endpoint,), ports=ports))
    host, settings = found["HostConfig"], found["NetworkSettings"]
    assert host["NetworkMode"] == "web" and host["PublishAllPorts"] is True
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}],
        "81/tcp": [{"HostIp": "", "HostPort": "8000-8010"}],
        "82/tcp": [{"HostIp": "::1", "HostPort": "8082"}],
    }
    assert set(found["Config"]["ExposedPorts"]) == {"53/udp", "80/tcp", "81/tcp", "82/tcp"}
    assert settings["Ports"]["82/tcp"] == [{"HostIp": "::1", "HostPort": "8082"}]
    assert settings["Ports"]["53/udp"] is None
    assert (settings["IPAddress"], settings["Gateway"], settings["IPPrefixLen"]) == ("172.18.0.2", "172.18.0.1", 16)
    for key in ("IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen"):
        assert settings[key] == settings["Networks"]["web"][key]
    about = settings["Networks"]["web"]
    assert about["IPAMConfig"] == {"IPv4Address": "172.18.0.2"} and about["Aliases"] == ["db"]
    assert about["NetworkID"] == "f" * 64 and about["DNSNames"][:2] == ["web1", "db"]
    stopped = container_document(replace(BARE, status="exited", pid=None, options=options))["NetworkSettings"]
    assert stopped["Ports"] == {} and stopped["Networks"]["web"]["IPAddress"] == ""
    shared = container_document(replace(BARE, options=RunOptions(network="container:" + "d" * 64)))
    assert shared["NetworkSettings"]["Networks"] == {}
