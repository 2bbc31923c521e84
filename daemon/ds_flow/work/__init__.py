"""One batch on disk: its plan, results and publication."""

from ds_flow.work.analyses import (
    analyzing,
    give_up_analysis,
    publish_analysis,
    read_analysis,
    why_no_analysis,
)
from ds_flow.work.batch import NO_ROOM, UNFIT, Batch, batches_in
from ds_flow.work.families import put_families, read_families
from ds_flow.work.fingerprint import (
    code_fingerprint,
    git_commit,
    has_settings,
    own_code,
    settings_fingerprint,
)
from ds_flow.work.logs import all_logs, attempt_log, delivery_log, find_log, log_places, run_log
from ds_flow.work.place import detach, refuse_root, require_own, settle
from ds_flow.work.publication import is_committed, publish, reveal
from ds_flow.work.published import (
    REMOVED,
    analysis_name,
    by_run_id,
    columns_of,
    find_analysis,
    find_manifest,
    manifest_name,
    manifest_names,
    manifest_of,
    newest_analyses,
    profile_name,
    published_manifests,
    read_manifest,
    remove_outputs,
    removed_manifests,
)
from ds_flow.work.results import LASTING, Result, Results, is_plain, measured
from ds_flow.work.rights import why_refused
from ds_flow.work.root import make_root, work_root

__all__ = [
    "LASTING",
    "NO_ROOM",
    "REMOVED",
    "UNFIT",
    "Batch",
    "Result",
    "Results",
    "all_logs",
    "analysis_name",
    "analyzing",
    "attempt_log",
    "batches_in",
    "by_run_id",
    "code_fingerprint",
    "columns_of",
    "delivery_log",
    "detach",
    "find_analysis",
    "find_log",
    "find_manifest",
    "git_commit",
    "give_up_analysis",
    "has_settings",
    "is_committed",
    "is_plain",
    "log_places",
    "make_root",
    "manifest_name",
    "manifest_names",
    "manifest_of",
    "measured",
    "newest_analyses",
    "own_code",
    "profile_name",
    "publish",
    "publish_analysis",
    "published_manifests",
    "put_families",
    "read_analysis",
    "read_families",
    "read_manifest",
    "refuse_root",
    "remove_outputs",
    "removed_manifests",
    "require_own",
    "reveal",
    "run_log",
    "settings_fingerprint",
    "settle",
    "why_no_analysis",
    "why_refused",
    "work_root",
]
