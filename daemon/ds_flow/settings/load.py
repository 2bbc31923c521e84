"""Load YAML, `.env` and the environment into one frozen Settings; report all faults at once."""

import difflib
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ds_flow.core import CHECKOUT, SettingsError
from ds_flow.settings import rules
from ds_flow.settings.resolved import SECRETS, TAG_VARIABLE, Settings, effective, sections_of
from ds_flow.settings.schema import RENAMED, Keys
from ds_flow.settings.sources import PREFIX, Given, Loc, Origin, dotted, read

__all__ = ["Settings", "effective", "find_settings", "load_settings", "settings_schema"]

INSTALLED_NAME = "ds_flow_home"
"""The folder that a wheel puts in place of a checkout; pyproject.toml names it."""


def find_settings(config: str | None, environ: Mapping[str, str]) -> Path:
    """Return the settings file: `config`, else $DS_FLOW_CONFIG, else the checkout's own.

    Raises SettingsError if none is named and ds-flow was installed from a wheel: it has none.
    """
    name = config or environ.get("DS_FLOW_CONFIG")
    if not name and CHECKOUT.name == INSTALLED_NAME:
        raise SettingsError(
            "no project is named: give --config FILE, or set DS_FLOW_CONFIG;"
            " `ds-flow init DIR` makes a new project"
        )
    return Path(name) if name else CHECKOUT / "config" / "settings.yaml"


def load_settings(
    file: Path, environ: Mapping[str, str], *, to_work: bool = True, needs_dotenv: bool = True
) -> Settings:
    """Load the settings of the project that holds `file`.

    With `to_work`, the programs of the backends must be on PATH. Commands that only read pass
    False. Without `needs_dotenv`, a `.env` that this user may not read is passed over.

    Raises:
        SettingsError: one line for each fault, with its file and line, or its variable.

    """
    # Not resolved: a settings file that is a link belongs to the folder that holds the link.
    root = Path(os.path.abspath(file)).parent.parent.resolve()  # noqa: PTH100
    given = read(file, root, environ, needs_dotenv=needs_dotenv)
    keys, faults = _validate(given)
    faults += _tag_faults(given, environ)
    settings = _resolve(keys, file, root, given, environ) if keys else None
    path = environ.get("PATH", os.defpath) if to_work else None
    if settings:
        faults += [_line(given, loc, text) for loc, text in rules.broken(settings, path)]
    if faults or settings is None:
        raise SettingsError("\n".join(dict.fromkeys(faults)))
    return settings


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Keys.model_json_schema(),
        "title": "ds-flow settings",
    }


def _resolve(
    keys: Keys, file: Path, root: Path, given: Given, environ: Mapping[str, str]
) -> Settings:
    sections = sections_of(keys)
    return Settings(
        file=file,
        root=root,
        **sections,
        tag=_tag(given, environ)[1],
        dotenv={name: environ.get(name, value) for name, value in given.dotenv.items()},
        origins=given.origins,
    )


def _tag(given: Given, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return PROCESS_TAG and the place that sets it."""
    place, variables = (
        ("environment", environ) if TAG_VARIABLE in environ else (".env", given.dotenv)
    )
    return place, variables.get(TAG_VARIABLE, "")


def _tag_faults(given: Given, environ: Mapping[str, str]) -> list[str]:
    place, tag = _tag(given, environ)
    if tag.isascii() or tag == tag.encode(errors="replace").decode():
        return []
    return [f"{place}: {TAG_VARIABLE}: not UTF-8 text"]


# --------------------------------------------------------------------------- faults


def _validate(given: Given) -> tuple[Keys | None, list[str]]:
    """Validate the tree. Faulty values are dropped, so that `rules` can check the rest."""
    given.values.setdefault("paths", {})  # so that the message names each required key in it
    try:
        return Keys.model_validate(given.values), [*given.faults]
    except ValidationError as error:
        errors = [(tuple(map(str, one["loc"])), one) for one in error.errors(include_url=False)]
    faults = [*given.faults, *(_line(given, loc, _text(given, loc, one)) for loc, one in errors)]
    for loc, _ in errors:
        _drop(given.values, loc)
    try:
        return Keys.model_validate(given.values), faults
    except ValidationError:
        return None, faults


def _drop(values: dict[str, Any], loc: Loc) -> None:
    """Drop the setting at `loc`, or the nearest one around it."""
    name, *inner = loc
    if inner and isinstance(values.get(name), dict):
        _drop(values[name], tuple(inner))
    else:
        values.pop(name, None)


def _line(given: Given, loc: Loc, text: str) -> str:
    origin = given.origin(loc)
    return f"{origin.place}: {origin.variable or dotted(loc)}: {text}"


WHOLE, NUMBER, TRUTH = "should be a whole number", "should be a number", "should be true or false"
SHOULD_BE = {
    "model_type": "should be a mapping of settings",
    "model_attributes_type": "should be a mapping of settings",
    "tuple_type": "should be a list",
    "string_type": "should be text; put it in quotes",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), TRUTH),
}
"""What pydantic says by these words, for people."""


def _text(given: Given, loc: Loc, fault: ErrorDetails) -> str:
    match fault["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "unknown setting" + _suggestion(loc, given.origin(loc))
        case "value_error":
            text = str(fault["ctx"]["error"])
        case _:
            text = SHOULD_BE.get(fault["type"]) or fault["msg"].removeprefix("Input ")
    found = None if loc in SECRETS else fault["input"]
    is_shown = isinstance(found, str | float | int) and not _is_endless(found)
    return f"{text} (it is {reprlib.repr(found)})" if is_shown else text


def _is_endless(found: object) -> bool:
    """Whether it is a number that Python refuses to print."""
    return isinstance(found, int) and found.bit_length() > 10_000  # noqa: PLR2004 - the limit is near 14,000


def _suggestion(loc: Loc, origin: Origin) -> str:
    if new := RENAMED.get(dotted(loc)):
        return f"; it is now {_as_given(new, origin)}"
    names = {name: name.rpartition(".")[2] for name in _names(Keys)}
    last = difflib.get_close_matches(loc[-1], names.values(), n=1)
    alike = [name for name in names if names[name] in last]
    near = difflib.get_close_matches(dotted(loc), alike, n=1, cutoff=0)
    return f"; did you mean {_as_given(near[0], origin)}?" if near else ""


def _as_given(name: str, origin: Origin) -> str:
    """Write a setting's name in the form that the person used: a key, or a variable."""
    return PREFIX + name.replace(".", "__").upper() if origin.variable else name


def _names(section: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, key in section.model_fields.items():
        yield f"{before}{key.alias or name}"
        if isinstance(key.annotation, type) and issubclass(key.annotation, BaseModel):
            yield from _names(key.annotation, f"{before}{name}.")
