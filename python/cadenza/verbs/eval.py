"""`cadenza eval RUN`: noise-free episodes of a trained policy, with intervals and smoothness."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cadenza.evaluate import evaluate
from cadenza.rundir import RunDir
from cadenza.tasks import make
from cadenza.tasks.task import Environment
from cadenza.train import load_agent


def main(argv: list[str]) -> int:
    """Runs `cadenza eval …`."""
    parser = argparse.ArgumentParser(
        prog="cadenza eval",
        description="Evaluate a trained policy without noise on seeded episodes.",
        epilog="example: cadenza eval runs/reach --episodes 50 --video",
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--episodes", type=int, default=50, help="episodes (50)")
    parser.add_argument("--seed", type=int, help="seed of the starts; the run's own when not given")
    parser.add_argument("--video", action="store_true", help="film the first episode into RUN/video/")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    if options.episodes < 1:
        raise ValueError(f"--episodes {options.episodes}: at least 1")
    config, agent, steps = load_agent(options.run)
    seed = config.eval_seed if options.seed is None else options.seed
    film = RunDir(options.run).path / "video" / f"step-{steps}-seed-{seed}.mp4" if options.video else None
    env = make(config.task, options.episodes, seed=seed, domain=config.domain)
    with contextlib.closing(env), contextlib.ExitStack() as stack:
        watch = None if film is None else stack.enter_context(filming(env, film))
        result = evaluate(
            lambda obs: agent.act(obs, explore=False), env, seed=seed, hold=agent.action_repeat, watch=watch
        )
    if options.json:
        head = {"task": config.task, "steps": steps, "seed": seed}
        head |= {} if film is None else {"video": str(film)}
        print(json.dumps(head | dataclasses.asdict(result)))
        return 0
    print(f"{config.task} after {steps} transitions, {result.episodes} episodes, seed {seed}")
    if result.success is not None:
        print(f"  success          {result.success:.3f}")
    print(f"  return           {result.return_mean:.4g} ± {result.return_std:.3g}")
    print(f"  95 % interval    [{result.return_low:.4g}, {result.return_high:.4g}]")
    print(f"  length           {result.length:.1f} steps")
    print(f"  mean |Δu|        {result.action_change:.4f}")
    print(f"  jerk             {result.jerk:.4g} 1/s³ (root mean square)")
    print(f"  high frequency   {result.high_frequency:.4f} of the power, above a quarter of the policy rate")
    if film is not None:
        print(f"  video            {film}")
    return 0


@contextlib.contextmanager
def filming(env: Environment, path: Path) -> Iterator[Callable[[], None]]:
    """Draws the first copy of the environment each time that what it gives is called."""
    from cadenza.sim.video import Video

    model, _ = env.scene()
    with Video(model, path, max(1, round(1.0 / env.dt))) as video:
        yield lambda: video.add(env.scene()[1])
