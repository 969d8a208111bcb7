import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pyrtc.errors import StoreError
from pyrtc.options import NetworkAttachment
from pyrtc.store import Store
from pyrtc.store.database import Database
from pyrtc.store.schema import MIGRATIONS


@pytest.fixture
def database(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    database = Database(tmp_path / "pyrtc.db", fd)
    yield database
    database.close()
    os.close(fd)


def setting(database: Database, name: str) -> object:
    row = database.row("SELECT value FROM settings WHERE name = ?", (name,))
    return row and row[0]


def test_wal_and_version(database: Database) -> None:
    assert database.row("PRAGMA journal_mode") == ("wal",)
    assert database.row("PRAGMA user_version") == (len(MIGRATIONS),) == (8,)
    assert database.row("PRAGMA foreign_keys") == (1,)


def test_newer_format_is_refused(tmp_path) -> None:
    with Store(tmp_path / "s") as store:
        store.database.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer pyrtc"):
        Store(tmp_path / "s")


def test_garbage_is_refused(tmp_path) -> None:
    root = tmp_path / "s"
    root.mkdir(0o700)
    (root / "pyrtc.db").write_bytes(b"x" * 8192)
    with pytest.raises(StoreError, match="not a database"):
        Store(root)


def test_a_transaction_is_whole(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as connection:
        connection.execute("INSERT INTO settings VALUES ('a', 1)")
        _ = 1 // 0
    assert setting(database, "a") is None
    with database.writing(durable=True) as connection:
        connection.execute("INSERT INTO settings VALUES ('a', 2)")
    assert setting(database, "a") == 2
    assert database.row("PRAGMA synchronous") == (1,)  # back to NORMAL


def test_connections_are_reused_and_closed(database: Database) -> None:
    for _ in range(20):
        setting(database, "x")
    assert len(database._idle) == 1
    database.close()
    with pytest.raises(StoreError, match="closed"):
        setting(database, "x")


def test_many_threads_write(database: Database) -> None:
    database.execute("INSERT INTO settings VALUES ('n', 0)")
    errors = []

    def work() -> None:
        try:
            for _ in range(100):
                with database.writing() as connection:
                    connection.execute("UPDATE settings SET value = value + 1 WHERE name = 'n'")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert setting(database, "n") == 800
    assert len(database._idle) <= 8


def test_many_processes_write(tmp_path) -> None:
    root = tmp_path / "s"
    with Store(root) as store:
        store.database.execute("INSERT INTO settings VALUES ('n', 0)")
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with Store(root) as store:
                    for _ in range(50):
                        with store.database.writing() as connection:
                            connection.execute("UPDATE settings SET value = value + 1 WHERE name = 'n'")
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    with Store(root) as store:
        assert setting(store.database, "n") == 200


def test_no_connection_survives_a_fork(database: Database) -> None:
    setting(database, "x")
    assert database._idle
    pid = os.fork()
    if pid == 0:
        try:
            database.execute("INSERT INTO settings VALUES ('child', 1)")
            os._exit(0 if setting(database, "child") == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert setting(database, "child") == 1
    database.execute("INSERT INTO settings VALUES ('parent', 1)")
    assert database.row("PRAGMA integrity_check") == ("ok",)


def test_a_fork_waits_for_transactions(database: Database) -> None:
    started, done = threading.Event(), threading.Event()

    def work() -> None:
        with database.writing() as connection:
            connection.execute("INSERT INTO settings VALUES ('w', 1)")
            started.set()
            time.sleep(0.2)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if setting(database, "w") == 1 else 1)
        finally:
            os._exit(2)
    assert done.is_set() or setting(database, "w") == 1
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()


def test_killed_writer_leaves_a_sound_database(tmp_path) -> None:
    root = tmp_path / "s"
    Store(root).close()
    for delay in (0.01, 0.03, 0.06):
        pid = os.fork()
        if pid == 0:
            with Store(root) as store:
                while True:
                    store.containers.allocate(name=None, image_id="x", options_json=b"{}", directory=False)
        time.sleep(delay)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        with Store(root) as store:
            assert store.database.row("PRAGMA integrity_check") == ("ok",)
            store.reap()
            assert store.containers.list() == ()


def test_sqlite_is_new_enough() -> None:
    assert sqlite3.threadsafety == 3


SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("v*.sql"))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_older_formats_are_brought_forward(tmp_path, schema: Path) -> None:
    """Databases as the first version and the last but one left them, with something in every table.

    The first goes through every entry; the other one shows whether an entry was edited that brought it to where it is.
    """
    root = tmp_path / "s"
    root.mkdir(0o700)
    with contextlib.closing(sqlite3.connect(root / "pyrtc.db")) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(schema.read_text())
    for name in ("1", "2"):
        (root / "layers" / (name * 64)).mkdir(parents=True)
    with Store(root) as store:
        image = store.image("app:1")
        assert image.layers == (f"{root}/layers/{'2' * 64}", f"{root}/layers/{'1' * 64}")
        assert (image.config.cmd, image.damaged, image.place) == (("sh",), False, "")
        low, high = store.layers.of_image(image.id)
        assert (low.depends, high.depends, low.tree, low.tar_size, low.opaque) == (0, 3, "", -1, -1)
        assert low.blob_digest == f"sha256:{'b' * 63}1"
        assert [record.name for record in store.containers.list()] == ["old"]
        assert store.volumes.users() == {"data": ("e" * 64,)}
        assert [network.name for network in store.networks.list()] == ["bridge", "host", "none"]
        assert store.database.rows("PRAGMA foreign_key_check") == []
        assert store.database.rows("PRAGMA integrity_check") == [("ok",)]
        with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
            for statements in MIGRATIONS:
                for statement in statements:
                    fresh.execute(statement)
            for table, _ in TABLES:
                columns = f"SELECT name, type, [notnull], dflt_value FROM pragma_table_info('{table}')"
                assert store.database.rows(columns) == fresh.execute(columns).fetchall()
            everything = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY type, name"
            assert store.database.rows(everything) == fresh.execute(everything).fetchall()


def test_format_6_is_brought_forward(tmp_path) -> None:
    """What that version had beside the others is there still, and a network can be made and used."""
    root = tmp_path / "s"
    root.mkdir(0o700)
    with contextlib.closing(sqlite3.connect(root / "pyrtc.db")) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript((Path(__file__).parent / "schemas" / "v6.sql").read_text())
    with Store(root) as store:
        assert [(snapshot.name, snapshot.image) for snapshot in store.snapshots.list()] == [("base", "app:1")]
        assert store.volumes.get("data").labels == (("tier", "1"),)
        (record,) = store.containers.list()
        bridge = store.networks.get("bridge")
        store.networks.assign(bridge.id, "172.17.0.0/16", "172.17.0.1")
        (endpoint,) = store.networks.claim(record.id, [NetworkAttachment("bridge")])
        assert store.networks.endpoints_on(bridge.id) == (endpoint,)


TABLES = (
    ("images", 1), ("layers", 2), ("image_layers", 2), ("names", 1), ("containers", 1), ("volumes", 1),
    ("container_volumes", 1), ("layer_blobs", 0), ("blob_places", 0), ("settings", 1),
)  # fmt: skip


def test_several_bring_one_forward_at_once(tmp_path) -> None:
    root = tmp_path / "s"
    root.mkdir(0o700)
    with contextlib.closing(sqlite3.connect(root / "pyrtc.db")) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(SCHEMAS[0].read_text())
    program = "import sys; from pyrtc.store import Store; print(Store(sys.argv[1]).image('app:1').id)"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    answers = {process.communicate() for process in processes}
    assert answers == {(f"sha256:c0{'1' * 62}\n".encode(), b"")}
