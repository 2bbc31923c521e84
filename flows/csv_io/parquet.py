"""A Parquet file as CSV text, batch by batch: each cell as one text, none rounded.

- Numbers are as exact as they were. Decimals keep their zeros.
- Dates and times are in ISO form, without a fraction of zeros. A time with a zone is given in UTC.
- Null is an empty cell. true and false are written so.
- Bytes are text if they are UTF-8: older programs write text so.
- Columns whose cells hold several values, or spans of time without a unit, are refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csv_io.allowance import Allowance, little_memory
from csv_io.errors import TableError
from csv_io.records import MAX_COLUMNS, MAX_RECORD_BYTES
from csv_io.rendering import header_line, lines
from csv_io.table import TEXT, Cells

BATCH_ROWS, BATCH_CELLS, BATCH_BYTES = 2**16, 2**20, 2**25
START = b"PAR1"
READ_BYTES = 2**20
NO_TIME = "<"  # as Arrow begins what it writes of a time that it cannot write
ZEROS, ZERO_FRACTION = r"(\.\d*[1-9])0+$", r"\.0+$"  # they say nothing


def parquet_text(file: BinaryIO, allowance: Allowance) -> Iterator[bytes]:
    """Give the text of an open Parquet file.

    Raises:
        TableError: it is not a Parquet file, is damaged, or holds what no cell can be.
    """
    refuse_others(file)
    with errors_told():
        schema, batches = opened(file)
    yield header_line(schema.names)
    while True:
        with errors_told():
            batch = next(batches, None)
            cut = list(parts(batch)) if batch is not None else []
        if batch is None:
            return
        for part in cut:
            with errors_told():
                columns = zip(schema.names, part.columns, strict=True)
                text = lines([as_text(column, name) for name, column in columns])
            allowance.take(len(text))
            yield text


def refuse_others(file: BinaryIO) -> None:
    """Refuse a file that is not even the beginning of a Parquet file."""
    file.seek(0)
    start = file.read(len(START))
    if not start:
        raise TableError("the file is empty")
    if start != START:
        raise TableError("its name ends with .parquet, but it is not a Parquet file; rename it")


def opened(file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns and the rows. Texts come as a list of those that differ, and references."""
    source = pa.PythonFile(file, mode="r")
    schema = pq.read_schema(source)
    for field in schema:
        refuse_column(field)
    if not 0 < len(schema) <= MAX_COLUMNS:
        raise TableError(
            f"{len(schema):,} columns; at least 1 and at most {MAX_COLUMNS:,} are taken"
        )
    texts = [field.name for field in schema if is_text(field.type)]
    table = pq.ParquetFile(source, buffer_size=READ_BYTES, pre_buffer=False, read_dictionary=texts)
    rows = max(1, min(BATCH_ROWS, BATCH_CELLS // len(schema)))
    return schema, table.iter_batches(batch_size=rows, use_threads=False)


def is_text(kind: pa.DataType) -> bool:
    """Whether cells are text or bytes of any length."""
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def refuse_column(field: pa.Field) -> None:
    """Refuse a column whose cells are not one value each, or whose text would be a guess."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    name = repr(field.name)
    if pa.types.is_nested(kind):
        raise TableError(f"column {name} holds several values in a cell ({kind}); write it flat")
    if (
        not (
            is_text(kind)
            or pa.types.is_primitive(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_null(kind)
        )
        or pa.types.is_duration(kind)
        or pa.types.is_interval(kind)
    ):
        raise TableError(f"column {name} is of the type {kind}, which is no text; write it as text")


def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut rows into parts that take little room as text: one long text may stand in many rows."""
    size = sum(map(text_bytes, batch.columns))
    if size <= BATCH_BYTES or batch.num_rows == 1:
        if batch.num_rows == 1 and size > MAX_RECORD_BYTES:
            raise TableError(f"a row of over {MAX_RECORD_BYTES // 2**20} MB")
        yield batch
        return
    half = batch.num_rows // 2
    yield from parts(batch.slice(0, half))
    yield from parts(batch.slice(half))


def text_bytes(cells: pa.Array) -> int:
    """How long the texts are together. Other values are short."""
    if not pa.types.is_dictionary(cells.type):
        return 0
    if not is_text(cells.type.value_type):
        return 0
    lengths = pc.binary_length(cells.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(cells.indices)).as_py() or 0


def as_text(cells: pa.Array, name: str) -> Cells:
    """Write each value of a column as text.

    Raises:
        TableError: a time is in no calendar, or bytes are no text.
    """
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    kind = cells.type
    has_zone = pa.types.is_timestamp(kind) and kind.tz is not None
    if has_zone:
        cells = cells.cast(pa.timestamp(kind.unit))  # the time in UTC
    try:
        text = cells.cast(TEXT)
    except pa.ArrowInvalid:
        if not is_text(kind):
            raise
        raise TableError(
            f"column {name!r} holds bytes that are not UTF-8; write it as text"
        ) from None
    if pa.types.is_temporal(kind) and pc.any(pc.starts_with(text, NO_TIME)).as_py():
        raise TableError(f"column {name!r} holds a time that is in no calendar")
    if pa.types.is_temporal(kind) and not pa.types.is_date(kind):
        text = pc.replace_substring_regex(text, ZERO_FRACTION, "")
        text = pc.replace_substring_regex(text, ZEROS, r"\1")
        text = pc.replace_substring(text, " ", "T")
    if has_zone:
        text = pc.binary_join_element_wise(text, pa.scalar("Z", TEXT), pa.scalar("", TEXT))
    return pc.fill_null(text, "")


@contextmanager
def errors_told() -> Iterator[None]:
    """Say of an error of Arrow that the file is to blame, and let it take little memory."""
    try:
        with little_memory():
            yield
    except MemoryError:
        raise  # Arrow's is one of its own errors, too
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # a disk of ours
        raise TableError(f"it cannot be read as Parquet: {error}") from error
