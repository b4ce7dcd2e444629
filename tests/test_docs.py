"""The documentation names what the code names: reasons, keys, sources, fields, files."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from cadenza import stl
from cadenza.algos.symphony_config import _PAPER, SymphonyConfig
from cadenza.recipes import RECIPES
from cadenza.runtime import RunConfig
from cadenza.sim.domain import Domain
from cadenza.tasks import TASKS
from cadenza.tasks.reach import ReachArm6

ROOT = Path(__file__).parents[1]
RUST = ROOT / "rust"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "python/cadenza/robots").glob("**/*.md")]
)


def read(path):
    return (ROOT / path).read_text()


def table(page, header):
    """Rows of the first table of `page` whose header line starts with `header`, as lists of cells."""
    lines = page[page.index(f"\n{header}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines[2:]]


def names(cell):
    """What stands in backticks, without the marks."""
    return re.findall(r"`([^`]+)`", cell)


def struct(source, name):
    """Field names of a Rust struct."""
    body = re.search(rf"struct {name} \{{\n(.*?)^\}}", source, re.DOTALL | re.MULTILINE)[1]
    return set(re.findall(r"^\s+pub(?:\(\w+\))? (?:r#)?(\w+):", body, re.MULTILINE))


def test_every_reason_stands_in_the_list_with_its_number_and_level():
    source = read("rust/runtime/src/safety/reason.rs")
    levels = {"SoftStop": "soft stop"}
    code = {
        (text, int(number), levels.get(level, level.lower()))
        for number, text, level in re.findall(r'^\s+\w+ = (\d+), "(\w+)", (\w+);$', source, re.MULTILINE)
    }
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (\d+) \| ([a-z ]+) \| (.+) \| (.+) \|$", read("docs/reasons.md"), re.MULTILINE
    )
    page = [(name, int(number), level) for name, number, level, _, _ in rows]
    assert len(page) == len(set(page)) and set(page) == code
    assert all(meaning.endswith(".") and remedy.endswith((".", "?")) for *_, meaning, remedy in rows)


def test_every_manifest_key_is_explained():
    code = struct(read("rust/policy/src/manifest/mod.rs"), "Manifest")
    page = [names(row[0])[0] for row in table(read("docs/bundle.md"), "| key | meaning |")]
    assert len(page) == len(set(page)) and set(page) == code


def test_every_observation_source_is_explained():
    source = read("rust/policy/src/manifest/terms.rs")
    start = source.index("const SOURCES")
    known = set(
        re.findall(r'^\s+\("([\w.*]+)", Size', source[start : source.index("];", start)], re.MULTILINE)
    )
    page = {name for row in table(read("docs/bundle.md"), "| source |") for name in names(row[0])}
    assert page == known | {"x-*"}


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        ("RawDevice", "## `[device]`"),
        ("RawImu", "## `[imu]`"),
        ("RawSafety", "## `[safety]`"),
        ("RawFrame", "## `[[frame]]`"),
        ("RawJoint", "## `[[joint]]`"),
        ("RawLimits", "`limits`:"),
        ("RawGains", "`gains`:"),
        ("RawMotor", "`motor`:"),
    ],
)
def test_every_key_of_robot_toml_is_explained(raw, header):
    page = read("docs/robots.md")
    section = page[page.index(f"\n{header}") :]
    keys = [names(row[0])[0] for row in table(section, "| key |")]
    assert len(keys) == len(set(keys))
    assert set(keys) == struct(read("rust/runtime/src/robot/raw.rs"), raw)


def test_every_setting_of_a_run_is_explained():
    code = struct(read("rust/runtime/src/config.rs"), "RunConfig")
    page = [names(row[0])[0] for row in table(read("docs/run.md"), "| key |")]
    assert len(page) == len(set(page)) and set(page) == code == {f.name for f in fields(RunConfig)}


@pytest.mark.parametrize(
    ("source", "kind", "header"),
    [("schema", "Topic", "| topic |"), ("entry", "Stage", "| stage |")],
)
def test_every_topic_and_stage_is_explained(source, kind, header):
    text = read(f"rust/runtime/src/log/{source}.rs")
    text = text[text.index(f"impl {kind}") :]
    text = text[text.index("fn name") :]
    code = re.findall(rf'{kind}::\w+ => "([^"]+)"', text[: text.index("\n    }\n")])
    assert code and [names(row[0])[0] for row in table(read("docs/run.md"), header)] == code


def covers(whole, part, at=""):
    """Whether everything in `part` stands in `whole` too; entries of lists are found by their name."""
    if isinstance(part, dict):
        for key, value in part.items():
            assert key in whole, f"{at}.{key}"
            covers(whole[key], value, f"{at}.{key}")
    elif isinstance(part, list) and part and isinstance(part[0], dict):
        for item in part:
            covers(next(x for x in whole if x["name"] == item["name"]), item, f"{at}.{item['name']}")
    elif part != "…":
        assert whole == pytest.approx(part), at


def test_the_worked_example_is_the_reach_policy():
    page = read("docs/bundle.md")
    example = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    assert set(example["functions"]) == {"step"}  # the exporter adds it
    task = ReachArm6()
    covers(task.manifest(), {key: value for key, value in example.items() if key != "functions"})
    for line in task.spec().splitlines():
        assert line in page


def test_corrections_of_symphony_are_the_code_s():
    rows = {names(row[0])[0]: row[1:3] for row in table(read("docs/symphony.md"), "| field |")}
    assert set(rows) == {*_PAPER, "authority"}
    defaults = {f.name: f.default for f in fields(SymphonyConfig)}
    for name, cells in rows.items():
        ours, paper = (json.loads(cell.strip("`")) for cell in cells)
        assert (ours, paper) == (defaults[name], _PAPER.get(name, defaults[name])), name


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(path):
    text = path.read_text()
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose):
        if "://" not in link:
            assert (path.parent / link).exists(), link
    for name in re.findall(r"`((?:rust|python|tests|docs|benches)/[\w./-]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), name


def test_the_site_lists_every_page():
    pages = re.findall(r"^ +- .+: ([\w/-]+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    docs = ROOT / "docs"
    here = (p.relative_to(docs) for p in docs.rglob("*.md") if p.parent.name != "results")
    assert sorted(pages) == sorted(map(str, here))


def test_formulas_of_the_stl_pages_parse_and_the_error_is_the_parser_s(tmp_path):
    (formulas,) = re.findall(r"```text\n(.*?)```", read("docs/stl/index.md"), re.DOTALL)
    for line in formulas.splitlines():
        stl.parse(re.split(r" {3,}", line)[0], dt=0.01)
    (error,) = re.findall(r"```text\n(.*?)```", read("docs/stl/grammar.md"), re.DOTALL)
    text = error.splitlines()[1].strip()
    with pytest.raises(stl.ParseError) as refused:
        stl.parse(text, dt=0.02)
    assert str(refused.value).strip() == error.strip()
    (tmp_path / "page.stl").write_text(
        re.search(r"```stl\n(.*?)```", read("docs/stl/grammar.md"), re.DOTALL)[1]
    )
    assert list(stl.parse_file(tmp_path / "page.stl", dt=0.01)) == ["keep_distance", "stop"]


def test_every_word_of_the_stl_grammar_is_read():
    binary = {"U", "Ui", "S", "Si", "R", "W", "and", "->", "<->"}
    for word, others in table(read("docs/stl/grammar.md"), "| word |"):
        (word,) = names(word)
        for spelling in (word, *names(others)):
            text = f"x > 0 {spelling} y > 0" if word in binary else f"{spelling} (x > 0)"
            assert str(stl.parse(text)) == str(stl.parse(text.replace(spelling, word, 1))), spelling
    assert str(stl.parse("x > 0 | y > 0 || x < 3")) == str(stl.parse("x > 0 or y > 0 or x < 3"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("G[0,1](x > 0", "Syntax"),
        ("G[0,1] x", "Type"),
        ("gpa > 0", "UnknownSignal"),
        ("G[5,2] x > 0", "BadBound"),
        ("G[-1,2] x > 0", "BadBound"),
        ("G[0,1.5] x > 0", "BadBound"),
        ("G[0,2s] x > 0", "NeedsDt"),
    ],
)
def test_what_the_stl_grammar_says_is_refused(text, kind):
    with pytest.raises(stl.ParseError) as refused:
        stl.parse(text, signals=["x", "gap"])
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    "code", re.findall(r"^```py\n(.*?)^```$", read("docs/stl/index.md"), re.DOTALL | re.M)
)
def test_the_code_of_the_stl_page_runs(code):
    exec(code, {"trace": np.ones((300, 2))})


@pytest.mark.parametrize("name", ["01_log_check", "02_training_loss", "03_live_monitor", "04_decomposition"])
def test_the_examples_print_what_their_page_says(name, tmp_path):
    page = read("docs/stl/examples.md")
    promised = re.search(rf"`examples/{name}\.py`.*?```text\n(.*?)```", page, re.DOTALL)[1]
    prints(promised, sys.executable, ROOT / f"examples/{name}.py", tmp_path)
    if shutil.which("cargo") is None:
        pytest.skip("not installed: cargo, which builds the example in Rust")
    args = [tmp_path / "swing.csv", "0.002"] if name == "01_log_check" else []
    if own := re.search(rf"`examples/{name}\.rs` [^`]*:\n\n```text\n(.*?)```", page, re.DOTALL):
        promised = own[1]
    assert f"`examples/{name}.rs`" in page
    cargo = ["cargo", "run", "--quiet", "--manifest-path", ROOT / "Cargo.toml", "-p", "cadenza-stl"]
    prints(promised, *cargo, "--example", name, "--", *args)


def prints(promised, *command):
    """The command prints what is promised, but for the last digits of numbers with a point."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    ours, theirs = (re.split(r"(-?\d+\.\d+)", text.strip()) for text in (run.stdout, promised))
    assert ours[::2] == theirs[::2]
    # Numbers of a simulation or a training differ in their last digits from machine to machine.
    np.testing.assert_allclose(
        np.array(ours[1::2], float), np.array(theirs[1::2], float), rtol=0.05, atol=0.01
    )


@pytest.mark.parametrize("number", range(5))
def test_each_way_to_bring_a_policy_runs_as_it_is_written(number, tmp_path, monkeypatch, capsys):
    if number == 2:
        pytest.importorskip("yaml", reason="deploy.yaml needs PyYAML")
    foreign = ROOT / "tests" / "fixtures" / "foreign"
    for name in ("rsl_rl.onnx", "mjlab.onnx", "policy.kinfer", "sb3_ppo.onnx", "robot.toml"):
        shutil.copy(foreign / name, tmp_path)
    shutil.copytree(foreign / "unitree", tmp_path / "unitree")
    (tmp_path / "unitree" / "exported").mkdir()
    shutil.copy(foreign / "unitree.onnx", tmp_path / "unitree" / "exported" / "policy.onnx")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(
        r"^```py\n(.*?)^```$", read("docs/bring-your-own-policy.md"), re.DOTALL | re.MULTILINE
    )
    assert len(examples) == 5
    exec(examples[number], {})
    assert capsys.readouterr().out.strip()
    assert len(list(tmp_path.glob("*.cadenza"))) == 1


def test_every_sensor_of_a_frame_is_explained():
    source = read("rust/runtime/src/observe/frames.rs")
    code = re.findall(r'"(\w+)"', source[source.index("pub const SENSORS") :].split("];")[0])
    page = [name for row in table(read("docs/bundle.md"), "| sensor |") for name in names(row[0])]
    assert sorted(page) == sorted(code) and len(code) == 13


def test_the_training_guide_runs_as_it_is_written(cadenza, tmp_path, monkeypatch, capsys):
    page = read("docs/training.md")

    def blocks(kind):
        return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)

    (toml,), (xml,), (code,), (commands,) = (blocks(kind) for kind in ("toml", "xml", "py", "sh"))
    (tmp_path / "lever").mkdir()
    (tmp_path / "lever" / "robot.toml").write_text(toml)
    (tmp_path / "lever" / "model.xml").write_text(xml)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "cadenza/TurnLever-v0", None)  # the page's own, gone after the test
    exec(code, {})
    last = [line.split() for line in capsys.readouterr().out.splitlines()][-1]
    assert float(last[1]) >= 0.8  # it has learned
    for line in commands.splitlines():
        verb, *words = line.split()
        assert verb == "cadenza"
        done = cadenza(*words)
        assert "error" not in done.stdout.split()
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_every_task_and_every_field_of_a_domain_is_explained():
    page = read("docs/training.md")
    listed = [names(row[0])[0] for row in table(page, "| task |")]
    assert listed == [*sorted(TASKS, key=listed.index), "gym:ID"]
    for name, recipe in ((names(row[0])[0], row[2]) for row in table(page, "| task |")[:-1]):
        assert (recipe == "yes") == (name in RECIPES), name
    domain = [names(row[0])[0] for row in table(page, "| field |")]
    assert domain == [f.name for f in fields(Domain)]
