"""Deliveries, as people are told of them: of one run, and what is in the way."""

import os
from collections.abc import Iterator

from ds_flow.core import DeliveryState, Document, counted, for_event
from ds_flow.ledger import FAILING, DeliveryRow
from ds_flow.settings import Settings
from ds_flow.system import mask
from ds_flow.views.look import Look
from ds_flow.views.problem import Problem
from ds_flow.work import delivery_log

COMMAND_CHARACTERS = 100


def delivery_document(settings: Settings, row: DeliveryRow) -> Document:
    """The hand-over of one run to one command."""
    is_waiting = row.state == DeliveryState.WAITING
    log = delivery_log(settings.log_dir, row.run_id, row.command)
    return {
        "command": [mask(word, settings.secrets) for word in row.words],
        "state": row.state,
        "failures": row.attempts,
        "next_try_at": row.due_at if is_waiting else None,
        "ended_at": row.ended_at,
        "reason": row.reason,
        "log": os.path.relpath(log, settings.root) if log.exists() else None,
    }


def command_text(settings: Settings, row: DeliveryRow) -> str:
    """A command in few words, for a sentence."""
    text = mask(" ".join(row.words), settings.secrets)
    return f"{text[:COMMAND_CHARACTERS]}…" if len(text) > COMMAND_CHARACTERS else text


def not_handed_over(settings: Settings, row: DeliveryRow, waiting: int) -> str:
    """Say that a run could not be handed over, and what waits behind it."""
    text = f"run {row.run_id} to {command_text(settings, row)}: {row.reason}"
    behind = f" ({counted(waiting - 1, 'later run')} behind it)" if waiting > 1 else ""
    return f"{text}{behind}"


def deliveries(look: Look) -> Iterator[Problem]:
    """Name the commands that do not take a run, again and again."""
    for row, waiting in look.ledger.deliveries.firsts():
        if row.attempts >= FAILING:
            remedy = for_event("delivery.failing", batch=row.batch, run_id=row.run_id)
            yield Problem(
                kind="delivery",
                text=f"not handed over: {not_handed_over(look.settings, row, waiting)}",
                remedy=f"{remedy.text}; `ds-flow deliver --skip {row.run_id}` gives it up",
                command=remedy.command,
            )
