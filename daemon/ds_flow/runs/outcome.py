"""How a dead run ended, judged by the files that it left."""

import os
import re
from pathlib import Path

from ds_flow.core import RunState, says_no_room, starved
from ds_flow.ledger import RunRow
from ds_flow.system import open_regular, read_word
from ds_flow.work import NO_ROOM, UNFIT, Batch, find_log

LAST_WORDS_BYTES = 4096
EXIT_CODE = re.compile("[0-9]{1,3}")
KILLED_EXIT_CODES = frozenset({129, 130, 137, 143})  # SIGHUP, SIGINT, SIGKILL, SIGTERM


def outcome_of(run: RunRow, batch: Batch, log_dir: Path) -> tuple[RunState, str]:
    """Say how a dead run without a commit ended, and why."""
    folder = batch.attempt_dir(run.attempt)
    said = read_word(folder / "error") or ""
    if run.ending is not None:
        return run.ending, run.error
    word = read_word(folder / "exit_code")
    if word is None or not EXIT_CODE.fullmatch(word):
        return RunState.LOST, "its processes ended without an exit code"
    if run.run_id is None:
        return (
            RunState.LOST,
            f"it never began: exit code {word}: {said or _last_words(run, log_dir)}",
        )
    if (folder / "starved").exists():
        return RunState.FAILED, said or starved(read_word(folder / "starved"))
    if (folder / UNFIT).exists() or met_full_disk(run, batch, log_dir):
        return RunState.LOST, said or f"no room on a disk: {_last_words(run, log_dir)}"
    if int(word) in KILLED_EXIT_CODES:
        return RunState.LOST, f"killed by signal {int(word) - 128}"
    if int(word) == 0:
        return RunState.FAILED, said or "it ended with exit code 0 and published nothing"
    return RunState.FAILED, said or f"exit code {word}: {_last_words(run, log_dir)}"


def met_full_disk(run: RunRow, batch: Batch, log_dir: Path) -> bool:
    """Whether a run has said that a disk took no more.

    Where no step could say so, as in Metaflow's own part, the last line of its log counts.
    """
    folder = batch.attempt_dir(run.attempt)
    if (folder / NO_ROOM).exists():
        return True
    return read_word(folder / "error") is None and says_no_room(_last_words(run, log_dir))


def _last_words(run: RunRow, log_dir: Path) -> str:
    """The last line of a run's log, for a failure that no step has recorded."""
    path = find_log(log_dir, run.batch, run.attempt, run.run_id)
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            file.seek(
                max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES)
            )  # jobs print without end
            lines = file.read(LAST_WORDS_BYTES).decode(errors="replace").split("\n")
    except OSError:
        return "and its log cannot be read"
    return next((line.strip() for line in reversed(lines) if line.strip()), "and its log is empty")
