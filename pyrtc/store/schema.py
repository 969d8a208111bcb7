"""The tables of the store's database, version by version; `pyrtc.store.database` brings older ones forward."""

__all__ = ["MIGRATIONS"]

# One entry a version: the statements that lead to it from the one before. Never edit an entry that was released.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
    # Addresses by name, of either family, that containers never get: JSON.
    ("ALTER TABLE networks ADD COLUMN auxiliary TEXT NOT NULL DEFAULT '{}'",),
)
