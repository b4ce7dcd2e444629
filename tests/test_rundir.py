"""cadenza.rundir: what a run's folder says of itself, the best policy, and folders of other versions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cadenza import __version__
from cadenza.export import ExportError
from cadenza.rundir import FORMAT, RunDir
from cadenza.runtime import Bundle, Policy
from cadenza.sim.domain import Domain
from cadenza.train import train
from test_train import SMALL, parameters

KEPT = replace(SMALL, steps=200, eval_every=100, keep_best=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = RunDir(tmp_path_factory.mktemp("run") / "run")
    result = train(KEPT, folder.path)
    return folder, result


def test_the_best_policy_is_kept(run):
    folder, result = run
    scores = [(e.success, e.return_mean) for _, e in result.evaluations]
    best = max(range(len(scores)), key=scores.__getitem__)
    bundle = Bundle(folder.best)
    said = json.loads(bundle.manifest)["provenance"]
    assert (said["steps"], said["environment"]) == (result.evaluations[best][0], SMALL.task)
    assert Policy(bundle).verify(bundle).passed
    leftover = {p.name for p in folder.path.iterdir() if p.name.startswith(("best", "."))}
    assert leftover == {"best.cadenza"}


def test_keeping_it_changes_no_number(run, tmp_path):
    result = train(replace(KEPT, keep_best=False), tmp_path / "run")
    assert result.evaluations == run[1].evaluations
    np.testing.assert_array_equal(parameters(result), parameters(run[1]))


def test_what_follows_the_best_does_not_replace_it(run, monkeypatch):
    folder, result = run
    written = []
    monkeypatch.setattr("cadenza.export.export_policy", lambda *a: written.append(a))
    monkeypatch.setattr("cadenza.train.evaluate", lambda *a, **k: worse)
    worse = replace(result.evaluations[-1][1], success=0.0, return_mean=-1e9)
    train(replace(KEPT, steps=300), folder.path, resume=True)
    assert written == []


def test_a_policy_that_cannot_be_exported_costs_a_warning_and_not_the_run(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise ExportError("ill-conditioned network")

    monkeypatch.setattr("cadenza.export.export_policy", refuse)
    with pytest.warns(UserWarning, match=r"best\.cadenza of transition \d+: ill-conditioned network"):
        result = train(KEPT, tmp_path / "run")
    np.testing.assert_array_equal(parameters(result), parameters(run[1]))
    folder = RunDir(tmp_path / "run")
    assert folder.checkpoint.exists() and not folder.best.exists()


def test_the_folder_explains_itself(run):
    folder, _ = run
    text = (folder.path / "README.txt").read_text()
    for path in folder.path.iterdir():
        name = path.name.split(".out")[0] if path.name.startswith("events") else path.name
        assert name == "README.txt" or name in text, name
    for verb in ("resume", "eval", "export", "inspect"):
        assert f"cadenza {verb} {folder.path}" in text


def test_settings_come_back(tmp_path):
    config = replace(SMALL, steps=40, domain=Domain(mass=(0.9, 1.1), action_delay=(0, 3)))
    train(config, tmp_path / "run")
    assert RunDir(tmp_path / "run").config() == config


@pytest.mark.parametrize("found", [FORMAT + 1, None])
def test_a_folder_of_another_version_is_refused_with_both(tmp_path, found):
    folder = RunDir(tmp_path)
    folder.create(SMALL)
    path = tmp_path / "config.json"
    data = json.loads(path.read_text()) | {"format": found, "cadenza": "9.9.9"}
    path.write_text(json.dumps(data))
    text = (
        f"made by cadenza 9.9.9 in format {found}; this is cadenza {__version__}, which reads format {FORMAT}"
    )
    with pytest.raises(ValueError, match=text):
        folder.config()


def test_tasks_without_a_robot_have_no_bundle(tmp_path):
    train(replace(KEPT, task="gym:Pendulum-v1", steps=300), tmp_path / "run")
    assert not (tmp_path / "run" / "best.cadenza").exists()
