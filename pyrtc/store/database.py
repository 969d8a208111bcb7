"""The store's metadata: SQLite in WAL mode, used by many threads of many processes at once.

Connections are kept in a pool and lent to one thread at a time, so threads may come and go. None exists while the
process forks: SQLite keeps the process's file locks in memory, and a child that inherits them would take the parent's
for its own.

Every write is one immediate transaction: a transaction that starts by reading and then wants to write cannot be made to
wait by SQLite, it fails. Writers of this process queue on a lock, those of other processes on SQLite's (up to 60 s).
"""

import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from pyrtc.errors import StoreError

__all__ = ["BUSY_TIMEOUT", "Database"]

BUSY_TIMEOUT = 60.0  # seconds
_FORK_PATIENCE = 10.0  # seconds that a fork waits for transactions of other threads
_CHECKPOINT_PAGES = 4000  # of 4 KiB: a checkpoint costs one fsync, so it should come rarely
_APPLICATION_ID = 0x50595254  # "PYRT"

# One entry a version: the statements that lead to it from the one before. Never edit an entry that was released.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "INSERT INTO settings VALUES ('generation', 0)",
        """CREATE TABLE layers (
            key TEXT PRIMARY KEY,          -- the directory below layers/: hex of the diffID, or of the chainID
            diff_id TEXT NOT NULL,
            chain_id TEXT NOT NULL,        -- of the stack it was unpacked in
            depends INTEGER NOT NULL,      -- 0: right above any layers
            entries INTEGER NOT NULL,
            size INTEGER NOT NULL,         -- bytes of file data
            skipped INTEGER NOT NULL,      -- entries left out: devices for an ordinary user, vendor types
            blob_digest TEXT NOT NULL,     -- what it came as
            blob_size INTEGER NOT NULL,
            media_type TEXT NOT NULL,
            created REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX layers_by_diff_id ON layers (diff_id)",
        """CREATE TABLE images (
            id TEXT PRIMARY KEY,           -- sha256: of the config document
            manifest TEXT,                 -- digest of the manifest it came with
            config TEXT NOT NULL,          -- ImageConfig.dumps()
            size INTEGER NOT NULL,
            created TEXT NOT NULL,         -- RFC 3339, as the config says; may be empty
            architecture TEXT NOT NULL,
            os TEXT NOT NULL,
            variant TEXT NOT NULL,
            loaded REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE image_layers (
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,     -- 0 is the bottom
            layer_key TEXT NOT NULL REFERENCES layers (key),
            PRIMARY KEY (image_id, position)
        ) WITHOUT ROWID""",
        "CREATE INDEX image_layers_by_layer ON image_layers (layer_key)",
        """CREATE TABLE names (
            name TEXT PRIMARY KEY,         -- canonical, with tag or digest
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
        ) WITHOUT ROWID""",
        "CREATE INDEX names_by_image ON names (image_id)",
        """CREATE TABLE containers (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            image_id TEXT NOT NULL,
            state TEXT NOT NULL,           -- creating, created, running, restarting, exited
            remove INTEGER NOT NULL,       -- goes when it has ended
            directory INTEGER NOT NULL,    -- has containers/<id>/
            created REAL NOT NULL,
            owner_pid INTEGER NOT NULL,
            owner_start INTEGER NOT NULL,
            owner_boot TEXT NOT NULL,
            pid INTEGER NOT NULL DEFAULT 0,
            pid_start INTEGER NOT NULL DEFAULT 0,
            options BLOB NOT NULL,
            exit BLOB
        ) WITHOUT ROWID""",
        """CREATE TABLE volumes (
            name TEXT PRIMARY KEY,
            anonymous INTEGER NOT NULL,
            filled INTEGER NOT NULL,       -- 0 never, 1 began, 2 done
            created REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE container_volumes (
            container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
            volume TEXT NOT NULL REFERENCES volumes (name),
            PRIMARY KEY (container_id, volume)
        ) WITHOUT ROWID""",
        "CREATE INDEX container_volumes_by_volume ON container_volumes (volume)",
    ),
    (
        # What a registry's tag named when the image was pulled or pushed: a manifest or an index; NULL for other names.
        "ALTER TABLE names ADD COLUMN target TEXT",
        """CREATE TABLE blob_places (
            digest TEXT NOT NULL,          -- a blob that was fetched from, or sent to,
            repository TEXT NOT NULL,      -- host[:port]/path
            PRIMARY KEY (digest, repository)
        ) WITHOUT ROWID""",
    ),
    (
        # Of layers from before this version nobody knows the first three.
        "ALTER TABLE layers ADD COLUMN tar_size INTEGER NOT NULL DEFAULT -1",  # bytes of the uncompressed tar
        "ALTER TABLE layers ADD COLUMN tree TEXT NOT NULL DEFAULT ''",  # pyrtc.store.trees.Fingerprint
        "ALTER TABLE layers ADD COLUMN opaque INTEGER NOT NULL DEFAULT -1",  # opaque directories in the tree
        "ALTER TABLE layers ADD COLUMN place TEXT NOT NULL DEFAULT ''",  # root of another store that has the tree
        """CREATE TABLE layer_blobs (
            digest TEXT PRIMARY KEY,       -- of a compressed layer in blobs/
            diff_id TEXT NOT NULL,
            size INTEGER NOT NULL,
            media_type TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX layer_blobs_by_diff_id ON layer_blobs (diff_id)",
    ),
    (
        # Found by a check to be not what it was; made whole by the next load or pull.
        "ALTER TABLE layers ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE images ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0",
    ),
    (
        # Containers that outlive whoever started them.
        "ALTER TABLE containers ADD COLUMN detached INTEGER NOT NULL DEFAULT 0",  # pyrtc.store.containers.Keeping
        "ALTER TABLE containers ADD COLUMN monitor_pid INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE containers ADD COLUMN monitor_start INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE containers ADD COLUMN started REAL",  # its latest start, and how that ended
        "ALTER TABLE containers ADD COLUMN finished REAL",
        "ALTER TABLE containers ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0",  # by its restart policy, in a row
        "ALTER TABLE containers ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0",  # somebody asked for its end
        "ALTER TABLE containers ADD COLUMN spec BLOB",  # pyrtc.store.records; NULL for one that goes when it ends
        "ALTER TABLE containers ADD COLUMN usage BLOB",
        "ALTER TABLE containers ADD COLUMN ids INTEGER",  # the range that --userns auto gave it
        "ALTER TABLE container_volumes ADD COLUMN target TEXT NOT NULL DEFAULT ''",  # where an anonymous one is mounted
    ),
    (
        "ALTER TABLE volumes ADD COLUMN labels TEXT NOT NULL DEFAULT '{}'",
        """CREATE TABLE snapshots (
            id TEXT PRIMARY KEY,           -- the directory below snapshots/
            name TEXT UNIQUE,
            image_id TEXT NOT NULL,
            image TEXT NOT NULL,           -- as it was asked for
            parent TEXT REFERENCES snapshots (id),
            container TEXT NOT NULL,       -- id of the container that it is of
            whole INTEGER NOT NULL,        -- 0 while its owner makes it
            durable INTEGER NOT NULL,      -- on the disk; else good for this boot
            mount_points TEXT NOT NULL,    -- JSON: paths that are there only to be mounted on
            created REAL NOT NULL,
            owner_pid INTEGER NOT NULL,
            owner_start INTEGER NOT NULL,
            owner_boot TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX snapshots_by_parent ON snapshots (parent)",
        """CREATE TABLE container_snapshots (
            container_id TEXT PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
            snapshot_id TEXT NOT NULL REFERENCES snapshots (id)
        ) WITHOUT ROWID""",
        "CREATE INDEX container_snapshots_by_snapshot ON container_snapshots (snapshot_id)",
    ),
    (
        """CREATE TABLE networks (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            driver TEXT NOT NULL,          -- bridge, macvlan, overlay, host, null
            created REAL NOT NULL,
            device TEXT NOT NULL,          -- of the host: the bridge, or what a macvlan stands on
            subnet4 TEXT NOT NULL DEFAULT '',
            gateway4 TEXT NOT NULL DEFAULT '',
            range4 TEXT NOT NULL DEFAULT '',   -- where addresses are taken from; empty: the whole subnet
            subnet6 TEXT NOT NULL DEFAULT '',
            gateway6 TEXT NOT NULL DEFAULT '',
            range6 TEXT NOT NULL DEFAULT '',
            mtu INTEGER NOT NULL DEFAULT 0,    -- 0: the kernel's
            internal INTEGER NOT NULL DEFAULT 0,
            attachable INTEGER NOT NULL DEFAULT 0,
            labels TEXT NOT NULL DEFAULT '{}',
            options TEXT NOT NULL DEFAULT '{}' -- as they were given, and what a driver keeps there
        ) WITHOUT ROWID""",
        # The three that every store has; the subnet of the first is picked when it is first used.
        *(
            "INSERT INTO networks (id, name, driver, created, device) "  # noqa: S608  (constants of this line)
            f"SELECT id, '{name}', '{driver}', (julianday('now') - 2440587.5) * 86400, "
            f"{device} FROM (SELECT lower(hex(randomblob(32))) AS id)"
            for name, driver, device in (
                ("bridge", "bridge", "'pyrtc-' || substr(id, 1, 8)"),
                ("host", "host", "''"),
                ("none", "null", "''"),
            )
        ),
        """CREATE TABLE endpoints (
            container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
            network_id TEXT NOT NULL REFERENCES networks (id),
            device TEXT NOT NULL,          -- in the container
            host_device TEXT NOT NULL UNIQUE,
            ip4 TEXT,
            ip6 TEXT,
            mac TEXT NOT NULL,
            aliases TEXT NOT NULL,         -- JSON
            wanted TEXT NOT NULL,          -- JSON: what of it the user asked for
            PRIMARY KEY (container_id, network_id),
            UNIQUE (container_id, device),
            UNIQUE (network_id, ip4),
            UNIQUE (network_id, ip6),
            UNIQUE (network_id, mac)
        ) WITHOUT ROWID""",
        """CREATE TABLE released_addresses (
            network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
            address TEXT NOT NULL,
            at REAL NOT NULL,              -- seconds since the epoch
            PRIMARY KEY (network_id, address)
        ) WITHOUT ROWID""",
        # Whatever ends an endpoint, the removal of its container's row included, its addresses rest for a while.
        """CREATE TRIGGER endpoint_gone AFTER DELETE ON endpoints BEGIN
            INSERT OR REPLACE INTO released_addresses
            SELECT old.network_id, address, (julianday('now') - 2440587.5) * 86400
            FROM (SELECT old.ip4 AS address UNION ALL SELECT old.ip6) WHERE address IS NOT NULL;
        END""",
        """CREATE TABLE ports (
            container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
            protocol TEXT NOT NULL,
            ip TEXT NOT NULL,              -- of the host; empty: all
            host_port INTEGER NOT NULL,
            container_port INTEGER NOT NULL,
            PRIMARY KEY (container_id, protocol, ip, host_port)
        ) WITHOUT ROWID""",
        # What this host has of a cluster's overlay networks, and what it last heard of others: good without etcd.
        """CREATE TABLE overlay_blocks (
            network_id TEXT NOT NULL,
            block TEXT NOT NULL,           -- CIDR; its addresses are this host's to give
            PRIMARY KEY (network_id, block)
        ) WITHOUT ROWID""",
        """CREATE TABLE overlay_hosts (
            id TEXT PRIMARY KEY,
            document TEXT NOT NULL,        -- pyrtc.network.overlay.documents.HostDocument
            live INTEGER NOT NULL,         -- it renews its lease
            since REAL NOT NULL            -- when that was seen to change, seconds since the epoch
        ) WITHOUT ROWID""",
        """CREATE TABLE overlay_endpoints (
            network_id TEXT NOT NULL,
            ip4 TEXT NOT NULL,
            mac TEXT NOT NULL,
            host_id TEXT NOT NULL,
            container_id TEXT NOT NULL,
            names TEXT NOT NULL,           -- JSON
            PRIMARY KEY (network_id, ip4)
        ) WITHOUT ROWID""",
    ),
)


class Database:
    """The open database of one store.

    Parameters
    ----------
    path: the file; made when missing.
    root_fd: the store's directory, locked while the schema is made or changed. read_only: nothing is made or changed,
    and the database may be another user's.

    Raises
    ------
    StoreError: it is damaged, from a newer pyrtc, or on a file system that cannot hold it.
    """

    def __init__(self, path: str | os.PathLike[str], root_fd: int, *, read_only: bool = False) -> None:
        self.path = os.fspath(path)
        self._directory = os.path.dirname(self.path)
        self._read_only = read_only
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._closed = False
        self._fork_holds_write = False
        with self.reading() as connection:
            version = self._version(connection)
            if read_only and version != len(_MIGRATIONS):
                raise StoreError(
                    f"the store {self._directory} was written by an older pyrtc (format {version}, this one knows "
                    f"{len(_MIGRATIONS)}): whoever owns it must use it once with this version"
                )
            if version != len(_MIGRATIONS):
                # flock on the directory's own description: the lock ends with this block whatever happens.
                lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._migrate(connection)
                finally:
                    os.close(lock)
        _databases.add(self)

    def _version(self, connection: sqlite3.Connection) -> int:
        try:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"the store {self._directory} was written by a newer pyrtc (format {version}, this one knows "
                f"{len(_MIGRATIONS)}): upgrade pyrtc, or choose another store with --root"
            )
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = self._version(connection)
        if version == len(_MIGRATIONS):
            return
        try:
            # The mode is a property of the file; setting it on every open is what makes SQLite say "locked".
            if version == 0 and connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise StoreError(f"the file system of {self._directory} cannot hold the store: no shared memory maps")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statements in _MIGRATIONS[version:]:
                    for statement in statements:
                        connection.execute(statement)
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            raise StoreError(f"cannot make the store's database {self.path}: {error}") from error

    def _open_read_only(self) -> sqlite3.Connection:
        """Open without making anything.

        A database in WAL mode that nobody has open has no -wal and -shm files, which a reader who may not write cannot
        make; then the one file is all there is, and it is read as one that does not change.
        """
        from urllib.parse import quote

        name = quote(self.path)
        try:
            connection = self._connect(f"file:{name}?mode=ro")
            connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            if not os.path.exists(self.path) or os.path.exists(f"{self.path}-wal"):
                raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
            connection = self._connect(f"file:{name}?immutable=1")
        return connection

    def _connect(self, name: str) -> sqlite3.Connection:
        return sqlite3.connect(
            name, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=64, uri=True
        )

    def _open(self) -> sqlite3.Connection:
        if self._read_only:
            return self._open_read_only()
        try:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        except sqlite3.Error as error:
            raise StoreError(f"cannot open the store's database {self.path}: {error}") from error
        return connection

    def lend(self) -> sqlite3.Connection:
        """Take a connection out of the pool, or open one. Give it back with `give_back`, in no transaction."""
        with self._lock:
            if self._closed:
                raise StoreError(f"the store {self._directory} is closed")
            self._lent += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._open()
        except BaseException:
            with self._lock:
                self._lent -= 1
            raise

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Put a connection back; one that is in the middle of something is closed instead."""
        sound = not connection.in_transaction
        with self._lock:
            self._lent -= 1
            if sound and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def reading(self) -> "_Reading":
        """Lend a connection for a block of reads."""
        return _Reading(self)

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, committed when the block ends and rolled back when it raises.

        durable: on the disk when the block has ended; else after the next checkpoint at the latest, and whole in any
        case.
        """
        with self._write_lock:
            connection = self.lend()
            try:
                if durable:
                    connection.execute("PRAGMA synchronous=FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
                if durable:
                    connection.execute("PRAGMA synchronous=NORMAL")
            except sqlite3.OperationalError as error:
                raise StoreError(f"cannot write the store's database {self.path}: {error}") from error
            finally:
                self.give_back(connection)

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run one writing statement as a transaction of its own; return how many rows it touched."""
        with self._write_lock:
            connection = self.lend()
            try:
                return connection.execute(statement, values).rowcount
            except sqlite3.OperationalError as error:
                raise StoreError(f"cannot write the store's database {self.path}: {error}") from error
            finally:
                self.give_back(connection)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return all rows of one query."""
        connection = self.lend()
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
        finally:
            self.give_back(connection)

    def row(self, query: str, values: Sequence[object] = ()) -> Any | None:  # noqa: ANN401  (a row of any shape)
        """Return the first row of one query, or None."""
        connection = self.lend()
        try:
            return connection.execute(query, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"cannot read the store's database {self.path}: {error}") from error
        finally:
            self.give_back(connection)

    def close(self) -> None:
        """Close every connection; those lent are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def before_fork(self) -> None:
        """Wait until no transaction runs, close every connection and hold new ones off."""
        deadline = time.monotonic() + _FORK_PATIENCE
        self._fork_holds_write = self._write_lock.acquire(timeout=_FORK_PATIENCE)
        self._lock.acquire()
        while self._lent and time.monotonic() < deadline:
            self._lock.release()
            time.sleep(0.0005)
            self._lock.acquire()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def after_fork(self, *, child: bool) -> None:
        """Go on, in the parent and in the child."""
        if child:
            self._lent = 0  # whoever was lent one is a thread of the parent
        self._lock.release()
        if self._fork_holds_write:
            self._write_lock.release()


class _Reading:
    """A connection for the time of a with block."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        self._connection = self._database.lend()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.give_back(self._connection)


_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()
_forking: list[Database] = []
_one_fork = threading.Lock()


def _before_fork() -> None:
    _one_fork.acquire()
    _forking[:] = list(_databases)
    for database in _forking:
        database.before_fork()


def _after_fork(*, child: bool = False) -> None:
    while _forking:
        _forking.pop().after_fork(child=child)
    _one_fork.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=lambda: _after_fork(child=True))
