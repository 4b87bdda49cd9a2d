-- Deliveries of webhooks that keep an order. A queue is what a webhook is owed in one order: all of it (the key is
-- empty), or what shares an ordering key. Only its head is ever due, in hand or held; the others are `pending`
-- without a `due_at`, and each becomes the head when the one before it is finished.
ALTER TABLE deliveries ADD COLUMN queue TEXT;    -- the queue's key; NULL without an order
-- Twice the number of its event. What is put behind all that was accepted so far has an odd one.
ALTER TABLE deliveries ADD COLUMN place INTEGER;

-- The queues that have a head.
CREATE TABLE queues (
    webhook TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    head    BLOB    NOT NULL,  -- a delivery
    blocked INTEGER NOT NULL,  -- 1 when the head is dead and the others wait all the same
    PRIMARY KEY (webhook, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX queues_blocked ON queues (webhook, key) WHERE blocked = 1;

-- The next one of a queue is found by one seek, however many wait.
CREATE INDEX deliveries_queued ON deliveries (webhook, queue, place, event, part)
    WHERE queue IS NOT NULL AND due_at IS NULL AND state = 'pending';
