"""How far each recipient of runs has come in the events of the ledger, which is the spool."""

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from ds_flow.core import BatchError, Document
from ds_flow.ledger import Ledger
from ds_flow.system import read_json, write_bytes

FIRST = timedelta(days=1)  # a recipient that is new gets the events since then


@dataclass(frozen=True, slots=True)
class Positions:
    """A file with the last event that each recipient got, by its name."""

    file: Path

    def last(self, ledger: Ledger, name: str, address: str, now: datetime) -> int:
        """The last event that a recipient got. One at another address gets the newest ones again.

        In a ledger that was rebuilt, the ids begin anew. Of the address there is only a hash: it
        may hold a secret. A file without one is of an older version.
        """
        kept, whose = self.kept(), f"{name}.address"
        key = sha256(os.fsencode(address)).hexdigest()[:16]
        found = kept.get(name)
        places = [ledger.lineage.last_run_event(), *([found] if isinstance(found, int) else [])]
        if len(places) == 1 or kept.get(whose, key) != key:
            places.append(ledger.lineage.events_before(now - FIRST))
        at = min(places)
        if at != found:
            self.keep(name, at)  # now: a recipient may be away for longer than it is new
        if kept.get(whose) != key:
            self.keep(whose, key)
        return at

    def kept(self) -> Document:
        """Everything in the file."""
        try:
            found = read_json(self.file)
        except (BatchError, OSError):  # not there yet, or torn by a power loss
            return {}
        return found if isinstance(found, dict) else {}

    def keep(self, name: str, at: object) -> None:
        """Note how far a recipient has come, or something else that is to be known of it."""
        content = json.dumps({**self.kept(), name: at})
        write_bytes(self.file, content.encode(), is_durable=False)
