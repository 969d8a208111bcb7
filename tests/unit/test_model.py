import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_builder import sha

from pyrtc.errors import DigestMismatch, ImageError
from pyrtc.image import model
from pyrtc.image.config import Healthcheck

DIGEST = "sha256:" + "ab" * 32
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 10}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 10}


def manifest(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]} | fields).encode()


def index(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": []} | fields).encode()


def config(count: int = 1, **fields: object) -> bytes:
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": [DIGEST] * count}} | fields).encode()


def test_manifest() -> None:
    decoded = model.decode_manifest(manifest(unknown={"a": [1]}, annotations={"a": "b"}), "m")
    assert decoded.config.digest == DIGEST
    assert decoded.layers[0].hash_name == "sha256"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
    ],
)
def test_layer_types(media_type: str) -> None:
    assert model.decode_manifest(manifest(layers=[LAYER | {"mediaType": media_type}]), "m")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"{}", "damaged"),
        (b"\xff", "damaged"),
        (b"[" * 100_000, "damaged"),
        (manifest(schemaVersion=1), "version 1"),
        (manifest(manifests=[]), "at once"),
        (manifest(mediaType="application/vnd.oci.image.index.v1+json"), "calls itself"),
        (manifest(config=CONFIG | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}), "no container image"),
        (manifest(config=CONFIG | {"mediaType": ""}), "no container image"),
        (manifest(config=CONFIG | {"digest": "sha256:../../../../etc/passwd"}), "no sha256"),
        (manifest(config=CONFIG | {"size": model.MAX_DOCUMENT + 1}), "allowed"),
        (manifest(config=CONFIG | {"size": -1}), "negative"),
        (manifest(layers=[LAYER | {"digest": "md5:" + "a" * 32}]), "no sha256"),
        (manifest(layers=[LAYER | {"digest": DIGEST.upper()}]), "no sha256"),
        (manifest(layers=[LAYER | {"size": "10"}]), "damaged"),
        (manifest(layers=[LAYER | {"mediaType": "application/vnd.in-toto+json"}]), "cannot be unpacked"),
        (manifest(layers=[LAYER | {"mediaType": LAYER["mediaType"] + "+encrypted"}]), "cannot be unpacked"),
        (manifest(layers=[LAYER] * 501), "501 layers"),
        (b" " * (model.MAX_DOCUMENT + 1), "allowed"),
    ],
)
def test_bad_manifests(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        model.decode_manifest(content, "the manifest")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (index(layers=[]), "at once"),
        (index(config={}), "at once"),
        (index(mediaType="application/vnd.oci.image.manifest.v1+json"), "calls itself"),
        (index(schemaVersion=3), "version 3"),
        (index(manifests=[LAYER | {"digest": "x"}]), "no sha256"),
        (index(manifests=[LAYER] * 5000), "5000 manifests"),
    ],
)
def test_bad_indexes(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        model.decode_index(content, "the index")


def test_embedded_data_must_match() -> None:
    content = b"hello"
    good = LAYER | {"digest": sha(content), "size": 5, "data": base64.b64encode(content).decode()}
    assert model.decode_manifest(manifest(layers=[good]), "m")
    with pytest.raises(DigestMismatch):
        model.decode_manifest(manifest(layers=[good | {"digest": DIGEST}]), "m")
    with pytest.raises(DigestMismatch, match="5 bytes"):
        model.decode_manifest(manifest(layers=[good | {"size": 6}]), "m")
    with pytest.raises(ImageError, match="damaged data"):
        model.decode_manifest(manifest(layers=[good | {"data": "?"}]), "m")


def test_config() -> None:
    run = {
        "User": "app",
        "Env": ["A=1", "B=", "C", "D=x=y"],
        "Entrypoint": None,
        "Cmd": "single",
        "WorkingDir": "/srv",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "Shell": ["/bin/bash", "-c"],
        "Healthcheck": {
            "Test": ["CMD", "true"],
            "Interval": 5_000_000_000,
            "StartInterval": 1_500_000_000,
            "Retries": 3,
        },
        "OnBuild": ["RUN x"],
    }
    decoded = model.decode_config(config(config=run, created="2024-05-06T07:08:09Z"), "c", 1)
    extract = decoded.extract()
    # "C" is empty, not the caller's C.
    assert extract.env == (("A", "1"), ("B", ""), ("C", ""), ("D", "x=y"))
    assert (extract.entrypoint, extract.cmd) == (None, ("single",))
    assert (extract.user, extract.workdir, extract.stop_signal) == ("app", "/srv", "SIGINT")
    assert (extract.volumes, extract.ports, extract.labels) == (("/data",), ("80/tcp",), (("a", "b"),))
    assert extract.shell == ("/bin/bash", "-c")
    assert extract.healthcheck == Healthcheck(("CMD", "true"), interval=5.0, retries=3, start_interval=1.5)
    assert decoded.created_text == "2024-05-06T07:08:09Z"


def test_numbers_of_a_health_check_are_bounded() -> None:
    check = {"Test": ["CMD", "true"], "Interval": -5, "Timeout": 1 << 62, "StartPeriod": -1, "Retries": 1 << 40}
    found = model.decode_config(config(config={"Healthcheck": check}), "c", 1).extract().healthcheck
    assert found == Healthcheck(("CMD", "true"), timeout=10 * 365 * 86400.0, retries=(1 << 31) - 1)


def test_nulls_are_nothing() -> None:
    names = (
        "User",
        "Env",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
        "Volumes",
        "ExposedPorts",
        "Labels",
        "StopSignal",
        "Shell",
    )
    run: dict[str, object] = dict.fromkeys((*names, "Healthcheck"))
    with_nulls = model.decode_config(config(config=run, history=None, created=None, variant=None), "c", 1)
    assert with_nulls.extract() == model.decode_config(config(), "c", 1).extract()


@pytest.mark.parametrize(
    "created", ["\x1b[31mred", "yesterday", "2024-05-06", "2024-05-06T07:08:09Z\n", "٢024-05-06T07:08:09Z"]
)
def test_times_that_are_none(created: str) -> None:
    assert model.decode_config(config(created=created), "c", 1).created_text == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (config(2), "2 diffIDs for 1"),
        (config(0), "0 diffIDs for 1"),
        (config(rootfs={"type": "layers", "diff_ids": ["../../x"]}), "no digest"),
        (config(rootfs={"type": "windows", "diff_ids": [DIGEST]}), "not layers"),
        (config(rootfs=None), "damaged"),
        (config(config={"Env": ["=x"]}), "without a name"),
        (config(config={"Env": ["A=\0"]}), "NUL"),
        (config(config={"Cmd": ["a\0b"]}), "NUL"),
        (config(config={"User": "a\0b"}), "NUL"),
        (config(config={"Env": "A=1"}), "damaged"),
        (config(config={"Labels": {"a": 1}}), "damaged"),
    ],
)
def test_bad_configs(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        model.decode_config(content, "the config", 1).extract()


def test_layout_versions() -> None:
    model.check_layout(b'{"imageLayoutVersion":"1.0.0"}')
    for content in (b'{"imageLayoutVersion":"2.0.0"}', b"{}", b""):
        with pytest.raises(ImageError):
            model.check_layout(content)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "config",
                    "layers",
                    "manifests",
                    "rootfs",
                    "diff_ids",
                    "digest",
                    "size",
                    "Env",
                    "Cmd",
                    "type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json)
def test_any_document_is_read_or_refused(document: object) -> None:
    content = json.dumps(document).encode()
    for decode in (
        lambda: model.decode_index(content, "x"),
        lambda: model.decode_manifest(content, "x"),
        lambda: model.decode_config(content, "x", 1).extract(),
        lambda: model.decode_archive_manifest(content),
        lambda: model.check_layout(content),
    ):
        with contextlib.suppress(ImageError):
            decode()
