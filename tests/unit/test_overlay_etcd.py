"""The client of etcd, with a real one, and with servers that say what no etcd says."""

import json
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from etcd_server import EtcdServer, refusing

from pyrtc.errors import ClusterError, ClusterUnreachable, UsageError
from pyrtc.network.overlay.etcd import Change, Compacted, Delete, Etcd, Put, Same, Unchanged, Unmade
from pyrtc.network.overlay.gateway import Gateway, Tls, read_endpoints


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    yield server
    server.stop()


@pytest.fixture
def etcd(server):
    client = server.client()
    client.transact([], [Delete("/t/", prefix=True)])
    yield client
    client.close()


@pytest.fixture
def liar():
    """A server that answers every request with what the test wants: status and text."""
    answer = {"status": 200, "text": b"{}"}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(len(answer["text"])))
            self.end_headers()
            self.wfile.write(answer["text"])

        def log_message(self, *_arguments):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments):
            """A client that has read enough hangs up."""

    httpd = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    answer["url"] = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield answer
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_key_is_written_read_and_removed(etcd):
    written = etcd.transact([Unmade("/t/a")], [Put("/t/a", b"\xff\0one")])
    assert written.done
    item = etcd.get("/t/a")
    assert (item.key, item.value, item.created) == ("/t/a", b"\xff\0one", written.revision)
    assert etcd.transact([], [Delete("/t/a")]).done
    assert etcd.get("/t/a") is None


def test_conditions_that_do_not_hold_change_nothing_and_show_what_is_there(etcd):
    first = etcd.transact([Unmade("/t/a")], [Put("/t/a", b"1"), Put("/t/b", b"1")])
    for condition in (Unmade("/t/a"), Same("/t/a", b"2"), Unchanged("/t/a", first.revision - 1), Same("/t/none", b"1")):
        refused = etcd.transact([condition], [Put("/t/a", b"3")], ["/t/a", "/t/none"])
        assert not refused.done
        assert [(item.key, item.value) for item in refused.found] == [("/t/a", b"1")]
    held = [Same("/t/a", b"1"), Unchanged("/t/b", first.revision), Unchanged("/t/none", 0)]
    assert etcd.transact(held, [Put("/t/a", b"2")]).done
    assert etcd.get("/t/a").value == b"2"


def test_one_of_many_wins(server, etcd):
    winners = []

    def claim(number):
        client = server.client()
        if client.transact([Unmade("/t/one")], [Put("/t/one", str(number).encode())]).done:
            winners.append(number)
        client.close()

    threads = [threading.Thread(target=claim, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert etcd.get("/t/one").value == str(winners[0]).encode()


def test_a_list_is_whole_and_of_one_revision(etcd):
    for start in range(0, 1200, 100):
        etcd.transact([], [Put(f"/t/{number:05}", b"x" * 100) for number in range(start, start + 100)])
    etcd.transact([], [Put("/tt", b"a neighbour"), Put("/s", b"another")])
    listing = etcd.list("/t/")
    assert [item.key for item in listing.items] == [f"/t/{number:05}" for number in range(1200)]
    assert listing.revision >= max(item.modified for item in listing.items)
    assert etcd.list("/t/nothing/").items == ()
    etcd.transact([], [Delete("/tt"), Delete("/s")])


def test_what_goes_with_a_lease_goes_when_nobody_keeps_it(etcd):
    lease = etcd.grant(2)
    etcd.transact([], [Put("/t/live", b"", lease)])
    assert etcd.keep_alive(lease)
    deadline = time.monotonic() + 60
    while etcd.get("/t/live") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not etcd.keep_alive(lease)
    lease = etcd.grant(60)
    etcd.transact([], [Put("/t/live", b"", lease)])
    etcd.revoke(lease)
    assert etcd.get("/t/live") is None


def test_a_watch_tells_of_what_was_and_what_comes(etcd):
    first = etcd.transact([], [Put("/t/a", b"1")])
    etcd.transact([], [Put("/elsewhere", b"1")])
    watch = etcd.watch("/t/", first.revision)
    batches = iter(watch)
    seen = []
    later = [[Put("/t/b", b"2"), Put("/t/c", b"3")], [Delete("/t/a")]]
    while len(seen) < 4:
        _revision, changes = next(batches)
        seen += changes
        if later and seen:
            etcd.transact([], later.pop(0))
    assert [(change.key, change.value) for change in seen] == [
        ("/t/a", b"1"),
        ("/t/b", b"2"),
        ("/t/c", b"3"),
        ("/t/a", None),
    ]
    assert isinstance(seen[0], Change)
    assert seen[0].revision == first.revision < seen[1].revision == seen[2].revision < seen[3].revision
    watch.close()


def test_a_watch_is_interrupted_from_another_thread(etcd):
    watch = etcd.watch("/t/", etcd.list("/t/").revision + 1)
    batches = iter(watch)
    next(batches)
    timer = threading.Timer(0.3, watch.interrupt)
    timer.start()
    with pytest.raises(ClusterUnreachable):
        next(batches)
    watch.close()
    timer.join()


def test_a_watch_of_what_etcd_has_forgotten_says_so(etcd):
    revision = etcd.transact([], [Put("/t/a", b"1")]).revision
    latest = etcd.transact([], [Put("/t/a", b"2")]).revision
    etcd.gateway.call("/v3/kv/compaction", json.dumps({"revision": str(latest), "physical": True}).encode())
    watch = etcd.watch("/t/", revision)
    with pytest.raises(Compacted):
        for _batch in watch:
            pass
    watch.close()


def test_another_member_is_asked_when_one_is_silent_or_gone(server):
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    with silent, refusing() as gone:
        client = Etcd(Gateway([f"http://127.0.0.1:{silent.getsockname()[1]}", *gone, server.url], timeout=5))
        assert client.transact([], [Put("/t/a", b"1")]).done
        assert client.gateway.member == server.url  # is asked first from then on
        assert client.get("/t/a").value == b"1"
        client.close()


def test_nobody_there_names_each_and_why():
    with refusing(2) as places, pytest.raises(ClusterUnreachable) as failure:
        Etcd(Gateway(places)).get("a")
    assert all(f"{place}: Connection refused" in str(failure.value) for place in places)


@pytest.mark.parametrize(
    ("status", "text", "kind", "words"),
    [
        (200, b"no json", ClusterError, "cannot be read"),
        (200, b'{"kvs":[{"key":"*"}]}', ClusterError, "no base64"),
        (200, b'{"kvs":[{"key":"YQ==","mod_revision":"-1"}]}', ClusterError, "number"),
        (200, b'{"kvs":{}}', ClusterError, "cannot be read"),
        (404, b"not found", ClusterError, "no etcd of version 3.4"),
        (400, b'{"error":"bad","code":3}', ClusterError, "refuses: bad"),
        (401, b'{"error":"no token","code":16}', ClusterError, "refuses: no token"),
        (503, b'{"error":"etcdserver: no leader","code":14}', ClusterUnreachable, "no leader"),
        (500, b"<html>", ClusterUnreachable, "500"),
        (302, b"", ClusterUnreachable, "302"),
    ],
)
def test_answers_that_no_etcd_gives(liar, status, text, kind, words):
    liar.update(status=status, text=text)
    with pytest.raises(kind, match=words) as failure:
        Etcd(Gateway([liar["url"]], timeout=30)).get("a")
    assert type(failure.value) is kind


def test_an_answer_without_end_is_cut(liar):
    liar["text"] = b" " * (17 << 20)
    with pytest.raises(ClusterError, match="more than"):
        Etcd(Gateway([liar["url"]], timeout=30)).get("a")


@pytest.mark.parametrize(
    "text",
    ["", "localhost:2379", "ftp://h:1", "http://h:0", "http://h:99999", "http://u:p@h:1", "http://h:1/x", "http://-h"],
)
def test_no_addresses_of_etcd(text):
    with pytest.raises(UsageError, match=r"address|port"):
        read_endpoints([text])


def test_addresses_of_etcd():
    texts = ["http://10.0.0.1", "https://etcd-1.example:4001/", "http://[fd00::1]:2379", "http://10.0.0.1:2379"]
    assert read_endpoints(texts) == ("http://10.0.0.1:2379", "https://etcd-1.example:4001", "http://[fd00::1]:2379")
    with pytest.raises(UsageError):
        read_endpoints([])
    with pytest.raises(UsageError, match="most"):
        read_endpoints([f"http://h{number}" for number in range(17)])


def make_certificates(directory):
    """Make a CA, and certificates of a server on 127.0.0.1, of a client, and of somebody else's client."""

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-days", "2", "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", f"/CN={ca}")
    # etcd's gateway is a client of its own server, with the server's certificate.
    (directory / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "other-ca")):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt")


def test_both_sides_prove_who_they_are(tmp_path):
    make_certificates(tmp_path)
    path = str(tmp_path)
    tls = Tls(f"{path}/ca.crt", f"{path}/client.crt", f"{path}/client.key")
    options = ["--cert-file", f"{path}/server.crt", "--key-file", f"{path}/server.key"]
    options += ["--client-cert-auth", "--trusted-ca-file", f"{path}/ca.crt"]
    server = EtcdServer(tmp_path, *options, scheme="https", tls=tls)
    try:
        client = server.client()
        assert client.transact([], [Put("/t/a", b"1")]).done
        watch = client.watch("/t/", 1)
        assert next(iter(watch))[0] == 0
        watch.close()
        with pytest.raises(ClusterUnreachable, match="cannot prove who it is"):
            Etcd(Gateway([server.url], timeout=30)).get("a")
        renewed = Etcd(Gateway([server.url], tls, timeout=30))
        shutil.copy(f"{path}/client.crt", f"{path}/kept")
        (tmp_path / "client.crt").write_text("no certificate")
        with pytest.raises(UsageError):
            renewed.gateway.renew()
        assert renewed.get("/t/a").value == b"1"  # with the one that was read
        shutil.copy(f"{path}/kept", f"{path}/client.crt")
        renewed.gateway.renew()
        assert renewed.get("/t/a").value == b"1"
        for certificate, key in (("", ""), (f"{path}/stranger.crt", f"{path}/stranger.key")):
            with pytest.raises(ClusterUnreachable):
                Etcd(Gateway([server.url], Tls(f"{path}/ca.crt", certificate, key), timeout=30)).get("a")
    finally:
        server.stop()


def test_files_that_are_no_certificates(tmp_path):
    (tmp_path / "x").write_text("x")
    for tls in (Tls(f"{tmp_path}/none"), Tls("", f"{tmp_path}/x", f"{tmp_path}/x")):
        with pytest.raises(UsageError, match="cannot use the certificate"):
            Gateway(["https://127.0.0.1:1"], tls)


def test_a_member_that_never_begins_to_answer_is_not_waited_for():
    """It hangs: the kernel takes the question, and nobody reads it."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        gateway = Gateway([f"http://127.0.0.1:{hung.getsockname()[1]}"], timeout=0.3)
        with pytest.raises(ClusterUnreachable, match="in time"):
            gateway.stream("/v3/watch", b"{}")
        gateway.close()


def test_a_member_that_begins_to_refuse_and_hangs_is_passed_over():
    def answer():
        connection, _address = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 99\r\n\r\n{")
            over.wait(60)

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()
        gateway = Gateway([f"http://127.0.0.1:{listening.getsockname()[1]}"], timeout=0.3)
        with pytest.raises(ClusterUnreachable, match="in time"):
            gateway.stream("/v3/watch", b"{}")
        over.set()
        gateway.close()


def test_messages_may_be_far_apart():
    """The patience of the first is not that of the others."""

    def answer():
        connection, _address = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
            time.sleep(1)
            connection.sendall(b"4\r\ntwo\n\r\n0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        gateway = Gateway([f"http://127.0.0.1:{listening.getsockname()[1]}"], timeout=0.3)
        stream = gateway.stream("/v3/watch", b"{}")
        lines = iter(stream)
        assert [next(lines), next(lines)] == [b"one", b"two"]
        with pytest.raises(ClusterUnreachable):
            next(lines)
        stream.close()
        gateway.close()
        thread.join()
