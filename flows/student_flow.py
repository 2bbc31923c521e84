"""StudentDataFlow: one batch of student files, processed, combined, analysed and published.

python flows/student_flow.py run                 the whole input pattern, as one batch
python flows/student_flow.py run --batch ID      a batch that is planned in out/.work/ID
python flows/student_flow.py logs RUN_ID/start   from any directory
"""

import sys
from pathlib import Path
from typing import Any

FLOWS = str(Path(__file__).resolve().parent)
if FLOWS not in sys.path:  # PYTHONSAFEPATH leaves it out
    sys.path.insert(0, FLOWS)

from steps import metaflow_env  # before Metaflow, which reads its environment when imported

# isort: split
from metaflow import FlowSpec, Parameter, current, step

from ds_flow.work import Batch
from steps import failures, publish
from steps.analyze import analyze_combined
from steps.combine import combine_files
from steps.process import process_shards
from steps.report_card import with_report_card
from steps.standby import wait_for_batch
from steps.start import begin, open_batch
from steps.task_forks import fork_tasks


class StudentDataFlow(FlowSpec):
    """One attempt at one batch. Every step may run again: what is done already stays done."""

    batch = Parameter("batch", help="id of a planned batch; by hand, one is formed", default="")
    output_dir = Parameter("output-dir", help="folder that holds .work", default="")

    def opened(self) -> Batch:
        """Open the batch; no artifact holds it, since its folder goes once that is recorded."""
        return open_batch(self.output_dir, self.batch)

    def combined_in(self, batch: Batch) -> Path | None:
        """Find the combined file in the batch's folder, if there is one."""
        return batch.folder / self.combined if self.combined else None

    @step
    def start(self) -> None:
        """Plan: shards of files, in as many groups as there are usable cores."""
        self.started_at = publish.now()
        batch = self.opened()
        with failures.of_step(batch):
            self.groups = begin(batch, current.run_id)
        self.next(self.process, foreach="groups")

    @step
    def process(self) -> None:
        """Give each file of this group's shards an output, or a reason why it has none."""
        batch = self.opened()
        with failures.of_step(batch):
            process_shards(batch, f"{self.index + 1}of{len(self.groups)}", self.input)
        self.next(self.combine)

    @step
    def combine(self, inputs: Any) -> None:
        """Join the processed files into one."""
        self.merge_artifacts(inputs, include=["started_at"])
        batch = self.opened()
        with failures.of_step(batch):
            combined = combine_files(batch)
            self.combined = str(combined.relative_to(batch.folder)) if combined else None
        self.next(self.analyze)

    @step
    def analyze(self) -> None:
        """Run the configured program on the combined file."""
        batch = self.opened()
        with failures.of_step(batch):
            self.analysis = analyze_combined(batch, self.combined_in(batch))
        self.next(self.end)

    @with_report_card
    @step
    def end(self) -> None:
        """Publish under the Run ID and commit; a batch that another run published stays its own."""
        batch = self.opened()
        with failures.of_step(batch):
            run = publish.Run(
                flow=current.flow_name,
                run_id=current.run_id,
                started_at=self.started_at,
                combined=self.combined_in(batch),
                analysis=self.analysis,
            )
            published = publish.finish(batch, run)
        self.manifest = published.manifest.to_json()
        self.published = published.files
        self.combined = published.combined


PARAMETERS = {name: it for name, it in vars(StudentDataFlow).items() if isinstance(it, Parameter)}


def run_task() -> None:
    """Run the task that the arguments name, as a program does that is started for it."""
    metaflow_env.go_home(sys.argv)
    for name, parameter in PARAMETERS.items():
        setattr(StudentDataFlow, name, parameter)  # a task has put properties in their place
    StudentDataFlow()


if __name__ == "__main__":
    fork_tasks(run_task)
    wait_for_batch()
    StudentDataFlow()
