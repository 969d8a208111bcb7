"""A kernel for virtual machines: Debian's, with a first file system that holds nothing but what mounts the disk."""

import os
import subprocess
from pathlib import Path

__all__ = ["archive", "make_guest"]

_META = "linux-image-cloud-amd64"
_PATIENCE = 60  # seconds for 30 MB
_SOURCE = Path(__file__).with_name("guest.c")
# What stands between Debian's cloud kernel and an ext4 disk, in the order of need.
_MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")


def make_guest(directory: Path) -> tuple[Path, Path]:
    """Fetch the kernel's package, without installing it, and make the first file system; returns both.

    Raises
    ------
    RuntimeError: the package cannot be had. subprocess.CalledProcessError: a tool fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    package = _download(directory)
    tree = directory / "package"
    subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
    kernel = next((tree / "boot").glob("vmlinuz-*"))
    program = directory / "init"
    subprocess.run(["cc", "-O2", "-static", "-s", "-o", program, _SOURCE], check=True)
    files = [("init", program)]
    for number, name in enumerate(_MODULES):
        for found in (tree / "lib/modules").rglob(f"{name}.ko"):
            files.append((f"module.{number}", found))
    initrd = directory / "initrd"
    initrd.write_bytes(archive(files))
    return kernel, initrd


def _download(directory: Path) -> Path:
    done = subprocess.run(["apt-cache", "depends", _META], capture_output=True, text=True, check=False)
    names = [line.split()[-1] for line in done.stdout.splitlines() if "Depends: linux-image" in line]
    if not names:
        raise RuntimeError(f"no package {_META} in reach: no kernel for virtual machines")
    # apt drops its rights, and the directory need not be open to it.
    words = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", names[0]]
    try:
        done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"cannot fetch {names[0]} within {_PATIENCE} s") from error
    found = sorted(directory.glob("*.deb"))
    if done.returncode or not found:
        raise RuntimeError(f"cannot fetch {names[0]}: {done.stderr.strip()}")
    return found[-1]


def archive(files: list[tuple[str, Path]]) -> bytes:
    """Return a cpio archive in the form that the kernel unpacks ("newc")."""
    parts = []
    for number, (name, path) in enumerate([*files, ("TRAILER!!!", Path(os.devnull))]):
        content = path.read_bytes() if path.name != "null" else b""
        mode = 0o100755 if content else 0
        fields = (number + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        parts.append(header + b"\0" * (-len(header) % 4) + content + b"\0" * (-len(content) % 4))
    return b"".join(parts)
