-- What the topic takes of what is published to others, as JSON; NULL for nothing.
ALTER TABLE topics ADD COLUMN collect TEXT;
