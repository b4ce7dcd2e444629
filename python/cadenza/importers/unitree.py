"""unitree_rl_lab: `policy.onnx` and `deploy.yaml`.

`joint_ids_map[i]` is the SDK index of the policy's joint i. Stiffness and damping stand in SDK order; default
positions, scales and offsets in the policy's own. Joint names are in neither file: the SDK's order comes from
robot.toml, by motor id or by the order of its joints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cadenza import _native
from cadenza.importers.draft import Draft, Need
from cadenza.importers.graph import ForeignPolicyError, Graph
from cadenza.importers.rsl_rl import normalizer_in_graph

YAML_CAP = 1 << 20
SLICE = "tag:yaml.org,2002:python/object/apply:builtins.slice"
# Where deploy.yaml lies, seen from policy.onnx.
BESIDE = ("deploy.yaml", "../params/deploy.yaml", "params/deploy.yaml")
GRAPHS = ("policy.onnx", "exported/policy.onnx")
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "base_ang_vel": ("gyro", {}),
    "projected_gravity": ("projected_gravity", {}),
    "velocity_commands": ("command", {}),
    "joint_pos_rel": ("joint_pos", {}),
    "joint_pos": ("joint_pos", {"absolute": True}),
    "joint_vel_rel": ("joint_vel", {}),
    "joint_vel": ("joint_vel", {}),
    "last_action": ("last_action", {}),
    "gait_phase": ("phase", {}),
}
KINDS = {"JointPositionAction": "position", "JointVelocityAction": "velocity"}
VELOCITY = ("lin_vel_x", "lin_vel_y", "ang_vel_z")
SWITCHES = ("use_gym_history", "scale_first")


def files(path: Path) -> tuple[Path, Path]:
    """`policy.onnx` and `deploy.yaml` of a folder, or of either file.

    Raises:
        ForeignPolicyError: one of them is not where unitree_rl_lab puts it.
    """
    if path.suffix in (".yaml", ".yml"):
        places = [path.parent / name for name in GRAPHS] + [path.parent.parent / "exported" / "policy.onnx"]
        return _first(places, path), path
    graph = _first([path / name for name in GRAPHS], path) if path.is_dir() else path
    return graph, _first([graph.parent / name for name in BESIDE], graph)


def _first(places: list[Path], path: Path) -> Path:
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise ForeignPolicyError(
        f"{path}: unitree_rl_lab's policy is policy.onnx and deploy.yaml; there is none of {looked}"
    )


def load_yaml(path: Path) -> dict[str, Any]:
    """`deploy.yaml`; the one tag that it uses becomes a slice of whole numbers, every other tag is refused.

    Raises:
        ForeignPolicyError: no YAML mapping, another tag, or more than 1 MiB.
        ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that knows one tag more, and runs nothing for it."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # aliases of aliases grow without end
                raise ForeignPolicyError(f"{path}: deploy.yaml has no aliases (*name)")
            return super().compose_node(parent, index)

    def construct_slice(loader: yaml.SafeLoader, node: yaml.Node) -> slice:
        bounds = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
        whole = all(x is None or type(x) is int for x in bounds)
        if not 1 <= len(bounds) <= 3 or not whole or bounds[2:] == [0]:
            raise yaml.constructor.ConstructorError(None, None, f"{bounds} is no slice", node.start_mark)
        return slice(*bounds)

    Loader.add_constructor(SLICE, construct_slice)
    if path.stat().st_size > YAML_CAP:
        raise ForeignPolicyError(f"{path}: {path.stat().st_size} bytes, at most {YAML_CAP}")
    try:
        document = yaml.load(path.read_text(), Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ForeignPolicyError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise ForeignPolicyError(f"{path}: a mapping is needed, not {type(document).__name__}")
    return document


def read(graph: Graph, deploy: Mapping[str, Any], name: str, robot: _native.Robot | None) -> Draft:
    """The draft of a policy with its deployment file.

    Raises:
        ForeignPolicyError: keys, lengths or indices of deploy.yaml that do not fit each other or the robot.
    """
    draft = Draft(kind="unitree", name=name, graphs={"step": graph})
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ForeignPolicyError(f"{graph.name}: one input and one output wanted: {graph.ports}")
    file = Deploy(deploy)
    sdk = _sdk_names(robot, draft)
    if sdk is None:
        draft.needed.append(
            Need(
                "robot= (--robot NAME): deploy.yaml counts joints as the SDK does, robot.toml names them",
                "",
            )
        )
    ids = file.indices("joint_ids_map", len(sdk) if sdk else None)
    joints = [sdk[i] for i in ids] if sdk else [f"joint {i} of the SDK" for i in ids]
    kp, kd = file.by_sdk("stiffness", ids), file.by_sdk("damping", ids)
    default = file.numbers(file.mapping, "default_joint_pos", len(ids))
    draft.manifest = {
        "joints": [
            {"name": joint, "default": d, "kp": p, "kd": v}
            for joint, d, p, v in zip(joints, default, kp, kd, strict=True)
        ],
        "rates": {"policy_dt": file.number(file.mapping, "step_dt")},
        "functions": {
            "step": {
                "file": "step.onnx",
                "batch": 1,
                "inputs": {graph.inputs[0].name: "observation"},
                "outputs": {graph.outputs[0].name: "action"},
            }
        },
    }
    normalizer_in_graph(draft, graph, graph.inputs[0].name)
    _action(file, draft, joints)
    _observation(file, draft, joints, graph.inputs[0].name)
    draft.assumed.append(
        "numbers of deploy.yaml have three significant digits: up to 0.5 % of each is lost in rounding"
    )
    return draft


def _sdk_names(robot: _native.Robot | None, draft: Draft) -> list[str] | None:
    """Joint names by SDK index: robot.toml's motor ids where it has them, its order otherwise."""
    if robot is None:
        return None
    ids = [joint["motor_id"] for joint in robot.joints]
    if all(i is not None for i in ids) and sorted(i for i in ids if i is not None) == list(range(len(ids))):
        draft.assumed.append("SDK order: the motor ids of robot.toml")
        return [joint["name"] for joint in sorted(robot.joints, key=lambda joint: joint["motor_id"])]
    draft.assumed.append("SDK order: the order of the joints in robot.toml, whose motors have no ids 0, 1, …")
    return [joint["name"] for joint in robot.joints]


def _action(file: Deploy, draft: Draft, joints: list[str]) -> None:
    actions = file.section("actions")
    if len(actions) != 1:
        raise ForeignPolicyError(
            f"deploy.yaml: actions: one term is run, not {', '.join(map(str, actions)) or 'none'}"
        )
    [(term, settings)] = actions.items()
    if term not in KINDS:
        raise ForeignPolicyError(f"deploy.yaml: actions.{term}: known are {', '.join(KINDS)}")
    settings = file.checked(settings, f"actions.{term}")
    chosen = file.chosen(settings.get("joint_ids"), f"actions.{term}.joint_ids", len(joints))
    driven = [joints[i] for i in chosen]
    scale = file.numbers(settings, "scale", len(driven))
    offset = file.numbers(settings, "offset", len(driven))
    action: dict[str, Any] = {
        "kind": KINDS[term],
        "joints": driven,
        "scale": dict(zip(driven, scale, strict=True)),
        "offset": dict(zip(driven, offset, strict=True)),
        "previous": "raw",
    }
    if settings.get("clip") is not None:
        clip = file.ranges(settings["clip"], f"actions.{term}.clip", len(driven))
        action["clip"] = {joint: pair for joint, pair in zip(driven, clip, strict=True) if pair is not None}
    draft.manifest["action"] = action


def _observation(file: Deploy, draft: Draft, joints: list[str], graph_input: str) -> None:
    section = file.section("observations")
    if len(section) == 1 and isinstance(group := next(iter(section.values())), dict) and "scale" not in group:
        section = group  # newer files name the group, after the graph's input
    switches = {key: section.get(key, False) for key in SWITCHES}
    terms = []
    for name, settings in section.items():
        if name in SWITCHES:
            continue
        settings = file.checked(settings, f"observations.{name}")
        terms.append(_term(file, draft, str(name), settings, joints, bool(switches["scale_first"])))
    if not terms:
        raise ForeignPolicyError("deploy.yaml: observations: no term")
    draft.manifest["observation"] = {
        "interleave": "time" if switches["use_gym_history"] else "term",
        "terms": terms,
    }
    if any(term.get("source") == "phase" for term in terms):
        draft.assumed.append(
            "gait_phase: starts at 0 here, while unitree_rl_lab adds one step before its first inference"
        )


def _term(
    file: Deploy, draft: Draft, name: str, settings: Mapping[str, Any], joints: list[str], scale_first: bool
) -> dict[str, Any]:
    length = settings.get("history_length", 1)
    if type(length) is not int or not 0 <= length <= 65_536:
        raise ForeignPolicyError(f"deploy.yaml: observations.{name}.history_length: {length!r} is no length")
    term: dict[str, Any] = {
        "name": name,
        "clip_stage": "after_scale" if scale_first else "before_scale",
        "history": {"length": max(1, length), "order": "oldest_first", "fill": "repeat"},
    }
    scale = settings.get("scale")
    if scale is not None:
        term["scale"] = (
            file.numbers(settings, "scale", None)
            if isinstance(scale, list)
            else file.number(settings, "scale")
        )
    if settings.get("clip") is not None:
        [term["clip"]] = file.ranges([settings["clip"]], f"observations.{name}.clip", 1)
    params = file.checked(settings.get("params") or {}, f"observations.{name}.params")
    if name not in SOURCES:
        return term  # the missing source is asked for
    source, own = SOURCES[name]
    term["source"] = source
    if own:
        term["params"] = dict(own)
    if source in ("joint_pos", "joint_vel"):
        asset = file.checked(params.get("asset_cfg") or {}, f"observations.{name}.params.asset_cfg")
        chosen = file.chosen(asset.get("joint_ids"), f"observations.{name}: joint_ids", len(joints))
        term["joints"] = [joints[i] for i in chosen]
    if source == "phase":
        term["params"] = {"period": file.number(params, "period")}
    if source == "command":
        term["params"] = {"commands": _commands(file, draft)}
    if isinstance(scale, list):
        term["size"] = len(scale)
    return term


def _commands(file: Deploy, draft: Draft) -> list[str]:
    velocity = file.checked(file.section("commands").get("base_velocity") or {}, "commands.base_velocity")
    ranges = file.checked(velocity.get("ranges") or {}, "commands.base_velocity.ranges")
    commands = []
    for key in VELOCITY:
        [pair] = file.ranges([ranges.get(key)], f"commands.base_velocity.ranges.{key}", 1)
        if pair is None or not pair[0] <= 0.0 <= pair[1]:
            raise ForeignPolicyError(
                f"deploy.yaml: commands.base_velocity.ranges.{key}: {pair} is no range around 0"
            )
        commands.append({"name": key, "range": pair})
    draft.manifest["commands"] = commands
    return list(VELOCITY)


class Deploy:
    """`deploy.yaml`, read with checks that name key and value."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self.mapping = mapping

    def checked(self, value: Any, at: str) -> dict[str, Any]:
        """A mapping."""
        if not isinstance(value, dict):
            raise ForeignPolicyError(f"deploy.yaml: {at}: a mapping is needed, not {value!r}")
        return value

    def section(self, key: str) -> dict[str, Any]:
        """A mapping of the whole file."""
        if key not in self.mapping:
            raise ForeignPolicyError(f"deploy.yaml: {key} is missing")
        return self.checked(self.mapping[key] or {}, key)

    def number(self, mapping: Mapping[str, Any], key: str) -> float:
        """A finite number."""
        value = mapping.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ForeignPolicyError(f"deploy.yaml: {key}: {value!r} is not a finite number")
        return float(value)

    def numbers(self, mapping: Mapping[str, Any], key: str, count: int | None) -> list[float]:
        """`count` finite numbers."""
        values = mapping.get(key)
        if not isinstance(values, list) or not values:
            raise ForeignPolicyError(f"deploy.yaml: {key}: a list of numbers is needed, not {values!r}")
        if count is not None and len(values) != count:
            raise ForeignPolicyError(f"deploy.yaml: {key} has {len(values)} numbers, {count} wanted")
        return [self.number({key: value}, key) for value in values]

    def indices(self, key: str, below: int | None) -> list[int]:
        """Different indices, below the number of the robot's joints."""
        values = self.mapping.get(key)
        if not isinstance(values, list) or not values or not all(type(i) is int and i >= 0 for i in values):
            raise ForeignPolicyError(f"deploy.yaml: {key}: a list of indices is needed, not {values!r}")
        if len(set(values)) != len(values):
            raise ForeignPolicyError(f"deploy.yaml: {key} names an index twice: {values}")
        if below is not None and max(values) >= below:
            raise ForeignPolicyError(
                f"deploy.yaml: {key} goes up to {max(values)}, robot.toml has {below} joints"
            )
        return values

    def by_sdk(self, key: str, ids: list[int]) -> list[float]:
        """Numbers that stand in SDK order, in the policy's."""
        values = self.numbers(self.mapping, key, None)
        if max(ids) >= len(values):
            raise ForeignPolicyError(
                f"deploy.yaml: {key} has {len(values)} numbers in SDK order, joint_ids_map has {max(ids)}"
            )
        return [values[i] for i in ids]

    def chosen(self, value: Any, at: str, count: int) -> list[int]:
        """Policy indices: all when absent, or a slice of them."""
        if value is None:
            return list(range(count))
        if isinstance(value, slice):
            value = list(range(count))[value]
        if (
            not isinstance(value, list)
            or not value
            or not all(type(i) is int and 0 <= i < count for i in value)
        ):
            raise ForeignPolicyError(f"deploy.yaml: {at}: {value!r} is no list of indices below {count}")
        if len(set(value)) != len(value):
            raise ForeignPolicyError(f"deploy.yaml: {at} names an index twice: {value}")
        return value

    def ranges(self, value: Any, at: str, count: int) -> list[list[float] | None]:
        """`count` pairs; one without a finite end is no bound."""
        if not isinstance(value, list) or len(value) != count:
            raise ForeignPolicyError(f"deploy.yaml: {at}: {count} ranges wanted, not {value!r}")
        pairs: list[list[float] | None] = []
        for pair in value:
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(x, (int, float)) for x in pair)
            ):
                raise ForeignPolicyError(f"deploy.yaml: {at}: {pair!r} is no range")
            if any(math.isnan(x) for x in pair) or pair[0] > pair[1]:
                raise ForeignPolicyError(f"deploy.yaml: {at}: {pair!r} is no range")
            both = [float(x) for x in pair]
            if math.isinf(both[0]) and math.isinf(both[1]):
                pairs.append(None)
            elif any(map(math.isinf, both)):
                raise ForeignPolicyError(
                    f"deploy.yaml: {at}: {pair!r} is open at one end; a bundle has no such range"
                )
            else:
                pairs.append(both)
        return pairs
