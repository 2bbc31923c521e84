"""Where the log of an attempt is: its name changes once the Run ID is known."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path


def run_log(log_dir: Path, run_id: str) -> Path:
    """Where the output of a run with a Run ID goes."""
    return log_dir / f"run_{run_id}.log"


def attempt_log(log_dir: Path, batch_id: str, number: int) -> Path:
    """Where an attempt's output goes until its Run ID is known."""
    return log_dir / f"attempt_{batch_id}_{number}.log"


def log_places(log_dir: Path, batch_id: str, number: int, run_id: str | None) -> list[Path]:
    """Every place where an attempt's log may be, the last one first."""
    named = [run_log(log_dir, run_id)] if run_id else []
    return [*named, attempt_log(log_dir, batch_id, number)]


def find_log(log_dir: Path, batch_id: str, number: int, run_id: str | None) -> Path:
    """Find an attempt's log. It may be renamed meanwhile, and it may be gone."""
    places = log_places(log_dir, batch_id, number, run_id)
    return next((path for path in places if path.exists()), places[0])


def name_log(log_dir: Path, batch_id: str, number: int, run_id: str) -> None:
    """Give an attempt's log its last name. A second call changes nothing."""
    log = attempt_log(log_dir, batch_id, number)
    if log.exists():
        log.rename(run_log(log_dir, run_id))


def delivery_log(log_dir: Path, run_id: str, command: str) -> Path:
    """Where the output of a command goes that gets a run. `command` is as the ledger has it."""
    return log_dir / f"deliver_{run_id}_{sha256(command.encode()).hexdigest()[:8]}.log"


def all_logs(log_dir: Path) -> Iterator[Path]:
    """Every log of a run, an attempt or a delivery that is there."""
    for pattern in ("run_*.log", "attempt_*.log", "deliver_*.log"):
        yield from sorted(log_dir.glob(pattern))
