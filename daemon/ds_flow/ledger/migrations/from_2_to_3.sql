-- From schema 2 to 3: why the analysis of a published run failed, and how often it was done again.

ALTER TABLE run ADD COLUMN analysis_error TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN analyses INTEGER NOT NULL DEFAULT 0;

CREATE INDEX run_with_failed_analysis ON run (id) WHERE analysis_error <> '';

UPDATE run SET analysis_error = event.detail FROM event
WHERE event.run = run.id AND event.kind = 'analysis.failed';
