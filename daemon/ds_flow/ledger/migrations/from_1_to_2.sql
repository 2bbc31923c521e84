-- From schema 1 to 2: schedules and their fires, what a batch was a rerun over, what was removed.

ALTER TABLE batch ADD COLUMN selection TEXT NOT NULL DEFAULT '';

CREATE INDEX batch_by_selection ON batch (selection) WHERE selection <> '';

CREATE TABLE schedule (
    name TEXT PRIMARY KEY,
    timetable TEXT NOT NULL,                            -- cron and time zone
    since_at TEXT NOT NULL,                             -- no fire before this is its own
    asked_at TEXT                                       -- a person's wish to fire it, until that is done
) STRICT, WITHOUT ROWID;

CREATE TABLE fire (
    id INTEGER PRIMARY KEY,
    schedule TEXT NOT NULL,                             -- may be in the settings no more
    due_at TEXT NOT NULL,
    at TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('run', 'verified', 'nothing', 'missed')),
    batch_id TEXT REFERENCES batch,                     -- that was made, or whose run was verified
    detail TEXT NOT NULL DEFAULT '',
    UNIQUE (schedule, due_at)                           -- no fire happens twice
) STRICT;

CREATE INDEX fire_of_batch ON fire (batch_id) WHERE batch_id IS NOT NULL;

-- Retention and alerts.
ALTER TABLE run ADD COLUMN removed_at TEXT;             -- when retention removed its outputs
CREATE INDEX event_of_kind ON event (kind);             -- what to tell a person of, and the last of a kind
