-- What plugins keep from one call to the next. Times are microseconds since 1970, in UTC.

-- Whose keys: those of a plugin for a tenant, with how many there are and how many bytes they have, what
-- has expired and is not swept yet included.
CREATE TABLE kv_scopes (
    seq    INTEGER PRIMARY KEY,
    tenant TEXT    NOT NULL,
    plugin TEXT    NOT NULL,
    keys   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    UNIQUE (tenant, plugin)
) STRICT;

CREATE TABLE kv (
    scope      INTEGER NOT NULL REFERENCES kv_scopes (seq),
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    expires_at INTEGER,            -- NULL for never
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX kv_expiring ON kv (scope, expires_at) WHERE expires_at IS NOT NULL;

-- What operations of runs without an outcome have answered, so that a repeated run gets the same answers and
-- changes nothing twice. `plugin` is part of the key: a chain may have changed in between.
CREATE TABLE kv_journal (
    delivery   BLOB    NOT NULL,
    step       INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    plugin     TEXT    NOT NULL,
    operation  TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    occurrence INTEGER NOT NULL,
    outcome    TEXT    NOT NULL,   -- JSON
    PRIMARY KEY (delivery, step, part, plugin, operation, key, occurrence)
) STRICT, WITHOUT ROWID;

-- Made once, with the store: what plugins' random numbers grow from.
CREATE TABLE seeds (
    name  TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT, WITHOUT ROWID;
