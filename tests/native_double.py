"""NumPy reference of the batched runtime parts in `cadenza._native`, independent of the Rust code.

Written from spec/runtime.md §2, §3, §7.3 and DESIGN §7. Robot order everywhere; tests compare it with the
extension.
"""

import json
import math
import tomllib
from pathlib import Path

import numpy as np

__version__ = "0.0.0"


class Robot:
    def __init__(self, path):
        data = tomllib.loads(Path(path).read_text())
        self.name, self.path, self.control_hz = data["name"], str(path), data["rates"]["control_hz"]
        self.model = str(Path(path).parent / data["model"])
        self.frames = [(f["name"], f["site"]) for f in data["frame"]]
        self.joints = [
            {
                "name": j["name"],
                "position": tuple(j["limits"]["position"]),
                "velocity": j["limits"]["velocity"],
                "acceleration": j["limits"]["acceleration"],
                "jerk": j["limits"].get("jerk", 100 * j["limits"]["acceleration"]),
                "effort": j["limits"]["effort"],
                **j["gains"],
                "home": j["home"],
                "motor_id": j.get("motor", {}).get("id"),
            }
            for j in data["joint"]
        ]


def rotate(quat, v):
    """Rotate v [..., 3] by unit quaternions [..., 4] wxyz."""
    w, xyz = quat[..., :1], quat[..., 1:]
    t = 2 * np.cross(xyz, v)
    return v + w * t + np.cross(xyz, t)


def multiply(a, b):
    w = a[..., 0] * b[..., 0] - (a[..., 1:] * b[..., 1:]).sum(-1)
    xyz = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate((w[..., None], xyz), -1)


def forward(chain, names, q):
    """Position [n, 3] and orientation [n, 4] of a chain's end at joint positions q [n, J]."""
    n = len(q)
    pos, quat = np.zeros((n, 3)), np.tile([1.0, 0, 0, 0], (n, 1))
    for link in chain:
        pos = pos + rotate(quat, np.tile(link["pos"], (n, 1)))
        quat = multiply(quat, np.tile(link["quat"], (n, 1)))
        if link["joint"] is None:
            continue
        move = q[:, names.index(link["joint"])] - link["zero"]
        axis = np.array(link["axis"])
        if link["kind"] == "hinge":
            half = np.concatenate((np.cos(move / 2)[:, None], np.sin(move / 2)[:, None] * axis), 1)
            quat = multiply(quat, half)
        else:
            pos = pos + rotate(quat, move[:, None] * axis)
    return pos, quat


class ObservationBatch:
    def __init__(self, manifest_json, robot, n):
        m = json.loads(manifest_json)
        self.names = [j["name"] for j in robot.joints]
        self.default = {j["name"]: j["default"] for j in m["joints"]}
        self.terms, self.n = m["observation"]["terms"], n
        self.frames = {f["name"]: f["chain"] for f in m["frames"]}
        self.commands = [c["name"] for c in m["commands"]]
        self.size = m["observation"]["size"]
        assert all("history" not in t for t in self.terms)

    def reset(self, ids):
        pass

    def state(self):
        return b""

    def set_state(self, state):
        assert state == b""

    def step(self, q, dq, tau, user, action, target, time, out, ids=None):
        columns = []
        for t in self.terms:
            joints = t.get("joints") or list(self.default)
            at = [self.names.index(j) for j in joints]
            p = t.get("params", {})
            goal = user[:, [self.commands.index(c) for c in p["target"]]] if "target" in p else None
            match t["source"]:
                case "joint_pos":
                    raw = q[:, at] - [self.default[j] for j in joints]
                case "joint_vel":
                    raw = dq[:, at]
                case "joint_target_error":
                    raw = target[:, at] - q[:, at]
                case "last_action":
                    raw = action.astype(float)
                case "target_cylindrical":
                    raw = np.stack((np.hypot(goal[:, 0], goal[:, 1]), goal[:, 2]), 1)
                case "frame_pos_error":
                    raw = goal - forward(self.frames[p["frame"]], self.names, q)[0]
                    if "in" in p:
                        quat = forward(self.frames[p["in"]], self.names, q)[1]
                        raw = rotate(quat * [1, -1, -1, -1], raw)
                    if "soft" in p:
                        raw = raw / np.sqrt((raw**2).sum(1, keepdims=True) + p["soft"] ** 2)
                case other:
                    raise ValueError(f"unknown source {other}")
            columns.append((raw - np.asarray(t["offset"])) * np.asarray(t["scale"]))
        rows = np.concatenate(columns, 1)
        pick = slice(None) if ids is None else ids
        out[pick] = rows[pick]


def v_safe(d, a):
    """Largest speed (per tick) from which the braking law stops within d (in ticks of dt)."""
    d = np.maximum(d, 0.0)
    m = np.floor((np.sqrt(1 + 8 * d / a) - 1) / 2)
    return np.where(d <= 0, 0.0, d / (m + 1) + a * m / 2)


class ActionBatch:
    def __init__(self, manifest_json, robot, n):
        m = json.loads(manifest_json)
        self.a = a = m["action"]
        assert a["kind"] == "position_increment"
        names = [j["name"] for j in robot.joints]
        self.at = np.array([names.index(j) for j in a["joints"]])
        self.scale = np.array([a["scale"].get(j, a["scale"].get("*")) for j in a["joints"]])
        assert "clip" not in a  # it would bound the increment, not the target
        self.dt = m["rates"]["control_dt"]
        self.ticks = round(m["rates"]["policy_dt"] / self.dt)
        self.lo, self.hi = np.array([j["position"] for j in robot.joints]).T
        self.V = np.array([j["velocity"] for j in robot.joints])
        self.A = np.array([j["acceleration"] for j in robot.joints]) * self.dt
        jerk = np.array([j["jerk"] for j in robot.joints])
        self.taps = np.maximum(1, np.ceil(2 * self.A / self.dt / (jerk * self.dt))).astype(int)
        # Target, the law's position and velocity, then the last positions, the newest first.
        self.memory = np.zeros((3 + self.taps.max() + 1, n, len(names)))
        self.target, self.p, self.v, self.last = *self.memory[:3], self.memory[3:]

    def reset(self, ids, q):
        self.target[ids], self.p[ids], self.v[ids] = q, q, 0.0
        self.last[:, ids] = q

    def state(self):
        return self.memory.tobytes()

    def set_state(self, state):
        self.memory[:] = np.frombuffer(state).reshape(self.memory.shape)

    def step(self, action, q, out_q, out_dq):
        u = np.clip(action.astype(float), *self.a["raw_clip"])
        held = q[:, self.at]
        new = self.target[:, self.at] + u * self.scale
        new = np.clip(new, held - self.a["leash"], held + self.a["leash"])
        self.target[:, self.at] = np.clip(new, self.lo[self.at], self.hi[self.at])
        for k in range(self.ticks):
            self._limit(np.clip(self.target, self.lo, self.hi))
            self.last[:] = np.roll(self.last, 1, axis=0)
            self.last[0] = self.p
            for j, n in enumerate(self.taps):
                out_q[:, k, j] = self.last[:n, :, j].mean(0)
                out_dq[:, k, j] = (self.last[0, :, j] - self.last[n, :, j]) / (n * self.dt)

    def _limit(self, u):
        dt, A, V = self.dt, self.A, self.V
        e = (u - self.p) / dt
        want = np.clip(np.sign(e) * v_safe(np.abs(e), A), -V, V)
        v = np.clip(want, self.v - A, self.v + A)
        down = np.minimum(V, v_safe((self.p - self.lo) / dt, A))
        up = np.minimum(V, v_safe((self.hi - self.p) / dt, A))
        self.v[:] = np.clip(v, -down, up)
        self.p[:] = np.clip(self.p + self.v * dt, self.lo, self.hi)


class RobotError(ValueError):
    pass


assert math.isclose(float(v_safe(np.array(5.0), 0.2)), 1.3142857142857143)
