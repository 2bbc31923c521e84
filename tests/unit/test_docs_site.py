"""What the gate of the documentation's site would let through, and what not."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from ds_flow.cli.main import COMMANDS
from ds_flow.core.program import CHECKOUT
from ds_flow.upkeep.alert_text import SAID


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", CHECKOUT / f".ci/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    return program("docs")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return program("reference")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<img src="//cdn.example/x.png">'),
        ("a.html", '<link rel="stylesheet" href="https://fonts.example/css">'),
        ("a.html", '<link rel="preconnect" href="https://fonts.example">'),
        ("a.css", '@import "https://fonts.example/css";'),
        ("a.css", "@font-face { src: url('https://fonts.example/x.woff2') }"),
    ],
)
def test_a_page_that_asks_another_host_is_found(
    docs: ModuleType, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    assert len(list(docs.faults(tmp_path))) == 1


def test_a_link_for_people_is_listed_and_is_no_fault(docs: ModuleType, tmp_path: Path) -> None:
    page = '<a href="https://example.org/">there</a><script src="_static/x.js"></script>'
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "a.css").write_text("a { background: url(data:image/png;base64,AA) }")
    assert not list(docs.faults(tmp_path))
    assert docs.links(tmp_path) == ["https://example.org/"]


def test_every_page_is_in_the_navigation() -> None:
    index = CHECKOUT / "docs/index.md"
    listed = {
        (index.parent / target).resolve()
        for target in re.findall(r"^- \[[^\]]+\]\(([^)#:]+\.md)\)", index.read_text(), re.MULTILINE)
    }
    pages = {path for path in (CHECKOUT / "docs").rglob("*.md") if path.parent.name != "decisions"}
    assert pages - {index} <= listed


def test_the_reference_is_in_step_with_the_code(reference: ModuleType) -> None:
    reference.main(["--check"])


@pytest.mark.exhaustive
def test_a_reference_that_is_not_in_step_is_named(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs/reference").mkdir(parents=True)
    monkeypatch.setattr(reference, "CHECKOUT", tmp_path)
    monkeypatch.setattr(reference, "PAGES", tmp_path / "docs/reference")
    with pytest.raises(SystemExit, match=r"docs/reference/settings\.md.*run make reference"):
        reference.main(["--check"])
    reference.main([])
    reference.main(["--check"])


@pytest.mark.exhaustive
def test_the_reference_has_every_command_setting_and_alert(reference: ModuleType) -> None:
    for name in COMMANDS:
        assert f"## ds-flow {name}\n" in reference.page("commands")
    for key in ("paths.input_pattern", "compute.lsf.max_array", "alerts.email.host"):
        assert f"| `{key}` |" in reference.page("settings")
    for event in (*SAID, "run.succeeded", "file.waiting"):
        assert f"| `{event}` |" in reference.page("events")
