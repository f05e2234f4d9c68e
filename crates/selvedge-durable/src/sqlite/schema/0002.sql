CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    next INTEGER NOT NULL,                  -- version of the next event
    first INTEGER NOT NULL DEFAULT 0        -- lowest version that is kept; = next once deleted
);
CREATE TABLE events (
    position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL,
    at INTEGER NOT NULL, sum INTEGER NOT NULL, id TEXT, kind TEXT NOT NULL,
    data BLOB NOT NULL, metadata BLOB
);
CREATE UNIQUE INDEX events_stream ON events (stream, version);
CREATE TABLE snapshots (
    stream INTEGER PRIMARY KEY, version INTEGER NOT NULL, schema TEXT NOT NULL,
    sum INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE state (
    key TEXT PRIMARY KEY, tag INTEGER NOT NULL, expires INTEGER, sum INTEGER NOT NULL,
    content_type TEXT, value BLOB NOT NULL
);
CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL;
CREATE TABLE holders (
    resource TEXT NOT NULL, token INTEGER NOT NULL, owner TEXT NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (resource, token)
) WITHOUT ROWID;
CREATE INDEX holders_until ON holders (until);
CREATE TABLE schedules (
    name TEXT PRIMARY KEY, spec TEXT NOT NULL, zone TEXT NOT NULL, overlap INTEGER NOT NULL,
    missed INTEGER NOT NULL,                -- -1 skip, -n all up to n - 1, else once with this grace
    topic TEXT NOT NULL, anchor INTEGER NOT NULL, next INTEGER, last INTEGER,
    at INTEGER NOT NULL, sum INTEGER NOT NULL, priority INTEGER NOT NULL,
    key TEXT, headers BLOB, payload BLOB
) WITHOUT ROWID;
CREATE INDEX schedules_next ON schedules (next) WHERE next IS NOT NULL;
