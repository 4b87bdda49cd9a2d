-- Webhooks that fail, or are disabled. They are declared elsewhere; the others have no row. Times are
-- microseconds since 1970, in UTC.
CREATE TABLE webhook_states (
    webhook       TEXT    PRIMARY KEY,
    failing_since INTEGER, -- the first failure after the last success; NULL when there was none lately
    disabled_at   INTEGER, -- NULL while it is not
    reason        TEXT
) STRICT, WITHOUT ROWID;
