"""Columns that an input must have."""

from collections.abc import Sequence

from ds_flow.core import first_of, plain


def lacking(required: Sequence[str], header: Sequence[str]) -> str:
    """Say which required columns a header lacks, and which one looks like each; "" for none."""
    missing = [name for name in required if name not in header]
    if not missing:
        return ""
    spelt = {plain(name): name for name in header if name not in required}
    said = [_told(name, spelt.get(plain(name), "")) for name in missing]
    return f"csv.required_columns: {first_of(said, '; ')}"


def _told(name: str, other: str) -> str:
    missing = f"column {name!r} is missing"
    if not other:
        return missing
    return f"{missing}, but {other!r} is there, which differs only in case, blanks or punctuation"
