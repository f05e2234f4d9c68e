-- How long the active consumer of an exclusive group may be silent, 0 in others; who it is.
ALTER TABLE groups ADD COLUMN exclusive BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN active TEXT COLLATE "C";
ALTER TABLE groups ADD COLUMN active_token BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN active_since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN active_until BIGINT NOT NULL DEFAULT 0;
