"""YAML, `.env` and the environment as one frozen `Settings`."""

from ds_flow.core import RECEIPTS, RECEIPTS_MARK, TEMPORARY, matches, split
from ds_flow.settings.in_force import IN_FORCE, in_force_text, restore, work_folders
from ds_flow.settings.load import find_settings, load_settings, settings_schema
from ds_flow.settings.people import Expected
from ds_flow.settings.resolved import Settings, effective
from ds_flow.settings.schema import Schedule

__all__ = [
    "IN_FORCE",
    "RECEIPTS",
    "RECEIPTS_MARK",
    "TEMPORARY",
    "Expected",
    "Schedule",
    "Settings",
    "effective",
    "find_settings",
    "in_force_text",
    "load_settings",
    "matches",
    "restore",
    "settings_schema",
    "split",
    "work_folders",
]
