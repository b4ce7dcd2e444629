"""kinfer's side of benches/tick.py; runs in kinfer's own environment.

    python kinfer_worker.py FOLDER JOINTS COMMANDS HZ

Packs FOLDER/init.onnx and FOLDER/step.onnx, then answers each line `N` with the median and 99th percentile
of N steps at HZ: ns from the return of `get_inputs` to the entry of `take_action`.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from kinfer.export.serialize import pack
from kinfer.rust_bindings import ModelProviderABC, PyModelMetadata, PyModelRunner


class Provider(ModelProviderABC):
    """An upright robot at rest; notes the times."""

    def __init__(self) -> None:
        self.given = 0
        self.times: list[int] = []

    def __new__(cls, *_: object) -> "Provider":
        return super().__new__(cls)

    def ready(self, joints: int, commands: int) -> None:
        """What every step is given."""
        sizes = {"joint_angles": joints, "joint_angular_velocities": joints, "command": commands}
        self.inputs = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
        self.inputs["projected_gravity"] = np.array([0.0, 0.0, -1.0], np.float32)

    def get_inputs(self, input_types: list[str], metadata: PyModelMetadata) -> dict[str, np.ndarray]:
        """See kinfer."""
        out = {name: self.inputs[name] for name in input_types}
        self.given = time.perf_counter_ns()
        return out

    def take_action(self, action: np.ndarray, metadata: PyModelMetadata) -> None:
        """See kinfer."""
        self.times.append(time.perf_counter_ns() - self.given)


def main(folder: Path, joints: int, commands: list[str], hz: float) -> None:
    """Answers until the input ends."""
    metadata = PyModelMetadata([f"joint_{i}" for i in range(joints)], commands, [1])
    graphs = [onnx.load(folder / f"{name}.onnx") for name in ("init", "step")]
    archive = folder / "policy.kinfer"
    archive.write_bytes(pack(graphs[0], graphs[1], metadata))
    provider = Provider()
    provider.ready(joints, len(commands))
    runner = PyModelRunner(str(archive), provider, None)
    period = round(1e9 / hz)
    for line in sys.stdin:
        provider.times.clear()
        deadline = time.monotonic_ns()
        for _ in range(int(line)):
            deadline = max(deadline + period, time.monotonic_ns())
            time.sleep(max(deadline - time.monotonic_ns(), 0) / 1e9)
            runner.step_and_take_action()
        p50, p99 = np.percentile(provider.times, (50, 99))
        print(json.dumps({"response": {"p50": p50, "p99": p99}}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","), float(sys.argv[4]))
