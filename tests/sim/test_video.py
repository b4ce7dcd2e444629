"""cadenza.sim.video: films without a screen, and what is said where none can be made."""

import subprocess

import numpy as np
import pytest

from cadenza.evaluate import evaluate
from cadenza.sim import video
from cadenza.sim.video import BACKENDS, Video, VideoError, find_backend
from cadenza.tasks import make
from cadenza.verbs.eval import filming

try:
    find_backend()
    missing = None
except VideoError as error:
    missing = str(error)
draws = pytest.mark.skipif(missing is not None, reason=str(missing))


def frames(path):
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(size[1], size[0], 3) for frame in reader]


@draws
@pytest.mark.parametrize("task", ["cadenza/PickArm6-v0", "gym:Hopper-v5"])
def test_a_film_shows_the_first_episode(tmp_path, task):
    env = make(task, 2, seed=0)
    path = tmp_path / "video" / "film.mp4"
    action = np.zeros((2, len(env.action_low)), np.float32)
    action[0] = 0.3
    steps = 0

    def act(obs):
        nonlocal steps
        steps += 1
        return action

    with filming(env, path) as watch:
        result = evaluate(act, env, seed=1, watch=watch)
        assert not path.exists()
    env.close()
    shown = frames(path)
    assert 0 < len(shown) <= steps
    assert result.episodes == 2
    assert shown[0].shape == (480, 640, 3)
    assert shown[0].std() > 10  # not one colour
    assert np.abs(shown[0].astype(int) - shown[-1]).max() > 50  # something moved


@draws
def test_a_film_without_a_frame_is_no_file(tmp_path):
    env = make("cadenza/ReachArm6-v0", 1)
    with Video(env.scene()[0], tmp_path / "film.mp4", 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_tasks_without_mujoco_cannot_be_drawn(tmp_path):
    env = make("gym:Pendulum-v1", 1)
    with (
        pytest.raises(ValueError, match="gym:Pendulum-v1 has no MuJoCo model"),
        filming(env, tmp_path / "a.mp4"),
    ):
        pass


def test_what_is_missing_is_named(monkeypatch):
    def fails(command, **_):
        return subprocess.CompletedProcess(command, 1, "", f"Traceback\nImportError: no {command[-1]}\n")

    monkeypatch.setattr(video.subprocess, "run", fails)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(VideoError) as caught:
        find_backend.__wrapped__()
    for text in (
        "egl: ImportError: no egl",
        "osmesa: ImportError: no osmesa",
        *BACKENDS.values(),
        "apt install",
    ):
        assert text in str(caught.value)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(VideoError) as caught:
        find_backend.__wrapped__()
    assert "egl" not in str(caught.value)


@draws
def test_eval_films_into_the_run(cadenza, reach_run, tmp_path):
    import shutil

    shutil.copytree(reach_run, tmp_path / "run")
    done = cadenza("eval", "run", "--episodes", 2, "--video")
    (film,) = (tmp_path / "run" / "video").iterdir()
    assert film.name in done.stdout
    assert len(frames(film)) == 50
