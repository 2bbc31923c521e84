"""What a run's inputs and its combined file look like."""

from contextlib import suppress

from ds_flow.core import Document, LedgerError, hides
from ds_flow.settings import Settings
from ds_flow.system import read_json
from ds_flow.work import profile_name

LIMIT_BYTES = 8 * 2**20  # no run writes a larger one


def profile_document(settings: Settings, run_id: str) -> Document | None:
    """The profile that a run has published; None if it has none, or if it was removed.

    Columns may have been hidden since: their values are left out here, too.
    """
    if "/" in run_id or "\0" in run_id:
        return None
    path = settings.output_dir / profile_name(run_id)
    with suppress(OSError, LedgerError, TypeError, KeyError, AttributeError):
        found: Document = read_json(path, LIMIT_BYTES)
        for table in filter(None, [found["combined"], *found["inputs"]]):
            _hide(table, settings.privacy.hide_columns)
        return found
    return None


def _hide(table: Document, hidden: tuple[str, ...]) -> None:
    for number, column in enumerate(table["columns"]):
        if not column["hidden"] and hides(hidden, column["name"]):
            column.update(hidden=True, smallest=None, largest=None)
            for row in table["first_rows"]:
                row[number] = None
