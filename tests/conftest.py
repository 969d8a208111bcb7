"""What every test needs: processes that it starts use the same pyrtc as it does, and no store of this machine."""

import os
import shutil
import tempfile
from pathlib import Path

import pyrtc._core

_package = str(Path(pyrtc._core.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_package, os.environ.get("PYTHONPATH"))))

# Before any test module is read: some copy the environment then.
_root = tempfile.mkdtemp(prefix="pyrtc-tests-")
os.environ["PYRTC_ROOT"] = f"{_root}/store"

# Where Hypothesis keeps its examples: the tree may be another user's.
if not os.access(Path(__file__).parents[1], os.W_OK):
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"{_root}/hypothesis")


def pytest_unconfigure():
    """Remove what was made here."""
    shutil.rmtree(_root, ignore_errors=True)
