"""Options as JSON and back: exactly the same, for every field and type, and nothing unknown is let through."""

import json
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrtc.errors import StoreError, UsageError
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
from pyrtc.runtime.cgroups import DeviceRule, Limits
from pyrtc.store.records import dump_options, load_options

# As arguments of a process come: any bytes, undecodable ones as lone surrogates.
words = st.binary(max_size=12).map(lambda raw: raw.decode(errors="surrogateescape"))
pairs = st.lists(st.tuples(words, words), max_size=3).map(tuple)
several = st.lists(words, max_size=3).map(tuple)
small = st.integers(0, 1 << 50)
seconds = st.floats(0, 1e8, allow_nan=False)
rates = st.lists(st.tuples(words, st.integers(1, 1 << 40)), max_size=2).map(tuple)
mounts = st.one_of(
    st.builds(Bind, words, words, st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.builds(Volume, words, words, st.booleans(), st.booleans()),
    st.builds(Tmpfs, words, st.none() | small, st.integers(0, 0o7777), st.booleans(), st.booleans()),
)
rules = st.lists(
    st.builds(DeviceRule, st.sampled_from("bc"), st.none() | st.integers(0, 255), st.none(), st.just("rw")), max_size=2
).map(tuple)
limits = st.builds(
    Limits,
    memory=st.none() | st.integers(6 << 20, 1 << 40),
    cpus=st.none() | st.sampled_from([0.5, 1.0]),
    cpu_shares=st.none() | st.integers(2, 1000),
    pids=st.none() | st.integers(-1, 1000),
    device_read_bps=rates,
    device_write_iops=rates,
    devices=st.none() | rules,
)
published = st.lists(st.builds(Port, small, words, small, words, small), max_size=3).map(tuple)
SPECIAL = {
    "networks": st.lists(st.builds(NetworkAttachment, words, words, words, words, several), max_size=3).map(tuple),
    "ports": published,
    "expose": published,
    "mounts": st.lists(mounts, max_size=3).map(tuple),
    "limits": limits,
    "ulimits": st.lists(st.builds(Ulimit, words, small, small), max_size=2).map(tuple),
    "devices": st.lists(st.builds(Device, words, words, words), max_size=2).map(tuple),
    "health": st.none() | st.builds(HealthCheck, several, seconds, seconds, seconds, seconds, st.integers(0, 9)),
    "restart": st.builds(RestartPolicy, st.sampled_from(["no", "on-failure", "always"]), st.integers(0, 9)),
    "log": st.builds(LogOptions, st.sampled_from(["local", "none"]), small, st.integers(1, 9)),
}


def strategy_of(kind):
    """Return what makes values of a field's type."""
    if kind is type(None):
        return st.none()
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind == tuple[str, ...]:
        return several
    if kind == tuple[tuple[str, str], ...]:
        return pairs
    if kind in (bool, int, float, str):
        return {bool: st.booleans(), int: small, float: seconds, str: words}[kind]
    return st.one_of([strategy_of(part) for part in typing.get_args(kind)])


FIELDS = {
    name: SPECIAL[name] if name in SPECIAL else strategy_of(kind)
    for name, kind in typing.get_type_hints(RunOptions).items()
}


def same(one, other):
    """Equal, and of equal types all the way down: 1, 1.0 and True are not the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__slots__") and not isinstance(one, str):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__slots__)
    return one == other


def test_every_field_is_tried():
    assert set(FIELDS) == set(RunOptions.__slots__)


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_round_trip(fields):
    options = RunOptions(**fields)
    text = dump_options(options)
    load_options.cache_clear()
    assert same(load_options(text), options)
    assert text.isascii()


def test_only_what_differs_is_written():
    assert json.loads(dump_options(RunOptions())) == {"version": 1, "options": {"is": "RunOptions"}}
    said = json.loads(dump_options(RunOptions(command=("a",), init=True)))["options"]
    assert said == {"is": "RunOptions", "command": ["a"], "init": True}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version":2,"options":{"is":"RunOptions"}}',
        b'{"version":1,"options":{"is":"Popen"}}',
        b'{"version":1,"options":{"is":"Limits"}}',
        b'{"version":1,"options":{"is":"RunOptions","seccomp_next":1}}',
        b'{"version":1,"options":[]}',
        b'{"version":1,"options":{"is":"RunOptions","limits":{"is":"Limits","nope":1}}}',
    ],
)
def test_what_is_not_known_is_refused(text):
    with pytest.raises(StoreError, match=r"newer|damaged"):
        load_options(text)


def test_a_smaller_machine():
    with pytest.raises(UsageError, match="CPUs"):
        load_options(b'{"version":1,"options":{"is":"RunOptions","limits":{"is":"Limits","cpus":99999.0}}}')


def test_what_no_option_is_made_of():
    with pytest.raises(TypeError, match="no option is made of"):
        dump_options(RunOptions(name=b"x"))
