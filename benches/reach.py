"""The learning curve of the demo's recipe: Symphony on ReachArm6, every started seed in the table.

    python benches/reach.py --seeds 0 1 2 3 4 --out docs/results

Writes `reach.csv` (one row for each evaluation of 50 goals: seed, transitions, success, return with its 95 %
bootstrap interval, mean |Δu|) and prints the summary. The curve is the result; the
script asserts nothing.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from cadenza.recipes import recipe
from cadenza.tasks import make
from cadenza.train import train

TASK = "cadenza/ReachArm6-v0"
FRESH_GOALS, FRESH_SEED = 100, 77_000


def main() -> None:
    """Trains every seed to the recipe's full length."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="transitions; the recipe's when not given")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    config = recipe(TASK)
    if options.steps is not None:
        config = replace(config, steps=options.steps)
    rows, finals = [], []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            result = train(replace(config, seed=seed, keep_best=False), Path(folder) / "run")
        for step, e in result.evaluations:
            rows.append([seed, step, e.success, e.return_mean, e.return_low, e.return_high, e.action_change])
        fresh = _fresh_success(result.agent)
        first = next((step for step, e in result.evaluations if (e.success or 0.0) >= 0.9), None)
        finals.append((result.evaluations[-1][1].success, fresh))
        print(
            f"seed {seed}: {result.steps} transitions, {result.cpu_seconds:.1f} CPU-s, success ≥ 0.9 at "
            f"{first}, at the end {finals[-1][0]:.2f}, on {FRESH_GOALS} further goals {fresh:.2f}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "reach.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "step", "success", "return", "low", "high", "action_change"])
        writer.writerows(rows)
    end, fresh = np.array(finals, float).T
    print(
        f"{len(finals)} seeds: success {end.mean():.3f} ± {end.std():.3f}, further goals {fresh.mean():.3f}"
    )


def _fresh_success(agent) -> float:
    """Share of goals reached that no evaluation has used."""
    env = make(TASK, FRESH_GOALS, seed=FRESH_SEED)
    obs = env.reset(FRESH_SEED)
    success = np.zeros(FRESH_GOALS, bool)
    for _ in range(int(env.episode_steps or 0)):
        t = env.step(agent.act(obs, explore=False))
        success[t.done] = t.success[t.done]
        obs = t.obs
    env.close()
    return float(success.mean())


if __name__ == "__main__":
    main()
