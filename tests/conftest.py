"""What every test needs: the processes it starts use the same pyrtc as the test itself."""

import os
from pathlib import Path

import pyrtc._core

_package = str(Path(pyrtc._core.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_package, os.environ.get("PYTHONPATH"))))

# Where Hypothesis keeps its examples: the tree may be another user's.
if not os.access(Path(__file__).parents[1], os.W_OK):
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", f"/tmp/hypothesis-{os.geteuid()}")
