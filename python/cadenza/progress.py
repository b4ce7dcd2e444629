"""Progress of a training run: a bar on a terminal, plain lines elsewhere, nothing in a library call."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Literal, Self

ProgressMode = Literal["auto", "silent"]
_LINE_EVERY = 5.0


class Progress:
    """Silent; also the interface of the others. Used as a context manager around the loop.

    Args:
        total: steps of the whole run.
        start: steps already done.
    """

    def __init__(self, total: int, start: int = 0) -> None:
        self.total, self.start = total, start

    def update(self, step: int, fields: dict[str, float]) -> None:
        """Show that `step` steps are done, with some current figures."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


class LineProgress(Progress):
    """One line every few seconds, for logs."""

    def __init__(self, total: int, start: int = 0) -> None:
        super().__init__(total, start)
        self._begin = self._last = time.monotonic()

    def update(self, step: int, fields: dict[str, float]) -> None:
        """See `Progress.update`."""
        now = time.monotonic()
        if now - self._last < _LINE_EVERY and step < self.total:
            return
        self._last = now
        rate = (step - self.start) / max(now - self._begin, 1e-9)
        figures = " ".join(f"{name} {value:.3g}" for name, value in fields.items())
        left = (self.total - step) / max(rate, 1e-9)
        print(f"{step}/{self.total} {rate:.0f} steps/s {figures} left {left:.0f} s", flush=True)


class BarProgress(Progress):
    """A rich bar with the current figures, steps per second and the time left."""

    def __init__(self, total: int, start: int = 0) -> None:
        super().__init__(total, start)
        from rich import progress

        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]:.0f} steps/s  {task.fields[figures]}"),
            progress.TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("train", total=total, completed=start, rate=0.0, figures="")
        self._begin = time.monotonic()

    def update(self, step: int, fields: dict[str, float]) -> None:
        """See `Progress.update`."""
        rate = (step - self.start) / max(time.monotonic() - self._begin, 1e-9)
        figures = "  ".join(f"{name} {value:.3g}" for name, value in fields.items())
        self._bar.update(self._task, completed=step, rate=rate, figures=figures)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `Progress.__exit__`."""
        self._bar.stop()


def make_progress(mode: ProgressMode, total: int, start: int = 0) -> Progress:
    """ "auto": a bar on a terminal, lines elsewhere; "silent": nothing."""
    if mode == "silent":
        return Progress(total, start)
    return BarProgress(total, start) if sys.stdout.isatty() else LineProgress(total, start)
