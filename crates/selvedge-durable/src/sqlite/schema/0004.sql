-- Which messages the group wants, as JSON; NULL for all.
ALTER TABLE groups ADD COLUMN filter TEXT;
