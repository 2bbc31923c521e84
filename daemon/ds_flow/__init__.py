"""Watch a directory, batch what arrives, run it through Metaflow, record the outcome."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where flows/, bash/ and config/ are."""

PYTHON = (sys.executable, "-P")
"""This interpreter for `-m` and `-c`; -P: the current folder, maybe the inbox, is no code."""
