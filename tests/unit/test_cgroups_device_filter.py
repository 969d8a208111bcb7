"""The device filter, run by an interpreter of its own for the few instructions it uses."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.runtime.cgroups import DEFAULT_DEVICE_RULES, DeviceRule
from pyrtc.runtime.cgroups.device_filter import assemble

MASK = (1 << 64) - 1
ACCESS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}


def run(program: bytes, context: bytes) -> int:
    registers = [0] * 11
    position = 0
    for _ in range(len(program)):
        code, where, offset, value = struct.unpack_from("=BBhi", program, position * 8)
        target, source = where & 15, where >> 4
        position += 1
        match code:
            case 0x61:
                assert source == 1
                (registers[target],) = struct.unpack_from("=I", context, offset)
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = value & MASK
            case 0x57:
                registers[target] &= value & MASK
            case 0x77:
                registers[target] >>= value
            case 0x55:
                if registers[target] != value & MASK:
                    assert offset > 0
                    position += offset
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")
    raise AssertionError("the program does not end")


def ask(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    wanted = sum(ACCESS[letter] for letter in access)
    return bool(run(assemble(rules), struct.pack("=III", wanted << 16 | TYPES[kind], major, minor)))


def permitted(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """Return the answer by the definition: every wanted access is named by a rule that matches the device."""
    granted = {
        letter
        for rule in rules
        if rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
        for letter in rule.access
    }
    return set(access) <= granted


numbers = st.integers(0, 3)
accesses = st.lists(st.sampled_from("rwm"), min_size=1, max_size=3, unique=True).map("".join)
rules_of_one_type = st.builds(
    DeviceRule, st.sampled_from(["b", "c"]), st.none() | numbers, st.none() | numbers, accesses
)
rules_of_any_type = rules_of_one_type | st.builds(DeviceRule, st.just("a"), st.none(), st.none(), accesses)


@given(st.lists(rules_of_any_type, max_size=6).map(tuple), st.sampled_from(["b", "c"]), numbers, numbers, accesses)
def test_the_program_answers_as_the_rules_say(
    rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str
) -> None:
    assert ask(rules, kind, major, minor, access) is permitted(rules, kind, major, minor, access)


def test_no_rule_allows_nothing() -> None:
    assert not ask((), "c", 1, 3, "r")


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "answer"),
    [
        ("c", 1, 3, "rw", True),
        ("c", 136, 77, "rw", True),
        ("b", 8, 0, "m", True),
        ("b", 8, 0, "r", False),
        ("c", 1, 1, "r", False),
        ("c", 10, 200, "rw", False),
        ("c", 0xFFFFF, 0xFFFFF, "m", True),
    ],
)
def test_the_default_rules(kind: str, major: int, minor: int, access: str, answer: bool) -> None:
    assert ask(DEFAULT_DEVICE_RULES, kind, major, minor, access) is answer
