"""What people are told: one document for each question, for the commands and the page."""

from ds_flow.views.datapackage import datapackage_document
from ds_flow.views.deliveries import not_handed_over
from ds_flow.views.documents import file_document, output_folder
from ds_flow.views.explain import Question, explanation, remedy
from ds_flow.views.health import problems
from ds_flow.views.inbox import InboxCheck
from ds_flow.views.lineage import lineage_document, lineage_mermaid, lineage_tree
from ds_flow.views.look import Seen
from ds_flow.views.lookup import Place, find_batch, find_place, find_run, log_of
from ds_flow.views.metrics import CONTENT_TYPE, metrics_text
from ds_flow.views.profile import profile_document
from ds_flow.views.report import run_report, span_report
from ds_flow.views.run import newest_runs, run_documents, whole_run
from ds_flow.views.schedules import schedule_document
from ds_flow.views.sets import sets_document
from ds_flow.views.status import status_document

__all__ = [
    "CONTENT_TYPE",
    "InboxCheck",
    "Place",
    "Question",
    "Seen",
    "datapackage_document",
    "explanation",
    "file_document",
    "find_batch",
    "find_place",
    "find_run",
    "lineage_document",
    "lineage_mermaid",
    "lineage_tree",
    "log_of",
    "metrics_text",
    "newest_runs",
    "not_handed_over",
    "output_folder",
    "problems",
    "profile_document",
    "remedy",
    "run_documents",
    "run_report",
    "schedule_document",
    "sets_document",
    "span_report",
    "status_document",
    "whole_run",
]
