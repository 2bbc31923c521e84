"""StudentDataFlow: one batch of student files, processed, combined, analysed and published.

python flows/student_flow.py run                 the whole input pattern, as one batch
python flows/student_flow.py run --batch ID      a batch that is planned in out/.work/ID
python flows/student_flow.py logs RUN_ID/start   from any directory
"""

import os
import sys
from pathlib import Path
from typing import Any

from ds_flow import environment

FLOW = Path(__file__).resolve()
CONFIG = Path(os.environ.get("DS_FLOW_CONFIG") or FLOW.parents[1] / "config" / "settings.yaml")
ROOT = CONFIG.absolute().parents[1].resolve()

if __name__ == "__main__":
    environment.enter(sys.argv)

# Metaflow reads its environment when it is imported; root has a user, too, else it is unknown.
os.environ["DS_FLOW_CONFIG"] = str(CONFIG.absolute())
os.environ.update(environment.pinned(ROOT))
os.environ.setdefault("METAFLOW_USER", "ds-flow")

if __name__ == "__main__":
    import byhand
    from ds_flow import datastore
    from ds_flow.errors import DsFlowError

    byhand.begin(sys.argv)
    try:
        datastore.hold(ROOT)
    except DsFlowError as error:
        sys.exit(f"student_flow.py: {error}")

from metaflow import FlowSpec, Parameter, current, step  # noqa: E402

import finishing  # noqa: E402
import stages  # noqa: E402
import step_failures  # noqa: E402


class StudentDataFlow(FlowSpec):
    """One attempt at one batch. Every step may run again: what is done already stays done."""

    batch = Parameter("batch", help="id of a planned batch; by hand, one is formed", default="")
    output_dir = Parameter("output-dir", help="folder that holds .work", default="")

    @step
    def start(self) -> None:
        """Plan: shards of files, in as many groups as there are usable cores."""
        self.started_at = finishing.now()
        self.work = stages.work_dir(self.output_dir, self.batch)
        with step_failures.told(self.work):
            self.groups = stages.begin(self.work, current.run_id)
        self.next(self.process, foreach="groups")

    @step
    def process(self) -> None:
        """Give each file of this group's shards an output, or a reason why it has none."""
        with step_failures.told(self.work):
            stages.process(self.work, f"{self.index + 1}of{len(self.groups)}", self.input)
        self.next(self.combine)

    @step
    def combine(self, inputs: Any) -> None:
        """Join the processed files into one."""
        self.merge_artifacts(inputs, include=["work", "started_at"])
        with step_failures.told(self.work):
            self.combined = stages.combine(self.work)
        self.next(self.analyze)

    @step
    def analyze(self) -> None:
        """Run the configured program on the combined file."""
        with step_failures.told(self.work):
            self.analysis = stages.analyze(self.work, self.combined)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Publish under the Run ID and commit; a batch that another run published stays its own."""
        with step_failures.told(self.work):
            run = finishing.Run(
                flow=current.flow_name,
                run_id=current.run_id,
                started_at=self.started_at,
                combined=self.combined,
                analysis=self.analysis,
            )
            finishing.finish(self.work, run)


if __name__ == "__main__":
    StudentDataFlow()
