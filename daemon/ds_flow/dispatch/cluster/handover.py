"""What is kept of a cluster: in a round its arrays and their ids, in `.work` what was learnt."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from ds_flow.core import WORK, BatchError
from ds_flow.dispatch.rounds import LIST_BYTES, Round
from ds_flow.system import read_json, write_word

LEARNT_SECONDS = 86_400  # after that it is tried again: the cluster may have been upgraded


def file_of(batch_round: Round) -> Path:
    """Where a round's handover is: in its own folder, since asking must not count as progress."""
    return batch_round.folder / batch_round.executor / "handover.json"


def array_of(native_id: str) -> str:
    """The id of the array that an element belongs to."""
    return re.split(r"[\[_]", native_id, maxsplit=1)[0]


@dataclass(slots=True)
class Chunk:
    """One array: the round's jobs from `first` on, as elements 1 to `count`."""

    name: str
    first: int
    count: int
    asked_at: float | None = None  # wall clock, since another process may continue
    looks: int = 0  # clean lookups that did not find it, since it was asked for
    refused: str = ""  # its one job gets no more memory, in the cluster's words
    held: str = ""  # why the site takes it only later, in the cluster's words
    job_ids: list[str] = field(default_factory=list)  # several if it was accepted more than once


@dataclass(slots=True)
class Handover:
    """A round's chunks, and what this cluster supports."""

    executor: str
    path: Path
    chunks: list[Chunk]
    learnt: dict[str, bool]  # what this cluster can or cannot do
    pending: list[str] = field(default_factory=list)  # why jobs are pending, in its words
    silent: str = ""  # why it did not answer the last question, or takes no more jobs now

    @classmethod
    def of(cls, batch_round: Round, max_array: int = 1000) -> Self:
        """Read it from the round's folder. Without one, cut chunks of at most `max_array` jobs.

        If a power loss tore the file, the cluster may have any chunk: all are treated as if the
        answer to their submission were lost.
        """
        path, executor = file_of(batch_round), batch_round.executor
        made = cls(executor, path, [], _learnt(batch_round.folder, executor))
        made.cut(batch_round.name, 1, len(batch_round.jobs), max_array)
        try:
            row = read_json(path, LIST_BYTES)
            chunks = [Chunk(**chunk) for chunk in row["chunks"]]
            learnt = {name: fact for name, fact in row.items() if isinstance(fact, bool)}
            pending, silent = row.get("pending", []), row.get("silent", "")
            return cls(executor, path, chunks, learnt, pending, silent)
        except FileNotFoundError:
            return made
        except (BatchError, LookupError, TypeError, AttributeError):
            for chunk in made.chunks:
                chunk.asked_at = time.time()
            return made

    def save(self) -> None:
        """Write it to the round's folder."""
        self.path.parent.mkdir(exist_ok=True)
        row = {**self.learnt, "pending": self.pending, "silent": self.silent}
        chunks = [asdict(chunk) for chunk in self.chunks]
        write_word(self.path, json.dumps({**row, "chunks": chunks}))

    def note(self, **facts: list[str] | str) -> None:
        """Keep something for whoever asks about the jobs. It is written only when it changes."""
        if any(getattr(self, name) != fact for name, fact in facts.items()):
            for name, fact in facts.items():
                setattr(self, name, fact)
            self.save()

    def learn(self, **facts: bool) -> None:
        """Keep what this cluster can or cannot do, for this round and the site's later ones."""
        folder = self.path.parent.parent
        self.learnt |= facts
        known = {**_learnt(folder, self.executor), **facts}
        write_word(_learnt_file(folder, self.executor), json.dumps(known))
        self.save()

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
        """The submitted chunks without an id: the answer was lost."""
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
        """A job as its cluster writes it: `123[7]` by LSF, `123_7` by Slurm."""
        chunk = self.chunk_of(index)
        job_id, element = chunk.job_ids[0], index - chunk.first + 1
        return f"{job_id}_{element}" if self.executor == "slurm" else f"{job_id}[{element}]"

    def index_of(self, job_id: str, element: int, name: str = "") -> int | None:
        """The round's index of an array's element. With a name, only if the array has it."""
        for chunk in self.chunks:
            is_of_chunk = job_id in chunk.job_ids and name in {"", chunk.name}
            if is_of_chunk and 1 <= element <= chunk.count:
                return chunk.first + element - 1
        return None


def _learnt_file(folder: Path, executor: str) -> Path:
    """Where a site's facts are: beside all work directories."""
    beside = next((above for above in folder.parents if above.name == WORK), folder.parent)
    return beside / f"{executor}.json"


def _learnt(folder: Path, executor: str) -> dict[str, bool]:
    """What was learnt within a day; nothing if it cannot be read."""
    path = _learnt_file(folder, executor)
    try:
        is_new = time.time() - path.stat().st_mtime < LEARNT_SECONDS
        facts = json.loads(path.read_bytes()) if is_new else {}
        return {name: fact for name, fact in facts.items() if isinstance(fact, bool)}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}
