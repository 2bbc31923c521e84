"""A report as one HTML file."""

import base64
import hashlib
from importlib.resources import files

from ds_flow.core import Document, moment
from ds_flow.reports.parts import when


def report_html(document: Document) -> str:
    """Write a report as one HTML file that loads nothing, and in which nothing runs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only a report needs it

    templates = Environment(
        loader=PackageLoader("ds_flow.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"when": when, "moment": moment, "number": _number}
    style = files("ds_flow.reports").joinpath("templates/report.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = templates.get_template("report.html")
    return page.render(report=document, style=style, style_hash=f"sha256-{digest}")


def _number(value: object) -> object:
    """A number with its thousands apart; anything else as it is."""
    return f"{value:,}" if isinstance(value, int) else value
