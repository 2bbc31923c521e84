"""Read YAML, `.env` and the environment into one tree, and note where each key was set."""

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dotenv.parser import Binding, parse_stream

from ds_flow.core import SettingsError

PREFIX = "DS_FLOW_"
NO_SETTINGS = frozenset(
    PREFIX + name for name in ("CONFIG", "ATTEMPT", "JOB", "REQUIRE", "MASK", "GIVEN", "RUN_ID")
)
"""Names that begin like settings but are not."""

Loc = tuple[str, ...]
"""The path to a value in the tree: keys, and positions in lists, as text."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was set: a line of the settings file, or a variable."""

    place: str
    variable: str = ""

    def __str__(self) -> str:
        return f"{self.place} {self.variable}".rstrip()


@dataclass(slots=True)
class Given:
    """The settings before validation: parsed values, and one line for each fault so far."""

    values: dict[str, Any]
    origins: dict[Loc, Origin]
    dotenv: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def origin(self, loc: Loc) -> Origin:
        """Return the origin of a value, or of the nearest mapping around it."""
        known = (self.origins.get(loc[:depth]) for depth in range(len(loc), -1, -1))
        return next(origin for origin in known if origin)


def read(file: Path, root: Path, environ: Mapping[str, str], *, needs_dotenv: bool = True) -> Given:
    """Read all sources. The environment overrides `.env`, and `.env` overrides YAML.

    Without `needs_dotenv`, a `.env` that this user may not read is passed over.

    Raises:
        SettingsError: the settings file is missing, or is not a YAML mapping.

    """
    given = _read_yaml(file)
    dotenv = root / ".env"
    if needs_dotenv or os.access(dotenv, os.R_OK):
        _read_dotenv(given, dotenv)
    _override(given, ".env", given.dotenv)
    _override(given, "environment", environ)
    return given


# --------------------------------------------------------------------------- YAML


LEFT_AS_TEXT = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp")}
"""Implicit tags that are not used. Validation gives these values their type, as for variables.

So a number means the same in YAML and in `.env`, and a project may be named `no`.
"""


UNQUOTED = "while scanning for the next token"
"""What the parser was at when it met text that YAML wants in quotes, such as `@daily`."""


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads numbers, `no` and dates as text, and names bad values' lines."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in the base class
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, text) for tag, text in known if tag not in LEFT_AS_TEXT]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(file: Path) -> Given:
    text = _read_text(file, "no such settings file; name one with --config or DS_FLOW_CONFIG")
    try:
        given = _parse(file, text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        advice = "; put the text in quotes" if error.context == UNQUOTED else ""
        raise SettingsError(f"{file}:{line}: {error.problem or error.context}{advice}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SettingsError(f"{file}:{line}: contains a character that YAML forbids") from error
    except RecursionError as error:
        raise SettingsError(f"{file}:1: nested too deeply") from error
    return given


def _read_text(file: Path, missing: str) -> str:
    try:
        raw = file.read_bytes()
    except FileNotFoundError as error:
        raise SettingsError(f"{file}: {missing}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{file}: not readable: {reason}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: not UTF-8 text") from error


def _parse(file: Path, text: str) -> Given:
    loader = _Loader(text)
    node = loader.get_single_node()
    given = Given({}, {(): Origin(f"{file}:1")})
    if node is None:
        return given
    if not isinstance(node, yaml.MappingNode):
        raise yaml.MarkedYAMLError(
            problem="should be a mapping of settings", problem_mark=node.start_mark
        )
    _note_lines(given, file, node)
    given.values = loader.construct_document(node)
    return given


def _note_lines(given: Given, file: Path, root: yaml.Node) -> None:
    """Note the line of every key. A key that is set twice is a fault."""
    pending: list[tuple[Loc, yaml.Node]] = [((), root)]
    seen: set[int] = set()
    while pending:
        loc, node = pending.pop()
        for child, line, value in _children(loc, node) if id(node) not in seen else ():
            origin = Origin(f"{file}:{line}")
            first = given.origins.setdefault(child, origin)
            if first is not origin:
                given.faults.append(f"{origin}: {dotted(child)}: set twice, first at {first}")
            pending.append((child, value))
        seen.add(id(node))


def _children(loc: Loc, node: yaml.Node) -> Iterator[tuple[Loc, int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                yield (*loc, key.value), key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*loc, str(position)), value.start_mark.line + 1, value


def dotted(loc: Loc) -> str:
    """Write a path in the tree with dots: `compute.stages.analyze.command.0`."""
    return ".".join(loc)


# --------------------------------------------------------------------------- .env


def _read_dotenv(given: Given, file: Path) -> None:
    if not file.exists():
        return
    try:
        text = _read_text(file, "no such file")
    except SettingsError as error:
        given.faults.append(str(error))
        return
    for binding in parse_stream(io.StringIO(text)):
        _note_binding(given, file, binding)


def _note_binding(given: Given, file: Path, binding: Binding) -> None:
    """Take one variable without interpolation. A bare name sets nothing."""
    where = f"{file}:{binding.original.line}"
    if binding.error:
        given.faults.append(f"{where}: not NAME=value")
    elif "\0" in f"{binding.key}{binding.value}":
        given.faults.append(f"{where}: contains a NUL character")
    elif binding.key is not None and binding.value is not None:
        given.dotenv[binding.key] = binding.value


# --------------------------------------------------------------------------- variables


def _override(given: Given, place: str, variables: Mapping[str, str]) -> None:
    """Override the tree with DS_FLOW_ variables, each section before its keys."""
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in NO_SETTINGS:
            loc = tuple(name.removeprefix(PREFIX).lower().split("__"))
            _put(given, loc, _typed(variables[name]), Origin(place, name))


def _typed(text: str) -> Any:
    """Parse a YAML list or mapping. Other text stays text; validation gives it its type."""
    if text[:1] not in {"[", "{"}:
        return text
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader # nosec B506
    except (yaml.YAMLError, RecursionError):
        return text  # such as the pattern `[ab]*.csv`


def _put(given: Given, loc: Loc, value: Any, origin: Origin) -> None:
    """Put a value into the tree. Mappings are merged; below a scalar or a list, nothing is put."""
    parent = given.values
    for depth, part in enumerate(loc[:-1], 1):
        if parent.get(part) is None:
            parent[part] = {}
            given.origins.setdefault(loc[:depth], origin)
        if not isinstance(parent[part], dict):
            return
        parent = parent[part]
    if isinstance(value, dict) and isinstance(parent.get(loc[-1], {}), dict):
        parent.setdefault(loc[-1], {})
        given.origins.setdefault(loc, origin)
        for key, inner in value.items():
            _put(given, (*loc, str(key)), inner, origin)
    else:
        parent[loc[-1]] = value
        _forget(given.origins, loc)
        given.origins[loc] = origin


def _forget(origins: dict[Loc, Origin], loc: Loc) -> None:
    for inner in [known for known in origins if known[: len(loc)] == loc]:
        del origins[inner]
