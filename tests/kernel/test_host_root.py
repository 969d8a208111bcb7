"""The running system as an image, on machines whose directories are file systems of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, for mounts that nobody else sees"),
]

MOUNTS = """\
mount -t tmpfs -o mode=750 none /srv && echo separate > /srv/file && chown 7:8 /srv &&
mkdir -p /srv/a/b && mount -t tmpfs none /srv/a/b && echo deep > /srv/a/b/file &&
touch /srv/one && mount --bind /srv/a/b/file /srv/one &&
mount -t tmpfs none /tmp && echo secret > /tmp/file &&
mount -t tmpfs -o size=64k,ro none /media || exit 99
exec "$@"
"""
PROGRAM = """\
import json, os, pyrtc, sys
done = pyrtc.run("host", ["sh", "-c", sys.argv[2]], **json.loads(sys.argv[1]))
assert not os.path.exists("/srv/made")
print(json.dumps([done.returncode, done.stdout.decode(), done.stderr.decode()]))
"""


def run(store: Path, script: str, **options: object) -> list[str]:
    """Run a script in a container of a host with these mounts, and return the words it wrote."""
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", MOUNTS, "sh"]
    command += [sys.executable, "-c", PROGRAM, json.dumps(options), script]
    environment = {**os.environ, "PYRTC_ROOT": str(store)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, stdout, stderr = json.loads(done.stdout)
    assert code == 0, stderr
    words: list[str] = stdout.split()
    return words


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A place that the mounts of these tests do not cover."""
    if tmp_path.is_relative_to("/srv") or tmp_path.is_relative_to("/media"):
        pytest.skip("needs temporary files outside of /srv and /media")
    place = Path("/var/tmp") / f"pyrtc-test-{os.getpid()}-{os.urandom(4).hex()}"
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("options", [{"rw_layer": "disk"}, {"rw_layer": "memory"}])
def test_a_file_system_of_its_own_is_overlaid(store: Path, options: dict[str, str]) -> None:
    script = "cat /srv/file; stat -c '%u:%g:%a' /srv; echo changed > /srv/file; cat /srv/file; touch /srv/made"
    assert run(store, script, **options) == ["separate", "7:8:750", "changed"]


@pytest.mark.parametrize("options", [{"rw_layer": "disk"}, {"rw_layer": "memory"}, {"userns": "auto"}])
def test_deeper_ones_are_shown_read_only(store: Path, options: dict[str, str]) -> None:
    refused = " 2>/dev/null || echo refused; "
    script = f"cat /srv/a/b/file; touch /srv/a/b/x{refused} touch /media/x{refused}"
    assert run(store, script, **options) == ["deep", "refused", "refused"]


def test_what_is_mounted_is_not_copied_up(store: Path) -> None:
    """Neither a directory nor a file, which are no part of a layer."""
    assert run(store, "cat /srv/file /srv/one /srv/a/b/file", copy_up=["/srv"]) == ["separate", "deep", "deep"]


def test_owners_are_mapped_where_the_containers_are(store: Path) -> None:
    assert run(store, "stat -c %u:%g /srv /usr; cat /srv/file", userns="auto") == ["7:8", "0:0", "separate"]


@pytest.mark.parametrize("options", [{"rw_layer": "disk"}, {"rw_layer": "memory"}])
def test_temporary_files_and_the_store_are_hidden(store: Path, options: dict[str, str]) -> None:
    script = f"ls -A /tmp /run; test -e {store}/pyrtc.db || echo hidden; touch /tmp/x /run/x /srv/made; stat -c %a /tmp"
    assert run(store, script, **options) == ["/run:", "/tmp:", "hidden", "1777"]


@pytest.mark.parametrize("options", [{"rw_layer": "disk"}, {"rw_layer": "memory"}, {"userns": "auto"}])
def test_read_only_means_all_of_it(store: Path, options: dict[str, str]) -> None:
    places = ["/", "/usr", "/srv", "/run", "/tmp", "/dev/shm"]
    script = "".join(f"touch {place}/x 2>/dev/null && echo {place}; " for place in places)
    assert run(store, script + "true", read_only=True, **options) == ["/dev/shm"]
