"""Check a log: does the arm keep its rules, by how much, and where is it closest to breaking them?

Simulates a swing of arm6, writes it as CSV, evaluates two rules and draws robustness under the signals.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

from cadenza import load_robot, stl
from cadenza.sim.batch import BatchSim

RULES = """
let settled = abs(error) < 0.02;
spec fence:   G[0,2s] (height > 0.1);
spec settles: F[0,800ms] G[0,400ms] settled;
"""


def swing(seconds: float = 3.0) -> tuple[float, dict[str, np.ndarray]]:
    """The elbow goes to a new place and comes back half-way: seconds of a sample, and signals by name."""
    robot = load_robot("arm6")
    sim, elbow = BatchSim(robot, 1), robot.joint_names.index("elbow_flex")
    log = {"error": [], "height": []}
    for tick in range(round(seconds / robot.control_dt)):
        target = robot.home.copy()
        target[elbow] += 0.5 if tick < 1.5 / robot.control_dt else 0.25
        sim.step(target[None, None], np.zeros((1, 1, len(target))))
        log["error"].append(sim.q[0, elbow] - target[elbow])
        log["height"].append(sim.site("tool")[0, 2])
    return robot.control_dt, {name: np.array(values) for name, values in log.items()}


def draw(path: Path, dt: float, signals: dict[str, np.ndarray], rho: dict[str, np.ndarray]) -> None:
    """Signals above, robustness below, over the same time."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(signals) + 1, sharex=True, figsize=(8, 6), layout="constrained")
    for axis, (name, values) in zip(rows, signals.items(), strict=False):
        axis.plot(dt * np.arange(len(values)), values)
        axis.set_ylabel(name)
    for name, values in rho.items():
        rows[-1].plot(dt * np.arange(len(values)), values, label=name)
    rows[-1].axhline(0.0, color="black", linewidth=0.5)
    rows[-1].set(xlabel="s", ylabel="robustness")
    rows[-1].legend()
    figure.savefig(path, dpi=80)


def main(folder: Path) -> None:
    dt, signals = swing()
    table = np.column_stack(list(signals.values()))
    np.savetxt(folder / "swing.csv", table, delimiter=",", header=",".join(signals), comments="")
    (folder / "rules.stl").write_text(RULES)
    rho = {}
    for name, rule in stl.parse_file(folder / "rules.stl", list(signals), dt=dt).items():
        rho[name] = stl.robustness_trace(rule, table)
        print(f"{name}: {rho[name][0]:.3f}; {stl.explain(rule, table)[0]}")
    draw(folder / "swing.png", dt, signals, rho)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
