"""Do the analysis of a published run again: `analyze_again.py WORK RUN_ID COMBINED_FILE`.

It leaves WORK/analysis.json, whole. It may be killed and run again.
"""

import os
import socket
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: its packages are beside steps/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ds_flow.system import write_json
from ds_flow.work import Batch
from steps import failures, publish
from steps.analyze import analyze_combined


def main(batch: Batch, run_id: str, combined: Path) -> None:
    """Analyze, and write down what came of it."""
    with failures.recorded(batch):
        analysis = analyze_combined(batch, combined)
        content = {
            "schema": 1,
            "project": batch.plan.options.project_name,
            "run_id": run_id,
            "combined": combined.name,
            "host": socket.gethostname(),
            "user": os.environ.get("METAFLOW_USER", "ds-flow"),  # as in a run
            "analyzed_at": publish.now(),
            "analysis": analysis,
            "jobs": list(publish.job_rows(batch)),
        }
        write_json(batch.analysis, content)


if __name__ == "__main__":
    main(Batch(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))
