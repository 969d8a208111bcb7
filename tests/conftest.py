"""What every test needs: processes that it starts use the same pyrtc as it does, and no store of this machine."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyrtc._core

_package = str(Path(pyrtc._core.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_package, os.environ.get("PYTHONPATH"))))

# A run under nohup, or in the background of a script, inherits ignored signals, which pyrtc rightly leaves ignored.
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any test module is read: some copy the environment then.
_root = tempfile.mkdtemp(prefix="pyrtc-tests-")
os.environ["PYRTC_ROOT"] = f"{_root}/store"

# Where Hypothesis keeps its examples: the tree may be another user's.
if not os.access(Path(__file__).parents[1], os.W_OK):
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{_root}/hypothesis")


def pytest_unconfigure():
    """Remove what was made here."""
    shutil.rmtree(_root, ignore_errors=True)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may enter and write to.

    tmp_path is below one that is closed to others, and is closed again by every other run of pytest that begins.
    """
    made = Path(tempfile.mkdtemp(prefix="pyrtc-open-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)
