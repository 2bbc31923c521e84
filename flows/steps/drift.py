"""In what the inputs of a run differ from the files of their families before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ds_flow.core import Comparison, Drifted, Look, family_of, shallow, shapes_of
from ds_flow.work import Batch, Result, read_families

MARKS_A_RUN = 5000  # further files are not marked


@dataclass(frozen=True, slots=True)
class Compared:
    """What the manifest says of the inputs' columns: the lists, whose is which, and the marks."""

    shapes: tuple[tuple[str, ...], ...]
    which: tuple[int | None, ...]
    marks: tuple[Drifted, ...]


def compare_inputs(batch: Batch, good: Sequence[Result]) -> Compared:
    """Compare each input with what its family had before this batch."""
    looks = [_look(one) for one in good]
    shapes, which = shapes_of(looks)
    families = {name: Comparison(name, family) for name, family in read_families(batch).items()}
    marks: list[Drifted] = []
    for one, look, shape in zip(good, looks, which, strict=True):
        if look is not None and shape is not None and len(marks) < MARKS_A_RUN:
            marks += _marks(families, one, look)
    return Compared(tuple(shapes), tuple(which), tuple(marks))


def _look(one: Result) -> Look | None:
    """What a file had, by its job's word; None if that is not whole."""
    if not one.header or len(one.header) != len(one.empty) or max(one.empty) > one.rows_read:
        return None
    return Look(columns=one.header, rows=one.rows_read, empty=one.empty)


def _marks(families: Mapping[str, Comparison], one: Result, look: Look) -> Iterator[Drifted]:
    name = family_of(one.path)
    for mark in families[name].marks(look) if name in families else ():
        yield Drifted(path=one.path, version=one.version, family=name, **shallow(mark))
