"""YAML, `.env` and the environment as one frozen `Settings`."""

from ds_flow.settings.globs import TEMPORARY, matches, split
from ds_flow.settings.load import find_settings, load_settings, settings_schema
from ds_flow.settings.resolved import Settings, effective
from ds_flow.settings.schema import Expected, Schedule

__all__ = [
    "TEMPORARY",
    "Expected",
    "Schedule",
    "Settings",
    "effective",
    "find_settings",
    "load_settings",
    "matches",
    "settings_schema",
    "split",
]
