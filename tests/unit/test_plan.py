"""Plans are read back by a decoder that knows csrc/plan.h only, not the code that writes them."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc._core import ffi, lib
from pyrtc.runtime import plan as plan_module
from pyrtc.runtime.plan import NAMES, Plan, describe, operation, words

HEADER = (Path(__file__).parents[2] / "csrc/plan.h").read_text()


@dataclass
class Op:
    """One operation as pyrtc-init would read it."""

    code: int
    flags: int
    slot: int
    mode: int
    a: int
    b: int
    strings: list[bytes]
    blob: bytes


def number(raw, offset, size, *, signed=False):
    assert offset + size <= len(raw)
    return int.from_bytes(raw[offset : offset + size], "little", signed=signed)


def decode(raw):
    """Read one operation; every byte of it must be accounted for."""
    assert number(raw, 4, 4) == len(raw), "the size is of the whole operation"
    assert len(raw) % 8 == 0
    at, strings = 40, []
    for _ in range(number(raw, 32, 4)):
        end = raw.index(b"\0", at)
        strings.append(raw[at:end])
        at = end + 1
    blob_size = number(raw, 36, 4)
    assert at + blob_size <= len(raw)
    blob = raw[at : at + blob_size]
    padding = raw[at + blob_size :]
    assert len(padding) < 8
    assert not padding.strip(b"\0")
    return Op(
        code=number(raw, 0, 2),
        flags=number(raw, 2, 2),
        slot=number(raw, 8, 4, signed=True),
        mode=number(raw, 12, 4),
        a=number(raw, 16, 8),
        b=number(raw, 24, 8),
        strings=strings,
        blob=blob,
    )


def codes_of_header():
    body = re.search(r"enum plan_code \{(.*?)\};", HEADER, re.DOTALL)[1]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    return [word.split("=")[0].strip() for word in body.split(",") if word.strip()]


# ---- encoding ------------------------------------------------------------------------------------------------------


def test_the_decoder_knows_the_layout_of_the_header():
    assert ffi.sizeof("struct plan_op") == 40
    offsets = {"code": 0, "flags": 2, "size": 4, "slot": 8, "mode": 12, "a": 16, "b": 24}
    offsets |= {"string_count": 32, "blob_size": 36}
    for name, offset in offsets.items():
        assert ffi.offsetof("struct plan_op", name) == offset


def test_one_operation_byte_by_byte():
    assert operation(0x1234, "ab", slot=2, flags=0x5678, mode=0x9ABC, a=1, b=2, blob=b"\xff") == bytes.fromhex(
        "3412 7856 30000000 02000000 bc9a0000 0100000000000000 0200000000000000 01000000 01000000 616200 ff 00000000"
    )


texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)


@given(
    code=st.integers(0, 0xFFFF),
    strings=st.lists(texts | st.binary(max_size=12).filter(lambda raw: b"\0" not in raw), max_size=6),
    slot=st.integers(-1, (1 << 31) - 1),
    flags=st.integers(0, 0xFFFF),
    mode=st.integers(0, (1 << 32) - 1),
    a=st.integers(0, (1 << 64) - 1),
    b=st.integers(0, (1 << 64) - 1),
    blob=st.binary(max_size=40),
)
def test_what_goes_in_comes_out(code, strings, slot, flags, mode, a, b, blob):
    raw = operation(code, *strings, slot=slot, flags=flags, mode=mode, a=a, b=b, blob=blob)
    expected = [text if isinstance(text, bytes) else text.encode() for text in strings]
    assert decode(raw) == Op(code, flags, slot, mode, a, b, expected, blob)


def test_names_of_files_that_are_not_text_come_out_as_they_are():
    assert decode(operation(lib.PLAN_MASK, "/caf\udce9")).strings == [b"/caf\xe9"]


def test_operations_follow_one_another_without_gaps():
    plan = Plan()
    for size in range(20):
        plan.add(lib.PLAN_FILE, "x" * size, blob=b"y" * (size % 3))
    joined, found = b"".join(plan.operations), []
    while joined:
        size = number(joined, 4, 4)
        found.append(decode(joined[:size]))
        joined = joined[size:]
    assert [len(op.strings[0]) for op in found] == list(range(20))


@pytest.mark.parametrize("field", [{"a": -1}, {"mode": 1 << 32}, {"flags": 1 << 16}, {"slot": 1 << 31}, {"b": 1 << 64}])
def test_numbers_that_do_not_fit_are_errors_and_not_cut(field):
    with pytest.raises(Exception, match=r"format|range|argument"):
        operation(lib.PLAN_MASK, "/", **field)


# ---- descriptors ---------------------------------------------------------------------------------------------------


def test_the_first_three_slots_are_the_standard_streams():
    plan = Plan([7, 8, 9])
    plan.add(lib.PLAN_TASKS, fd=20)
    plan.add(lib.PLAN_PIVOT)
    plan.add(lib.PLAN_ROOT_SLOT, fd=0)
    assert plan.slots == [7, 8, 9, 20, 0]
    assert [decode(op).slot for op in plan.operations] == [3, -1, 4]


def test_without_streams_their_slots_are_empty():
    assert Plan().slots == [-1, -1, -1]


def test_the_streams_of_a_plan_are_its_own():
    given_streams = [1, 2, 3]
    Plan(given_streams).add(lib.PLAN_TASKS, fd=5)
    assert given_streams == [1, 2, 3]


# ---- names and words -----------------------------------------------------------------------------------------------


def test_every_operation_of_the_header_has_a_name_and_nothing_else_has():
    names = codes_of_header()
    assert len(names) > 30
    assert {getattr(lib, name): name.removeprefix("PLAN_").lower() for name in names} == NAMES


def test_codes_are_numbered_from_1_on():
    assert sorted(NAMES) == list(range(1, len(NAMES) + 1))


def test_words_are_name_and_strings():
    assert words(operation(lib.PLAN_MOUNT, "tmpfs", "/tmp", blob=b"no\0string")) == ("mount", ["tmpfs", "/tmp"])
    assert words(operation(lib.PLAN_PIVOT)) == ("pivot", [])
    assert words(operation(lib.PLAN_MASK, "\udcff")) == ("mask", ["\udcff"])


@pytest.mark.parametrize("code", sorted(NAMES))
def test_every_operation_can_be_described(code):
    text = describe(operation(code, "one", "/two", slot=3, flags=1, mode=0o755, a=1, b=2, blob=b"123"))
    assert text.split()[0] == NAMES[code]
    assert "one" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (operation(lib.PLAN_PIVOT), "pivot"),
        (operation(lib.PLAN_UMASK, mode=0o22), "umask mode=0o22"),
        (operation(lib.PLAN_FILE, "/f", mode=0o644, blob=b"ab"), "file /f mode=0o644 (2 bytes)"),
        (operation(lib.PLAN_MKDIR, "/d", mode=0o1777, a=1, b=2), "mkdir /d mode=0o1777 a=0x1 b=0x2"),
        (operation(lib.PLAN_MOUNT, "proc", "/proc", mode=14, flags=8), "mount proc /proc flags=0x8 attributes=0xe"),
        (operation(lib.PLAN_RLIMIT, "nofile", mode=7, a=1, b=2), "rlimit nofile resource=0x7 a=0x1 b=0x2"),
        (operation(lib.PLAN_BIND_SLOT, "/v", slot=3), "bind_slot /v fd=3"),
        (operation(lib.PLAN_EXEC, "sh", "-c", "a b", "SECRET=x", a=3), "exec sh -c 'a b'"),
    ],
)
def test_words_for_people(op, expected):
    assert " ".join(describe(op).split()) == expected


@pytest.mark.parametrize("code", [lib.PLAN_EXEC, lib.PLAN_HOSTNAME])
@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\udcff", "", "two words", "\u202e", "\x7f"])
def test_an_images_words_cannot_write_to_a_terminal(code, text):
    line = describe(operation(code, text, a=1))
    assert line.isprintable()
    assert repr(text) in line
    line.encode()


def test_a_plan_is_described_in_order():
    plan = Plan()
    plan.add(lib.PLAN_KEYRING)
    plan.add(lib.PLAN_PIVOT)
    assert [line.strip() for line in plan.describe().split("\n")] == ["keyring", "pivot"]


def test_flags_are_not_names():
    """A flag that is added to the header and not to the list in plan.py would take an operation's name."""
    flags = re.findall(
        r"^    (PLAN_\w+) = ", re.search(r"enum plan_flags \{(.*?)\};", HEADER, re.DOTALL)[1], re.MULTILINE
    )
    assert len(flags) >= 7
    assert not {flag.removeprefix("PLAN_").lower() for flag in flags} & set(plan_module.NAMES.values())
