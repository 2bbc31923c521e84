"""Of what format a file is: its name says so."""

TEXT, GZIP, ZSTD, WORKBOOK, PARQUET = "csv", "csv.gz", "csv.zst", "xlsx", "parquet"

_ENDINGS = {".gz": GZIP, ".zst": ZSTD, ".xlsx": WORKBOOK, ".parquet": PARQUET}


def format_of(path: str) -> str:
    """Name the format of a file by the ending of its name. What has no such ending is text."""
    return _ENDINGS.get(_ending(path).lower(), TEXT)


def stem_of(path: str) -> str:
    """The name of a file without its ending; of `student_a.csv.gz`, both endings go."""
    name = path.rpartition("/")[2]
    stem = name.removesuffix(_ending(name)) or name
    is_packed = format_of(name) in {GZIP, ZSTD} and stem != name
    return (stem.removesuffix(_ending(stem)) or stem) if is_packed else stem


def _ending(path: str) -> str:
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return dot + ending
