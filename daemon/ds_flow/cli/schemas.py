"""What each command prints with `--json`: its keys, and what they mean.

A document names itself: `document` is the command, `schema` the number of its schema. Keys may be
added under one number. A key that changes its meaning, or goes, gets a new number.
"""

from collections.abc import Mapping

from ds_flow.core import Document

SCHEMA = 1

Keys = Mapping[str, tuple[str, str]]
"""By key, its type in JSON and its meaning. A question mark: it may be null."""

RUN_KEYS: Keys = {
    "run_id": ("string?", "Metaflow's Run ID, once it is known."),
    "batch": ("string", "The batch."),
    "attempt": ("integer", "The number of this try at the batch, from 1."),
    "state": ("string", "Where the run is: starting, running, or how it ended."),
    "trigger": ("string", "What made the batch: arrival, rerun, schedule, manual."),
    "started_at": ("string", "When it began, in UTC."),
    "ended_at": ("string?", "When it ended."),
    "inputs": ("array", "The paths of the batch's files."),
    "outputs": ("array", "The paths of what it published."),
    "error": ("string", "Why it failed; empty if it did not."),
    "analysis_error": ("string", "Why its newest analysis failed; empty if it did not."),
    "removed_at": ("string?", "When retention removed its outputs."),
    "deliveries": ("array", "The commands it was handed over to, and how that went."),
}

DOCUMENTS: dict[str, Keys] = {
    "status": {
        "verdict": ("string", "ok, attention, or down."),
        "summary": ("string", "The verdict in a sentence."),
        "problems": ("array", "What needs a person: kind, text, remedy, command; gravest first."),
        "daemon": ("object", "Whether a daemon runs, and its process id."),
        "engine": ("object", "The backends in use, and whether each answers."),
        "files": ("object", "The number of versions in each state."),
        "batches": ("object", "The number of batches in each state."),
        "batches_repaired": ("integer", "How many succeeded after a failed attempt, in a day."),
        "runs": ("object", "The number of runs in each state."),
        "discovered": ("integer", "How many versions were ever seen."),
        "accounted": ("boolean", "Whether every file is in a state that it may be in."),
        "reason": ("string", "Why not; empty if it adds up."),
        "arriving": ("integer", "Files that have been seen and are not complete."),
        "looked_at": ("string?", "When the daemon last looked at the inbox."),
        "reading": ("array", "Large files that are being read, and how far."),
        "unmarked": ("integer", "Files that wait for their markers."),
        "sets": ("array", "Sets of files that are not complete, and what they wait for."),
        "paused": ("object?", "The pause in force: since, until, who, why."),
        "ignored": ("integer", "What is in the inbox and is no input."),
        "ignored_paths": ("array", "Some of these, each with why."),
        "unaccounted": ("array", "Files that the ledger should know and does not."),
        "next_due_at": ("string?", "When the next batch is tried again."),
        "low_space": ("string", "Which disk is short of space; empty if none is."),
        "held_back": ("array", "Why batches cannot start."),
        "jobs": ("array", "Live runs and their jobs: pending, running, and why."),
        "analyses_failed": ("integer", "Runs whose newest analysis failed."),
        "failed_analyses": ("array", "Some of these runs."),
        "last_night": ("object", "What happened in the last 24 hours."),
        "next_fire": ("object?", "Which schedule fires next, and when."),
        "newest_combined": ("object?", "The newest combined file: its path, run, rows, bytes."),
        "drifted": ("integer", "Files in a day that differ from those before them."),
        "drift": ("array", "Some of these, each with how."),
    },
    "runs": {"runs": ("array", "The runs, oldest first, each with the first keys of `show`.")},
    "show": {
        **RUN_KEYS,
        "manifest": ("object?", "What it published: `ds-flow check --schema manifest`."),
        "profile": ("object?", "What its files look like."),
        "analysis": ("object?", "What its newest analysis printed."),
        "jobs": ("array", "Its jobs: stage, backend, state, host, exit code, reason."),
    },
    "files": {"files": ("array", "The versions: path, version, state, size, reason, run.")},
    "explain": {
        "path": ("string", "The file, as the ledger writes it."),
        "verdict": ("string", "Where it is, in a sentence."),
        "next": ("string", "What to do; empty if nothing is."),
        "state": ("string?", "The state of its newest version; null if it has none."),
        "version": ("integer?", "The number of that version."),
        "run_id": ("string?", "The run that published it last."),
        "drift": ("array", "How it differs from the files before it."),
        "jobs": ("array", "The jobs of its live run."),
        "events": ("array", "Its history: at, kind, detail."),
    },
    "schedule": {"schedules": ("array", "Each schedule with its next and its last fires.")},
    "manifest": {"manifests": ("array", "Manifests: `ds-flow check --schema manifest`.")},
    "verify": {"runs": ("array", "Runs whose outputs were read: run_id, faults, remedy.")},
    "lineage": {
        "asked": ("string", "What was asked for."),
        "kind": ("string", "input or output."),
        "start": ("array", "The nodes that this names."),
        "nodes": ("array", "Versions of inputs, and outputs."),
        "edges": ("array", "Which output was made from which input."),
    },
    "report": {
        "kind": ("string", "run, or span for a span of time."),
        "title": ("string", "Its title."),
        "project": ("string", "The project's name."),
        "made_at": ("string", "When it was made."),
        "problems": ("array", "What needs a person."),
        "facts": ("array", "Figures: name and value."),
        "charts": ("array", "What the charts show."),
        "runs": ("array", "The runs, in a report of a span."),
        "set_aside": ("array", "The files that were set aside, and why."),
        "drift": ("array", "The files that differ from those before them."),
        "inputs": ("array", "The inputs, in a report of a run."),
        "more": ("object", "How many of each part are not listed."),
    },
    "gc": {
        "dry_run": ("boolean", "Whether nothing was removed."),
        "removed": ("object", "By kind, how many and how many bytes."),
        "runs": ("array", "The runs whose outputs were removed."),
        "left": ("array", "What could not be removed, and why."),
    },
    "check": {
        "settings": ("string", "The settings file."),
        "findings": ("array", "What was looked at: level, subject, text."),
    },
    "services": {"services": ("array", "The services of this host.")},
    "try": {
        "file": ("string", "The file."),
        "published": ("boolean", "Whether a run would publish it."),
        "reason": ("string", "Why it would not be published; empty if it would."),
        "cause": ("string?", "The kind of the reason; null if the file is not to blame."),
        "delimiter": ("string?", "How its cells are separated."),
        "encoding": ("string?", "Its encoding."),
        "rows_read": ("integer?", "How many rows it has."),
        "rows": ("integer?", "How many rows a run would publish."),
        "before": ("object?", "Its columns and first rows, as read."),
        "after": ("object?", "The same after the transform."),
        "transform": ("string", "The transform, as the settings name it."),
        "notes": ("array", "What was noted while it was read."),
        "printed": ("string", "What the team's code printed."),
    },
    "init": {
        "folder": ("string", "The new project."),
        "settings": ("string", "Its settings file."),
        "made": ("array", "What was made in it."),
    },
}
"""The documents of the commands that answer a question."""

ACTION: Keys = {
    "exit_code": ("integer", "The exit code."),
    "lines": ("array", "What the command prints for people, line by line."),
}
"""What every other command prints, which does something."""

ERROR: Keys = {
    "error": ("string", "What is wrong, and what to do."),
    "exit_code": ("integer", "The exit code."),
}
"""What a command prints that cannot do what it was asked for."""


MANIFESTS = "manifests"
"""The name of the schema of `ds-flow manifest --json`: `manifest` is that of a manifest itself."""

NAMES = ("action", "error", *(MANIFESTS if one == "manifest" else one for one in DOCUMENTS))


def schema_of(name: str) -> Document:
    """The JSON Schema of a command's document; of `action` and of `error`, too."""
    name = "manifest" if name == MANIFESTS else name
    keys = {"action": ACTION, "error": ERROR}.get(name) or DOCUMENTS[name]
    kind = {"type": "string"} if name in {"action", "error"} else {"const": name}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ds-flow:{name}:{SCHEMA}",
        "title": f"ds-flow {name} --json",
        "type": "object",
        "required": ["document", "schema", *keys],
        "properties": {
            "document": kind,
            "schema": {"const": SCHEMA},
            **{key: _property(*found) for key, found in keys.items()},
        },
    }


def _property(kind: str, meaning: str) -> Document:
    types = [kind[:-1], "null"] if kind.endswith("?") else kind
    return {"type": types, "description": meaning}
