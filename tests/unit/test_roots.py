"""Which layers a container's root is made of."""

import os
from pathlib import Path

import pytest

from pyrtc.runtime.roots import visible_layers


def layers(tmp_path: Path, *opaque: int) -> tuple[str, ...]:
    """Make three layers, from the top; the numbered ones have an opaque root."""
    made = []
    for number in range(3):
        path = tmp_path / str(number)
        path.mkdir()
        if number in opaque:
            try:
                os.setxattr(path, "user.overlay.opaque", b"y")
            except OSError as error:
                pytest.skip(f"no extended attributes in {tmp_path}: {error}")
        made.append(str(path))
    return tuple(made)


def test_all_layers_show_without_marks(tmp_path):
    made = layers(tmp_path)
    assert visible_layers(made) == made


def test_an_opaque_root_hides_all_layers_below_it(tmp_path):
    made = layers(tmp_path, 1)
    assert visible_layers(made) == made[:2]


def test_the_uppermost_opaque_root_counts(tmp_path):
    made = layers(tmp_path, 0, 1)
    assert visible_layers(made) == made[:1]


def test_a_mark_that_says_something_else_hides_nothing(tmp_path):
    made = layers(tmp_path, 0)
    os.setxattr(made[0], "user.overlay.opaque", b"x")
    assert visible_layers(made) == made


def test_layers_that_are_not_there_are_left_to_who_uses_them():
    assert visible_layers(("/nowhere/a", "/nowhere/b")) == ("/nowhere/a", "/nowhere/b")
