"""StudentDataFlow: one batch of student files, processed, combined, analysed and published.

python flows/student_flow.py run                 the whole input pattern, as one batch
python flows/student_flow.py run --batch ID      a batch that is planned in out/.work/ID
python flows/student_flow.py logs RUN_ID/start   from any directory
"""

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]  # PYTHONSAFEPATH leaves it out

from steps import metaflow_env  # before Metaflow, which reads its environment when imported

# isort: split
from metaflow import FlowSpec, Parameter, current, step

from steps import failures, publish
from steps.analyze import analyze_combined
from steps.combine import combine_files
from steps.process import process_shards
from steps.start import begin, work_dir
from steps.task_forks import fork_tasks


class StudentDataFlow(FlowSpec):
    """One attempt at one batch. Every step may run again: what is done already stays done."""

    batch = Parameter("batch", help="id of a planned batch; by hand, one is formed", default="")
    output_dir = Parameter("output-dir", help="folder that holds .work", default="")

    def work(self) -> Path:
        """Find the batch's folder; no artifact names it, since it goes once that is recorded."""
        return work_dir(self.output_dir, self.batch)

    def combined_file(self) -> Path | None:
        """Find the combined file in the batch's folder, if there is one."""
        return self.work() / self.combined if self.combined else None

    @step
    def start(self) -> None:
        """Plan: shards of files, in as many groups as there are usable cores."""
        self.started_at = publish.now()
        with failures.recorded(self.work()):
            self.groups = begin(self.work(), current.run_id)
        self.next(self.process, foreach="groups")

    @step
    def process(self) -> None:
        """Give each file of this group's shards an output, or a reason why it has none."""
        with failures.recorded(self.work()):
            process_shards(self.work(), f"{self.index + 1}of{len(self.groups)}", self.input)
        self.next(self.combine)

    @step
    def combine(self, inputs: Any) -> None:
        """Join the processed files into one."""
        self.merge_artifacts(inputs, include=["started_at"])
        with failures.recorded(self.work()):
            combined = combine_files(self.work())
            self.combined = str(combined.relative_to(self.work())) if combined else None
        self.next(self.analyze)

    @step
    def analyze(self) -> None:
        """Run the configured program on the combined file."""
        with failures.recorded(self.work()):
            self.analysis = analyze_combined(self.work(), self.combined_file())
        self.next(self.end)

    @step
    def end(self) -> None:
        """Publish under the Run ID and commit; a batch that another run published stays its own."""
        with failures.recorded(self.work()):
            run = publish.Run(
                flow=current.flow_name,
                run_id=current.run_id,
                started_at=self.started_at,
                combined=self.combined_file(),
                analysis=self.analysis,
            )
            published = publish.finish(self.work(), run)
        self.manifest = published.manifest.to_json()
        self.published = published.files
        self.combined = published.combined


def run_task() -> None:
    """Run the task that the arguments name, as a program does that is started for it."""
    metaflow_env.go_home(sys.argv)
    StudentDataFlow()


if __name__ == "__main__":
    fork_tasks(run_task)
    StudentDataFlow()
