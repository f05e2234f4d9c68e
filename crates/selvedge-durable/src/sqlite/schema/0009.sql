-- What was removed and is still there: kind 0 dead letters of a group that is gone, 1 events
-- below the first version of their stream.
CREATE TABLE leavings (kind INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
