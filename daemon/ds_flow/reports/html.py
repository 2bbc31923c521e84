"""A report as one HTML file, and what all HTML is made with."""

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ds_flow.core import Document, moment, printable
from ds_flow.reports.parts import when

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(package: str) -> "Environment":
    """Read the templates of a package. What they are filled with, strangers may have written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only who writes HTML needs it

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _plain(value: Any) -> Any:
    """Escape what would deceive a reader: control characters, and those that turn text round."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(str(value)) if is_text else value


def report_html(document: Document) -> str:
    """Write a report as one HTML file that loads nothing, and in which nothing runs."""
    environment = templates("ds_flow.reports")
    environment.filters |= {"when": when, "moment": moment, "number": _number}
    style = files("ds_flow.reports").joinpath("templates/report.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("report.html")
    return page.render(report=document, style=style, style_hash=f"sha256-{digest}")


def _number(value: object) -> object:
    """A number with its thousands apart; anything else as it is."""
    return f"{value:,}" if isinstance(value, int) else value
