-- How long the active consumer of an exclusive group may be silent, 0 in others; who it is.
ALTER TABLE groups ADD COLUMN exclusive INTEGER NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN active TEXT;
ALTER TABLE groups ADD COLUMN active_token INTEGER NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN active_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN active_until INTEGER NOT NULL DEFAULT 0;
