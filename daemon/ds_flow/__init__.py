"""Watch a directory, batch what arrives, run it through Metaflow, record the outcome."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where flows/, bash/ and config/ are."""
