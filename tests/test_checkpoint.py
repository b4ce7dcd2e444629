"""cadenza.checkpoint: round trip, torn and foreign files, crashes while saving."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza import checkpoint
from cadenza.checkpoint import CheckpointError, load_checkpoint, previous_checkpoint, save_checkpoint

STATE = {
    "tensor": torch.arange(6.0).reshape(2, 3)[:, 1:],
    "array": np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    "scalar_array": np.array(2.5),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "bytes": b"\x00\xff",
    "no_bytes": b"",
    "rng": np.random.default_rng(3).bit_generator.state,
    "nested": [1, (2.5, None, "text", True), {"a": {"b": np.float32(0.1)}}],
}


def same(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape) and np.array_equal(a, b)
    return a == b


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "c.pt", STATE)
    assert same(STATE, load_checkpoint(tmp_path / "c.pt"))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_the_file_is_a_snapshot(tmp_path):
    ring = np.zeros(5)
    save_checkpoint(tmp_path / "c.pt", {"ring": ring})
    loaded = load_checkpoint(tmp_path / "c.pt")
    ring[:] = 1.0
    loaded["ring"][:] = 2.0
    assert not load_checkpoint(tmp_path / "c.pt")["ring"].any()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "c.pt"
    save_checkpoint(path, STATE)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(whole, tmp_path_factory, data):
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    with pytest.raises(
        CheckpointError, match=r"flipped\.pt: (not a Cadenza|torn or changed|checkpoint format)"
    ):
        load_checkpoint(path)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_any_early_end_is_found(whole, tmp_path_factory, share):
    path = tmp_path_factory.getbasetemp() / "short.pt"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        CheckpointError, match=r"short\.pt: (not a Cadenza|torn or changed|checkpoint format)"
    ):
        load_checkpoint(path)


def test_foreign_files_are_named(tmp_path):
    foreign = tmp_path / "other.pt"
    torch.save({"x": 1}, foreign)
    with pytest.raises(CheckpointError, match=r"other\.pt: not a Cadenza checkpoint"):
        load_checkpoint(foreign)
    with pytest.raises(CheckpointError, match=r"none\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="a folder, not a checkpoint"):
        load_checkpoint(tmp_path)
    newer = tmp_path / "newer.pt"
    newer.write_bytes(b"cadenza-checkpoint 2\n" + bytes(100))
    with pytest.raises(CheckpointError, match="checkpoint format '2', this version reads format 1"):
        load_checkpoint(newer)


def test_the_previous_one_is_kept_and_named_when_the_newest_is_torn(tmp_path):
    path = tmp_path / "c.pt"
    for i in range(3):
        save_checkpoint(path, {"i": i})
    assert load_checkpoint(path) == {"i": 2}
    assert load_checkpoint(previous_checkpoint(path)) == {"i": 1}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"torn or changed: .*; the one before it is c\.pt\.previous"):
        load_checkpoint(path)


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.link", "Path.replace"])
def test_a_crash_while_saving_leaves_the_old_one(tmp_path, monkeypatch, step):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"i": 0})

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    owner, name = step.split(".")
    monkeypatch.setattr(getattr(checkpoint, owner), name, fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"i": 1})
    monkeypatch.undo()
    assert load_checkpoint(path) == {"i": 0}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(f".c.pt.{os.getpid()}")]


def test_what_it_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"state\.a\[1\]\.b is a object"):
        save_checkpoint(tmp_path / "c.pt", {"a": [0, {"b": object()}]})
    assert not list(tmp_path.iterdir())
