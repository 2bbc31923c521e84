"""The plain Metaflow flow for the same work, one task a file: what Metaflow costs by itself."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from metaflow import FlowSpec, Parameter, step


class PlainFlow(FlowSpec):
    """Process each file of a folder in a task of its own, then combine them."""

    inbox = Parameter("inbox")
    out = Parameter("out")

    @step
    def start(self) -> None:
        """List the files."""
        self.paths = sorted(map(str, Path(self.inbox).glob("student_*.csv")))
        self.next(self.process, foreach="paths")

    @step
    def process(self) -> None:
        """Add the columns to one file."""
        path = Path(self.input)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        self.output = str(Path(self.out, f"processed_{path.name}"))
        frame.assign(processed_at=str(datetime.now(UTC)), source_file=path.name, tag="").to_csv(
            self.output, index=False
        )
        self.next(self.join)

    @step
    def join(self, inputs: "list[PlainFlow]") -> None:
        """Write all of them as one."""
        frames = [pd.read_csv(item.output, dtype=str, keep_default_na=False) for item in inputs]
        pd.concat(frames).to_csv(Path(self.out, "final_combined.csv"), index=False)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Metaflow wants a last step."""


if __name__ == "__main__":
    PlainFlow()
