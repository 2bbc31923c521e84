"""The documents, from the ledger and the files. Each reads a bounded part of them."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from ds_flow.core import (
    DispatchError,
    Document,
    DsFlowError,
    FileState,
    RequestError,
    RunState,
    Trigger,
    unescape,
)
from ds_flow.ledger import Done, FileRow, FilesPage, Ledger, ListedRun, ask_ledger
from ds_flow.settings import Settings
from ds_flow.system import ask_mounts, disks, free_bytes, open_regular, running_pid, told_pid
from ds_flow.views import (
    Place,
    Question,
    explanation,
    file_document,
    find_run,
    log_of,
    metrics_text,
    remedy,
    run_documents,
    schedule_document,
    status_document,
    whole_run,
)
from ds_flow.web.kept import Kept

KEEP_S, WAIT_S = 2.0, 0.1
CHARTS_KEEP_S = 60.0
CHARTED_RUNS, CHARTED_DAYS = 5000, 30
LOG_BYTES = 2**16
FIRES = 30
MOST_ROWS = 200  # of one page
ROWS = 50

Answer = TypeVar("Answer")


class WrongQuestionError(RequestError):
    """A parameter of an address has no meaning."""


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Answers:
    """Every question of the page."""

    settings: Settings
    kept_status: Kept[Document] = field(init=False)
    done: Kept[list[Done]] = field(init=False)
    kept_metrics: Kept[str] = field(init=False)

    def __post_init__(self) -> None:
        self.kept_status = Kept(self._status, self.mark, KEEP_S, WAIT_S)
        self.done = Kept(self._done, lambda: 0, CHARTS_KEEP_S, WAIT_S)
        self.kept_metrics = Kept(self._metrics, self.mark, KEEP_S, WAIT_S)

    def prepare(self) -> None:
        """Begin with what takes longest in a large project, before somebody asks."""
        self.kept_status.prepare()
        self.done.prepare()

    def close(self) -> None:
        """End the threads."""
        self.kept_status.close()
        self.done.close()
        self.kept_metrics.close()

    def mark(self) -> str:
        """A text that changes when something has moved, or when the daemon comes or goes.

        The files of the ledger would not do: they are written to before a move can be seen.
        """
        with suppress(DsFlowError, OSError):  # whoever asks more is told
            return f"{self.ask(lambda ledger: ledger.pages.newest_event())} {self.pid()}"
        return ""

    def pid(self) -> int | None:
        """The daemon's, also for a user who may not open its locks."""
        try:
            return running_pid(self.settings)
        except (RequestError, OSError):
            return told_pid(self.settings)

    def ask(self, question: Callable[[Ledger], Answer]) -> Answer:
        """Ask the ledger, which stays as it is."""
        self._require_answer(self.settings.ledger.parent, self.settings.output_dir)
        return ask_ledger(self.settings.ledger, question)

    def _look(self, question: Callable[[Ledger], Answer]) -> Answer:
        """Ask the ledger a question that looks at the disks, too."""
        self._require_answer(*disks(self.settings))
        return self.ask(question)

    @staticmethod
    def _require_answer(*folders: Path) -> None:
        """Raise DispatchError if a disk does not answer: touching it would never end."""
        for folder in dict.fromkeys(folders):
            if why := ask_mounts(str(folder)):
                raise DispatchError(f"{folder}: {why}; mend or unmount it")

    # ------------------------------------------------------------------ the whole

    def status(self) -> Document:
        """The status. Behind a disk that hangs, an old one would look like a new one."""
        self._require_answer(*disks(self.settings))
        return self.kept_status.get()

    def metrics(self) -> str:
        """The metrics, likewise."""
        self._require_answer(*disks(self.settings))
        return self.kept_metrics.get()

    def _status(self) -> Document:
        return self._look(lambda ledger: status_document(self.settings, ledger, self.pid(), now()))

    def _metrics(self) -> str:
        return self._look(lambda ledger: metrics_text(self.settings, ledger, self.pid(), now()))

    def _done(self) -> list[Done]:
        since = now() - timedelta(days=CHARTED_DAYS)
        return self.ask(lambda ledger: ledger.pages.ended(since, CHARTED_RUNS))

    def disks(self) -> list[Document]:
        """How full the disks of outputs, logs and the ledger are."""
        settings = self.settings
        folders = (settings.output_dir, settings.log_dir, settings.ledger.parent)
        found: dict[int, Document] = {}
        for folder in folders:
            with suppress(OSError, DispatchError):
                self._require_answer(folder)
                disk = os.statvfs(folder)
                total = disk.f_blocks * disk.f_frsize
                free = {"folder": str(folder), "free": free_bytes(folder), "total": total}
                found.setdefault(folder.stat().st_dev, free)
        return [one for one in found.values() if one["total"]]

    # ------------------------------------------------------------------ runs

    def runs(self, given: Mapping[str, str]) -> Document:
        """A page of runs, oldest first, as `ds-flow runs --json` gives them."""
        state, trigger, before, limit = _runs_asked(given)

        def question(ledger: Ledger) -> Document:
            page = ledger.pages.runs(state=state, trigger=trigger, before=before, limit=limit)
            runs = run_documents(self.settings, ledger.pages.whole(page.ids))
            return {"runs": [run for run, _ in runs], "before": page.before}

        return self.ask(question)

    def listed_runs(self, given: Mapping[str, str]) -> tuple[list[ListedRun], int | None]:
        """A page of runs, newest first, as a list shows them."""
        state, trigger, before, limit = _runs_asked(given)

        def question(ledger: Ledger) -> tuple[list[ListedRun], int | None]:
            page = ledger.pages.runs(state=state, trigger=trigger, before=before, limit=limit)
            return ledger.pages.listed(page.ids), page.before

        return self.ask(question)

    def run(self, name: str) -> Document:
        """One run with its manifest, as `ds-flow show --json` gives it."""
        return self._look(lambda ledger: whole_run(self.settings, ledger, find_run(ledger, name)))

    def log(self, name: str) -> tuple[list[str], bool]:
        """The last lines of a run's log, and whether these are all of them."""
        path = self._look(lambda ledger: log_of(self.settings, find_run(ledger, name)))
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                start = max(0, os.fstat(file.fileno()).st_size - LOG_BYTES)
                file.seek(start)
                lines = file.read(LOG_BYTES).decode("utf-8", "backslashreplace").splitlines()
        except OSError:
            return [], True
        return (lines[1:], False) if start else (lines, True)

    # ------------------------------------------------------------------ files

    def files_page(self, given: Mapping[str, str], state: str = "") -> FilesPage:
        """A page of versions, by path and number."""
        kind = _choice(FileState, state or given.get("state", ""))
        limit, prefix = _limit(given), self._prefix(given.get("prefix", ""))
        version = _count(given, "version") or 0
        after = (given["after"], version) if given.get("after") else None
        return self.ask(
            lambda ledger: ledger.pages.files(state=kind, prefix=prefix, after=after, limit=limit)
        )

    def files(self, given: Mapping[str, str]) -> Document:
        """A page of versions, as `ds-flow files --json` gives them."""
        page = self.files_page(given)
        return {"files": [file_document(row) for row in page.files], "next": _next(page)}

    def _prefix(self, typed: str) -> str:
        """What paths begin with. What is typed may begin at the inbox."""
        inbox = os.path.relpath(self.settings.inbox, self.settings.root)
        start = f"{self.settings.inbox if inbox.split('/')[0] == '..' else inbox}/"
        if not typed or typed.startswith(("/", start)) or start.startswith(typed):
            return typed
        return f"{start}{typed}"

    def file(self, path: str) -> Document:
        """Where one file is, and why, as `ds-flow explain --json` gives it."""
        return self._look(lambda ledger: explanation(self._question(ledger, path)))

    def versions(self, path: str) -> list[Document]:
        """The versions of one path, newest first."""
        rows = self.ask(lambda ledger: ledger.read.versions(path))
        return [file_document(row) for row in reversed(rows)][:MOST_ROWS]

    def _question(self, ledger: Ledger, path: str) -> Question:
        """About a path of the ledger or of the inbox. Nobody is told of other files."""
        try:
            raw = os.path.normpath(os.path.join(self.settings.root, unescape(path)))
        except ValueError as error:
            raise WrongQuestionError(f"{path} is no path as ds-flow writes it") from error
        is_inside = f"{raw}/".startswith(f"{self.settings.inbox}/")
        if "\0" in raw or not (is_inside or ledger.read.versions(path)):
            raise RequestError(f"{path} is neither in the ledger nor in the inbox")
        return Question(self.settings, ledger, Place(path, raw), self.pid() is not None, now())

    def quarantine(self, given: Mapping[str, str]) -> tuple[list[tuple[FileRow, str]], Document]:
        """A page of quarantined versions, each with its remedy; and where to go on."""
        page = self.files_page(given, FileState.QUARANTINED)

        def question(ledger: Ledger) -> list[tuple[FileRow, str]]:
            return [(row, remedy(self._question(ledger, row.path), row)) for row in page.files]

        return self._look(question), _next(page) or {}

    # ------------------------------------------------------------------ schedules

    def schedules(self) -> Document:
        """Every schedule, as `ds-flow schedule --json` gives them."""
        return self.ask(
            lambda ledger: {
                "schedules": [
                    schedule_document(ledger, one, now()) for one in self.settings.schedule
                ]
            }
        )

    def fires(self, schedule: str) -> list[Document]:
        """The newest fires of a schedule, newest first."""
        rows = self.ask(lambda ledger: ledger.overview.fires(schedule, None, FIRES))
        return list(map(asdict, rows))


def _next(page: FilesPage) -> Document | None:
    return {"after": page.after[0], "version": page.after[1]} if page.after else None


# --------------------------------------------------------------------------- what was asked


RunsAsked = tuple[RunState | None, Trigger | None, int | None, int]


def _runs_asked(given: Mapping[str, str]) -> RunsAsked:
    state = _choice(RunState, given.get("state", ""))
    trigger = _choice(Trigger, given.get("trigger", ""))
    return state, trigger, _count(given, "before"), _limit(given)


def _choice(kind: Callable[[str], Any], word: str) -> Any:
    """A word of an enumeration; None for no word."""
    try:
        return kind(word) if word else None
    except ValueError:
        known: Iterator[Any] = iter(kind)  # type: ignore[call-overload] # every kind is an enumeration
        words = ", ".join(one.value for one in known)
        raise WrongQuestionError(f"{word!r} should be one of {words}") from None


def _count(given: Mapping[str, str], name: str) -> int | None:
    """A whole number that is not negative; None for none."""
    word = given.get(name)
    if word is None:
        return None
    if not (word.isascii() and word.isdecimal() and len(word) < 19):  # noqa: PLR2004 - SQLite's integers
        raise WrongQuestionError(f"{name} should be a whole number")
    return int(word)


def _limit(given: Mapping[str, str]) -> int:
    limit = _count(given, "limit")
    if limit is None:
        return ROWS
    if not 1 <= limit <= MOST_ROWS:
        raise WrongQuestionError(f"limit should be from 1 to {MOST_ROWS}")
    return limit
