"""A logging sink: the loss of every logged step as a row of RUN/losses.csv. Named by `plugins: [csv_sink.py]`."""

from pathlib import Path

from perceiver_trainer import RunSink


class CsvLosses(RunSink):
    """Rows "step,loss"; a run that resumes leaves no step twice."""

    def __init__(self, run: Path, resumed_step: int) -> None:
        super().__init__(run, resumed_step)
        self.path = run / "losses.csv"
        self.rewind(resumed_step)

    def write(self, kind: str, record: dict[str, float | int | str]) -> None:
        """Append a row for a logged step; evaluations, saves and events have other kinds."""
        if kind == "train":
            with self.path.open("a") as file:
                file.write(f"{record['step']},{record['loss']!r}\n")

    def rewind(self, step: int) -> None:
        """Drop the rows of later steps: those of a start that was killed after them, or that the run went back past."""
        rows = self.path.read_text().splitlines() if self.path.exists() else []
        self.path.write_text("".join(f"{row}\n" for row in rows if int(row.partition(",")[0]) <= step))
