-- What is kept for how long.

-- What is gone of an event already: 1 for its data, 2 for the attempts of its deliveries, 3 for both.
ALTER TABLE events ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;

-- Finds the oldest of a tenant's events that still have something to remove.
CREATE INDEX events_by_age ON events (tenant, removed, accepted_at);

CREATE INDEX idempotency_by_age ON idempotency (accepted_at);

-- Tells whether a chain is still named by a delivery.
CREATE INDEX deliveries_of_chain ON deliveries (chain) WHERE chain IS NOT NULL;

-- The bytes of the data of a tenant's events, counted in the same transactions that add and remove them.
CREATE TABLE usage (
    tenant TEXT    PRIMARY KEY,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO usage (tenant, bytes) SELECT tenant, sum(octet_length(data)) FROM events GROUP BY tenant;
