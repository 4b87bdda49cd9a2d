-- Times are microseconds since 1970, in UTC.

-- What producers sent. Payloads live here, apart from the narrow rows that are worked on.
CREATE TABLE events (
    seq          INTEGER PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    timestamp    INTEGER NOT NULL,
    accepted_at  INTEGER NOT NULL,
    ordering_key TEXT,
    attributes   TEXT,             -- a JSON list of pairs; NULL for none
    data         BLOB    NOT NULL, -- JSON, as it was sent
    UNIQUE (tenant, id)
) STRICT;

-- What webhooks are owed. `due_at` is NULL once a delivery is finished; `claimed` is 1 while a
-- gateway has it in hand.
CREATE TABLE deliveries (
    id       BLOB    PRIMARY KEY,  -- a UUIDv7
    event    INTEGER NOT NULL REFERENCES events (seq),
    webhook  TEXT    NOT NULL,
    part     INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    due_at   INTEGER,
    claimed  INTEGER NOT NULL,
    chain    INTEGER REFERENCES chains (seq),
    reason   TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_of_event ON deliveries (event);

-- Finding due work, and after a crash what was in hand, costs the same however much is finished.
CREATE INDEX deliveries_due ON deliveries (claimed, due_at) WHERE due_at IS NOT NULL;

-- The plugin versions that transformed deliveries, each list once: `name@sha256` in chain order.
CREATE TABLE chains (
    seq     INTEGER PRIMARY KEY,
    plugins TEXT    NOT NULL UNIQUE
) STRICT;

-- Requests that are sent again: rendered once, so that every attempt carries the same bytes.
CREATE TABLE requests (
    delivery        BLOB NOT NULL UNIQUE REFERENCES deliveries (id),
    method          TEXT NOT NULL,
    path_suffix     TEXT NOT NULL,
    query           TEXT NOT NULL, -- a JSON list of pairs
    content_type    TEXT NOT NULL,
    headers         TEXT NOT NULL, -- a JSON list of pairs
    removed_headers TEXT NOT NULL, -- a JSON list
    body            BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    delivery    BLOB    NOT NULL REFERENCES deliveries (id),
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    status      INTEGER,
    failure     TEXT,
    message     TEXT,
    excerpt     TEXT    NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

-- Requests that were acknowledged under an idempotency key, with what was answered.
CREATE TABLE idempotency (
    tenant      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL, -- SHA-256 of the request's body
    accepted_at INTEGER NOT NULL,
    events      TEXT    NOT NULL, -- the answer, as JSON
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
