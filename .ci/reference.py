"""reference.py: write docs/reference/ from the code. With --check, say what is not in step."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from reference_emitted import events, metrics
from reference_table import code, table

from ds_flow.cli.arguments import UsageError
from ds_flow.cli.commands.status import NEEDS_PERSON, NO_DAEMON
from ds_flow.cli.main import CLOSED, COMMANDS, parser
from ds_flow.cli.schemas import DOCUMENTS, SCHEMA, schema_of
from ds_flow.core import LedgerError, SettingsError
from ds_flow.settings import settings_schema
from ds_flow.system import DONE, FAILED, INTERRUPTED

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = CHECKOUT / "docs/reference"
SOURCES = CHECKOUT / "daemon/ds_flow"
WRITTEN = "Written from the code by `make reference`. Do not change it by hand."
WIDTH = 100


# --------------------------------------------------------------------------- settings


def settings() -> Iterator[str]:
    schema = settings_schema()
    yield (
        "Every key of `config/settings.yaml`, which has a longer comment for each.\n"
        "[Change settings](../how-to/settings.md) says how they are read."
    )
    sections: dict[str, list[tuple[str, dict[str, Any], bool]]] = {}
    for key, one, is_required in keys(schema, schema, ""):
        section = key.partition(".")[0] if "." in key else "top level"
        sections.setdefault(section, []).append((key, one, is_required))
    for section, found in sections.items():
        yield f"## {section}"
        yield table(
            ("key", "type", "default", "meaning"),
            (
                (
                    code(key),
                    kind(one),
                    "required" if must else code(json.dumps(one.get("default"))),
                    one.get("description", ""),
                )
                for key, one, must in found
            ),
        )


def keys(
    schema: dict[str, Any], node: dict[str, Any], prefix: str
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each key with its schema, in the order of the code. Sections are gone into."""
    for name, said in node.get("properties", {}).items():
        one = resolved(schema, said)
        if "properties" in one:
            yield from keys(schema, one, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", one, name in node.get("required", ())


def resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref", "")
    target = schema["$defs"][reference.rpartition("/")[2]] if reference else {}
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def kind(one: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "enum" in one:
        return ", ".join(code(choice) for choice in one["enum"])
    if "anyOf" in one:
        return " or ".join(kind(choice) for choice in one["anyOf"])
    if "$ref" in one:
        return str(one["$ref"]).rpartition("/")[2]
    named = one.get("type", "")
    name = " or ".join(named) if isinstance(named, list) else str(named)
    limits = [
        f"{word} {one[key]:g}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "over"),
            ("maximum", "to"),
            ("exclusiveMaximum", "under"),
        )
        if key in one
    ]
    of = f" of {kind(one['items'])}" if one.get("items") else ""
    return " ".join([f"{name}{of}", *limits])


# --------------------------------------------------------------------------- commands


def commands() -> Iterator[str]:
    yield (
        "[Daily use](../how-to/daily.md) has them by question. Each command also has `--help` and\n"
        "`--config FILE`."
    )
    for name, sub in subparsers().items():
        yield f"## ds-flow {name}"
        yield f"{sentence(sub.description or COMMANDS[name].HELP)}"
        if rows := list(arguments(sub)):
            yield table(("argument", "meaning"), rows)


def subparsers() -> dict[str, argparse.ArgumentParser]:
    for action in parser()._actions:  # noqa: SLF001 - argparse has no other way to read itself
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return {name: action.choices[name] for name in COMMANDS}
    raise SystemExit("reference: the parser has no commands")


def arguments(sub: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in sub._actions:  # noqa: SLF001
        if action.dest in {"help", "config"} or action.help == argparse.SUPPRESS:
            continue
        value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        choices = f" {{{', '.join(map(str, action.choices))}}}" if action.choices else ""
        named = ", ".join(action.option_strings) or str(value)
        shown = f"{named} {value}".strip() if action.option_strings else named
        yield code(shown + (choices if not action.metavar else "")), action.help or ""


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


# --------------------------------------------------------------------------- exit codes

MEANINGS = {
    DONE: "done",
    FAILED: "something failed (an analysis, too), was quarantined or is held back",
    UsageError.exit_code: "wrong usage: the message says what is right",
    NEEDS_PERSON: "only of `ds-flow status --check`: something needs a person",
    NO_DAEMON: "only of `ds-flow status --check`: no daemon is running",
    LedgerError.exit_code: "broken ledger, or a bug",
    SettingsError.exit_code: (
        "settings or machine: you must change something; also root in a project of another user,"
        " and `ds-flow check` found a fault, such as a cluster or engine that is down"
    ),
    INTERRUPTED: "interrupted",
    CLOSED: "the reader of the output went away (as with `head`)",
}


def exit_codes() -> Iterator[str]:
    yield "The same for every command. They never change their meaning."
    yield table(("exit code", "meaning"), ((str(one), text) for one, text in MEANINGS.items()))
    yield "A job's exit code is another thing. `ds-flow show RUN` has it, with its reason."


# --------------------------------------------------------------------------- JSON documents


def documents() -> Iterator[str]:
    api = json.loads((SOURCES / "web/openapi.json").read_text(encoding="utf-8"))
    yield (
        "What commands print with `--json`. Each document names itself: `document` is the\n"
        f"command, `schema` the number of its schema, {SCHEMA}. Keys may be added under a number.\n"
        "A key that changes its meaning, or goes, gets a new one. `ds-flow check --schema NAME`\n"
        "prints a schema as JSON."
    )
    for name in DOCUMENTS:
        yield f"## ds-flow {name}"
        yield "\n".join(shape(keys_of(name)))
    yield "## Every other command"
    yield "What it does has no answer of its own. With `--json` it prints:"
    yield "\n".join(shape(keys_of("action")))
    yield "## An error"
    yield "\n".join(shape(keys_of("error")))
    yield "## What the page serves"
    yield (
        "[The page](../web.md) serves the same documents under `/api/`, without `document` and\n"
        "`schema`. Their schemas are at `/api/openapi`, and in `daemon/ds_flow/web/openapi.json`."
    )
    served = []
    for address, verbs in api["paths"].items():
        answer = verbs["get"]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"]
        served.append((code(address), answer["description"], link(schema)))
    yield table(("address", "command", "document"), served)
    for name, schema in api["components"]["schemas"].items():
        yield f"## {name}"
        if said := schema.get("description"):
            yield said
        yield "\n".join(shape(schema))


def keys_of(name: str) -> Mapping[str, Any]:
    """The schema of a command's document without the two keys that all have."""
    schema = schema_of(name)
    own = {key: one for key, one in schema["properties"].items() if "const" not in one}
    own.pop("document", None)
    return {**schema, "properties": own}


def link(schema: Mapping[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"[{name}](#{name.lower()})" if name else ""


def shape(schema: Mapping[str, Any]) -> Iterator[str]:
    parts = [schema, *schema.get("allOf", ())]
    for based in parts:
        if "$ref" in based:
            yield f"All keys of {link(based)}, and these:\n"
    properties = {key: one for part in parts for key, one in part.get("properties", {}).items()}
    if not properties:
        yield f"{sentence(kind(schema))}"
        return
    needed = {key for part in parts for key in part.get("required", ())}
    rows = (
        (code(key), kind(one), "yes" if key in needed else "", one.get("description", ""))
        for key, one in properties.items()
    )
    yield table(("key", "type", "always", "meaning"), rows)


# --------------------------------------------------------------------------- the manifest


def manifest() -> Iterator[str]:
    text = (SOURCES / "core/manifest.schema.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    yield schema["description"].replace("<", "`<", 1).replace(">", ">`", 1)
    yield "The schema as JSON: `ds-flow check --schema manifest`."
    yield from nested("Manifest", schema)


def nested(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The table of an object, and then those of the objects in it."""
    yield f"## {title}"
    yield "\n".join(shape(schema))
    for key, one in schema.get("properties", {}).items():
        inner = one.get("items", one)
        if inner.get("properties"):
            yield from nested(key, inner)


# --------------------------------------------------------------------------- all of it


REFERENCE: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "settings": ("Settings", settings),
    "commands": ("Commands", commands),
    "exit-codes": ("Exit codes", exit_codes),
    "json": ("JSON documents", documents),
    "manifest": ("The manifest", manifest),
    "events": ("Events", events),
    "metrics": ("All metrics", metrics),
}


def page(name: str) -> str:
    title, parts = REFERENCE[name]
    return "\n\n".join([f"# {title}", WRITTEN, *map(wrapped, parts())]) + "\n"


def wrapped(part: str) -> str:
    return (
        part
        if part.startswith(("|", "#")) or "\n|" in part
        else fill(part, WIDTH, break_on_hyphens=False, break_long_words=False)
    )


def main(words: Sequence[str]) -> None:
    stale = []
    for name in REFERENCE:
        path, text = PAGES / f"{name}.md", page(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(CHECKOUT)))
            if words != ["--check"]:
                path.write_text(text, encoding="utf-8")
    if words == ["--check"] and stale:
        sys.exit(f"not in step with the code: {', '.join(stale)}; run make reference")


if __name__ == "__main__":
    main(sys.argv[1:])
