"""What import-linter cannot hold: what flows, which are scripts, import, and who tests a module."""

import ast
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT

# The daemon's upper packages hold the ledger and the processes; a flow leaves files.
ALLOWED = {"core", "settings", "system", "work", "dispatch", "inbox", "reports"}


@pytest.mark.parametrize("flow", sorted(CHECKOUT.glob("flows/**/*.py")), ids=lambda path: path.name)
def test_a_flow_imports_only_the_public_names_of_lower_packages(flow: Path) -> None:
    found = [
        node.module
        for node in ast.walk(ast.parse(flow.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ds_flow")
    ]
    assert set(found) <= {f"ds_flow.{package}" for package in ALLOWED}


MODULES = sorted(
    path.relative_to(root).with_suffix("").as_posix()
    for root in (CHECKOUT / "daemon" / "ds_flow", CHECKOUT / "flows")
    for path in root.rglob("*.py")
    if path.stem != "__init__"
)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_test_file_or_a_row_that_says_which_one_to_extend(module: str) -> None:
    tests = CHECKOUT / "tests"
    package, _, name = module.rpartition("/")
    rows = (tests / "README.md").read_text(encoding="utf-8")
    is_named = f"`{module}`" in rows or f"`{package}/*`" in rows
    assert is_named or list(tests.glob(f"*/test_{name}.py"))
