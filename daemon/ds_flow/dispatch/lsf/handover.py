"""What is kept of LSF: in a round's folder its arrays and their ids, in `.work` what was learnt."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from ds_flow.core import WORK, BatchError, LsfSite
from ds_flow.dispatch.rounds import LIST_BYTES, Round
from ds_flow.system import read_json, write_word

FILE = "lsf/handover.json"  # in its own folder: asking LSF must not count as progress
LEARNT = "lsf.json"  # what this site's LSF cannot do, for all rounds
LEARNT_SECONDS = 86_400  # after that it is tried again: the LSF may have been upgraded


@dataclass(slots=True)
class Chunk:
    """One array: the round's jobs from `first` on, as elements 1 to `count`."""

    name: str
    first: int
    count: int
    asked_at: float | None = None  # wall clock, since another process may continue
    looks: int = 0  # clean lookups that did not find it, since it was asked for
    refused: str = ""  # LSF gives its one job no more memory, in LSF's words
    job_ids: list[str] = field(default_factory=list)  # several if LSF accepted it more than once


@dataclass(slots=True)
class Handover:
    """A round's chunks, and what this LSF supports."""

    path: Path
    chunks: list[Chunk]
    is_plain: bool = False  # memory as numbers without units
    speaks_json: bool | None = None  # None: it may
    pending: list[str] = field(default_factory=list)  # why jobs are pending, in LSF's words
    silent: str = ""  # why LSF did not answer the last question

    @classmethod
    def of(cls, batch_round: Round, site: LsfSite) -> Self:
        """Read it from the round's folder. Without one, cut chunks as large as the site allows.

        If a power loss tore the file, LSF may have any chunk: all are treated as if bsub's answer
        were lost.
        """
        path = batch_round.folder / FILE
        learnt = _learnt(batch_round.folder)
        is_plain = learnt.get("is_plain", False) and site.memory_unit == "auto"
        made = cls(
            path,
            [],
            is_plain=is_plain or site.memory_unit == "plain",
            speaks_json=learnt.get("speaks_json"),
        )
        made.cut(batch_round.name, 1, len(batch_round.jobs), site.max_array)
        try:
            row = read_json(path, LIST_BYTES)
            chunks = [Chunk(**chunk) for chunk in row.pop("chunks")]
            return cls(path, chunks, **row)
        except FileNotFoundError:
            return made
        except (BatchError, LookupError, TypeError, AttributeError):
            for chunk in made.chunks:
                chunk.asked_at = time.time()
            return made

    def save(self) -> None:
        """Write it to the round's folder."""
        self.path.parent.mkdir(exist_ok=True)
        names = ("is_plain", "speaks_json", "pending", "silent")
        row = {name: getattr(self, name) for name in names}
        chunks = [asdict(chunk) for chunk in self.chunks]
        write_word(self.path, json.dumps({**row, "chunks": chunks}))

    def note(self, **facts: list[str] | str) -> None:
        """Keep something for whoever asks about the jobs. It is written only when it changes."""
        if any(getattr(self, name) != fact for name, fact in facts.items()):
            for name, fact in facts.items():
                setattr(self, name, fact)
            self.save()

    def learn(self, **facts: bool) -> None:
        """Keep what this LSF cannot do, for this round and for all later ones of the site."""
        folder = self.path.parent.parent
        for name, fact in facts.items():
            setattr(self, name, fact)
        write_word(_learnt_file(folder), json.dumps({**_learnt(folder), **facts}))

    def cut(self, name: str, first: int, count: int, size: int) -> None:
        """Add chunks of at most `size` jobs, with unique names of under 40 characters."""
        for start in range(first, first + count, size):
            length = min(size, first + count - start)
            self.chunks.append(Chunk(f"{name}-{start}", start, length))

    def halve(self, chunk: Chunk) -> bool:
        """Cut this chunk, and all as large, in two. Returns whether that is possible."""
        if chunk.count == 1:
            return False
        size = -(-chunk.count // 2)
        whole = [one for one in self.chunks if one.count > size and one.asked_at is None]
        self.chunks = [one for one in self.chunks if one not in whole]
        for one in whole:
            self.cut(one.name.rpartition("-")[0], one.first, one.count, size)
        return True

    def next_to_submit(self) -> Chunk | None:
        """The next chunk that was not submitted yet."""
        return next((one for one in self.chunks if one.asked_at is None and not one.refused), None)

    def asked(self) -> Iterator[Chunk]:
        """The submitted chunks without an id: bsub's answer was lost."""
        return (one for one in self.chunks if one.asked_at is not None and not one.job_ids)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has an id, or is refused for good."""
        return all(chunk.job_ids or chunk.refused for chunk in self.chunks)

    @property
    def job_ids(self) -> list[str]:
        """The ids of all arrays."""
        return [job_id for chunk in self.chunks for job_id in chunk.job_ids]

    def chunk_of(self, index: int) -> Chunk:
        """The chunk that holds a job of the round."""
        return next(one for one in self.chunks if one.first <= index < one.first + one.count)

    def native_id(self, index: int) -> str:
        """A job as LSF writes it: `123[7]`."""
        chunk = self.chunk_of(index)
        return f"{chunk.job_ids[0]}[{index - chunk.first + 1}]"

    def index_of(self, job_id: str, element: int) -> int | None:
        """The round's index of an array's element."""
        for chunk in self.chunks:
            if job_id in chunk.job_ids and 1 <= element <= chunk.count:
                return chunk.first + element - 1
        return None


def _learnt_file(folder: Path) -> Path:
    """Where a site's facts are: beside all work directories."""
    return next((above for above in folder.parents if above.name == WORK), folder.parent) / LEARNT


def _learnt(folder: Path) -> dict[str, bool]:
    """What was learnt within a day; nothing if it cannot be read."""
    path = _learnt_file(folder)
    try:
        is_new = time.time() - path.stat().st_mtime < LEARNT_SECONDS
        facts = json.loads(path.read_bytes()) if is_new else {}
        return {name: fact for name, fact in facts.items() if isinstance(fact, bool)}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}
