"""Which files have finished arriving."""

from collections.abc import Iterable, Mapping

from ds_flow.core.states import Arrival, Sighting


def split_settled(
    arriving: Mapping[str, Arrival],
    sightings: Iterable[Sighting],
    now_s: float,
    quiet_s: float | None,
) -> tuple[dict[str, Arrival], list[Arrival]]:
    """Split the files of one look into those still arriving and those settled.

    A file has settled once two looks at least `quiet_s` seconds apart, and every look between
    them, found the same device, inode, size, mtime and ctime. A file that this look did not find
    is forgotten. Ages count from the first look on the monotonic clock. An mtime may be old
    (`cp -p`) or in the future.

    Without a quiet time, one look is enough: something else says that the files are complete.
    """
    still: dict[str, Arrival] = {}
    settled: list[Arrival] = []
    for seen in sightings:
        before = arriving.get(seen.path)
        is_same = before is not None and before.sighting == seen
        one = before if before is not None and is_same else Arrival(seen, now_s)
        if quiet_s is None or (is_same and now_s - one.unchanged_since_s >= quiet_s):
            settled.append(one)
        else:
            still[seen.path] = one
    return still, settled


def holds_up(arrival: Arrival, first_seen_s: float, patience_s: float) -> bool:
    """Whether a batch waits for an arriving file, since it will soon have settled.

    It does not wait for one that a process has open, or that changed again after `patience_s`:
    somebody keeps writing it.
    """
    return arrival.is_settling and arrival.unchanged_since_s - first_seen_s <= patience_s
