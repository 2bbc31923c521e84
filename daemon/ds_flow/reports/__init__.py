"""Reports: one document of a run or of a span, and its HTML file; everything comes from the caller.

The commands make them from the ledger, and a run's last step from its manifest.
"""

from ds_flow.reports.html import report_html, templates
from ds_flow.reports.parts import LISTED
from ds_flow.reports.run import run_document, run_report
from ds_flow.reports.span import Span, span_report

__all__ = [
    "LISTED",
    "Span",
    "report_html",
    "run_document",
    "run_report",
    "span_report",
    "templates",
]
