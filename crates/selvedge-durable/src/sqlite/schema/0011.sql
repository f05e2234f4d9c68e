-- Every schema that a topic had; schema_version is the one in force, NULL for none.
-- compatibility: 0 none, 1 backward, 2 forward, 3 full.
ALTER TABLE topics ADD COLUMN schema_version INTEGER;
ALTER TABLE topics ADD COLUMN compatibility INTEGER NOT NULL DEFAULT 0;
CREATE TABLE schemas (
    topic INTEGER NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (topic, version)
) WITHOUT ROWID;
