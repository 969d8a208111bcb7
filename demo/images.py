"""Two small images in one docker-archive, made of this machine's static busybox: a base, and one with a layer more."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

__all__ = ["BUSYBOX", "write_archive"]

BUSYBOX = Path("/bin/busybox")
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "srv", "sys", "tmp")


def write_archive(target: Path) -> None:
    """Write the archive: demo/busybox:latest with one layer, demo/hello:latest with that and another."""
    base = _tar(dict.fromkeys(_DIRECTORIES) | _busybox() | {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"})
    # A whiteout: the file of the layer below is not seen in a container.
    hello = _tar({"srv/hello": b"#!/bin/sh\necho hello from the upper layer\n", "etc/.wh.passwd": b""})
    files: dict[str, bytes] = {}
    manifest = []
    for name, layers, command in (
        ("demo/busybox", [base], ["sh"]),
        ("demo/hello", [base, hello], ["sh", "/srv/hello"]),
    ):
        digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
        config = {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
        document = json.dumps(config).encode()
        config_name = f"{hashlib.sha256(document).hexdigest()}.json"
        files[config_name] = document
        files.update({f"{digest}.tar": layer for digest, layer in zip(digests, layers, strict=True)})
        manifest.append(
            {"Config": config_name, "RepoTags": [f"{name}:latest"], "Layers": [f"{digest}.tar" for digest in digests]}
        )
    files["manifest.json"] = json.dumps(manifest).encode()
    target.write_bytes(_tar(dict(files)))


def _busybox() -> dict[str, bytes | str]:
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    applets = {f"bin/{name}": "busybox" for name in listed.stdout.split() if name != "busybox"}
    return {"bin/busybox": BUSYBOX.read_bytes(), **applets}


def _architecture() -> str:
    import platform

    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _tar(entries: "dict[str, bytes | str | None]") -> bytes:
    """Return a tar: bytes are a file's content, a string is where a symbolic link leads, None is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, entry in entries.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o1777 if name == "tmp" else 0o755
            if entry is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(entry, str):
                info.type, info.linkname = tarfile.SYMTYPE, entry
            else:
                info.size = len(entry)
            archive.addfile(info, io.BytesIO(entry) if isinstance(entry, bytes) else None)
    return buffer.getvalue()
