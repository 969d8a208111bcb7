"""Registries that break, lie, stall, flood and mislead: nothing wrong gets into the store, and nothing hangs."""

import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from image_builder import HELLO, WORLD, Layout, config, layer, platform, sha, simple_layout
from servers import INDEX, MANIFEST, Exchange, Faulty, cut_after, make_certificate, redirect, reply
from tar_builder import file

from pyrtc.errors import (
    DigestMismatch,
    ImageError,
    ImageNotFound,
    PyrtcError,
    RegistryBusy,
    RegistryError,
    RegistryUnreachable,
)
from pyrtc.image.images import Images
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.image.registry.patience import Patience
from pyrtc.image.registry.progress import PullResult, PushResult, TransferEvent
from pyrtc.image.registry.pull import pull
from pyrtc.image.registry.push import push
from pyrtc.store import Store

QUICK = Patience(
    connect=1, silence=0.6, answer=1, rate=5000, window=0.4, attempts=3, first_delay=0.01, longest_delay=0.05
)
BIG = layer(file("data", random.Random(1).randbytes(600_000)))


def get(store: Store, registry: Faulty, name: str = "app:1", **options: object) -> PullResult:
    return pull(store, Reference.parse(f"{registry.host}/{name}"), patience=QUICK, **options)


def put(store: Store, registry: Faulty, name: str = "app:1", **options: object) -> PushResult:
    return push(store, Reference.parse(f"{registry.host}/{name}"), patience=QUICK, **options)


def serve(registry: Faulty, *layers: bytes, **fields: object) -> list[dict]:
    """Let a registry have app:1; returns the descriptors of its layers."""
    layout = simple_layout("app", *layers, **fields)
    digest = registry.add(layout, layout.manifests[0], "app:1")
    return json.loads(registry.manifests[digest][1])["layers"]


def nothing_left(store: Store) -> bool:
    rooms = ("tmp", "locks", "layers")
    return not store.images.list() and not any(os.listdir(store.root / room) for room in rooms)


def refused(
    store: Store, registry: Faulty, error: type[PyrtcError], match: str | None = None, **options: object
) -> None:
    """Pull, which must fail soon, say why, and leave nothing."""
    begin = time.monotonic()
    with pytest.raises(error, match=match):
        get(store, registry, **options)
    assert time.monotonic() - begin < 6
    assert nothing_left(store)


def rewrite(registry: Faulty, change: Callable[[dict], object], media_type: str = MANIFEST) -> None:
    """Change the manifest of app:1."""
    document = json.loads(registry.manifests[registry.tags["app:1"]][1])
    change(document)
    registry.add_manifest(json.dumps(document).encode(), "app:1", media_type)


# ---- connections ----------------------------------------------------------------------------------------------------


def test_a_broken_connection_goes_on_where_it_broke(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    faulty.on(blob["digest"], cut_after(200_000), times=2)
    events: list[TransferEvent] = []
    result = get(store, faulty, on_event=events.append)
    assert result.bytes_fetched == blob["size"]
    ranges = [request.headers.get("range") for request in faulty.seen(blob["digest"])]
    assert ranges == [None, "bytes=200000-", "bytes=400000-"]
    assert sum(event.phase == "retrying" for event in events) == 2
    assert (Path(result.image.layers[0]) / "data").read_bytes() == random.Random(1).randbytes(600_000)


def test_a_registry_without_range_begins_again(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    faulty.ranges = False
    faulty.on(blob["digest"], cut_after(200_000), times=1)
    result = get(store, faulty)
    assert result.bytes_fetched == blob["size"] + 200_000
    assert (Path(result.image.layers[0]) / "data").stat().st_size == 600_000


def test_a_connection_that_always_breaks(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    faulty.on(blob["digest"], cut_after(10))
    refused(store, faulty, RegistryUnreachable, "broke")
    assert len(faulty.seen(blob["digest"])) == QUICK.attempts


def test_a_part_from_elsewhere(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)
    faulty.on(blob["digest"], cut_after(200_000), times=1)
    faulty.on(blob["digest"], reply(206, b"x" * 100, Content_Range="bytes 100-199/600000"))
    refused(store, faulty, RegistryError, "another part")


def test_the_running_hash_covers_the_resumed_part(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)

    def other(exchange: Exchange) -> None:
        left = blob["size"] - 200_000
        exchange.reply(206, b"x" * left, {"Content-Range": f"bytes 200000-{blob['size'] - 1}/{blob['size']}"})

    faulty.on(blob["digest"], cut_after(200_000), times=1)
    faulty.on(blob["digest"], other)
    refused(store, faulty, ImageError)


def test_out_of_order_for_a_while(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    faulty.on("/manifests/", reply(503), times=2)
    faulty.on("/blobs/", reply(500), times=1)
    assert get(store, faulty).bytes_fetched


def test_out_of_order_for_good(store: Store, faulty: Faulty) -> None:
    faulty.on("/v2/", reply(502))
    refused(store, faulty, RegistryUnreachable, "answers with 502")
    assert len(faulty.seen("/v2/")) == QUICK.attempts


def test_too_many_requests(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    faulty.on("/blobs/", reply(429, Retry_After="1"), times=1)
    begin = time.monotonic()
    assert get(store, faulty).bytes_fetched
    assert time.monotonic() - begin >= 1


def test_too_many_requests_for_long(store: Store, faulty: Faulty) -> None:
    faulty.on("/manifests/", reply(429, Retry_After="7200"))
    with pytest.raises(RegistryBusy, match="in 7200 s") as caught:
        get(store, faulty)
    assert caught.value.retry_after == 7200
    assert len(faulty.requests) == 1


def test_a_stream_that_is_too_slow(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)

    def drip(exchange: Exchange) -> None:
        exchange.begin(200, length=blob["size"])
        for _ in range(200):
            exchange.send(b"x")
            time.sleep(0.05)

    faulty.on(blob["digest"], drip)
    refused(store, faulty, RegistryUnreachable, "too slowly")


def test_silence(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)

    def stall(exchange: Exchange) -> None:
        exchange.begin(200, length=blob["size"])
        exchange.send(b"x")
        time.sleep(3)

    faulty.on(blob["digest"], stall)
    refused(store, faulty, RegistryUnreachable, "in time")


def chunked(exchange: Exchange, *parts: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange.handler.close_connection = True
    exchange.handler.wfile.write(b"".join((head, *parts)))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_the_length_of_a_chunk_that_drips(store: Store, faulty: Faulty) -> None:
    (blob,) = serve(faulty, BIG)

    def drip(exchange: Exchange) -> None:
        chunked(exchange, chunk(BIG[:100_000]), b"1000;")
        for _ in range(200):
            exchange.send(b"x")
            time.sleep(0.05)

    faulty.on(blob["digest"], drip)
    refused(store, faulty, RegistryUnreachable, "nothing of it came within 1 s")


@pytest.mark.parametrize("part", [b"A: b\r\n", b"A: b\r\n" * 5000], ids=["slow", "fast"])
def test_trailers_without_end(store: Store, faulty: Faulty, part: bytes) -> None:
    (blob,) = serve(faulty, BIG)

    def trail(exchange: Exchange) -> None:
        chunked(exchange, chunk(faulty.blobs[blob["digest"]]), b"0\r\n")
        for _ in range(200):
            exchange.send(part)
            time.sleep(0.05)

    faulty.on(blob["digest"], trail)
    begin = time.monotonic()
    get(store, faulty)  # all of the layer is there, and it is what it is called
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nA: b\r\n"], ids=["status", "headers"])
def test_headers_that_never_end(store: Store, faulty: Faulty, part: bytes) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.handler.wfile.write(part)
        for _ in range(100):
            exchange.handler.wfile.write(b"K")
            time.sleep(0.05)

    faulty.on("/manifests/", drip)
    refused(store, faulty, RegistryUnreachable)


def test_a_document_that_drips(store: Store, faulty: Faulty) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": MANIFEST})
        for _ in range(1000):
            exchange.send(b" " * 400)
            time.sleep(0.02)

    faulty.on("/manifests/", drip)
    refused(store, faulty, RegistryUnreachable, "within 1 s")


def test_nobody_there(store: Store, faulty: Faulty) -> None:
    faulty.close()
    refused(store, faulty, RegistryUnreachable, "Connection refused")


def test_no_registry_at_all(store: Store, faulty: Faulty) -> None:
    faulty.on("", lambda exchange: exchange.handler.wfile.write(b"SSH-2.0-OpenSSH\r\n") and exchange.cut())
    refused(store, faulty, RegistryUnreachable)


# ---- lies about blobs -----------------------------------------------------------------------------------------------


def other_bytes(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda content: gzip.compress(WORLD), "its descriptor says"),
        (lambda content: content + b"\0", "its descriptor says"),
        (lambda content: content[:-1], "its descriptor says"),
        (other_bytes, None),
    ],
    ids=["other", "longer", "shorter", "flipped"],
)
def test_a_layer_that_is_not_what_it_is_called(
    store: Store, faulty: Faulty, change: Callable[[bytes], bytes], match: str | None
) -> None:
    blob = serve(faulty, HELLO)[0]
    faulty.blobs[blob["digest"]] = change(faulty.blobs[blob["digest"]])
    refused(store, faulty, ImageError, match)


def test_a_layer_of_the_right_size(store: Store, faulty: Faulty) -> None:
    """It unpacks to something, but has not the digest that it is asked by."""
    blob = serve(faulty, BIG)[0]
    other = gzip.compress(layer(file("data", random.Random(2).randbytes(600_000))))
    faulty.blobs[blob["digest"]] = other + bytes(blob["size"] - len(other)) if len(other) < blob["size"] else other
    faulty.blobs[blob["digest"]] = faulty.blobs[blob["digest"]][: blob["size"]]
    refused(store, faulty, ImageError)


def test_a_layer_without_end(store: Store, faulty: Faulty) -> None:
    blob = serve(faulty, BIG)[0]

    def flood(exchange: Exchange) -> None:
        exchange.begin(200)
        content = faulty.blobs[blob["digest"]]
        for _ in range(200):
            exchange.send(content)

    faulty.on(blob["digest"], flood)
    refused(store, faulty, DigestMismatch, "more than its")
    assert faulty.sent < 100 * blob["size"]


def test_a_layer_that_another_config_names(store: Store, faulty: Faulty) -> None:
    """The compressed digest is right and the diffID is not."""
    layout = Layout()
    descriptor = layout.manifest(config(WORLD), [gzip.compress(HELLO)])
    faulty.add(layout, descriptor, "app:1")
    refused(store, faulty, DigestMismatch, "the image's config says")


def test_a_claim_of_more_than_the_disk_has(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    rewrite(faulty, lambda document: document["layers"][0].update(size=1 << 60))
    refused(store, faulty, PyrtcError, "no space")


# ---- lies about documents -------------------------------------------------------------------------------------------


def test_a_manifest_of_four_gigabytes(store: Store, faulty: Faulty) -> None:
    faulty.on("/manifests/", lambda exchange: exchange.begin(200, {"Content-Length": str(4 << 30)}))
    refused(store, faulty, RegistryError, "4294967296 bytes; 4194304 are allowed")


def test_a_manifest_without_end(store: Store, faulty: Faulty) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": MANIFEST})
        for _ in range(1000):
            exchange.send(b" " * 100_000)

    faulty.on("/manifests/", flood)
    refused(store, faulty, RegistryError, "more than the 4194304 bytes")


def test_a_manifest_of_another_digest(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    digest = faulty.tags["app:1"]
    kind, content = faulty.manifests[digest]
    faulty.manifests[digest] = (kind, content + b" ")
    with pytest.raises(DigestMismatch):
        get(store, faulty, f"app@{digest}")
    # By tag the registry's own header is wrong.
    refused(store, faulty, DigestMismatch, "has the digest")


@pytest.mark.parametrize("header", ["sha256:../../../etc/passwd", "sha256:" + "0" * 64, "md5:0"])
def test_a_digest_header_that_lies(store: Store, faulty: Faulty, header: str) -> None:
    serve(faulty)
    kind, content = faulty.manifests[faulty.tags["app:1"]]
    faulty.on("/manifests/", reply(200, content, Content_Type=kind, Docker_Content_Digest=header))
    refused(store, faulty, DigestMismatch)


def test_a_manifest_by_sha512(store: Store, faulty: Faulty) -> None:
    layout = simple_layout()
    digest = faulty.add(layout, layout.manifests[0], "app:1")
    kind, content = faulty.manifests[digest]
    long = sha(content, "sha512")
    faulty.manifests[long] = (kind, content)
    faulty.tags["app:1"] = long
    assert get(store, faulty).digest == long
    assert get(store, faulty).up_to_date


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(manifests=[]), "index and a manifest at once"),
        (lambda d: d.update(schemaVersion=1), "schema 1"),
        (lambda d: d["config"].update(mediaType="application/vnd.oci.empty.v1+json"), "no container image"),
        (lambda d: d["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"), "helm"),
        (lambda d: d["config"].update(digest="sha256:../../../../etc/passwd"), "which is no"),
        (lambda d: d["config"].update(size=5 << 20), "4194304 are allowed"),
        (lambda d: d["config"].update(size=-1), "negative size"),
        (lambda d: d["config"].update(data="aGVsbG8="), "has 5 bytes, its descriptor says"),
        (lambda d: d["layers"][0].update(digest="sha256:" + "A" * 64), "which is no"),
        (lambda d: d["layers"][0].update(mediaType="application/vnd.wasm.v1"), "cannot be unpacked"),
        (lambda d: d["layers"][0].update(urls=["https://example.com/x"]), "lies elsewhere"),
        (
            lambda d: d["layers"][0].update(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "lies elsewhere",
        ),
        (lambda d: d["layers"].pop(), "2 diffIDs for 1 layers"),
        (lambda d: d.update(layers=d["layers"] * 400), "the kernel stacks 500"),
        (lambda d: d.update(layers="none"), "damaged"),
    ],
)
def test_manifests_that_are_wrong(store: Store, faulty: Faulty, change: Callable[[dict], object], match: str) -> None:
    serve(faulty)
    rewrite(faulty, change)
    refused(store, faulty, ImageError, match)
    assert not [request for request in faulty.requests if "passwd" in request.path]


def test_an_artifact_without_layers(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    rewrite(
        faulty,
        lambda d: d.update(
            artifactType="application/vnd.example",
            layers=[],
            config={**d["config"], "mediaType": "application/vnd.example"},
        ),
    )
    refused(store, faulty, ImageError, r"no container image: its config is application/vnd\.example")


def test_content_type_and_media_type_disagree(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    rewrite(faulty, lambda document: document.update(mediaType=MANIFEST), INDEX)
    refused(store, faulty, ImageError, "CVE-2021-41190")


def test_a_schema_1_relic(store: Store, faulty: Faulty) -> None:
    content = json.dumps({"schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": [], "history": []}).encode()
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    faulty.on("/manifests/", reply(200, content, Content_Type=kind))
    refused(store, faulty, ImageError, "schema 1, which was given up")


def test_a_config_that_lies(store: Store, faulty: Faulty) -> None:
    serve(faulty)
    document = json.loads(faulty.manifests[faulty.tags["app:1"]][1])
    faulty.blobs[document["config"]["digest"]] = config(HELLO)
    refused(store, faulty, DigestMismatch, "the config")


def test_a_config_in_the_manifest(store: Store, faulty: Faulty) -> None:
    import base64

    serve(faulty)
    document = json.loads(faulty.manifests[faulty.tags["app:1"]][1])
    content = faulty.blobs[document["config"]["digest"]]
    rewrite(faulty, lambda d: d["config"].update(data=base64.b64encode(content).decode()))
    assert get(store, faulty).bytes_fetched
    assert faulty.seen(document["config"]["digest"]) == []


def test_deep_and_wide_indexes(store: Store, faulty: Faulty) -> None:
    layout = Layout()
    inner = platform(layout.manifest(config(HELLO), [gzip.compress(HELLO)]), str(Platform.host()))
    for _ in range(3):
        inner = layout.index(inner)
    faulty.add(layout, inner, "app:1")
    assert get(store, faulty).bytes_fetched
    Images(store).remove(f"{faulty.host}/app:1")
    faulty.add(layout, layout.index(layout.index(inner)), "app:1")
    refused(store, faulty, ImageError, "nested more than 4 deep")
    wide = layout.index(*(layout.index(annotations={"n": str(number)}) for number in range(100)))
    faulty.add(layout, wide, "app:1")
    before = len(faulty.requests)
    refused(store, faulty, ImageError, "too many indexes")
    assert len(faulty.requests) - before < 40


def test_an_index_that_lies_about_sizes(store: Store, faulty: Faulty) -> None:
    layout = Layout()
    entry = platform(layout.manifest(config(HELLO), [gzip.compress(HELLO)]), str(Platform.host()))
    faulty.add(layout, layout.index({**entry, "size": 5}), "app:1")
    refused(store, faulty, DigestMismatch, "its descriptor says 5")


# ---- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://169.254.169.254/latest/meta-data/iam", "link-local address, which is refused"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[fd00:ec2::254]/", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://100.100.100.200/", "link-local"),
        ("file:///etc/passwd", "no http or https URL"),
        ("http://user:secret@127.0.0.1/", "user name in it"),
        ("http://127.0.0.1:99999/", "no URL"),
    ],
)
def test_redirects_that_lead_where_none_may(store: Store, faulty: Faulty, url: str, match: str) -> None:
    serve(faulty)
    faulty.on("/blobs/", redirect(url))
    refused(store, faulty, RegistryError, match)


def test_a_name_that_leads_to_the_metadata_service() -> None:
    """What counts is whom a connection reaches, not what the name looks like."""
    from pyrtc.image.registry.addresses import Origin
    from pyrtc.image.registry.transport import Transport

    class Connected:
        def getpeername(self) -> tuple[str, int]:
            return "169.254.169.254", 80

    transport = Transport()
    origin = Origin("http", "innocent.example.com", 80)
    with pytest.raises(RegistryError, match="link-local"):
        transport._met(origin, Connected(), False, "", "registry.example.com")  # type: ignore[arg-type]


def test_a_redirect_from_elsewhere_to_this_machine() -> None:
    from pyrtc.image.registry.addresses import check_reach

    with pytest.raises(RegistryError, match="loopback"):
        check_reach("127.0.0.1", "", "a redirect")
    check_reach("127.0.0.1", "loopback", "a redirect")
    check_reach("192.0.2.1", "", "a redirect")


def test_redirects_in_a_circle(store: Store, faulty: Faulty) -> None:
    faulty.on("/manifests/", lambda exchange: redirect(exchange.request.path)(exchange))
    refused(store, faulty, RegistryError, "redirects more than 5 times")
    assert len(faulty.requests) == 6


def test_a_redirect_out_of_tls(store: Store, faulty: Faulty, own_settings: Path, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with Faulty(tls=(cert, key), name="localhost") as secure:
        directory = own_settings / "certs.d" / secure.host
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(cert.read_bytes())
        secure.on("/manifests/", redirect(f"{faulty.url}/v2/app/manifests/1"))
        refused(store, secure, RegistryError, "from https to http://")
        assert faulty.requests == []


# ---- mirrors, blocks and proxies ------------------------------------------------------------------------------------


def mirrored(home: Path, main: Faulty, *mirrors: Faulty, extra: str = "") -> None:
    text = f'[[registry]]\nlocation = "{main.host}"\n{extra}\n'
    for mirror in mirrors:
        text += f'[[registry.mirror]]\nlocation = "{mirror.host}/copies"\n'
    (home / "registries.conf").write_text(text)


def test_mirrors_come_first(store: Store, faulty: Faulty, own_settings: Path) -> None:
    with Faulty() as mirror:
        layout = simple_layout()
        faulty.add(layout, layout.manifests[0], "app:1")
        mirror.add(layout, layout.manifests[0], "copies/app:1")
        mirrored(own_settings, faulty, mirror)
        result = get(store, faulty)
        assert result.source == f"{mirror.host}/copies/app"
        assert result.image.names == (f"{faulty.host}/app:1",)
        assert faulty.requests == []


def test_a_mirror_without_the_image_or_a_layer(store: Store, faulty: Faulty, own_settings: Path) -> None:
    with Faulty() as empty, Faulty() as partial:
        layout = simple_layout()
        faulty.add(layout, layout.manifests[0], "app:1")
        partial.add(layout, layout.manifests[0], "copies/app:1")
        blob = json.loads(faulty.manifests[faulty.tags["app:1"]][1])["layers"][1]
        del partial.blobs[blob["digest"]]
        mirrored(own_settings, faulty, empty, partial)
        assert get(store, faulty).bytes_fetched
        assert [request.path for request in faulty.requests] == [f"/v2/app/blobs/{blob['digest']}"]


def test_a_mirror_that_lies(store: Store, faulty: Faulty, own_settings: Path) -> None:
    with Faulty() as liar:
        layout = simple_layout()
        faulty.add(layout, layout.manifests[0], "app:1")
        liar.add(layout, layout.manifests[0], "copies/app:1")
        for digest in liar.blobs:
            liar.blobs[digest] = b"lies"
        mirrored(own_settings, faulty, liar)
        result = get(store, faulty)
        assert result.source == f"{faulty.host}/app"


def test_all_are_named_when_all_fail(store: Store, faulty: Faulty, own_settings: Path) -> None:
    with Faulty() as mirror:
        mirror.on("", reply(503))
        mirrored(own_settings, faulty, mirror)
        with pytest.raises(ImageNotFound, match=f"no such image.*before that.*{mirror.host}.*503"):
            get(store, faulty)


def test_mirrors_for_digests_only(store: Store, faulty: Faulty, own_settings: Path) -> None:
    with Faulty() as mirror:
        layout = simple_layout()
        digest = faulty.add(layout, layout.manifests[0], "app:1")
        mirror.add(layout, layout.manifests[0], "copies/app:1")
        mirrored(own_settings, faulty, mirror, extra="mirror-by-digest-only = true")
        get(store, faulty)
        assert mirror.requests == []
        Images(store).remove(f"{faulty.host}/app:1")
        get(store, faulty, f"app@{digest}")
        assert mirror.seen("/blobs/")


def test_a_push_goes_to_no_mirror(store: Store, faulty: Faulty, own_settings: Path, tmp_path: Path) -> None:
    with Faulty() as mirror:
        mirrored(own_settings, faulty, mirror)
        Images(store).load(f"oci:{simple_layout().write(tmp_path / 'app')}")
        Images(store).tag(store.images.list()[0].id, f"{faulty.host}/app:1")
        put(store, faulty)
        assert mirror.requests == []


def test_blocked(store: Store, faulty: Faulty, own_settings: Path) -> None:
    (own_settings / "registries.conf").write_text(f'[[registry]]\nlocation = "{faulty.host}"\nblocked = true\n')
    refused(store, faulty, RegistryError, "registries.conf blocks")
    assert faulty.requests == []


def test_a_proxy(store: Store, faulty: Faulty, own_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = simple_layout()
    faulty.add(layout, layout.manifests[0], "app:1")
    (own_settings / "registries.conf").write_text('[[registry]]\nlocation = "registry.test:5000"\ninsecure = true\n')
    monkeypatch.setenv("http_proxy", f"http://{faulty.host}")
    monkeypatch.setenv("https_proxy", f"http://u:p@{faulty.host}")
    result = pull(store, Reference.parse("registry.test:5000/app:1"), patience=QUICK)
    assert result.bytes_fetched
    assert faulty.seen("^http://registry.test:5000/v2/app/manifests/1$")


# ---- push -----------------------------------------------------------------------------------------------------------


def ready(store: Store, registry: Faulty, directory: Path, *layers: bytes) -> None:
    Images(store).load(f"oci:{simple_layout('app', *(layers or (BIG,))).write(directory / 'app')}")
    Images(store).tag(store.images.list()[0].id, f"{registry.host}/app:1")


def test_an_upload_goes_on_where_it_broke(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    ready(store, faulty, tmp_path)

    def break_off(exchange: Exchange) -> None:
        path = exchange.request.path.partition("?")[0]
        faulty.uploads[path] += exchange.handler.rfile.read(250_000)
        exchange.cut()

    break_off.before_body = True  # type: ignore[attr-defined]
    # The config is a small upload of its own: only that of the layer is broken.
    digest = store.layers.of_image(store.images.list()[0].id)[0].blob_digest
    faulty.on(f"/blobs/uploads/.*{digest.partition(':')[2]}", break_off, method="PUT", times=1)
    result = put(store, faulty)
    assert faulty.seen("/blobs/uploads/", "GET")
    assert faulty.blobs[digest]
    assert result.layers[0].size <= result.bytes_sent < 2 * result.layers[0].size + (2 << 20)


def test_an_upload_whose_answer_is_lost(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    ready(store, faulty, tmp_path)
    digest = store.layers.of_image(store.images.list()[0].id)[0].blob_digest

    def take_and_break(exchange: Exchange) -> None:
        faulty.blobs[digest] = exchange.request.body
        exchange.cut()

    faulty.on(f"/blobs/uploads/.*{digest.partition(':')[2]}", take_and_break, method="PUT", times=1)
    put(store, faulty)
    assert len(faulty.seen("/blobs/uploads/.*digest=", "PUT")) == 2  # the layer and the config


def test_a_registry_that_takes_small_parts_only(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    ready(store, faulty, tmp_path)
    digest = store.layers.of_image(store.images.list()[0].id)[0].blob_digest
    faulty.on(f"/blobs/uploads/.*{digest.partition(':')[2]}", reply(413), method="PUT", times=1)
    put(store, faulty)
    assert faulty.seen("/blobs/uploads/", "PATCH")
    assert sha(faulty.blobs[digest]) == digest


def test_a_registry_that_stores_something_else(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    ready(store, faulty, tmp_path)
    faulty.on("/manifests/", reply(201, Docker_Content_Digest="sha256:" + "0" * 64), method="PUT")
    with pytest.raises(DigestMismatch, match="the registry stored"):
        put(store, faulty)


def test_an_upload_that_leads_to_the_metadata_service(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    ready(store, faulty, tmp_path)
    faulty.on("/blobs/uploads/", reply(202, Location="http://169.254.169.254/upload"), method="POST")
    with pytest.raises(RegistryError, match="link-local"):
        put(store, faulty)


def test_a_damaged_layer_in_the_store_is_not_pushed(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    ready(store, faulty, tmp_path)
    digest = store.layers.of_image(store.images.list()[0].id)[0].blob_digest
    value = digest.partition(":")[2]
    path = store.root / "blobs/sha256" / value[:2] / value
    path.write_bytes(other_bytes(path.read_bytes()))
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        put(store, faulty)
    assert "app:1" not in faulty.tags


# ---- giving up ------------------------------------------------------------------------------------------------------


def test_what_a_callback_raises_ends_the_pull(store: Store, faulty: Faulty) -> None:
    serve(faulty, BIG)

    def refuse(event: TransferEvent) -> None:
        if event.phase == "downloading":
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        get(store, faulty, on_event=refuse)
    assert nothing_left(store)


def test_cancelling_from_asyncio(faulty: Faulty, tmp_path: Path) -> None:
    import asyncio

    import pyrtc
    from pyrtc import aio

    (blob,) = serve(faulty, BIG)
    began = []

    def stall(exchange: Exchange) -> None:
        exchange.begin(200, length=blob["size"])
        exchange.send(b"x")
        began.append(True)
        time.sleep(20)

    faulty.on(blob["digest"], stall, times=1)

    async def main(engine: pyrtc.Engine) -> None:
        task = asyncio.create_task(aio.pull(f"{faulty.host}/app:1", engine=engine))
        while not began:
            await asyncio.sleep(0.01)
        begin = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begin < 2
        assert nothing_left(engine.store)
        events: list[TransferEvent] = []
        result = await aio.pull(f"{faulty.host}/app:1", engine=engine, on_event=events.append)
        assert result.bytes_fetched == blob["size"]
        assert events[-1].phase == "done"
        assert (await aio.push(f"{faulty.host}/app:1", engine=engine)).layers[0].origin == "present"

    with pyrtc.Engine(tmp_path / "async") as engine:
        asyncio.run(main(engine))
