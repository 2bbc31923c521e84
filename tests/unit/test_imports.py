"""What import-linter cannot hold, since flows are scripts and no package: what they may import."""

import ast
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT

# The daemon's upper packages hold the ledger and the processes; a flow leaves files.
ALLOWED = {"core", "settings", "system", "work", "dispatch", "inbox"}


@pytest.mark.parametrize("flow", sorted(CHECKOUT.glob("flows/**/*.py")), ids=lambda path: path.name)
def test_a_flow_imports_only_the_public_names_of_lower_packages(flow: Path) -> None:
    found = [
        node.module
        for node in ast.walk(ast.parse(flow.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ds_flow")
    ]
    assert set(found) <= {f"ds_flow.{package}" for package in ALLOWED}
