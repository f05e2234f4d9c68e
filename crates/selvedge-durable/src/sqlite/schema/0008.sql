-- What a group needs to know of its dead letters, without reading all of them.
CREATE INDEX dead_letters_redriven ON dead_letters (grp, position) WHERE redriven = 1;
CREATE INDEX dead_letters_key ON dead_letters (grp, key) WHERE redriven = 0 AND key IS NOT NULL;
