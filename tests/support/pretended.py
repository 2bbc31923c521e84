"""Runs without processes, for tests of all that goes on around them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from crash import lives_through
from ds_flow.core.manifest import Manifest
from ds_flow.core.plan import PlannedFile
from ds_flow.core.states import Cause
from ds_flow.runs.launch import Life, Runs
from ds_flow.settings.load import Settings
from ds_flow.system import durable
from ds_flow.work.batch import Batch
from ds_flow.work.fingerprint import settings_fingerprint
from ds_flow.work.publication import publish
from samples import manifest, read, rejected, sha256

BAD = "bad"  # no table: a run rejects it
RAISED = "raised"  # the cause of a file on which the transform failed


class CrashError(BaseException):
    """The daemon dies here: nothing may catch it."""


@dataclass
class PretendedRuns(Runs):
    """Runs without processes: each lives until the test ends it. They outlive the daemon."""

    root: Path
    alive: dict[str, Path] = field(default_factory=dict)  # <batch>/<attempt> -> attempt's folder
    left_out: dict[str, str] = field(default_factory=dict)  # paths that no run can judge well
    analysis: Mapping[str, Any] | None = None  # what comes of every analysis
    crash: str = ""  # the daemon dies "before" or "after" it starts the next run
    meanwhile: Callable[[str], object] = str  # what somebody does to the next batch to be started
    run_ids: Iterator[int] = field(default_factory=lambda: count(1))
    results: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        super().__init__()

    def get_ready(self, settings: Settings) -> None:
        assert settings.run.fork

    def prepare(self, settings: Settings, batch_id: str, attempt: int) -> None:
        super().prepare(settings, batch_id, attempt)
        meanwhile, self.meanwhile = self.meanwhile, str
        meanwhile(batch_id)

    def start(self, settings: Settings, batch_id: str, attempt: int, trigger: str) -> None:
        assert trigger
        crash, self.crash = self.crash, ""
        if crash == "before":
            raise CrashError
        folder = Batch.at(settings.output_dir, batch_id).attempt_dir(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        self.alive[f"{batch_id}/{attempt}"] = folder
        if crash == "after":
            raise CrashError

    def life(self, batch: str, attempt: int) -> Life:
        return Life.ALIVE if f"{batch}/{attempt}" in self.alive else Life.DEAD

    def interrupt(self, batch: str, attempt: int) -> None:
        self.end(f"{batch}/{attempt}", "130")

    def kill(self, batch: str, attempt: int) -> None:
        self.end(f"{batch}/{attempt}", None)

    def end(self, mark: str, exit_code: str | None) -> None:
        folder = self.alive.pop(mark)
        if exit_code is not None:
            self._begin(folder)
            durable.write_word(folder / "exit_code", exit_code)

    def _begin(self, folder: Path) -> str:
        """Give a run its Run ID, if it has none yet."""
        run_id = durable.read_word(folder / "run_id") or str(next(self.run_ids))
        durable.write_word(folder / "run_id", run_id)
        return run_id

    def publish(self, mark: str, dies_at: int | None = None) -> None:
        """Do a run's work on the files that are there now."""
        folder = self.alive[mark]
        batch = Batch(folder.parent.parent)
        run_id = self._begin(folder)
        made, sources = self._work(batch, run_id, int(folder.name))
        if dies_at is None:
            publish(batch, made, sources)
        elif not lives_through(partial(publish, batch, made, sources), dies_at):
            self.end(mark, None)

    def _work(self, batch: Batch, run_id: str, attempt: int) -> tuple[Manifest, Mapping[str, Path]]:
        good, bad = [], []
        for planned in batch.plan.files:
            cause = self.left_out.get(planned.path)
            content = Cause(cause) if cause in set(Cause) else self._read(planned)
            if cause is not None and cause in {Cause.REJECTED, RAISED}:
                text = self.input(planned).read_text()
                bad.append(rejected(planned.path, cause, text, planned.version))
            elif isinstance(content, Cause):
                bad.append(rejected(planned.path, content, content=None, version=planned.version))
            elif content == BAD:
                bad.append(rejected(planned.path, Cause.REJECTED, BAD, planned.version))
            else:
                good.append(read(planned.path, content, planned.version))
        made = manifest(run_id, batch=batch.id, attempt=attempt, inputs=good, rejects=bad)
        sources = {}
        known = {file.path: file for file in batch.plan.files}
        for item, output in zip(good, made.outputs, strict=True):
            sources[output.name] = batch.folder / f"{next(self.results)}.csv"
            sources[output.name].write_bytes(self.input(known[item.path]).read_bytes())
        return replace(_as_planned(made, batch), analysis=self.analysis), sources

    def input(self, planned: PlannedFile) -> Path:
        """Where a file is now, of the places where it may be."""
        places = [Path(path) for path, _ in planned.places(str(self.root), "")]
        return next(filter(Path.exists, places), places[-1])

    def _read(self, planned: PlannedFile) -> str | Cause:
        try:
            content = self.input(planned).read_text()
        except FileNotFoundError:
            return Cause.GONE
        return content if sha256(content) == planned.sha256 else Cause.CHANGED


def _as_planned(made: Manifest, batch: Batch) -> Manifest:
    plan = batch.plan
    return replace(
        made,
        trigger=plan.trigger,
        selection=plan.selection,
        compared_with=plan.compare_with,
        tag=plan.options.tag,
        code_fingerprint=batch.code_fingerprint,
        settings_fingerprint=settings_fingerprint(plan.options),
    )
