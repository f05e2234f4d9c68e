-- When a lease was granted, 0 where that is not known.
ALTER TABLE holders ADD COLUMN since BIGINT NOT NULL DEFAULT 0;
