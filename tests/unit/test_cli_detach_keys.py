"""The keys that leave a container running."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.cli.detach_keys import DEFAULT, DetachKeys, detach_keys
from pyrtc.errors import UsageError


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        (DEFAULT, b"\x10\x11"),
        ("", b""),
        ("a", b"a"),
        ("ctrl-a,b,ctrl-@", b"\x01b\x00"),
        ("CTRL-Z,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1a\x1b\x1c\x1d\x1e\x1f"),
    ],
)
def test_sequences(word, keys):
    assert detach_keys(word) == keys


@pytest.mark.parametrize("word", ["ctrl-", "ctrl-ab", "ab", "ctrl-1", ",", "a,,b", "ä", "ctrl-ä"])
def test_what_is_no_key(word):
    with pytest.raises(UsageError, match="key"):
        detach_keys(word)


@given(st.lists(st.binary(max_size=5), max_size=10), st.binary(max_size=3))
def test_the_sequence_is_found_however_it_is_typed(pieces, keys):
    finder, passed, found = DetachKeys(keys), b"", False
    for piece in pieces:
        through, found = finder.feed(piece)
        passed += through
        if found:
            break
    typed = b"".join(pieces)
    at = typed.find(keys) if keys else -1
    assert found == (at >= 0)
    if found:
        assert passed == typed[:at]
    else:
        assert typed.startswith(passed) and keys.startswith(typed[len(passed) :])


def test_a_beginning_is_held_back_and_passed_on_when_it_is_none():
    finder = DetachKeys(b"\x10\x11")
    assert finder.feed(b"a\x10") == (b"a", False)
    assert finder.feed(b"b\x10\x10") == (b"\x10b\x10", False)
    assert finder.feed(b"\x11rest") == (b"", True)
