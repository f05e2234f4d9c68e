-- What was removed and is still there: kind 0 dead letters of a group that is gone, 1 events
-- below the first version of their stream.
CREATE TABLE leavings (kind BIGINT NOT NULL, id BIGINT NOT NULL, PRIMARY KEY (kind, id));
