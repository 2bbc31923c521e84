"""Which files have finished arriving."""

from collections.abc import Iterable, Mapping

from ds_flow.core.states import Arrival, Sighting


def split_settled(
    arriving: Mapping[str, Arrival],
    sightings: Iterable[Sighting],
    now_s: float,
    quiet_s: float,
) -> tuple[dict[str, Arrival], list[Arrival]]:
    """Split the files of one look into those still arriving and those settled.

    A file has settled once two looks at least `quiet_s` seconds apart, and every look between
    them, found the same device, inode, size, mtime and ctime. A file that this look did not find
    is forgotten. Ages count from the first look on the monotonic clock. An mtime may be old
    (`cp -p`) or in the future.
    """
    still: dict[str, Arrival] = {}
    settled: list[Arrival] = []
    for seen in sightings:
        before = arriving.get(seen.path)
        if before is None or before.sighting != seen:
            still[seen.path] = Arrival(seen, now_s)
        elif now_s - before.unchanged_since_s >= quiet_s:
            settled.append(before)
        else:
            still[seen.path] = before
    return still, settled


def holds_up(arrival: Arrival, first_seen_s: float, patience_s: float) -> bool:
    """Whether a batch waits for an arriving file, since it will soon have settled.

    It does not wait for one that a process has open, or that changed again after `patience_s`:
    somebody keeps writing it.
    """
    return arrival.is_settling and arrival.unchanged_since_s - first_seen_s <= patience_s
