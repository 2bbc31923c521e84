"""One shard: `process_job.py WORK RESULTS FIRST-LAST` gives each of its files a result.

WORK is a batch's work directory, RESULTS the folder for its results, FIRST-LAST positions in the
plan's files, from 0, both included. It may run again, or twice at once: what stands is kept.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

if __name__ == "__main__":  # run as a file: its packages and the transform are beside steps/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from csv_io.allowance import Allowance
from csv_io.errors import TableError, WrongEncodingError, in_no_encoding
from csv_io.inputs import is_table, records_of
from csv_io.records import Records
from csv_io.required import lacking
from csv_io.table import Rows, Source, UnreadableError, read_pieces, read_rows, to_frame
from csv_io.writing import TableWriter, Written
from ds_flow.core import (
    DsFlowError,
    InputError,
    Options,
    Plan,
    PlannedFile,
    Reading,
    Rejected,
    SettingsError,
    format_of,
    output_stems,
    unescape,
)
from ds_flow.system import OutsideError, beneath, masked, reopen
from ds_flow.work import LASTING, Batch, Result, Results
from steps import job_exit
from steps.profile import Profiler, rows_of_each
from steps.transform import (
    APPENDED,
    Transform,
    TransformError,
    apply,
    file_of,
    gives_back,
    load,
)
from steps.user_code import OwnCode, said

NO_CONTENT = ("processed_at",)  # differs whenever a file is processed again
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class GoneError(InputError):
    """The file was removed."""


class ChangedError(InputError):
    """It is not the planned file, or it changed while it was read."""


CAUSES: Mapping[type[InputError], str] = {
    TableError: "rejected",
    TransformError: "raised",
    ChangedError: "changed",
    GoneError: "gone",
    UnreadableError: "unreadable",
}


# --------------------------------------------------------------------------- one file


@contextmanager
def opened(path: Path, inbox: str = "") -> Iterator[BinaryIO]:
    """Open the regular file that a path leads to, in the inbox, and be sure that it is that one.

    Raises:
        GoneError, UnreadableError, ChangedError: as they say.
    """
    with its_own_errors(), beneath(inbox or "/", str(path)) as (found, _):
        if not S_ISREG(os.fstat(found).st_mode):
            raise UnreadableError("it is not a regular file")
        descriptor = reopen(found, OPEN_FLAGS)
    try:
        with open(descriptor, "rb", buffering=0, closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


@contextmanager
def its_own_errors() -> Iterator[None]:
    """Let what the system refuses of one input concern that input, and no other."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise GoneError("it is gone") from None
    except OutsideError as error:
        is_link = error.filename2 != error.filename
        why = "a symbolic link that leaves the inbox" if is_link else error.strerror
        raise UnreadableError(why) from None
    except OSError as error:
        if error.errno in job_exit.OUT_OF_FILES_ERRORS:
            raise
        raise UnreadableError(error.strerror) from error


def last_change(stream: BinaryIO) -> tuple[int, int, int]:
    """Tell of an open file what differs once anybody has written to it."""
    with its_own_errors():
        found = os.fstat(stream.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def rewind(stream: BinaryIO) -> None:
    """Go back to the start of an open file."""
    with its_own_errors():
        stream.seek(0)


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


Outcome = tuple[Written, Records, Profiler] | TableError | TransformError


@dataclass(frozen=True, slots=True)
class Shard:
    """What the files of a shard share."""

    plan: Plan
    results: Results
    transform: Transform
    transform_file: str
    own: OwnCode
    profiled: Mapping[str, int]  # files that get a profile, each with the rows to look at

    def process(self, planned: PlannedFile, stem: str) -> Result | Rejected:
        """Read one file once, to its end. Returns its result."""
        found = rejected(planned, GoneError("it is gone"), planned.sha256)
        for path, base in planned.places(self.plan.options.root, self.plan.options.inbox):
            try:
                with opened(Path(path), base) as stream:
                    return self._read(stream, planned, self.results.temporary(stem))
            except (GoneError, UnreadableError, ChangedError) as error:
                found = rejected(planned, error, planned.sha256)
        return found

    def _read(self, stream: BinaryIO, planned: PlannedFile, target: Path) -> Result | Rejected:
        before = last_change(stream)
        with removed_on_error(target):
            source, outcome = self._in_one_encoding(stream, planned, target)
            # A half-written file must not become a lasting reject: the hash comes first.
            source.drain()
            if planned.sha256 is None:
                if last_change(stream) != before:
                    raise ChangedError("it changed while it was read")
            elif planned.sha256 != source.sha256:
                raise ChangedError("its content is no longer what it was when the batch formed")
        if isinstance(outcome, InputError):
            target.unlink(missing_ok=True)
            return rejected(planned, outcome, source.sha256)
        written, records, profiler = outcome
        kind = format_of(planned.path)
        return Result(
            path=planned.path,
            version=planned.version,
            sha256=source.sha256,
            bytes=source.bytes,
            rows=written.rows,
            columns=written.columns,
            output=target.name,
            output_sha256=written.sha256,
            output_bytes=written.bytes,
            content_sha256=written.content_sha256,
            delimiter="" if is_table(kind) else records.delimiter,
            encoding="" if is_table(kind) else records.encoding,
            format=kind,
            transform=self.transform_file,
            notes=tuple(records.notes),
            header=profiler.header,
            empty=profiler.empty,
            rows_read=profiler.rows,
            profile=profiler.profile(self.plan.options.hide_columns),
        )

    def _in_one_encoding(
        self, stream: BinaryIO, planned: PlannedFile, target: Path
    ) -> tuple[Source, Outcome]:
        """Read the file in the first encoding that all of it is in, each time from its start."""
        reading = self.plan.options.reading(unescape(planned.path))
        failed: list[WrongEncodingError] = []
        for encoding in reading.encodings:
            source = Source(stream)
            outcome = self._convert(source, planned, target, replace(reading, encoding=encoding))
            if not isinstance(outcome, WrongEncodingError):
                return source, outcome
            failed.append(outcome)
            target.unlink(missing_ok=True)
            rewind(stream)
        return Source(stream), in_no_encoding(failed)

    def _convert(
        self, source: Source, planned: PlannedFile, target: Path, reading: Reading
    ) -> Outcome:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        options = self.plan.options
        values = (now, unescape(planned.path), options.tag)
        constants = dict(zip(APPENDED, values, strict=True))
        try:
            records = records_of(
                source, planned.path, reading, allowance_of(source, options), target.parent
            )
            profiler = Profiler(self.profiled.get(planned.path))
            return write(self._rows(records, profiler), target, constants), records, profiler
        except TableError as error:
            return error.without_quotes() if options.hide_columns else error
        except TransformError as error:
            return error

    def _rows(self, records: Records, profiler: Profiler) -> Iterator[Rows]:
        if taken := set(APPENDED).intersection(records.header):
            problem = f"it has a column {min(taken)!r}; the name is taken"
            raise TableError(problem, records.header_line)
        if problem := lacking(self.plan.options.required_columns, records.header):
            raise TableError(problem, records.header_line)
        if gives_back(self.transform):
            for rows in read_rows(records):
                profiler.add(rows)
                yield rows
            return
        for piece in read_pieces(records):
            profiler.add(piece.table)
            frame, hidden = to_frame(piece.table), self.plan.options.hide_columns
            cells = apply(self.transform, frame, self.own, hidden)
            yield from piece.rows(cells)


def allowance_of(source: Source, options: Options) -> Allowance:
    """How much may come out of a packed file."""
    return Allowance(source.size_bytes, options.max_unpacked_mb, options.max_unpacked_ratio)


def write(pieces: Iterator[Rows], target: Path, constants: Mapping[str, str]) -> Written:
    """Write the rows of one file, in pieces, of which there is at least one."""
    first = next(pieces)
    columns = list(first.column_names)
    with target.open("xb") as stream:
        writer = TableWriter(stream, columns, constants, NO_CONTENT)
        writer.write(first)
        for rows in pieces:
            if list(rows.column_names) != columns:
                raise TransformError("the transform gave the pieces of this file unlike columns")
            writer.write(rows)
    return writer.written


def rejected(planned: PlannedFile, error: InputError, sha256: str | None) -> Rejected:
    line = error.line if isinstance(error, TableError) else None
    reason = error.reason if isinstance(error, TableError) else str(error)
    reason = masked(reason, os.environ)  # a transform may print a secret
    return Rejected(
        path=planned.path,
        version=planned.version,
        sha256=sha256,
        cause=CAUSES[type(error)],
        reason=reason,
        line=line,
    )


# --------------------------------------------------------------------------- the shard


def run(shard: Shard, first: int, last: int) -> str:
    """Give every file of the shard a result. Returns a summary in one line."""
    stems = output_stems(planned.path for planned in shard.plan.files)
    files = shard.plan.files[first : last + 1]
    done = aside = 0
    for planned in files:
        stem = stems[planned.path]
        if is_final(shard.results.get(stem)):
            continue
        result = shard.process(planned, stem)
        if isinstance(result, Result):
            shard.results.put(stem, result)
            done += 1
        else:
            shard.results.set_aside(stem, result)
            print(f"{result.path}: {result.sentence}", file=sys.stderr)
            aside += 1
    return f"{done} processed, {aside} set aside, {len(files) - done - aside} had a result"


def is_final(result: Result | Rejected | None) -> bool:
    return isinstance(result, Result) or (result is not None and result.cause in LASTING)


def main(argv: Sequence[str]) -> int:
    try:
        work, results, positions = argv
        first, last = map(int, positions.split("-"))
    except ValueError:
        print("usage: process_job.py WORK RESULTS FIRST-LAST", file=sys.stderr)
        return job_exit.USAGE
    own = OwnCode(Path())
    try:
        plan = Batch(Path(work)).plan
        spec, root = plan.options.transform, Path(plan.options.root)
        own = OwnCode(root, spec.partition(":")[0])
        transform, profiled = load(spec, root), rows_of_each(plan)
        shard = Shard(plan, Results(Path(results)), transform, file_of(spec, root), own, profiled)
        print(run(shard, first, last))
    except DsFlowError as error:
        print(f"process: {error}", file=sys.stderr)
        is_settings = isinstance(error, SettingsError)
        return job_exit.SETTINGS if is_settings else job_exit.OWN_DISK
    except MemoryError as error:
        own.print_trace(error)
        print(f"process: {own.told(error)}", file=sys.stderr)
        return job_exit.NO_MEMORY
    except OSError as error:  # our own files: the disk is full, or the work directory is gone
        with suppress(OSError):  # standard error may be closed, too
            print(f"process: {said(error)}", file=sys.stderr)
        return job_exit.of(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
