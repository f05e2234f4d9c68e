-- When a row was put into the inbox, so that one sees how long it waits.
ALTER TABLE inbox ADD COLUMN inserted_at TIMESTAMPTZ NOT NULL DEFAULT now();

-- Numbers of the inbox may begin again, after a `TRUNCATE … RESTART IDENTITY`.
ALTER TABLE refused DROP CONSTRAINT refused_pkey;
ALTER TABLE refused ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY;

-- Rows that come and go are swept before they are many, and not at leisure: by
-- default a fifth of a table may be dead first. Rows that are only appended need
-- a look now and then, so that the old ones are frozen bit by bit.
ALTER TABLE messages SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE lanes SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE dedupe SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE latest SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE superseded SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE dead_letters SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE state SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE streams SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE topics SET (fillfactor = 50);
ALTER TABLE holders SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE schedules SET (fillfactor = 50);
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE store SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
ALTER TABLE members SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
