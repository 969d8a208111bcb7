"""Debian's docker-registry on loopback, and images made of others' layers."""

import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Registry", "Variant", "registry"]

_READY = 10.0  # seconds
_LINE = re.compile(rb'"GET /v2/\S+/blobs/(\S+) HTTP/1\.\d" 200 (\d+)')


class Registry:
    """A running registry."""

    def __init__(self, port: int, log: Path) -> None:
        self.host = f"127.0.0.1:{port}"
        self._log = log

    def copy(self, layout: Path, name: str, target: str) -> str:
        """Push an image of a layout with skopeo; returns the name by which it is pulled."""
        reference = f"{self.host}/{target}"
        words = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{name}", f"docker://{reference}"]
        subprocess.run(words, check=True)
        return reference

    def mark(self) -> int:
        """Return where the access log ends now."""
        time.sleep(0.1)  # a line is written after its answer
        return self._log.stat().st_size

    def sent(self, since: int) -> dict[str, int]:
        """Return how many bytes of each blob went out after a mark."""
        time.sleep(0.1)
        found: dict[str, int] = {}
        for digest, size in _LINE.findall(self._log.read_bytes()[since:]):
            found[digest.decode()] = found.get(digest.decode(), 0) + int(size)
        return found


@contextmanager
def registry(directory: Path) -> Iterator[Registry]:
    """Start a registry that keeps its data in a directory, and stop it at the end."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config, log = directory / "registry.yml", directory / "registry.log"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\n"
        f'http: {{addr: "127.0.0.1:{port}", secret: x}}\n'
    )
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _READY
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"docker-registry does not start: {log.read_text()}") from None
                time.sleep(0.05)
        yield Registry(port, log)
    finally:
        process.terminate()
        process.wait()


class Variant:
    """An OCI layout with one image that has another one's layers but the last, and a last layer of its own.

    new_size: compressed bytes of that layer, which does not compress.
    """

    def __init__(self, layout: Path, manifest: dict[str, Any], directory: Path, seed: int, size: int) -> None:
        self.path = directory
        self._blobs = directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        config = json.loads(_blob(layout, manifest["config"]["digest"]).read_bytes())
        for layer in manifest["layers"][:-1]:
            source = _blob(layout, layer["digest"])
            (self._blobs / source.name).symlink_to(source)
        content = _tar(f"opt/variant-{seed}", os.urandom(size))
        new = self._add(gzip.compress(content, 1, mtime=0))
        self.new_digest, self.new_size = new["digest"], new["size"]
        diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
        config["rootfs"]["diff_ids"] = [*config["rootfs"]["diff_ids"][: len(manifest["layers"]) - 1], diff_id]
        described = self._add(json.dumps(config).encode())
        document = manifest | {
            "config": {**manifest["config"], **described},
            "layers": [*manifest["layers"][:-1], {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **new}],
        }
        entry = self._add(json.dumps(document).encode())
        name = {"org.opencontainers.image.ref.name": "variant"}
        media_type = "application/vnd.oci.image.manifest.v1+json"
        index = {"schemaVersion": 2, "manifests": [{"mediaType": media_type, **entry, "annotations": name}]}
        (directory / "index.json").write_text(json.dumps(index))
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def _add(self, content: bytes) -> dict[str, Any]:
        value = hashlib.sha256(content).hexdigest()
        (self._blobs / value).write_bytes(content)
        return {"digest": f"sha256:{value}", "size": len(content)}


def _blob(layout: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    return layout / "blobs" / algorithm / value


def _tar(name: str, content: bytes) -> bytes:
    import io
    import tarfile

    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return output.getvalue()
