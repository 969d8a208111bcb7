"""Keyword arguments to RunOptions: each keyword, each choice, each word for a size."""

import subprocess
import sys
import threading
import typing
from pathlib import Path

import pytest

from pyrtc import aio, api, keywords
from pyrtc.api import Keywords, default_engine, make_options, run
from pyrtc.container import Completed, Outcome, Usage
from pyrtc.errors import ContainerFailed, UsageError
from pyrtc.options import Bind, Device, HealthCheck, LogOptions, RestartPolicy, RunOptions, Tmpfs, Ulimit
from pyrtc.runtime.cgroups import Limits

#: keyword: (a value, what RunOptions then holds under the same name)
FIELDS = {
    "entrypoint": (["sh", "-c"], ("sh", "-c")),
    "name": ("web", "web"),
    "remove": (False, False),
    "env": ({"A": "1", "B": 2}, (("A", "1"), ("B", "2"))),
    "workdir": ("/w", "/w"),
    "user": (1000, "1000"),
    "group_add": ([5, "audio"], ("5", "audio")),
    "hostname": ("h", "h"),
    "domainname": ("d", "d"),
    "mounts": ([Tmpfs("/t"), Bind("/a", "/b")], (Tmpfs("/t"), Bind("/a", "/b"))),
    "read_only": (True, True),
    "network": ("host", "host"),
    "dns": (["1.1.1.1"], ("1.1.1.1",)),
    "dns_search": (["a.example"], ("a.example",)),
    "dns_option": (["rotate"], ("rotate",)),
    "add_host": ({"db": "10.0.0.2"}, (("db", "10.0.0.2"),)),
    "best_effort": (True, True),
    "accounting": (True, True),
    "egress": (
        ["10.0.0.0/8,192.0.2.7", "local", "*.Example.com."],
        ("10.0.0.0/8", "192.0.2.7/32", "local", "*.example.com"),
    ),
    "copy_up": (["/etc/a", "/b"], ("/etc/a", "/b")),
    "trace": (True, True),
    "ulimits": ([Ulimit("core", 0, 0)], (Ulimit("core", 0, 0),)),
    "shm_size": ("1m", 1 << 20),
    "oom_score_adj": (5, 5),
    "cap_add": (["NET_ADMIN"], ("NET_ADMIN",)),
    "cap_drop": ({"ALL"}, ("ALL",)),
    "privileged": (True, True),
    "seccomp": ("unconfined", "unconfined"),
    "no_new_privileges": (False, False),
    "systempaths": ("unconfined", "unconfined"),
    "mask": (["/x"], ("/x",)),
    "unmask": (["ALL"], ("ALL",)),
    "sysctls": ({"net.core.somaxconn": 5}, (("net.core.somaxconn", "5"),)),
    "devices": ([Device("/dev/null", "/dev/x")], (Device("/dev/null", "/dev/x"),)),
    "userns": ("auto", "auto"),
    "pid": ("host", "host"),
    "ipc": ("host", "host"),
    "uts": ("host", "host"),
    "cgroupns": ("host", "host"),
    "init": (True, True),
    "stop_signal": ("INT", "INT"),
    "stop_timeout": (3, 3.0),
    "timeout": (2.5, 2.5),
    "labels": ({"a": "b"}, (("a", "b"),)),
    "platform": ("linux/amd64", "linux/amd64"),
    "driver": ("copy", "copy"),
    "rw_layer": ("memory", "memory"),
}
LIMITS = {
    "memory": ("64m", 64 << 20),
    "memory_swap": ("1g", 1 << 30),
    "memory_reservation": (32 << 20, 32 << 20),
    "cpus": (0.5, 0.5),
    "cpu_shares": (512, 512),
    "cpuset_cpus": ("0", "0"),
    "cpuset_mems": ("0", "0"),
    "pids": (10, 10),
    "blkio_weight": (100, 100),
    "device_read_bps": ([("8:0", "1m")], (("8:0", 1 << 20),)),
    "device_write_bps": ({"8:0": 5}.items(), (("8:0", 5),)),
    "device_read_iops": ([("8:0", 7)], (("8:0", 7),)),
    "device_write_iops": ([("8:0", 8)], (("8:0", 8),)),
    "network_in": ("10mbit", 10_000_000),
    "network_out": (8000, 8000),
}
CHOICES = sorted(keywords._CHOICES)
LISTS = {"mounts", "egress"}  # sequences of which one word has a meaning, or none
TEXTS = [key for key, (value, _) in FIELDS.items() if isinstance(value, (list, set)) and key not in LISTS]


NETWORKS = {"ip", "ip6", "mac_address", "network_aliases", "ports", "publish_all", "expose"}  # test_network_keywords


def test_every_keyword_is_tested_here():
    assert {*FIELDS, *LIMITS, *NETWORKS} == set(Keywords.__annotations__)


def test_every_field_of_the_options_can_be_said_but_what_is_not_for_a_captured_run():
    assert set(RunOptions.__slots__) - set(FIELDS) == {
        "command", "limits", "tty", "interactive", "restart", "log", "health", "networks", "ports", "publish_all",
        "expose",
    }  # fmt: skip
    assert set(Limits.__slots__) - set(LIMITS) == {"devices"}


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_fields(key):
    value, expected = FIELDS[key]
    made = make_options(["c"], **{key: value})
    assert getattr(made, key) == expected
    assert type(getattr(made, key)) is type(expected)
    assert made == RunOptions(command=("c",), **{key: expected}), "nothing else changes"
    assert made != RunOptions(command=("c",)), "the value tried is not the default"
    hash(made)


@pytest.mark.parametrize("key", sorted(LIMITS))
def test_limits(key):
    value, expected = LIMITS[key]
    more = {"memory": 512 << 20} if key in ("memory_swap", "memory_reservation") else {}
    made = make_options(None, **{key: value}, **more)
    assert getattr(made.limits, key) == expected
    assert made.limits == Limits(**{**more, key: expected})
    hash(made)


def test_nothing_said_is_the_default():
    assert make_options(None) == RunOptions()
    assert make_options(None, **dict.fromkeys(Keywords.__annotations__)) == RunOptions()


@pytest.mark.parametrize("key", ["tty", "interactive", "limits", "command", "nosuch", "Memory", "__class__"])
def test_unknown_keywords_are_refused(key):
    if key == "command":
        with pytest.raises(TypeError):
            make_options(None, **{key: "x"})
        return
    with pytest.raises(UsageError, match=f"no option '{key}'"):
        make_options(None, **{key: True})
    with pytest.raises(UsageError, match=f"no option '{key}'"):
        make_options(None, **{key: None})


@pytest.mark.parametrize("key", CHOICES)
def test_each_choice_is_taken_and_nothing_else(key):
    for choice in keywords._CHOICES[key]:
        assert getattr(make_options(None, **{key: choice}), key) == choice
    for wrong in ("nosuch", "", "HOST", 5, True, ["host"]):
        with pytest.raises(UsageError, match=f"{key}=.*one of {keywords._CHOICES[key][0]}"):
            make_options(None, **{key: wrong})


def test_choices_are_those_of_the_options():
    hints = typing.get_type_hints(RunOptions)
    for key, choices in keywords._CHOICES.items():
        literal = next((part for part in typing.get_args(hints[key]) if typing.get_args(part)), hints[key])
        assert typing.get_args(literal) == choices, key


# ---- command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["true", b"true"])
def test_a_string_is_no_command(command):
    with pytest.raises(TypeError, match="sequence of words"):
        make_options(command)


def test_words_may_be_paths_and_bytes():
    assert make_options([Path("/bin/sh"), b"a\xff", "x"]).command == ("/bin/sh", "a\udcff", "x")
    assert make_options(()).command == ()
    assert make_options(iter(["a"])).command == ("a",)


@pytest.mark.parametrize("word", [5, None, ["a"]])
def test_words_are_not_numbers(word):
    with pytest.raises(TypeError):
        make_options(["a", word])


@pytest.mark.parametrize("key", TEXTS)
def test_one_string_is_not_a_sequence_of_letters(key):
    with pytest.raises(UsageError, match=f"{key}='word': it is a sequence"):
        make_options(None, **{key: "word"})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("cpus", ["1.5", True, [1]]),
        ("pids", ["10", 1.5, True]),
        ("oom_score_adj", ["5"]),
        ("memory", [1.5, True, []]),
        ("shm_size", [[]]),
        ("read_only", ["no", 0]),
        ("remove", ["x"]),
        ("env", [5, ["A=1"]]),
        ("labels", [5]),
        ("hostname", [5]),
        ("name", [5]),
        ("cpuset_cpus", [3]),
        ("stop_signal", [[], 9]),
        ("platform", [5]),
        ("mounts", [5, ["/a:/b"]]),
        ("devices", [["/dev/fuse"]]),
        ("ulimits", [["nofile=5"]]),
        ("dns", [5, [5]]),
        ("group_add", [5]),
        ("egress", [5, [5], "nowhere", "none,10.0.0.0/8x", ["10.0.0.0/33"], ["none", "1.2.3"]]),
        ("network_in", ["10mb", 1.5, True, [5], 7999]),
        ("device_read_bps", [5, ["/dev/sda:1m"], [("/dev/sda", 1.5)]]),
    ],
)
def test_values_of_another_kind_are_named(key, values):
    for value in values:
        with pytest.raises(UsageError, match=f"^{key}\\b"):
            make_options(None, **{key: value})


@pytest.mark.parametrize(("key", "value"), [("restart", 5), ("log", "local"), ("tty", "yes"), ("interactive", 1)])
def test_values_of_another_kind_are_named_for_containers(key, value):
    with pytest.raises(UsageError, match=f"^{key}="):
        keywords.container_options(None, **{key: value})


def test_whole_numbers_of_other_libraries_are_numbers():
    class Number:
        def __index__(self):
            return 7

    assert make_options(None, pids=Number()).limits.pids == 7


# ---- sizes and times -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["memory", "memory_swap", "memory_reservation", "shm_size"])
@pytest.mark.parametrize("word", ["much", "", "-1", "64q", "1e3", "9999999p"])
def test_sizes_that_are_none_are_named(key, word):
    with pytest.raises(UsageError, match=f"{key}={word!r}: "):
        make_options(None, **{key: word})


def test_rates_that_are_none_are_named():
    with pytest.raises(UsageError, match="device_read_bps='fast': "):
        make_options(None, device_read_bps=[("8:0", "fast")])


def test_values_that_no_limit_takes_are_refused():
    with pytest.raises(UsageError, match="cpus"):
        make_options(None, cpus=0)
    with pytest.raises(UsageError, match="memory"):
        make_options(None, memory=5)


@pytest.mark.parametrize("key", ["timeout", "stop_timeout"])
@pytest.mark.parametrize("value", [-1, "5", float("nan"), float("inf"), [1], 1e300])
def test_times_that_are_none_are_refused(key, value):
    with pytest.raises(UsageError, match=f"{key}=.*number of seconds"):
        make_options(None, **{key: value})


def test_no_time_at_all_is_a_time():
    assert make_options(None, timeout=0).timeout == 0


# ---- run -----------------------------------------------------------------------------------------------------------


class FakeEngine:
    """Takes what run() passes on and ends with an exit code."""

    def __init__(self, returncode=0):
        self.returncode = returncode
        self.calls = []

    def run(self, image, options, **more):
        self.calls.append((image, options, more))
        return Completed("id", ("c",), self.returncode, Outcome.EXITED, Usage(1, 1, 1, 0))


def test_run_passes_everything_on():
    engine, callback = FakeEngine(), print
    done = run(
        "img", ["c"], input=b"in", max_output=5, on_limit="kill", on_output=callback, engine=engine, memory="64m"
    )
    assert done.returncode == 0
    expected = {"input": b"in", "max_output": 5, "on_limit": "kill", "on_output": callback}
    assert engine.calls == [("img", make_options(["c"], memory="64m"), expected)]


def test_an_exit_code_is_an_exception_only_where_asked_for():
    assert run("img", ["c"], engine=FakeEngine(3)).returncode == 3
    with pytest.raises(ContainerFailed):
        run("img", ["c"], engine=FakeEngine(3), check=True)
    assert run("img", ["c"], engine=FakeEngine(0), check=True).returncode == 0


def test_the_twin_takes_the_same_words():
    import inspect

    plain, twin = inspect.signature(run), inspect.signature(aio.run)
    assert plain.parameters == twin.parameters
    assert inspect.iscoroutinefunction(aio.run)


def test_the_default_engine_is_opened_once_however_many_ask(monkeypatch):
    opened = []

    class Slow:
        def __init__(self):
            opened.append(self)
            threading.Event().wait(0.05)

    monkeypatch.setattr(api, "_default", None)
    monkeypatch.setattr(api, "Engine", Slow)
    got = []
    threads = [threading.Thread(target=lambda: got.append(default_engine())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(got) == 8
    assert all(one is opened[0] for one in got)


def test_the_names_of_the_package_come_at_their_first_use():
    program = (
        "import pyrtc; print(pyrtc.aio.run.__module__, [name for name in pyrtc.__all__ if not hasattr(pyrtc, name)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "pyrtc.aio []\n"


def test_what_only_containers_that_live_can_be_told():
    made = keywords.container_options(
        ["c"], restart="on-failure:3", log=LogOptions("none"), tty=True, interactive=True, memory="64m"
    )
    assert (made.restart, made.log, made.tty, made.interactive) == (
        RestartPolicy("on-failure", 3),
        LogOptions("none"),
        True,
        True,
    )
    assert keywords.container_options(None, restart=RestartPolicy("always")).restart.name == "always"
    for said, test in (
        ("test -e /ok", ("CMD-SHELL", "test -e /ok")),
        (["a", "b"], ("CMD", "a", "b")),
        ("NONE", ("NONE",)),
        (HealthCheck(("CMD", "x"), retries=2), ("CMD", "x")),
    ):
        assert keywords.container_options(None, health=said).health.test == test
    for wrong in ("", [], [1], 5, b"x"):
        with pytest.raises(UsageError, match="health="):
            keywords.container_options(None, health=wrong)
    with pytest.raises(UsageError):
        keywords.container_options(None, restart="often")
    with pytest.raises(UsageError, match=r"run\(\) has no option 'tty'"):
        make_options(None, tty=True)
    assert set(typing.get_type_hints(keywords.ContainerKeywords)) - set(typing.get_type_hints(Keywords)) == {
        "health",
        "interactive",
        "log",
        "restart",
        "tty",
    }
