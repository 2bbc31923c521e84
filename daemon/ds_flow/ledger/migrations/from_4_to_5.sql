-- From schema 4 to 5.

-- What is handed over, to which command. Runs of before are not handed over.

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

-- Pauses, fires that a pause skipped, and inputs that ds-flow put away.

CREATE TABLE pause (
    name TEXT PRIMARY KEY,                              -- of a schedule; '' for everything
    since_at TEXT NOT NULL,
    until_at TEXT,                                      -- null: until a person ends it
    who TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE new_fire (
    id INTEGER PRIMARY KEY,
    schedule TEXT NOT NULL,                             -- may be in the settings no more
    due_at TEXT NOT NULL,
    at TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('run', 'verified', 'nothing', 'missed', 'skipped')),
    batch_id TEXT REFERENCES batch,                     -- that was made, or whose run was verified
    detail TEXT NOT NULL DEFAULT '',
    UNIQUE (schedule, due_at)                           -- no fire happens twice
) STRICT;

INSERT INTO new_fire SELECT id, schedule, due_at, at, outcome, batch_id, detail FROM fire;
DROP TABLE fire;
ALTER TABLE new_fire RENAME TO fire;
CREATE INDEX fire_of_batch ON fire (batch_id) WHERE batch_id IS NOT NULL;

ALTER TABLE file ADD COLUMN away TEXT CHECK (away IN ('going', 'gone', 'none'));
ALTER TABLE file ADD COLUMN away_to TEXT NOT NULL DEFAULT '';
ALTER TABLE file ADD COLUMN away_at TEXT;
CREATE INDEX file_published ON file (id) WHERE state = 'processed' AND away IS NULL;
CREATE INDEX file_rejected ON file (id) WHERE state = 'quarantined' AND away IS NULL;
CREATE INDEX file_going ON file (id) WHERE away = 'going';
CREATE INDEX file_kept ON file (away_at) WHERE away = 'gone' AND away_to <> '';
