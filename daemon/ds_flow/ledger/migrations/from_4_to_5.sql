-- From schema 4 to 5: what is handed over, to which command. Runs of before are not handed over.

CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,                             -- their order
    run INTEGER NOT NULL REFERENCES run,
    command TEXT NOT NULL,                              -- a JSON list: program and arguments
    state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'given_up', 'dropped')),
    attempts INTEGER NOT NULL DEFAULT 0,                -- that failed
    due_at TEXT NOT NULL,                               -- not to be tried before
    ended_at TEXT,
    reason TEXT NOT NULL DEFAULT '',                    -- of the last failure, or of its end
    UNIQUE (run, command),
    CHECK ((ended_at IS NULL) = (state = 'waiting'))
) STRICT;

CREATE INDEX waiting_delivery ON delivery (command, id) WHERE state = 'waiting';
