#!/usr/bin/env python3
"""Writes `layouts.rs`: where MuJoCo keeps what the simulation without Python reads, one entry a layout.

    python layouts.py INCLUDE… > layouts.rs

Each INCLUDE is a folder that holds `mujoco/mujoco.h`. To add a version, unpack its wheel (from 4.0 on that of
`mujoco-core`) and name it with those that are in the table already:

    pip download --no-deps mujoco-core==4.0.0 && unzip mujoco_core-4.0.0-*.whl 'mujoco/include/*' -d 4.0.0
    python layouts.py 3.17.0/mujoco/include 4.0.0/mujoco/include > layouts.rs

A C compiler answers, and refuses headers in which a field has another type or a constant another value.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

FIELDS = {
    "mjModel": {
        "mjtSize": ["nq", "nv", "nu", "nactuator", "nbody", "njnt", "nsensordata"],
        "mjtNum": ["opt.timestep"],
        "int*": [
            *("body_rootid", "jnt_type", "jnt_qposadr", "jnt_dofadr", "jnt_bodyid"),
            *("actuator_trntype", "actuator_dyntype", "actuator_gaintype", "actuator_biastype"),
            *("actuator_ctrladr", "actuator_outadr", "actuator_trnid", "sensor_type", "sensor_adr"),
        ],
        "mjtNum*": [
            *("actuator_gainprm", "actuator_biasprm", "actuator_delay", "actuator_forcerange"),
            "actuator_gear",
        ],
        "mjtBool*": ["actuator_forcelimited", "actuator_ctrllimited"],
    },
    "mjData": {"mjtNum*": ["qpos", "qvel", "ctrl", "qfrc_actuator", "sensordata", "xpos", "xquat"]},
}
SENSORS = {"framequat": "mjSENS_FRAMEQUAT", "gyro": "mjSENS_GYRO", "accelerometer": "mjSENS_ACCELEROMETER"}
BEYOND_REPAIR = ["mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL"]
ASSUMED = [
    "sizeof(mjtNum) == 8 && sizeof(mjtSize) == 8 && sizeof(mjtBool) == 1 && sizeof(int) == 4",
    "mjOBJ_BODY == 1 && mjOBJ_JOINT == 3 && mjOBJ_ACTUATOR == 19 && mjOBJ_SENSOR == 20",
    "mjJNT_FREE == 0 && mjJNT_SLIDE == 2 && mjJNT_HINGE == 3",
    "mjTRN_JOINT == 0 && mjDYN_NONE == 0 && mjGAIN_FIXED == 0",
    "mjBIAS_NONE == 0 && mjBIAS_AFFINE == 1",
    "mjNGAIN == mjNBIAS",
    "offsetof(mjSpec, element) == 0 && offsetof(mjsFrame, element) == 0 && offsetof(mjsBody, element) == 0",
]


def program() -> str:
    """C that prints the version, then the fields of an entry."""
    asserts = [f'_Static_assert({fact}, "{fact}");' for fact in ASSUMED]
    prints = ['printf("%d\\n", mjVERSION_HEADER);']
    for struct, types in FIELDS.items():
        for c_type, fields in types.items():
            for field in fields:
                same = f"_Generic((({struct}*)0)->{field}, {c_type}: 1, default: 0)"
                asserts.append(f'_Static_assert({same}, "{field} is no {c_type}");')
                name, offset = field.rpartition(".")[2], f"offsetof({struct}, {field})"
                prints.append(f'printf("        {name}: Field::at(%zu),\\n", {offset});')
    numbers = {**SENSORS, "prm_row": "mjNBIAS"}
    prints += [f'printf("        {name}: %d,\\n", {number});' for name, number in numbers.items()]
    counters = ", ".join(f"offsetof(mjData, warning[{warning}].number)" for warning in BEYOND_REPAIR)
    prints.append(f'printf("        warnings: [%zu, %zu, %zu, %zu],\\n", {counters});')
    includes = ["#include <stddef.h>", "#include <stdio.h>", "#include <mujoco/mujoco.h>"]
    return "\n".join([*includes, *asserts, "int main(void) {", *prints, "return 0;", "}"])


def layout(include: Path) -> tuple[int, str]:
    """Version and fields, as these headers have them."""
    with tempfile.TemporaryDirectory() as folder:
        binary = str(Path(folder, "layout"))
        compiler = ["cc", "-std=c11", f"-I{include}", "-x", "c", "-", "-o", binary]
        subprocess.run(compiler, input=program(), text=True, check=True)
        said = subprocess.run([binary], capture_output=True, text=True, check=True).stdout
    version, _, fields = said.partition("\n")
    return int(version), fields


def table(includes: list[Path]) -> str:
    """The Rust file."""
    entries: dict[str, list[int]] = {}
    for include in includes:
        version, fields = layout(include)
        entries.setdefault(fields, []).append(version)
    lines = [
        "//! Written by `layouts.py` from the headers of MuJoCo; not by hand.",
        "",
        "use super::layout::{Field, Layout};",
        "",
        "pub(super) const LAYOUTS: &[Layout] = &[",
    ]
    for fields, versions in entries.items():
        known = ", ".join(f"{version:_}" for version in sorted(versions))
        lines += ["    Layout {", f"        versions: &[{known}],", fields.rstrip("\n"), "    },"]
    return "\n".join([*lines, "];", ""])


if __name__ == "__main__":
    sys.stdout.write(table([Path(folder) for folder in sys.argv[1:]]))
