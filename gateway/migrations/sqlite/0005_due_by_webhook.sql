-- Due work is found by webhook: one whose deliveries cannot be taken in hand now costs the others nothing, however
-- many of them are due. First attempts (`pending`) and retries (`retrying`) lie apart, so that neither
-- starves behind the other.
CREATE INDEX deliveries_waiting ON deliveries (webhook, state, due_at)
    WHERE due_at IS NOT NULL AND claimed = 0;

-- What a crash left in hand.
CREATE INDEX deliveries_in_hand ON deliveries (webhook) WHERE due_at IS NOT NULL AND claimed = 1;

DROP INDEX deliveries_due;
