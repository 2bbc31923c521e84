"""Deliveries: to which commands a published run is handed over, and how that goes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ds_flow.core import LONGEST_DELIVERY_WAIT, DeliveryState, RequestError
from ds_flow.ledger.store import Row, Store, text

FAILING = 3  # failures after which a person is told
DELIVERY_DONE = "delivery.done"
DELIVERY_FAILING = "delivery.failing"
DELIVERY_ENDED = "delivery.ended"  # given up, or dropped

_DELIVERY = """
    SELECT delivery.id, run_id, run.batch_id, command, delivery.state, attempts, due_at,
        delivery.ended_at, reason
    FROM delivery JOIN run ON run.id = delivery.run
"""
_FIRST = f"""
    {_DELIVERY} WHERE delivery.state = 'waiting' AND command = ?
    ORDER BY delivery.id LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """The hand-over of one run to one command."""

    id: int
    run_id: str
    batch: str
    command: str  # as JSON
    state: DeliveryState
    attempts: int  # that failed
    due_at: str
    ended_at: str | None
    reason: str

    @property
    def words(self) -> list[str]:
        """Program and arguments."""
        return [str(word) for word in json.loads(self.command)]

    def is_due(self, now: datetime) -> bool:
        """Whether it may be tried now. A time too far ahead is that of a clock since set back."""
        return not now < datetime.fromisoformat(self.due_at) <= now + LONGEST_DELIVERY_WAIT


class Deliveries:
    """Each command gets each run that is published from now on, one after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commands: Sequence[str] = ()
        """The commands in force, as JSON. Whoever opens the ledger sets them."""

    # ------------------------------------------------------------------ moves

    def enter(self, run: int, now: datetime) -> int:
        """Enter to which commands a publication is handed over; how many are new.

        This is in the transaction that records the publication.
        """
        return self._store.change_many(
            "INSERT OR IGNORE INTO delivery (run, command, state, due_at)"
            " VALUES (?, ?, 'waiting', ?)",
            ((run, command, text(now)) for command in self.commands),
        )

    def follow(self, commands: Sequence[str], now: datetime) -> int:
        """Work by these commands from now on; how many deliveries to others end by that."""
        self.commands = commands
        rows = self._store.rows("SELECT DISTINCT command FROM delivery WHERE state = 'waiting'")
        gone = [command for (command,) in rows if command not in commands]
        if not gone:
            return 0
        why, dropped = "its command is not in publish.then any more", DeliveryState.DROPPED
        with self._store.transaction():
            return sum(self._end(dropped, why, "command = ?", one, now) for one in gone)

    def succeed(self, row: DeliveryRow, now: datetime) -> None:
        """Record that a command has taken a run, unless a person gave that up meanwhile."""
        with self._store.transaction():
            changed = self._store.change(
                "UPDATE delivery SET state = 'done', ended_at = ?, reason = ''"
                " WHERE id = ? AND state = 'waiting'",
                (text(now), row.id),
            )
            if changed:
                self._note(DELIVERY_DONE, row, row.command, now)

    def fail(self, row: DeliveryRow, reason: str, due_at: datetime, now: datetime) -> None:
        """Record that a command has not taken a run, and when it is tried again."""
        with self._store.transaction():
            changed = self._store.change(
                "UPDATE delivery SET attempts = attempts + 1, due_at = ?, reason = ?"
                " WHERE id = ? AND state = 'waiting'",
                (text(due_at), reason, row.id),
            )
            if changed and row.attempts + 1 == FAILING:
                self._note(DELIVERY_FAILING, row, f"{row.command}: {reason}", now)

    def again(self, run_id: str, now: datetime) -> int:
        """Hand a run over once more to all commands; to how many that comes after what waits.

        Where it still waits, it keeps its place. Whatever has failed is tried at once, since it
        may be in the way. Raises RequestError.
        """
        with self._store.transaction():
            run = self._published(run_id)
            if not self.commands:
                raise RequestError("there is no command in publish.then of the settings")
            self._store.change(
                "UPDATE delivery SET due_at = ? WHERE state = 'waiting' AND attempts", (text(now),)
            )
            self._store.change("DELETE FROM delivery WHERE run = ? AND state <> 'waiting'", (run,))
            return self.enter(run, now)

    def skip(self, run_id: str, now: datetime) -> int:
        """Give up what waits of a run, so that later runs go on; how much. Raises RequestError."""
        with self._store.transaction():
            run, why = self._published(run_id), "given up by request"
            count = self._end(DeliveryState.GIVEN_UP, why, "run = ?", run, now)
        if not count:
            raise RequestError(f"nothing of run {run_id} waits to be handed over")
        return count

    def give_up_all(self, why: str, now: datetime) -> int:
        """Give up all that waits; how much."""
        with self._store.transaction():
            return self._end(DeliveryState.GIVEN_UP, why, "?", 1, now)

    def _published(self, run_id: str) -> int:
        row = self._store.row(
            "SELECT id, removed_at FROM run WHERE run_id = ? AND state = 'succeeded'", (run_id,)
        )
        if row is None:
            raise RequestError(f"run {run_id} has published nothing")
        if row[1]:
            raise RequestError(f"the outputs of run {run_id} were removed")
        return int(row[0])

    def _end(self, state: DeliveryState, why: str, of: str, value: object, now: datetime) -> int:
        """End what waits and meets a condition; how much. One event tells of all."""
        count = self._store.change(
            "UPDATE delivery SET state = ?, ended_at = ?, reason = ?"
            f" WHERE state = 'waiting' AND {of}",
            (state, text(now), why, value),
        )
        if count:
            of_what = f"{value}: " if of == "command = ?" else ""
            run = value if of == "run = ?" and isinstance(value, int) else None
            self._store.note(
                now,
                DELIVERY_ENDED,
                batch_id=self._batch_of(run) if run else None,
                run=run,
                detail=f"{of_what}{count} not handed over: {why}",
            )
        return count

    def _batch_of(self, run: int) -> str:
        return self._store.value("SELECT batch_id FROM run WHERE id = ?", run, f"run {run}")

    def _note(self, kind: str, row: DeliveryRow, detail: str, now: datetime) -> None:
        (run,) = self._store.row("SELECT run FROM delivery WHERE id = ?", (row.id,)) or (None,)
        self._store.note(now, kind, batch_id=row.batch, run=run, detail=detail)

    # ------------------------------------------------------------------ questions

    def first(self, command: str) -> DeliveryRow | None:
        """What a command gets next."""
        row = self._store.row(_FIRST, (command,))
        return delivery_row(row) if row else None

    def is_waiting(self, delivery: int) -> bool:
        """Whether it has not ended."""
        row = self._store.row(
            "SELECT 1 FROM delivery WHERE id = ? AND state = 'waiting'", (delivery,)
        )
        return row is not None

    def firsts(self) -> Iterator[tuple[DeliveryRow, int]]:
        """What each command gets next, and how much waits for it in all."""
        counts = self._store.rows(
            "SELECT command, count(*) FROM delivery WHERE state = 'waiting'"
            " GROUP BY command ORDER BY min(id)"
        )
        for command, count in counts:
            if row := self.first(command):
                yield row, count

    def of_run(self, run_id: str) -> list[DeliveryRow]:
        """To which commands a run is handed over."""
        rows = self._store.rows(f"{_DELIVERY} WHERE run_id = ? ORDER BY delivery.id", (run_id,))
        return [delivery_row(row) for row in rows]

    def waiting(self) -> int:
        """How many deliveries wait."""
        row = self._store.row("SELECT count(*) FROM delivery WHERE state = 'waiting'")
        return int(row[0]) if row else 0


def delivery_row(row: Row) -> DeliveryRow:
    """A delivery from a row of the ledger."""
    values = dict(zip(DeliveryRow.__slots__, row, strict=True))
    return DeliveryRow(**{**values, "state": DeliveryState(values["state"])})
