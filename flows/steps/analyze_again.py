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
from ds_flow.work import ANALYSIS, read_plan
from steps import failures, publish
from steps.analyze import analyze_combined


def main(work: Path, run_id: str, combined: Path) -> None:
    """Analyze, and write down what came of it."""
    with failures.recorded(work):
        analysis = analyze_combined(work, combined)
        content = {
            "schema": 1,
            "project": read_plan(work).options.project_name,
            "run_id": run_id,
            "combined": combined.name,
            "host": socket.gethostname(),
            "user": os.environ.get("METAFLOW_USER", ""),
            "analyzed_at": publish.now(),
            "analysis": analysis,
            "jobs": list(publish.job_rows(work)),
        }
        write_json(work / ANALYSIS, content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
