"""From a formula to a plan: which region to reach when, and what to hold in between.

Fetch from one of two shelves, then deliver, and never enter the lane. Every branch is one way to do it; its
free times are drawn, a path through the goals is interpolated, and the formula itself has the last word.
"""

import numpy as np

from cadenza import stl

RULE = stl.parse(
    "(F[5,20] (norm(x - 1, y) < 0.2) or F[5,20] (norm(x + 1, y) < 0.2))"
    " and F[25,40] (norm(x, y - 1) < 0.2) and G[0,40] (y > -0.5)",
    signals=["x", "y"],
)
CENTRES = {"norm(x - 1, y) < 0.2": (1, 0), "norm(x + 1, y) < 0.2": (-1, 0), "norm(x, y - 1) < 0.2": (0, 1)}


def main() -> None:
    rng = np.random.default_rng(0)
    for branch in stl.decompose(RULE):
        allocation = branch.sample(rng)
        times = [0] + [goal.start for goal in allocation.goals]
        points = [(0.0, 0.0)] + [CENTRES[str(goal.region)] for goal in allocation.goals]
        steps = np.arange(RULE.horizon + 1)
        path = np.column_stack([np.interp(steps, times, axis) for axis in np.transpose(points)])
        visits = ", ".join(f"{goal.region} at {goal.start}" for goal in allocation.goals)
        print(f"{branch.count()} allocations, one of them: {visits}")
        print(f"  met: {allocation.check(path)}; robustness {stl.robustness(RULE, path):.2f}")


if __name__ == "__main__":
    main()
