-- How many dead letters a group keeps and for how long, NULL for no bound; whether the oldest
-- goes when there are so many, or the group holds; how many went.
ALTER TABLE groups ADD COLUMN letters_max BIGINT;
ALTER TABLE groups ADD COLUMN letters_drop BIGINT NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN letters_age BIGINT;
ALTER TABLE groups ADD COLUMN dropped BIGINT NOT NULL DEFAULT 0;
CREATE INDEX dead_letters_age ON dead_letters (grp, dead_at) WHERE redriven = 0;
-- The most dedupe ids that a topic remembers, NULL for no bound; which are its newest.
ALTER TABLE topics ADD COLUMN dedupe_max BIGINT;
ALTER TABLE dedupe ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
CREATE INDEX dedupe_number ON dedupe (topic, number);
