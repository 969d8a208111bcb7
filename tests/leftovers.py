"""Run a command and fail when it leaves something behind: python tests/leftovers.py COMMAND...

Looked at before and after: mounts, loop devices, network devices and named network namespaces, tables of nftables,
control groups, processes of pyrtc and of what it starts, /run/pyrtc, and pyrtc's files in shared memory. What another
process makes meanwhile looks like a leftover: run this alone.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PATIENCE = 5.0  # seconds: the kernel removes network namespaces and cgroups of dead processes a little later
PROCESSES = re.compile(r"pyrtc(-.*)?|(pasta|passt)(\..*)?|slirp4netns|etcd|docker-registry")


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        yield f"mount {fields[4]} ({' '.join(fields[fields.index('-') + 1 :][:2])})"


def _loop_devices() -> Iterator[str]:
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        yield f"loop device {path.parts[3]} on {path.read_text().strip()}"


def _network_devices() -> Iterator[str]:
    for path in Path("/sys/class/net").iterdir():
        yield f"network device {path.name}"


def _network_namespaces() -> Iterator[str]:
    with suppress(FileNotFoundError):
        for path in Path("/run/netns").iterdir():
            yield f"network namespace {path.name}"


def _tables() -> Iterator[str]:
    if shutil.which("nft") and os.geteuid() == 0:
        listed = subprocess.run(["nft", "list", "tables"], check=False, capture_output=True, text=True)
        yield from (f"nftables: {line}" for line in listed.stdout.splitlines())


def _cgroups() -> Iterator[str]:
    for directory, _folders, _files in os.walk("/sys/fs/cgroup"):
        if re.search(r"/pyrtc", directory):
            yield f"cgroup {directory}"


def _processes() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
            command = path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if PROCESSES.fullmatch(name):
            yield f"process {path.parent.name} {name}: {command}"


def _files() -> Iterator[str]:
    for directory, _folders, files in os.walk("/run/pyrtc"):
        # Locks of id ranges stay, and are taken again by whoever comes next.
        if directory != "/run/pyrtc/userns":
            yield from (f"file {directory}/{name}" for name in files)
    yield from (f"file {path}" for path in Path("/dev/shm").glob("*pyrtc*"))


_LOOKS = (_mounts, _loop_devices, _network_devices, _network_namespaces, _tables, _cgroups, _processes, _files)


def snapshot() -> set[str]:
    """Return what there is, one line each."""
    found: set[str] = set()
    for look in _LOOKS:
        found.update(look())
    return found


def main() -> int:
    """Run the command; its exit code, or 1 when it left something."""
    before = snapshot()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    deadline = time.monotonic() + PATIENCE
    while (left := snapshot() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    for line in sorted(left):
        print(f"left behind: {line}", file=sys.stderr)
    return code or (1 if left else 0)


if __name__ == "__main__":
    sys.exit(main())
