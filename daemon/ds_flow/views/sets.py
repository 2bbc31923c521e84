"""Open sets as people are told of them: what has come, what is missing, until when they wait."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from ds_flow.core import (
    Document,
    OpenSet,
    SetRule,
    missing_names,
    sets_to_form,
    sort_out,
    told_wait,
)
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings

NAMED = 20  # sets, and missing files of each
CONSIDERED = 1000  # quarantined files


def sets_document(settings: Settings, ledger: Ledger, now: datetime) -> list[Document]:
    """Tell of each open set, the oldest first; of twenty at most."""
    rule = settings.batch.rule
    if rule is None:
        return []
    found = [*open_sets(rule, ledger).values()][:NAMED]
    aside = _set_aside(rule, ledger) if found else {}
    return [_one(rule, ledger, one, aside.get(one.value, []), now) for one in found]


def open_sets(rule: SetRule, ledger: Ledger) -> dict[str, OpenSet]:
    """The sets that wait for more files, by value."""
    found = sort_out(ledger.sets.waiting(), rule, ()).sets
    return {
        value: one
        for value, one in found.items()
        if not ledger.sets.is_formed(rule.selection(value))
    }


def _set_aside(rule: SetRule, ledger: Ledger) -> dict[str, list[str]]:
    """The quarantined files by the set that they would belong to. None counts as come."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in ledger.overview.set_aside(CONSIDERED):
        if value := rule.value_of(row.path):
            found[value].append(row.path)
    return found


def _one(
    rule: SetRule, ledger: Ledger, one: OpenSet, aside: Iterable[str], now: datetime
) -> Document:
    lacking = missing_names(
        one.paths, ledger.sets.before(rule.selection(one.value)), rule, one.value
    )
    not_counted = [path for path in aside if path not in one.paths][:NAMED]
    due_at = rule.next_deadline(now)
    is_due = sets_to_form([one], rule, rule.last_deadline(now))
    return {
        "set": rule.named(one.value),
        "came": len(one.paths),
        "expect": rule.expect,
        "missing": lacking[:NAMED],
        "set_aside": not_counted,
        "due_at": due_at.isoformat() if due_at and not is_due else None,
        "text": _text(rule, one, lacking, not_counted, is_due=bool(is_due)),
    }


def _text(
    rule: SetRule, one: OpenSet, lacking: list[str], aside: list[str], *, is_due: bool
) -> str:
    """Say what it waits for."""
    waits = f"{rule.named(one.value)} forms a batch as soon as a run may start"
    which = f"; missing: {', '.join(lacking[:NAMED])}" if lacking and not is_due else ""
    not_counted = f"; set aside, so not counted: {', '.join(aside)}" if aside else ""
    return f"{waits if is_due else told_wait(rule, one)}{which}{not_counted}"


def set_of(settings: Settings, ledger: Ledger, path: str, now: datetime) -> Document | None:
    """Tell of the open set of one waiting file; None if it waits for none."""
    rule = settings.batch.rule
    value = rule.value_of(path) if rule else None
    if rule is None or value is None:
        return None
    one = open_sets(rule, ledger).get(value)
    return _one(rule, ledger, one, _set_aside(rule, ledger).get(value, []), now) if one else None
