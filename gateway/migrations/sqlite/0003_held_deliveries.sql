-- Why the deliveries of a webhook are held. A row is written with the first delivery that is held, and
-- `held` counts them in the same transactions that hold and take them.
CREATE TABLE holds (
    webhook   TEXT    PRIMARY KEY,
    cause     TEXT    NOT NULL, -- a plugin as `name@sha256`, or its name when it is not loaded
    setup     BLOB    NOT NULL, -- SHA-256 of all that decides whether it fails again
    failure   TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    releasing INTEGER NOT NULL, -- 1 once what is held was on its way out
    held      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A held delivery has no `due_at`. Events are numbered as they are accepted, so this finds a webhook's held
-- deliveries in that order, and at the same cost however many there are.
CREATE INDEX deliveries_held ON deliveries (webhook, event) WHERE state = 'held';
