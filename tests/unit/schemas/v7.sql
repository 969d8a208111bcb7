BEGIN TRANSACTION;
CREATE TABLE blob_places (
            digest TEXT NOT NULL,          -- a blob that was fetched from, or sent to,
            repository TEXT NOT NULL,      -- host[:port]/path
            PRIMARY KEY (digest, repository)
        ) WITHOUT ROWID;
INSERT INTO "blob_places" VALUES('sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb1','reg.io/app');
CREATE TABLE container_snapshots (
            container_id TEXT PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
            snapshot_id TEXT NOT NULL REFERENCES snapshots (id)
        ) WITHOUT ROWID;
INSERT INTO "container_snapshots" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','5555555555555555555555555555555555555555555555555555555555555555');
CREATE TABLE container_volumes (
            container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
            volume TEXT NOT NULL REFERENCES volumes (name), target TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (container_id, volume)
        ) WITHOUT ROWID;
INSERT INTO "container_volumes" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','data','');
CREATE TABLE containers (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            image_id TEXT NOT NULL,
            state TEXT NOT NULL,           -- creating, running, exited
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
        , detached INTEGER NOT NULL DEFAULT 0, monitor_pid INTEGER NOT NULL DEFAULT 0, monitor_start INTEGER NOT NULL DEFAULT 0, started REAL, finished REAL, restarts INTEGER NOT NULL DEFAULT 0, stopped INTEGER NOT NULL DEFAULT 0, spec BLOB, usage BLOB, ids INTEGER) WITHOUT ROWID;
INSERT INTO "containers" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','old','sha256:c011111111111111111111111111111111111111111111111111111111111111','exited',0,0,1700000002.5,1,1,'boot',0,0,'{}',NULL,0,0,0,NULL,NULL,0,0,NULL,NULL,NULL);
CREATE TABLE endpoints (
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
        ) WITHOUT ROWID;
CREATE TABLE image_layers (
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,     -- 0 is the bottom
            layer_key TEXT NOT NULL REFERENCES layers (key),
            PRIMARY KEY (image_id, position)
        ) WITHOUT ROWID;
INSERT INTO "image_layers" VALUES('sha256:c011111111111111111111111111111111111111111111111111111111111111',0,'1111111111111111111111111111111111111111111111111111111111111111');
INSERT INTO "image_layers" VALUES('sha256:c011111111111111111111111111111111111111111111111111111111111111',1,'2222222222222222222222222222222222222222222222222222222222222222');
CREATE TABLE images (
            id TEXT PRIMARY KEY,           -- sha256: of the config document
            manifest TEXT,                 -- digest of the manifest it came with
            config TEXT NOT NULL,          -- ImageConfig.dumps()
            size INTEGER NOT NULL,
            created TEXT NOT NULL,         -- RFC 3339, as the config says; may be empty
            architecture TEXT NOT NULL,
            os TEXT NOT NULL,
            variant TEXT NOT NULL,
            loaded REAL NOT NULL
        , damaged INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO "images" VALUES('sha256:c011111111111111111111111111111111111111111111111111111111111111','sha256:d022222222222222222222222222222222222222222222222222222222222222','{"cmd":["sh"]}',12,'2024-05-06T07:08:09Z','amd64','linux','',1700000001.5,0);
CREATE TABLE layer_blobs (
            digest TEXT PRIMARY KEY,       -- of a compressed layer in blobs/
            diff_id TEXT NOT NULL,
            size INTEGER NOT NULL,
            media_type TEXT NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "layer_blobs" VALUES('sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb1','sha256:1111111111111111111111111111111111111111111111111111111111111111',100,'application/vnd.oci.image.layer.v1.tar+gzip');
CREATE TABLE layers (
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
        , tar_size INTEGER NOT NULL DEFAULT -1, tree TEXT NOT NULL DEFAULT '', opaque INTEGER NOT NULL DEFAULT -1, place TEXT NOT NULL DEFAULT '', damaged INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO "layers" VALUES('1111111111111111111111111111111111111111111111111111111111111111','sha256:1111111111111111111111111111111111111111111111111111111111111111','sha256:1111111111111111111111111111111111111111111111111111111111111111',0,3,6,0,'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb1',100,'application/vnd.oci.image.layer.v1.tar+gzip',1700000000.5,-1,'',-1,'',0);
INSERT INTO "layers" VALUES('2222222222222222222222222222222222222222222222222222222222222222','sha256:2222222222222222222222222222222222222222222222222222222222222222','sha256:2222222222222222222222222222222222222222222222222222222222222222',3,3,6,0,'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2',100,'application/vnd.oci.image.layer.v1.tar+gzip',1700000000.5,-1,'',-1,'',0);
CREATE TABLE names (
            name TEXT PRIMARY KEY,         -- canonical, with tag or digest
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
        , target TEXT) WITHOUT ROWID;
INSERT INTO "names" VALUES('docker.io/library/app:1','sha256:c011111111111111111111111111111111111111111111111111111111111111','sha256:d022222222222222222222222222222222222222222222222222222222222222');
CREATE TABLE networks (
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
        ) WITHOUT ROWID;
INSERT INTO "networks" VALUES('3f96a7e72a0e02efd94bce4fd53c0ccf2772b07b928466a3be0cce39183d5d63','host','host',1.79554987917998576168e+09,'','','','','','','',0,0,0,'{}','{}');
INSERT INTO "networks" VALUES('62d2b650e4bbd746177d607e988220968a2ed655a7a4a10b0c413db741ff11f9','none','null',1.79554987917998576168e+09,'','','','','','','',0,0,0,'{}','{}');
INSERT INTO "networks" VALUES('a9f118da86ccb8a1f8944e5d1051454aef8c825cbf70b6b19734d34398f77fb8','bridge','bridge',1.79554987917998576168e+09,'pyrtc-a9f118da','','','','','','',0,0,0,'{}','{}');
CREATE TABLE overlay_blocks (
            network_id TEXT NOT NULL,
            block TEXT NOT NULL,           -- CIDR; its addresses are this host's to give
            PRIMARY KEY (network_id, block)
        ) WITHOUT ROWID;
CREATE TABLE overlay_endpoints (
            network_id TEXT NOT NULL,
            ip4 TEXT NOT NULL,
            mac TEXT NOT NULL,
            host_id TEXT NOT NULL,
            container_id TEXT NOT NULL,
            names TEXT NOT NULL,           -- JSON
            PRIMARY KEY (network_id, ip4)
        ) WITHOUT ROWID;
CREATE TABLE overlay_hosts (
            id TEXT PRIMARY KEY,
            document TEXT NOT NULL,        -- pyrtc.network.overlay.documents.HostDocument
            live INTEGER NOT NULL,         -- it renews its lease
            since REAL NOT NULL            -- when that was seen to change, seconds since the epoch
        ) WITHOUT ROWID;
CREATE TABLE ports (
            container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
            protocol TEXT NOT NULL,
            ip TEXT NOT NULL,              -- of the host; empty: all
            host_port INTEGER NOT NULL,
            container_port INTEGER NOT NULL,
            PRIMARY KEY (container_id, protocol, ip, host_port)
        ) WITHOUT ROWID;
CREATE TABLE released_addresses (
            network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
            address TEXT NOT NULL,
            at REAL NOT NULL,              -- seconds since the epoch
            PRIMARY KEY (network_id, address)
        ) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "settings" VALUES('generation',7);
CREATE TABLE snapshots (
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
        ) WITHOUT ROWID;
INSERT INTO "snapshots" VALUES('5555555555555555555555555555555555555555555555555555555555555555','base','sha256:c011111111111111111111111111111111111111111111111111111111111111','app:1',NULL,'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee',1,1,'[]',1.0,1,1,'b');
CREATE TABLE volumes (
            name TEXT PRIMARY KEY,
            anonymous INTEGER NOT NULL,
            filled INTEGER NOT NULL,       -- 0 never, 1 began, 2 done
            created REAL NOT NULL
        , labels TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
INSERT INTO "volumes" VALUES('data',0,2,1700000003.5,'{"tier":"1"}');
CREATE INDEX layers_by_diff_id ON layers (diff_id);
CREATE INDEX image_layers_by_layer ON image_layers (layer_key);
CREATE INDEX names_by_image ON names (image_id);
CREATE INDEX container_volumes_by_volume ON container_volumes (volume);
CREATE INDEX layer_blobs_by_diff_id ON layer_blobs (diff_id);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE INDEX container_snapshots_by_snapshot ON container_snapshots (snapshot_id);
CREATE TRIGGER endpoint_gone AFTER DELETE ON endpoints BEGIN
            INSERT OR REPLACE INTO released_addresses
            SELECT old.network_id, address, (julianday('now') - 2440587.5) * 86400
            FROM (SELECT old.ip4 AS address UNION ALL SELECT old.ip6) WHERE address IS NOT NULL;
        END;
COMMIT;
PRAGMA user_version=7;
