-- Every schema that a topic had; schema_version is the one in force, NULL for none.
-- compatibility: 0 none, 1 backward, 2 forward, 3 full.
ALTER TABLE topics ADD COLUMN schema_version BIGINT;
ALTER TABLE topics ADD COLUMN compatibility BIGINT NOT NULL DEFAULT 0;
CREATE TABLE schemas (
    topic BIGINT NOT NULL, version BIGINT NOT NULL, at BIGINT NOT NULL, document TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (topic, version)
);
