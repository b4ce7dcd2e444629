"""Reading formulas from texts and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cadenza import _native
from cadenza._native import Formula


def parse(
    text: str, signals: Sequence[str] | None = None, *, dt: float | None = None, until: str = "exclusive"
) -> Formula:
    """Parses a formula.

    Args:
        text: for example `"G[0,2s](gap > $d) and F[0,100](norm(x, y) < 0.2)"`.
        signals: names of the columns of a sample; the formula's own, in order of appearance, when not given.
        dt: seconds of one step; needed for bounds with units.
        until: `"exclusive"` or `"inclusive"`: what a plain `U`, `S`, `R` or `W` means.

    Returns:
        A formula: immutable, hashable, equal to every formula of the same structure and signals, pickled by
        its text and these options. `str` gives its canonical text.

    Raises:
        ParseError: the text is refused; it carries `message, text, start, end, line, column` and shows the
            place with a caret.
    """
    return _native.parse_formula(text, _names(signals), dt, until)


def parse_file(
    path: str | Path,
    signals: Sequence[str] | None = None,
    *,
    dt: float | None = None,
    until: str = "exclusive",
) -> dict[str, Formula]:
    """Reads a file of `let` definitions and properties `spec NAME: formula;`.

    Args:
        path: the file, UTF-8.
        signals: as in `parse`, for every property.
        dt: as in `parse`.
        until: as in `parse`.

    Returns:
        Formulas by name, in the order of the file. A file of one formula without a name gives the name `""`.

    Raises:
        ParseError: as `parse`.
    """
    return dict(_native.parse_properties(Path(path).read_text("utf-8"), _names(signals), dt, until))


def _names(signals: Sequence[str] | None) -> list[str] | None:
    if isinstance(signals, str):
        raise TypeError(f"signals = {signals!r}: a sequence of names wanted")
    return None if signals is None else list(signals)
