"""The team's own part: pure functions from DataFrame to DataFrame."""

import pandas as pd


def transform(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn the rows of one input file into the rows to publish; as shipped, it changes nothing.

    It gets (rows, columns): all columns of the file, in order, under the names in its header.
    Every cell is text (dtype `str`) exactly as it stands in the file: "007", "1.10", "NA" and ""
    arrive as they are, nothing is missing. Turn columns into numbers or dates where you need them,
    for example with `pd.to_numeric(frame["score"], errors="coerce")`. A file with nothing but a
    header gives a frame of no rows.

    It may change, add, drop and reorder rows and columns, of any dtype. Each value is published
    as its `str`, a missing one as an empty cell; the index is not published. Column names must be
    unique and not blank. `processed_at`, `source_file` and `tag` are appended afterwards, so
    those names are taken.

    It is called once a file, unless the file is larger than 32 MB or 4 million rows: then once
    for each piece of whole rows, in order, and every piece must come out with the same columns.
    A transform is right for files of any size if each row it returns depends on one row alone.

    An exception sets aside this one file, with its line of your code and what it says as the
    reason; the other files go on. The run's log has the traceback. It may run several times over
    the same file and many times at once, so it should leave nothing behind and depend on nothing
    but the frame.
    """
    return frame
