"""Pauses of the line and of single schedules: who began them, until when, and why."""

from datetime import datetime

from ds_flow.core import Pause
from ds_flow.ledger.store import Row, Store, text

LINE = ""
"""The name of a pause of everything. Any other name is a schedule's."""


class Pauses:
    """Moves and questions. Each move is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ------------------------------------------------------------------ moves

    def begin(self, name: str, pause: Pause, now: datetime) -> Pause:
        """Begin a pause, or change the terms of one that is in force; the pause then."""
        with self._store.transaction():
            self._end_due(now)
            until_at = text(pause.until_at) if pause.until_at else None
            self._store.change(
                "INSERT INTO pause (name, since_at, until_at, who, why) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE"
                " SET until_at = excluded.until_at, who = excluded.who, why = excluded.why",
                (name, text(pause.since_at), until_at, pause.who, pause.why),
            )
            self._note(name, "paused", pause.terms, now)
            return self.of(name, now) or pause

    def end(self, name: str, who: str, now: datetime) -> Pause | None:
        """End a pause now. Returns what it was, or None if none is in force."""
        with self._store.transaction():
            self._end_due(now)
            pause = self.of(name, now)
            if pause is not None:
                self._store.change("DELETE FROM pause WHERE name = ?", (name,))
                self._note(name, "resumed", f"by {who}", now)
            return pause

    def end_due(self, now: datetime) -> None:
        """End the pauses whose time is over. Costs no transaction where there is none."""
        if self._due(now):
            with self._store.transaction():
                self._end_due(now)

    def _end_due(self, now: datetime) -> None:
        for name, until_at in self._due(now):
            self._store.change("DELETE FROM pause WHERE name = ?", (name,))
            self._note(name, "resumed", f"its time was over at {until_at}", now)

    def _due(self, now: datetime) -> list[Row]:
        return self._store.rows(
            "SELECT name, until_at FROM pause WHERE until_at <= ? ORDER BY name", (text(now),)
        )

    def _note(self, name: str, what: str, terms: str, now: datetime) -> None:
        thing, whose = ("schedule", f"{name}: ") if name else ("line", "")
        self._store.note(now, f"{thing}.{what}", detail=f"{whose}{terms}")

    # ------------------------------------------------------------------ questions

    def of(self, name: str, now: datetime) -> Pause | None:
        """The pause of a schedule that is in force; None if there is none."""
        row = self._store.row(
            "SELECT since_at, until_at, who, why FROM pause"
            " WHERE name = ? AND (until_at IS NULL OR until_at > ?)",
            (name, text(now)),
        )
        return _pause(row) if row else None

    def line(self, planned: Pause | None, now: datetime) -> Pause | None:
        """What keeps the line from starting anything: a person's pause, or the planned one."""
        return self.of(LINE, now) or planned

    def last_span(self) -> tuple[datetime, datetime] | None:
        """When the last pause of the line began that has ended, and when it ended."""
        row = self._store.row(
            "SELECT coalesce((SELECT min(at) FROM event WHERE kind = 'line.paused'"
            "  AND id < ended.id AND id > coalesce((SELECT max(id) FROM event"
            "   WHERE kind = 'line.resumed' AND id < ended.id), 0)), at), at"
            " FROM event AS ended WHERE kind = 'line.resumed' ORDER BY id DESC LIMIT 1"
        )
        return (datetime.fromisoformat(row[0]), datetime.fromisoformat(row[1])) if row else None


def _pause(row: Row) -> Pause:
    since_at, until_at, who, why = row
    return Pause(
        since_at=datetime.fromisoformat(since_at),
        until_at=datetime.fromisoformat(until_at) if until_at else None,
        who=who,
        why=why,
    )
