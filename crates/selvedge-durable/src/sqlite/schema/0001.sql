-- Numbers that must outlive what they numbered.
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE topics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,                       -- NULL once it is deleted; its rows go bit by bit
    head INTEGER NOT NULL DEFAULT 1,        -- at least this is the next position
    total INTEGER NOT NULL DEFAULT 0,       -- at least these bytes were ever appended
    last_at INTEGER NOT NULL DEFAULT 0,
    retention_age INTEGER, retention_bytes INTEGER, retain_unconsumed INTEGER NOT NULL,
    compact INTEGER NOT NULL, compact_lag INTEGER NOT NULL, tombstone_for INTEGER NOT NULL,
    priorities INTEGER NOT NULL, ageing INTEGER NOT NULL, dedupe_window INTEGER NOT NULL,
    relaxed INTEGER NOT NULL
);

-- id = topic << 43 | position: one b-tree, appended at the end of each topic's range.
-- total = bytes of the topic up to and with this message; sum = CRC-32 of key, headers, payload.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, total INTEGER NOT NULL, sum INTEGER NOT NULL,
    priority INTEGER NOT NULL, key TEXT, headers BLOB, payload BLOB
);
CREATE TABLE lanes (
    topic INTEGER NOT NULL, priority INTEGER NOT NULL, position INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (topic, priority, position)
) WITHOUT ROWID;
CREATE TABLE dedupe (
    topic INTEGER NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL,
    place INTEGER NOT NULL,                 -- a position, or minus the number of a delayed message
    PRIMARY KEY (topic, id)
) WITHOUT ROWID;
CREATE INDEX dedupe_age ON dedupe (topic, at);
CREATE TABLE latest (
    topic INTEGER NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (topic, key)
) WITHOUT ROWID;
CREATE TABLE superseded (
    topic INTEGER NOT NULL, due INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (topic, due, position)
) WITHOUT ROWID;
CREATE TABLE delayed (
    number INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, due INTEGER NOT NULL,
    name TEXT UNIQUE, sum INTEGER NOT NULL,
    priority INTEGER NOT NULL, key TEXT, headers BLOB, payload BLOB
);
CREATE INDEX delayed_due ON delayed (due, number);
CREATE INDEX delayed_topic ON delayed (topic);

CREATE TABLE groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, name TEXT NOT NULL,
    lease INTEGER NOT NULL, attempts INTEGER NOT NULL, ordered INTEGER NOT NULL,
    in_flight_max INTEGER NOT NULL, exceptions_max INTEGER NOT NULL,
    retry_base INTEGER NOT NULL, retry_cap INTEGER NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0, fence INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, name)
);
CREATE TABLE cursors (
    grp INTEGER NOT NULL, lane INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (grp, lane)
) WITHOUT ROWID;
-- Positions below the cursor that are not settled; state 0 leased, 1 waiting, 2 behind its key.
CREATE TABLE exceptions (
    grp INTEGER NOT NULL, position INTEGER NOT NULL, attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL, state INTEGER NOT NULL, until INTEGER NOT NULL, key TEXT,
    PRIMARY KEY (grp, position)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    grp INTEGER NOT NULL, position INTEGER NOT NULL, dead_at INTEGER NOT NULL,
    cause INTEGER NOT NULL, reason TEXT, attempts INTEGER NOT NULL, redriven INTEGER NOT NULL,
    at INTEGER NOT NULL, sum INTEGER NOT NULL, priority INTEGER NOT NULL,
    key TEXT, headers BLOB, payload BLOB,
    PRIMARY KEY (grp, position)
);
