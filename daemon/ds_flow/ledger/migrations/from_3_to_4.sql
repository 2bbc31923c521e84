-- From schema 3 to 4: what the files of each family had, so that a file that differs is marked.

CREATE TABLE family (
    name TEXT PRIMARY KEY,                              -- a path with digits and dates folded
    known TEXT NOT NULL                                 -- JSON: by day, columns, rows, empty cells
) STRICT, WITHOUT ROWID;
