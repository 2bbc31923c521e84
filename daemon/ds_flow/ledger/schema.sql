-- The ledger: every file version ever seen, the batches that claimed it, the runs that took them on,
-- what was published, and every move as an event. Times are UTC, ISO 8601. Paths are escaped.

CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    sha256 TEXT CHECK (length(sha256) = 64),            -- null: never read
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    stat TEXT NOT NULL,                                 -- device inode size mtime_ns ctime_ns, as last seen
    seen_at TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'batched', 'processed', 'quarantined', 'superseded')),
    cause TEXT,
    reason TEXT NOT NULL DEFAULT '',
    away TEXT CHECK (away IN ('going', 'gone', 'none')), -- from the inbox, by ds-flow; null: not yet
    away_to TEXT NOT NULL DEFAULT '',                   -- where it is kept; '' if it was deleted
    away_at TEXT,
    UNIQUE (path, version),
    CHECK (state NOT IN ('quarantined', 'superseded') OR cause IS NOT NULL)
) STRICT;

CREATE INDEX file_by_state ON file (state);
CREATE INDEX file_to_look_at_again ON file (path) WHERE stat = '';
CREATE INDEX file_published ON file (id) WHERE state = 'processed' AND away IS NULL;
CREATE INDEX file_rejected ON file (id) WHERE state = 'quarantined' AND away IS NULL;
CREATE INDEX file_going ON file (id) WHERE away = 'going';
CREATE INDEX file_kept ON file (away_at) WHERE away = 'gone' AND away_to <> '';

CREATE TABLE batch (
    id TEXT PRIMARY KEY CHECK (length(id) = 10),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'retrying', 'succeeded', 'dead', 'cancelled')),
    trigger TEXT NOT NULL,
    formed_at TEXT NOT NULL,
    due_at TEXT NOT NULL,                               -- not to be started before
    ended_at TEXT,
    reason TEXT NOT NULL DEFAULT '',
    selection TEXT NOT NULL DEFAULT '',                 -- what a rerun was over; '' if it has no name
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'running', 'retrying')))
) STRICT;

CREATE INDEX live_batch ON batch (due_at) WHERE ended_at IS NULL;
CREATE INDEX batch_by_state ON batch (state);
CREATE INDEX batch_by_selection ON batch (selection) WHERE selection <> '';

CREATE TABLE batch_file (
    batch_id TEXT NOT NULL REFERENCES batch,
    file_id INTEGER NOT NULL REFERENCES file,
    live INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
    PRIMARY KEY (batch_id, file_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX batch_of_file ON batch_file (file_id);
CREATE UNIQUE INDEX one_live_batch_per_file ON batch_file (file_id) WHERE live;

CREATE TRIGGER batch_ends_its_claims AFTER UPDATE OF ended_at ON batch WHEN NEW.ended_at IS NOT NULL
BEGIN
    UPDATE batch_file SET live = 0 WHERE batch_id = NEW.id;
END;

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    batch_id TEXT NOT NULL REFERENCES batch,
    attempt INTEGER NOT NULL CHECK (attempt >= 1),
    state TEXT NOT NULL CHECK (state IN
        ('starting', 'running', 'succeeded', 'failed', 'timed_out', 'stopped', 'cancelled', 'lost')),
    run_id TEXT UNIQUE,                                 -- Metaflow's, once known
    ending TEXT,                                        -- the end that was asked for, before it is done
    started_at TEXT NOT NULL,
    ended_at TEXT,
    results INTEGER NOT NULL DEFAULT 0,                 -- finished results of its batch when it ended
    error TEXT NOT NULL DEFAULT '',
    removed_at TEXT,                                    -- when retention removed its outputs
    analysis_error TEXT NOT NULL DEFAULT '',            -- why its newest analysis failed
    analyses INTEGER NOT NULL DEFAULT 0,                -- how often the analysis was done again
    UNIQUE (batch_id, attempt),
    CHECK ((ended_at IS NULL) = (state IN ('starting', 'running')))
) STRICT;

CREATE UNIQUE INDEX one_live_run_per_batch ON run (batch_id) WHERE ended_at IS NULL;
CREATE INDEX run_by_state ON run (state);
CREATE INDEX run_with_failed_analysis ON run (id) WHERE analysis_error <> '';

CREATE TABLE output (
    run INTEGER NOT NULL REFERENCES run,
    name TEXT NOT NULL,
    file_id INTEGER REFERENCES file,                    -- null: the combined file
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX output_of_file ON output (file_id) WHERE file_id IS NOT NULL;

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
    outcome TEXT NOT NULL CHECK (outcome IN ('run', 'verified', 'nothing', 'missed', 'skipped')),
    batch_id TEXT REFERENCES batch,                     -- that was made, or whose run was verified
    detail TEXT NOT NULL DEFAULT '',
    UNIQUE (schedule, due_at)                           -- no fire happens twice
) STRICT;

CREATE INDEX fire_of_batch ON fire (batch_id) WHERE batch_id IS NOT NULL;

CREATE TABLE pause (
    name TEXT PRIMARY KEY,                              -- of a schedule; '' for everything
    since_at TEXT NOT NULL,
    until_at TEXT,                                      -- null: until a person ends it
    who TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE family (
    name TEXT PRIMARY KEY,                              -- a path with digits and dates folded
    known TEXT NOT NULL                                 -- JSON: by day, columns, rows, empty cells
) STRICT, WITHOUT ROWID;

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

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,                                 -- thing.state, as in the log
    file_id INTEGER REFERENCES file,
    batch_id TEXT REFERENCES batch,
    run INTEGER REFERENCES run,
    detail TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX event_of_file ON event (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX event_of_batch ON event (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX event_of_kind ON event (kind);             -- what to tell a person of, and the last of a kind

CREATE TRIGGER event_is_append_only BEFORE UPDATE ON event
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;
