"""Where this program is on disk, and the interpreter that runs it."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
"""The folder of flows/, bash/ and config/."""

PYTHON = (sys.executable, "-P")
"""This interpreter for `-m` and `-c`. With -P it imports nothing from the current folder."""
