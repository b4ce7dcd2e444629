"""Robustness as a loss: bend a path until it keeps a rule.

The path of a point, 41 positions in the plane, has to stay at the goal, avoid the pillar and keep its steps
short. Gradient ascent on the smooth robustness, sharper and sharper; the exact robustness has the last word.
"""

import torch

from cadenza import stl

RULE = stl.parse(
    "F[0,40] G[0,3] (norm(x - 1, y - 1) < 0.15)"  # stay at the goal for four samples
    " and G[0,40] (norm(x - 0.5, y - 0.5) > 0.25)"  # keep clear of the pillar
    " and G[0,39] (norm(vx, vy) < 0.08)",  # no long steps
    signals=["x", "y", "vx", "vy"],
)


def samples(path: torch.Tensor) -> torch.Tensor:
    """Positions and steps, [41, 4]; the last step is none."""
    return torch.cat((path, torch.diff(path, dim=0, append=path[-1:])), dim=1)


def main() -> None:
    torch.manual_seed(0)
    start = torch.zeros(1, 2, dtype=torch.float64)
    free = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)[1:, None] * torch.tensor([1.0, 0.9])
    free.requires_grad_()
    print(f"straight line: {stl.robustness(RULE, samples(torch.cat((start, free)))):.3f}")
    optimiser = torch.optim.Adam([free], lr=0.01)
    for step in range(600):
        optimiser.zero_grad()
        smooth = stl.robustness(
            RULE, samples(torch.cat((start, free))), semantics="softmax", beta=20.0 + 0.5 * step
        )
        (-smooth).backward()
        optimiser.step()
    print(f"after training: {stl.robustness(RULE, samples(torch.cat((start, free)))):.3f}")


if __name__ == "__main__":
    main()
