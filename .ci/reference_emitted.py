"""reference_emitted.py: what ds-flow emits while it runs, found in its code and its output."""

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from reference_table import code, table

from ds_flow.core.states import BatchState, FileState, FireOutcome, RunState
from ds_flow.upkeep.alert_text import SAID

SOURCES = Path(__file__).resolve().parent.parent / "daemon/ds_flow"
STATES = {"file": FileState, "batch": BatchState, "run": RunState, "schedule": FireOutcome}
KIND = re.compile(r"[a-z]+\.[a-z_]+")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


def events() -> Iterator[str]:
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        for where, text in written(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(text, set()).add(where)
    yield (
        "Each has one word, the same in the log and in the ledger. INFO is for moves. WARNING means"
        " that ds-flow tries again. ERROR means that somebody must act. `ledger` means that"
        " `ds-flow explain` and the page tell it, too. With a text in the last column, it is also"
        " an [alert](../how-to/alerts.md)."
    )
    kinds = sorted(found.keys() | SAID.keys())
    yield table(
        ("event", "written to", "alert"),
        ((code(one), ", ".join(sorted(found.get(one, ()))), SAID.get(one, "")) for one in kinds),
    )


def written(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Where a kind of event is written, and the kind: by a call of a logger, or of `note`."""
    names = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Attribute):
            continue
        verb = call.func.attr
        if verb in LEVELS and ast.unparse(call.func.value) in {"log", "_log", "logging"}:
            yield from ((verb.upper(), text) for text in kinds_of(call.args[:1], names))
        elif verb == "note":
            yield from (("ledger", text) for text in kinds_of(call.args, names))


def kinds_of(given: Iterable[ast.expr], names: Mapping[str, str]) -> Iterator[str]:
    for one in given:
        if isinstance(one, ast.Name) and KIND.fullmatch(names.get(one.id, "")):
            yield names[one.id]
        elif isinstance(one, ast.Constant) and KIND.fullmatch(str(one.value)):
            yield str(one.value)
        elif isinstance(one, ast.JoinedStr) and isinstance(one.values[0], ast.Constant):
            thing = str(one.values[0].value).removesuffix(".")
            yield from (f"{thing}.{state.value}" for state in STATES.get(thing, ()))


# --------------------------------------------------------------------------- metrics


def metrics() -> Iterator[str]:
    yield (
        "What `ds-flow metrics` prints, and the page under `/metrics`. Each sample has the label\n"
        "`project`. [Metrics](../metrics.md) says how to scrape, and what to be warned of."
    )
    with tempfile.TemporaryDirectory(prefix="ds-flow-reference-") as made:
        config = Path(made) / "config/settings.yaml"
        (Path(made) / "data").mkdir()
        config.parent.mkdir()
        config.write_text(
            "project_name: x\npaths: {input_pattern: data/student_*.csv, output_dir: out,"
            " log_dir: log}\n",
            encoding="utf-8",
        )
        ds_flow = Path(sys.executable).with_name("ds-flow")
        done = subprocess.run(
            [ds_flow, "--config", config, "metrics"], capture_output=True, text=True, check=True
        )
    texts: dict[str, str] = {}
    types: dict[str, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith("# "):
            _, what, name, text = line.split(" ", 3)
            (texts if what == "HELP" else types)[name] = text
    rows = ((code(name), types[name], text) for name, text in texts.items())
    yield table(("metric", "type", "meaning"), rows)
