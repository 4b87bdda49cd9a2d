-- Where an event is delivered beside the webhooks that match it; NULL for nowhere.
ALTER TABLE events ADD COLUMN webhook_url TEXT;
