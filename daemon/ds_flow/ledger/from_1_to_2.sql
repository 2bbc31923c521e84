-- From schema 1 to 2: schedules and their fires, and what a batch was a rerun over.

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
