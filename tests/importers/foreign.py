"""What the importers' tests share: fixtures, facts that only the user knows, sensors, answers."""

import json
from pathlib import Path

import numpy as np
import onnxruntime

from cadenza import _native

FOREIGN = Path(__file__).parents[1] / "fixtures" / "foreign"
ROBOT = FOREIGN / "robot.toml"
JOINTS = ["hip", "knee", "ankle", "tail"]
COMMANDS = [
    {"name": "vx", "range": [-0.5, 1.0]},
    {"name": "vy", "range": [-0.3, 0.3]},
    {"name": "wz", "range": [-1.2, 1.2]},
]


def facts() -> dict:
    """The manifest for the graphs of 22 observations and 4 actions."""
    terms = [
        {"name": "gyro", "source": "gyro", "scale": 0.2},
        {"name": "gravity", "source": "projected_gravity"},
        {"name": "command", "source": "command"},
        {"name": "q", "source": "joint_pos"},
        {"name": "dq", "source": "joint_vel", "scale": 0.05},
        {"name": "before", "source": "last_action"},
        {"name": "time", "source": "time"},
    ]
    gains = [(0.1, 40.0, 2.0), (-0.4, 30.0, 1.5), (0.3, 10.0, 0.02), (0.0, 5.0, 0.25)]
    return {
        "rates": {"policy_dt": 0.02},
        "joints": [
            {"name": name, "default": d, "kp": p, "kd": v}
            for name, (d, p, v) in zip(JOINTS, gains, strict=True)
        ],
        "observation": {"terms": terms},
        "commands": COMMANDS,
        "action": {"kind": "position_offset", "scale": {"*": 0.25}},
    }


def session(data):
    """onnxruntime on the bytes of a graph: inputs by name → outputs by name."""
    inner = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in inner.get_outputs()]
    return lambda feeds: dict(zip(names, inner.run(None, feeds), strict=True))


def opened(path):
    """A bundle's policy and manifest; the engine reproduces its vectors."""
    bundle = _native.Bundle(path)
    policy = _native.Policy(bundle)
    report = policy.verify(bundle)
    assert report.passed and report.vectors == 128, report
    return policy, json.loads(bundle.manifest), bundle


def close(got, wanted):
    """Whether engine and onnxruntime agree within the rounding of these small networks."""
    return np.allclose(got, wanted, rtol=1e-5, atol=1e-5)


def sensors(rng, steps, manifest, joints):
    """What a robot could measure over `steps` steps: `[1, steps, ·]`, joints in the manifest's order."""
    quat = rng.normal(size=(steps, 4))
    values = {
        "joint_pos": rng.uniform(-1, 1, (steps, joints)),
        "joint_vel": rng.normal(0, 3, (steps, joints)),
        "gyro": rng.normal(0, 1, (steps, 3)),
        "accelerometer": rng.normal(0, 5, (steps, 3)),
        "base_quat": quat / np.linalg.norm(quat, axis=1, keepdims=True),
        "command": rng.uniform(-0.3, 0.3, (steps, len(manifest["commands"]))),
        "last_action": rng.normal(0, 1, (steps, len(manifest["action"]["joints"]))),
        "time": np.arange(steps)[:, None] * manifest["rates"]["policy_dt"],
    }
    return {name: value[None].astype(np.float32) for name, value in values.items()}


def observe(bundle, frames):
    """The observations that the runtime builds from these sensors on the creature: `[steps, n]`."""
    return _native.observe_frames(bundle.manifest, _native.Robot(ROBOT), frames)[0]


def gravity(quat):
    """The direction of gravity in the axes of a body turned by `quat` `[n, 4]`, by rotation matrices."""
    w, x, y, z = quat.T.astype(np.float64)
    third_row = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], axis=1)
    return -third_row
