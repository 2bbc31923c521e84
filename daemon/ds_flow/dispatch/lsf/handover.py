"""How a round was handed over to LSF: which arrays it became, kept in the round's folder."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from ds_flow.core import LsfSite
from ds_flow.dispatch.rounds import Round
from ds_flow.system import write_word

FILE = "lsf/handover.json"  # in a folder of its own: to ask LSF is no progress of the jobs


@dataclass(slots=True)
class Chunk:
    """Jobs first to first + count - 1 of a round, as one array whose indices begin with 1."""

    name: str
    first: int
    count: int
    asked_at: float | None = None  # wall clock, since another process may go on
    looks: int = 0  # clean ones that did not find it, since it was asked for
    job_ids: list[str] = field(default_factory=list)  # several if LSF took it more than once


@dataclass(slots=True)
class Handover:
    """A round's chunks, and what was learnt of this LSF meanwhile."""

    path: Path
    chunks: list[Chunk]
    is_plain: bool = False  # numbers without units
    speaks_json: bool | None = None  # not known yet

    @classmethod
    def of(cls, batch_round: Round, site: LsfSite) -> Self:
        """What stands in the round's folder; at first, chunks as large as the site's arrays.

        Where a power loss has torn it, LSF may have any of them: as if their answers were lost.
        """
        path = batch_round.folder / FILE
        made = cls(path, [], is_plain=site.memory_unit == "plain")
        made.cut(batch_round.name, 1, len(batch_round.jobs), site.max_array)
        try:
            row = json.loads(path.read_bytes())
            chunks = [Chunk(**chunk) for chunk in row.pop("chunks")]
            return cls(path, chunks, **row)
        except FileNotFoundError:
            return made
        except (ValueError, LookupError, TypeError, AttributeError):
            for chunk in made.chunks:
                chunk.asked_at = time.time()
            return made

    def save(self) -> None:
        """Put it in place, whole."""
        self.path.parent.mkdir(exist_ok=True)
        row = {"is_plain": self.is_plain, "speaks_json": self.speaks_json}
        chunks = [asdict(chunk) for chunk in self.chunks]
        write_word(self.path, json.dumps({**row, "chunks": chunks}))

    def cut(self, name: str, first: int, count: int, size: int) -> None:
        """Add chunks of at most `size` jobs, with unique names of under 40 characters."""
        for start in range(first, first + count, size):
            length = min(size, first + count - start)
            self.chunks.append(Chunk(f"{name}-{start}", start, length))

    def halve(self, chunk: Chunk) -> bool:
        """Cut this chunk and all larger ones in two; whether that can be done."""
        if chunk.count == 1:
            return False
        size = -(-chunk.count // 2)
        whole = [one for one in self.chunks if one.count > size and one.asked_at is None]
        self.chunks = [one for one in self.chunks if one not in whole]
        for one in whole:
            self.cut(one.name.rpartition("-")[0], one.first, one.count, size)
        return True

    def next_to_submit(self) -> Chunk | None:
        """The next chunk that was never asked for."""
        return next((one for one in self.chunks if one.asked_at is None), None)

    def asked(self) -> Iterator[Chunk]:
        """The chunks that were asked for, and whose answer was lost."""
        return (one for one in self.chunks if one.asked_at is not None and not one.job_ids)

    @property
    def is_complete(self) -> bool:
        """Whether LSF has taken every chunk."""
        return all(chunk.job_ids for chunk in self.chunks)

    @property
    def job_ids(self) -> list[str]:
        """Every array's id."""
        return [job_id for chunk in self.chunks for job_id in chunk.job_ids]

    def chunk_of(self, index: int) -> Chunk:
        """The chunk that holds a job of the round."""
        return next(one for one in self.chunks if one.first <= index < one.first + one.count)

    def native_id(self, index: int) -> str:
        """A job as LSF's commands take it: `123[7]`."""
        chunk = self.chunk_of(index)
        return f"{chunk.job_ids[0]}[{index - chunk.first + 1}]"

    def index_of(self, job_id: str, element: int) -> int | None:
        """The round's index of an array's element."""
        for chunk in self.chunks:
            if job_id in chunk.job_ids and 1 <= element <= chunk.count:
                return chunk.first + element - 1
        return None
