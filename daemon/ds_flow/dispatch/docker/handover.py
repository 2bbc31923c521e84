"""What the Docker backend keeps in a round's folder, beside the files that every backend leaves."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ds_flow.core import BatchError
from ds_flow.dispatch.docker.texts import Container, Image
from ds_flow.dispatch.rounds import WORD_BYTES, Round
from ds_flow.system import read_json, sync_file, write_json, write_word

# One file for each job.
ASKED = ".asked"  # its container was asked for, perhaps without an answer
CONTAINER = ".container"  # the id of its container
ENDED = ".ended.json"  # what the engine reported of its end

# One file for the round.
IMAGES = "images.json"  # what the images' names meant
CANCELLED = "cancelled"
SILENT = "docker/silent.json"  # in its own folder: a silent engine must not count as progress


@dataclass(frozen=True, slots=True)
class Handover:
    """The containers of one round, as far as any process has recorded them."""

    batch_round: Round

    def _path(self, index: int, suffix: str) -> Path:
        return self.batch_round.folder / f"{index}{suffix}"

    def _jobs_with(self, suffix: str) -> set[int]:
        names = (entry.name for entry in os.scandir(self.batch_round.folder))
        stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
        return {int(stem) for stem in stems if stem.isdecimal()}

    # ------------------------------------------------------------------ containers

    def without_container(self) -> list[int]:
        """The jobs that have no known container, in order."""
        return sorted(set(self.batch_round.indices) - self._jobs_with(CONTAINER))

    def live(self) -> set[int]:
        """The jobs that have a container whose end is not recorded."""
        return self._jobs_with(CONTAINER) - self._jobs_with(ENDED)

    def was_asked(self, index: int) -> bool:
        """Whether a container was asked for."""
        return self._path(index, ASKED).exists()

    def note_asked(self, index: int) -> None:
        """Record that before the call: whoever continues after a crash looks for the container."""
        self._path(index, ASKED).touch()

    def forget_asked(self, index: int) -> None:
        """Record that the engine refused. The images' names may mean something else by then."""
        self._path(index, ASKED).unlink()
        (self.batch_round.folder / IMAGES).unlink(missing_ok=True)

    def unanswered_s(self) -> list[float]:
        """Seconds since each request that has no known container; negative if the clock moved."""
        asked = self._jobs_with(ASKED) - self._jobs_with(CONTAINER)
        return [time.time() - self._path(index, ASKED).stat().st_mtime for index in asked]

    def container_id(self, index: int) -> str:
        """The id of a job's container."""
        return self._path(index, CONTAINER).read_text(encoding="utf-8").strip()

    def put_container(self, index: int, container_id: str) -> None:
        """Record a job's container."""
        write_word(self._path(index, CONTAINER), container_id)

    # ------------------------------------------------------------------ images

    def images(self) -> dict[str, Image]:
        """What the images' names mean in this round, as far as they were looked up."""
        try:
            rows = read_json(self.batch_round.folder / IMAGES)
        except FileNotFoundError:
            return {}
        return {name: Image(**row) for name, row in rows.items()}

    def put_images(self, images: Mapping[str, Image]) -> None:
        """Record what the images' names mean, durably."""
        rows = {name: asdict(image) for name, image in images.items()}
        write_json(self.batch_round.folder / IMAGES, rows)

    # ------------------------------------------------------------------ ends

    def claim(self, index: int, container: Container) -> None:
        """Record where and since when a job runs; once, when it has begun."""
        path = self._path(index, ".claim")
        if container.started_s and not path.exists():
            words = (os.uname().nodename, container.id[:12], f"{container.started_s:.0f}")
            write_word(path, " ".join(words))

    def end(self, index: int) -> Container | None:
        """What the engine reported of a job's end, if that was recorded."""
        try:
            return Container(**read_json(self._path(index, ENDED)))
        except FileNotFoundError:
            return None

    def put_end(self, index: int, container: Container, *, exit_code: int | None) -> None:
        """Record a job's end, durably. `exit_code` is None for a container that never ran."""
        if exit_code is not None:
            path = self._path(index, ".exit")
            write_word(path, f"{exit_code} {container.ended_s:.0f}")
            sync_file(path)
        write_json(self._path(index, ENDED), asdict(container))

    # ------------------------------------------------------------------ silence

    @property
    def silent(self) -> str:
        """Why the engine did not answer the last question, or ""."""
        with suppress(FileNotFoundError, BatchError):
            return str(read_json(self.batch_round.folder / SILENT, WORD_BYTES))
        return ""

    def note_silent(self, why: str) -> None:
        """Record that, for whoever asks about the jobs. It is written only when it changes."""
        path = self.batch_round.folder / SILENT
        if self.silent != why:
            path.parent.mkdir(exist_ok=True)
            write_word(path, json.dumps(why[: WORD_BYTES // 8]))

    # ------------------------------------------------------------------ cancel

    @property
    def is_cancelled(self) -> bool:
        """Whether the round was cancelled, so that no container may follow."""
        return (self.batch_round.folder / CANCELLED).exists()

    def note_cancelled(self) -> None:
        """Record that the round was cancelled."""
        (self.batch_round.folder / CANCELLED).touch()
