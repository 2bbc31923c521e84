"""A failed step leaves its reason for the daemon."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ds_flow.core import DispatchError, DsFlowError, NoRoomError, UnfitError, is_no_room
from ds_flow.system import masked, refusal, store_folder, write_word
from ds_flow.work import NO_ROOM, UNFIT, Batch


@contextmanager
def recorded(batch: Batch) -> Iterator[None]:
    """Write the reason of a failure to the attempt's `error` file, where the daemon reads it.

    Whoever starts this may log the traceback. One that holds a secret is dropped.
    """
    try:
        yield
    except Exception as raised:
        full = "" if is_no_room(raised) else _full_disk(batch)
        error = NoRoomError(f"no room on a disk: {full}: {raised}") if full else raised
        text = str(error) if isinstance(error, DsFlowError) else f"{type(error).__name__}: {error}"
        reason = masked(text, os.environ)
        attempt = batch.marked_attempt()
        if attempt is not None:
            _leave(batch, batch.attempt_dir(attempt), error, reason)
        trace = "".join(traceback.format_exception(error))
        if masked(trace, os.environ) != trace:
            raise DispatchError(reason) from None
        raise


@contextmanager
def of_step(batch: Batch) -> Iterator[None]:
    """Record a failure of a step, and let Metaflow log it in a few lines.

    Of an error that ds-flow explains, that is the reason. Of any other one, the traceback from the
    step on. Metaflow adds 65 lines of its own to what is no exception of its kind.
    """
    try:
        with recorded(batch):
            yield
    except Exception as error:  # noqa: BLE001 - whatever it is, a step has failed
        from metaflow.exception import MetaflowException  # which only steps have imported

        trace = error.__traceback__ and error.__traceback__.tb_next  # without this very frame
        text = (
            str(error)
            if isinstance(error, DsFlowError)
            else "".join(traceback.format_exception(type(error), error, trace)).rstrip()
        )
        failed = MetaflowException(masked(text, os.environ))
        failed.headline = "Step failed"
        raise failed from None


def _leave(batch: Batch, folder: Path, error: Exception, reason: str) -> None:
    """Write the reason, and a mark if a disk is full. On a full disk neither may succeed.

    The mark holds how many bytes must be free, if that was measured. Another mark tells, once, of
    code that cannot be loaded: whoever begins later tries to load it first.
    """
    with suppress(OSError):
        if isinstance(error, UnfitError) and not batch.was_unfit():
            (folder / UNFIT).touch()
        if is_no_room(error):
            (folder / NO_ROOM).touch()
            if needed := getattr(error, "needed_bytes", 0):
                write_word(folder / NO_ROOM, str(needed))
        write_word(folder / "error", reason)


def _full_disk(batch: Batch) -> str:
    """Say which of the disks that a run writes to takes nothing more; or ""."""
    with suppress(DsFlowError, OSError):
        options = batch.plan.options
        folders = (batch.folder, Path(options.log_dir), store_folder(Path(options.root)))
        return next(filter(None, map(refusal, folders)), "")
    return ""
