-- In microseconds, as all lengths of time. How long the receiver asked to wait before the next attempt, as far as
-- that was granted.
ALTER TABLE attempts ADD COLUMN retry_after_us INTEGER;

-- How long the phases of an exchange took. NULL for those that it did not have or did not get to.
ALTER TABLE attempts ADD COLUMN dns_us INTEGER;
ALTER TABLE attempts ADD COLUMN connect_us INTEGER;
ALTER TABLE attempts ADD COLUMN first_byte_us INTEGER;
