"""Which modules the processes load that work on files for this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys  # json: this process would look for it after chdir, as for all that it imports late
assert sys.path[0] == "", sys.path
from pyrtc.store.file_server import FileServer
os.chdir(sys.argv[1])
server = FileServer()
fd = os.open("/", os.O_PATH)
print(server.ask("examine", [fd], path="/", follow=True)[0]["name"])
server.close()
"""


@pytest.mark.parametrize("name", ["json", "socket", "pyrtc", "argparse"])
def test_no_module_comes_from_the_working_directory(tmp_path: Path, name: str) -> None:
    """It may be where files of a hostile container were copied to."""
    (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    home = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=home, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert not (tmp_path / "ran").exists()
    assert (done.returncode, done.stdout) == (0, "/\n"), done.stderr
