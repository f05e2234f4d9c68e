-- How often a group hands out: rate_count in rate_per, 0 for no bound; what is used of it.
ALTER TABLE groups ADD COLUMN rate_count BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN rate_per BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN rate_burst BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN rate_used BIGINT NOT NULL DEFAULT 0;
