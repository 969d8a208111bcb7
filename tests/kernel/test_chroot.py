"""Callers that live in a chroot: what is above it stays out of reach of their containers.

The root of such a container's mount namespace must be its own root, not the host's. Otherwise a command that may call
chroot(2), as commands may by default, climbs out, and what joins the namespace lands outside the container.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_root

pytestmark = needs_root

PROJECT = Path(__file__).resolve().parents[2]

# $1: where the chroot is made, "mount" or "directory"; $2: this tree; $3: Python; then the script inside.
OUTSIDE = r"""
set -eu
place=$1 project=/$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$place"
if [ "$4" = mount ]; then
    mkdir "$place/root"
    mount -t tmpfs tmpfs "$place/root"
else
    mkdir "$place/root"
fi
cd "$place/root"
mkdir -p usr etc dev proc sys tmp run var ".$project"
for link in bin sbin lib lib32 lib64; do
    if [ -L /$link ]; then cp -P /$link .; elif [ -d /$link ]; then mkdir $link; mount --bind /$link $link; fi
done
for bound in usr etc dev "${project#/}"; do mount --bind "/$bound" "$bound"; done
mount --rbind /sys sys
mount -t proc proc proc
touch "$place/secret-of-the-host"
exec chroot . "$3" -c "$5"
"""

# Climbs as far as it gets, then says what is there.
CLIMB = """
import os
os.mkdir('/tmp/below')
os.chroot('/tmp/below')
for _ in range(64):
    os.chdir('..')
os.chroot('.')
print(sorted(os.listdir('/')))
"""

INSIDE = f"""
import os, sys
sys.path.insert(0, {str(PROJECT)!r})
import pyrtc
ours = sorted(os.listdir('/'))
climbed = pyrtc.run('host', [{sys.executable!r}, '-c', {CLIMB!r}])
assert climbed.stdout.decode().strip() == str(ours), (climbed, ours)
with pyrtc.Container('host', ['sleep', '100']) as container:
    listed = container.exec(['ls', '-1', '/']).stdout.decode().split()
    assert listed == ours, (listed, ours)
    mounts = container.exec(['cat', '/proc/self/mountinfo']).stdout.decode()
    assert 'secret' not in mounts and '/root' not in [line.split()[4] for line in mounts.splitlines()], mounts
print('well')
"""


@pytest.mark.parametrize("kind", ["mount", "directory"])
def test_nothing_above_a_chroot_is_reached(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", OUTSIDE, "sh", tmp_path, str(PROJECT).lstrip("/"), sys.executable, kind, INSIDE],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYRTC_ROOT": "/var/store"},
        check=False,
    )
    assert done.stdout.strip() == "well", done.stderr
