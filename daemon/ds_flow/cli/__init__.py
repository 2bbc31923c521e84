"""The command line."""

from ds_flow.cli.main import main

__all__ = ["main"]
