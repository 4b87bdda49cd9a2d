-- How long the receiver asked to wait before the next attempt, in microseconds, as far as that was granted.
ALTER TABLE attempts ADD COLUMN retry_after_us INTEGER;
