-- What is removed because somebody asked for it. Times are microseconds since 1970, in UTC.
CREATE TABLE purges (
    id         BLOB    PRIMARY KEY, -- a UUIDv7
    tenant     TEXT    NOT NULL,
    target     TEXT    NOT NULL,    -- JSON: what is compared with the value, or all of the tenant
    value      TEXT,                -- JSON; NULL once all that has it is gone, as it must not stay here
    place      TEXT    NOT NULL,    -- JSON: how far it has come
    until      INTEGER NOT NULL,    -- events from later rows are newer than the purge
    matched    INTEGER NOT NULL,
    done       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX purges_open ON purges (tenant, id) WHERE ended_at IS NULL;
CREATE INDEX purges_ended ON purges (ended_at) WHERE ended_at IS NOT NULL;

-- The delivery whose end gave the head in hand, so that an answer that was lost can be given again.
ALTER TABLE queues ADD COLUMN handed_by BLOB;

-- With an event go the jobs that name it.
CREATE INDEX jobs_of_event ON jobs (tenant, event) WHERE event IS NOT NULL;
