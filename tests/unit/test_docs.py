"""The documents name only what exists, and stay readable in a plain terminal."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from ds_flow.cli.main import COMMANDS, parser
from ds_flow.core.program import CHECKOUT
from ds_flow.settings.resolved import SECRETS

ROOTS = (".ci", ".github", "bash", "config", "daemon", "docs", "flows", "systemd", "tests")
CHANGELOG = CHECKOUT / "CHANGELOG.md"  # tells of names of its time, in one line an entry
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "tests/*.md", ".github/**/*.md")
    for path in CHECKOUT.glob(pattern)
    if path != CHANGELOG
)
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

WIDTH = 100
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
FILE = re.compile(r"[\w.*/-]+\.(?:py|sql|sh|toml|md|service|conf|json)")
MADE_BY_RUNS = re.compile(  # or by people
    r"(?:out|log|jobs|lsf|results|attempts|committed)/|(?:manifest|profile)\w*\.json"
    r"|(?:batch|families|committed|verdict|intent|\.ended|settings\.schema)\.json|config/settings\.default"
)
WITHIN = re.compile(r"`(\w+)(?:\.(\w+))?(?:\(\))?` in\s`([\w./-]+\.py)`")
PROOF = re.compile(r"`(test_\w+)`:\s+((?:`[^`]+`(?:,\s+)?)+)")
SHOWN = re.compile(r"(?:    |\$ )(?:sudo \S+ \S+ )?(?:[\w./-]*/)?(ds-flow (?!.*[…$]).*)$")
ENDS = re.compile(r"[|&;]|\d?>")  # of a command in a shell
PART = re.compile(r"…[^…]+…?|[a-z][^…]+…")  # of a test's name


def files() -> Iterator[Path]:
    yield from CHECKOUT.iterdir()
    for root in ROOTS:
        yield from (CHECKOUT / root).rglob("*")


FILES = {str(path.relative_to(CHECKOUT)) for path in files()}
SOURCES = "\n".join(
    path.read_text() for root in ("daemon", "flows") for path in (CHECKOUT / root).rglob("*.py")
)


def names_a_file(token: str) -> bool:
    """Whether a quoted text is meant as a file or folder of the checkout."""
    root, slash, _ = token.partition("/")
    is_below_root = slash and root in ROOTS and re.fullmatch(r"[\w./-]+", token)
    return bool(is_below_root or FILE.fullmatch(token)) and not MADE_BY_RUNS.match(token)


@each_document
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    named = {token for token in QUOTED.findall(document.read_text()) if names_a_file(token)}
    missing = {
        token
        for token in named
        if not any(f"/{file}".endswith(f"/{token.rstrip('/')}") for file in FILES)
    }
    assert not missing


@each_document
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        path = (document.parent / target).resolve()
        assert path.exists(), target


@each_document
def test_every_function_and_method_that_a_document_names_is_defined(document: Path) -> None:
    for name in re.findall(r"`(?:[A-Z]\w*\.)?([a-z_]\w+)\(\)`", document.read_text()):
        assert re.search(rf"^ *def {name}\(", SOURCES, re.MULTILINE), name


@each_document
def test_a_name_stands_in_the_file_that_a_document_gives_for_it(document: Path) -> None:
    for first, second, file in WITHIN.findall(document.read_text()):
        text = (CHECKOUT / file).read_text()
        for name in filter(None, (first, second)):
            assert re.search(rf"\b{name}\b", text), f"{name} in {file}"


def test_every_claim_of_security_names_a_test_that_exists() -> None:
    text = (CHECKOUT / "SECURITY.md").read_text()
    modules = {path.stem: path.read_text() for path in CHECKOUT.glob("tests/*/test_*.py")}
    assert {token for token in QUOTED.findall(text) if token.startswith("test_")} <= modules.keys()
    proofs = [(name, part) for name, parts in PROOF.findall(text) for part in QUOTED.findall(parts)]
    parts = {token for token in QUOTED.findall(text) if PART.fullmatch(token)}
    assert not parts - {part for _, part in proofs}, "no module is named for these"
    assert proofs
    for module, part in proofs:
        name = part.strip("…").replace(" ", "_")
        assert re.search(rf"def test_\w*{name}", modules[module]), f"{module}: {part}"


def test_security_names_every_setting_that_is_secret() -> None:
    told = (CHECKOUT / "SECURITY.md").read_text().partition("## Secrets")[2].partition("##")[0]
    assert {".".join(loc) for loc in SECRETS} <= set(QUOTED.findall(told))


def test_every_command_stands_in_the_table_of_daily_use() -> None:
    lines = (CHECKOUT / "docs/how-to/daily.md").read_text().split("\n")
    tables = "\n".join(line for line in lines if line.startswith("|"))
    assert set(COMMANDS) <= set(re.findall(r"ds-flow ([a-z]+)", tables))


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().split("\n")) <= 150


@each_document
def test_a_document_is_wrapped_at_100_columns_but_for_tables(document: Path) -> None:
    lines = FENCED.sub("", document.read_text()).split("\n")
    assert not [line for line in lines if len(line) > WIDTH and not line.startswith("|")]


def commands_shown() -> Iterator[tuple[Path, str]]:
    """Each line of a block that calls ds-flow, in any document."""
    for document in DOCUMENTS:
        for line in document.read_text().split("\n"):
            if found := SHOWN.match(line):
                yield document, found[1]


@pytest.mark.parametrize(("document", "line"), sorted(set(commands_shown())))
def test_a_command_that_a_document_shows_is_spelt_rightly(document: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    words = list(takewhile(lambda word: not ENDS.match(word), words))
    assert parser().parse_args(words[1:]).run, f"{document}: {line}"


def test_a_make_target_that_a_document_shows_exists() -> None:
    known = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        shown = re.findall(r"(?:^    |`)make ([a-z]+)", text, re.MULTILINE)
        assert set(shown) <= known, document
