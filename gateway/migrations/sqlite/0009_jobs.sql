-- Lists of deliveries, and jobs that replay or cancel many of them. Times are microseconds since 1970, in UTC.

-- Whose a delivery is, as in its event: lists begin here.
ALTER TABLE deliveries ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE deliveries SET tenant = (SELECT tenant FROM events WHERE seq = event);

CREATE INDEX deliveries_of_tenant ON deliveries (tenant, id);

-- Most deliveries go from pending to delivered and never enter these two, so that they cost nothing on the way.
CREATE INDEX deliveries_by_state ON deliveries (tenant, state, id)
    WHERE state NOT IN ('pending', 'delivered');
CREATE INDEX deliveries_by_webhook_and_state ON deliveries (webhook, state, id)
    WHERE state NOT IN ('pending', 'delivered');

-- What to do to which deliveries: those of a list, of an event, or that a filter finds. A job goes through them in
-- order of their ids, from `place` on; what it does and where it stands change in one transaction.
CREATE TABLE jobs (
    id              BLOB    PRIMARY KEY, -- a UUIDv7
    tenant          TEXT    NOT NULL,
    action          TEXT    NOT NULL,    -- replay or cancel
    same_bytes      INTEGER NOT NULL,
    listed          BLOB,                -- ids of deliveries, 16 bytes each, in order
    event           TEXT,
    webhook         TEXT,
    event_type      TEXT,
    delivery_state  TEXT,
    accepted_after  INTEGER,
    accepted_before INTEGER,
    failed_since    INTEGER,
    state           TEXT    NOT NULL,
    place           BLOB    NOT NULL,    -- the last delivery that was looked at
    until           BLOB    NOT NULL,    -- deliveries from this id on are newer than the job
    matched         INTEGER NOT NULL,
    done            INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    failure         TEXT,                -- why the last one that failed did
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    idempotency_key TEXT,
    fingerprint     BLOB                 -- SHA-256 of the request's body
) STRICT, WITHOUT ROWID;

CREATE INDEX jobs_of_tenant ON jobs (tenant, id);
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_open ON jobs (tenant, id) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX jobs_by_key ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Deliveries that repeat earlier ones. A job repeats each of them once.
CREATE TABLE replays (
    delivery  BLOB    PRIMARY KEY,
    replay_of BLOB    NOT NULL,
    job       BLOB    NOT NULL,
    only_part INTEGER NOT NULL, -- 1 when this sends one part of a split, and not the others
    UNIQUE (replay_of, job)
) STRICT, WITHOUT ROWID;

CREATE INDEX replays_of_job ON replays (job, delivery);

-- A queue's `blocked` is 2 when its head was cancelled while in hand: the others follow once it is not.
CREATE INDEX queues_left ON queues (webhook, key) WHERE blocked = 2;
