"""Where metrics go: a `Sink` takes one scalar at a time. CSV and TensorBoard come with the package.

A resumed run continues the files of the interrupted one: what was written after the checkpoint is dropped, so
the files read as if the run had never stopped.
"""

from __future__ import annotations

import csv
import os
from abc import ABC, abstractmethod
from pathlib import Path


class Sink(ABC):
    """A place for metrics; only `scalar` has to be written."""

    @abstractmethod
    def scalar(self, name: str, value: float, step: int) -> None:
        """Take a value.

        Args:
            name: e.g. "eval/success".
            value: the value.
            step: transitions seen so far.
        """

    def flush(self) -> None:  # noqa: B027
        """Put what was taken on the disk."""

    def close(self) -> None:  # noqa: B027
        """The run is over."""


class CsvSink(Sink):
    """Rows `step,name,value` with full precision.

    Args:
        path: the file.
        resume_step: keep the rows up to this step and continue; None begins a new file.
    """

    def __init__(self, path: str | Path, *, resume_step: int | None = None) -> None:
        path = Path(path)
        kept: list[list[str]] = []
        if resume_step is not None and path.exists():
            with path.open(newline="") as file:
                # a killed run may have left half a row at the end
                rows = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]
            kept = [row for row in rows if int(row[0]) <= resume_step]
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows([["step", "name", "value"], *kept])
        temporary.replace(path)
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)

    def scalar(self, name: str, value: float, step: int) -> None:
        """See `Sink.scalar`."""
        self._writer.writerow((step, name, repr(float(value))))

    def flush(self) -> None:
        """See `Sink.flush`."""
        self._file.flush()

    def close(self) -> None:
        """See `Sink.close`."""
        self._file.close()


class TensorBoardSink(Sink):
    """TensorBoard event files in a folder.

    Args:
        folder: the run's folder.
        resume_step: hide what an interrupted run wrote after this step; None for a new run.
    """

    def __init__(self, folder: str | Path, *, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def scalar(self, name: str, value: float, step: int) -> None:
        """See `Sink.scalar`."""
        self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """See `Sink.flush`."""
        self._writer.flush()

    def close(self) -> None:
        """See `Sink.close`."""
        self._writer.close()
