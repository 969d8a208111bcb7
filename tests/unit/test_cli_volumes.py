"""Tests for pyrtc.cli.volumes, and for the command as a module."""

import subprocess
import sys

import pytest

from pyrtc.cli.volumes import create
from pyrtc.errors import UsageError


@pytest.mark.parametrize("option", [["-o", "type=tmpfs"], ["--opt", "o=bind"], ["--opt=device=/srv"]])
def test_options_of_mounts_are_refused_with_what_to_do_instead(option: list[str]) -> None:
    with pytest.raises(UsageError, match="--mount type=bind"):
        create([*option, "data"])


def test_the_command_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "pyrtc", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pyrtc" in done.stdout.lower()
