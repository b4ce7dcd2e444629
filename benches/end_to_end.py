"""SAC learning, environment included, against stable-baselines3's `learn` (spec/training.md §7).

    python benches/end_to_end.py [--quick] [--json FILE]

Both act, step the same gymnasium task, store and update once per step, with equal networks and batch; the
figure is process CPU time per environment step, in alternating blocks of one process. Ours is the loop of
`cadenza.train` without its folder.
"""

from collections.abc import Callable

import gymnasium
import numpy as np

import common
import peers
from cadenza.algos.sac import Sac
from cadenza.algos.sac_config import SacConfig
from cadenza.tasks import make
from common import Report

TASKS = ("Walker2d-v5", "Humanoid-v5")
BAR = 0.72
WARMUP = 300


def ours(task: str) -> Callable[[int], None]:
    """Our loop: takes that many steps."""
    env = make(f"gym:{task}", 1)
    config = SacConfig(capacity=50_000, explore_steps=WARMUP)
    agent = Sac(config, env.obs_size, env.action_low, env.action_high, seed=0)
    obs = env.reset()

    def run(steps: int) -> None:
        nonlocal obs
        for _ in range(steps):
            action = agent.act(obs, explore=True)
            t = env.step(action)
            agent.observe(obs, action, t.reward, t.next_obs, t.terminated, t.truncated)
            for _ in range(agent.updates_due(env.n)):
                agent.update()
            obs = t.obs

    return run


def theirs(task: str) -> Callable[[int], object]:
    """Their `learn` of that many steps."""
    module = peers.stable_baselines3()
    model = module.SAC(
        "MlpPolicy", gymnasium.make(task), buffer_size=50_000, learning_starts=WARMUP, device="cpu", seed=0
    )
    model.set_logger(module.common.logger.Logger(None, []))
    return lambda steps: model.learn(steps, reset_num_timesteps=False)


def measure(quick: bool) -> Report:
    """Every task; only the small one when quick."""
    report = Report("end_to_end", "process CPU time per environment step, one thread, alternating blocks")
    block, rounds = (20, 3) if quick else (100, 9)
    for task in TASKS[:1] if quick else TASKS:
        title = f"{task}, step / {peers.named('stable-baselines3')} learn"
        try:
            runs = {"ours": ours(task), "theirs": theirs(task)}
        except RuntimeError as error:
            report.missing(title, str(error), BAR)
            continue
        for run in runs.values():
            run(WARMUP + 20)

        def per_step(run: Callable[[int], object]) -> Callable[[], float]:
            return lambda: common.cpu_seconds(lambda: run(block), 1) / block

        seconds = common.interleave({name: per_step(run) for name, run in runs.items()}, rounds)
        ms = {name: 1e3 * float(np.median(t)) for name, t in seconds.items()}
        figures = f"{ms['ours']:.3f} / {ms['theirs']:.3f} ms"
        report.ratio(title, seconds["ours"], seconds["theirs"], BAR, figures=figures)
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
