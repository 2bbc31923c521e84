"""The site that `make docs` builds from the Markdown of this checkout: Sphinx, MyST, Furo.

The root of the checkout is the source folder, so that links between documents hold here and there.
"""

import re
from typing import Any

project = "ds-flow"
copyright = "ds-flow contributors"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "tests/README.md"]
exclude_patterns = [".*", "build", "out", "log", "data", "node_modules", "**/__pycache__"]

html_theme = "furo"
html_title = "ds-flow"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 4
nitpicky = True
suppress_warnings = ["myst.strikethrough"]

LISTS = {"docs/index", "docs/decisions/README"}  # their links are the navigation
PAGE = re.compile(r"^(?:- |\| \d+ \| )\[([^\]]+)\]\(([^)#:]+)\.md\)", re.MULTILINE)


def add_navigation(_app: Any, document: str, source: list[str]) -> None:
    """Make a hidden table of contents of each list of links, under the heading above it."""
    if document not in LISTS:
        return
    sections = re.split(r"^## ", source[0], flags=re.MULTILINE)
    for section in sections:
        if entries := PAGE.findall(section):
            caption = section.partition("\n")[0].lstrip("# ")
            lines = [f"{title} <{target}>" for title, target in entries]
            source[0] += "\n".join(
                ["\n\n```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```", ""]
            )


def setup(app: Any) -> None:
    app.connect("source-read", add_navigation)
