"""How roughly signals move: the measures that evaluations and reports share.

Signals are arrays [T] or [T, J] of one stretch each; they are never joined end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def jerk(signals: Sequence[np.ndarray], dt: float) -> tuple[float, float]:
    """Largest and root mean square |third difference|/dt³ over all of them; zeros when none has four samples.

    Args:
        signals: sampled every `dt`.
        dt: seconds.
    """
    third = [np.diff(x, n=3, axis=0).ravel() for x in signals if len(x) > 3]
    if not third:
        return 0.0, 0.0
    size = np.abs(np.concatenate(third)) / dt**3
    return float(size.max()), float(np.sqrt(np.square(size).mean()))


def energy_above(signals: Sequence[np.ndarray], rate: float, cutoff: float) -> float:
    """Share of their power, means aside, above `cutoff`; 0 for constants.

    Args:
        signals: sampled at `rate`.
        rate: 1/s.
        cutoff: 1/s.
    """
    high = total = rounding = 0.0
    for x in signals:
        if not len(x):
            continue
        power = np.square(np.abs(np.fft.rfft(x - x.mean(0), axis=0)))
        above = np.fft.rfftfreq(len(x), 1.0 / rate) > cutoff
        high, total = high + float(power[above].sum()), total + float(power[1:].sum())
        rounding += 1e-24 * max(1.0, float(np.square(x).sum()) * len(x))  # of the mean: no signal
    return high / total if total > rounding else 0.0
