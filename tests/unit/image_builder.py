"""Image archives made of small layers, right or wrong in one place."""

import gzip
import hashlib
import json
from pathlib import Path

from tar_builder import END, directory, file, pax, symlink


def sha(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def layer(*parts: bytes) -> bytes:
    """Return an uncompressed layer."""
    return b"".join(parts) + END


HELLO = layer(directory("etc"), file("etc/hello", b"hello\n"))
WORLD = layer(directory("etc"), file("etc/world", b"world\n"))
# Not the same above any layers: "deep" has no entry of its own.
IMPLIED = layer(file("deep/inside", b"x"))
DEEP = layer(directory("deep", mode=0o700), file("deep/first", b"y"))


def config(*layers: bytes, **fields: object) -> bytes:
    """Return the config of an image with these layers; fields go over the defaults."""
    document: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Env": ["PATH=/bin", "EMPTY="], "Cmd": ["/bin/sh"], "WorkingDir": "/etc"},
        "rootfs": {"type": "layers", "diff_ids": [sha(content) for content in layers]},
        "history": [{"created_by": "test", "comment": "made here"}],
    }
    return json.dumps(document | fields).encode()


def docker_archive(*images: tuple[list[str], bytes, list[bytes]], extra: bytes = b"") -> bytes:
    """Return what `docker save` writes. images: (names, config, layers); a layer that is there already is linked to."""
    parts, seen, entries = [], {}, []
    for tags, document, layers in images:
        paths = []
        for number, content in enumerate(layers):
            path = f"{len(parts):03}{number}/layer.tar"
            if content in seen:
                parts.append(symlink(path, f"../{seen[content]}"))
            else:
                seen[content] = path
                parts.append(file(path, content))
            paths.append(path)
        name = f"{sha(document)[7:]}.json"
        parts.append(file(name, document))
        entries.append({"Config": name, "RepoTags": tags, "Layers": paths})
    parts.append(file("manifest.json", json.dumps(entries).encode()))
    return b"".join(parts) + extra + END


class Layout:
    """An OCI layout in memory: blobs by digest, and an index."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[dict[str, object]] = []

    def blob(self, content: bytes, media_type: str, algorithm: str = "sha256", **fields: object) -> dict[str, object]:
        digest = sha(content, algorithm)
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)} | fields

    def manifest(self, document: bytes, layers: list[bytes], **fields: object) -> dict[str, object]:
        """Add a manifest; return its descriptor."""
        content = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(document, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(blob, "application/vnd.oci.image.layer.v1.tar+gzip") for blob in layers],
        } | fields
        return self.blob(json.dumps(content).encode(), "application/vnd.oci.image.manifest.v1+json")

    def index(self, *descriptors: dict[str, object], **fields: object) -> dict[str, object]:
        content = {"schemaVersion": 2, "manifests": list(descriptors)} | fields
        return self.blob(json.dumps(content).encode(), "application/vnd.oci.image.index.v1+json")

    def add(self, descriptor: dict[str, object], name: str | None = None) -> None:
        annotations = {"org.opencontainers.image.ref.name": name} if name else {}
        self.manifests.append(descriptor | ({"annotations": annotations} if name else {}))

    def files(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": self.manifests}
        files = {f"blobs/{digest.replace(':', '/')}": content for digest, content in self.blobs.items()}
        return files | {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
        }

    def tar(self) -> bytes:
        # The names of sha512 blobs are too long for a plain header.
        return b"".join(pax(("path", name)) + file("x", content) for name, content in self.files().items()) + END

    def write(self, path: Path) -> Path:
        for name, content in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path


def simple_layout(name: str | None = "app", *layers: bytes, **fields: object) -> Layout:
    layers = layers or (HELLO, WORLD)
    layout = Layout()
    layout.add(layout.manifest(config(*layers, **fields), [gzip.compress(content) for content in layers]), name)
    return layout


def platform(descriptor: dict[str, object], text: str) -> dict[str, object]:
    """Return a descriptor for os/architecture[/variant]."""
    names = ("os", "architecture", "variant")
    return descriptor | {"platform": dict(zip(names, text.split("/"), strict=False))}
