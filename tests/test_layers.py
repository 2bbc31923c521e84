"""What import-linter cannot hold, since flows are scripts and no package: what they may import."""

import ast
from pathlib import Path

import pytest

from ds_flow import CHECKOUT

# The daemon's upper layers hold the ledger and the processes; a flow leaves files.
ALLOWED = {
    *("errors", "environment", "model", "names", "plan", "manifest", "settings", "scan", "logs"),
    *("durable", "datastore", "links", "locks", "results", "workdir", "dispatch", "publish"),
}


@pytest.mark.parametrize("flow", sorted(CHECKOUT.glob("flows/*.py")), ids=lambda path: path.name)
def test_a_flow_imports_only_the_lower_layers(flow: Path) -> None:
    found = [
        node for node in ast.walk(ast.parse(flow.read_text())) if isinstance(node, ast.ImportFrom)
    ]
    modules = {
        (node.module or "").split(".")[1]
        for node in found
        if (node.module or "").startswith("ds_flow.")
    }
    modules |= {name.name for node in found if node.module == "ds_flow" for name in node.names}
    assert modules - {"CHECKOUT"} <= ALLOWED
