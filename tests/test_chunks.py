"""cadenza.chunks behind checkpoints: what is written, shared, kept, removed, and found torn."""

import numpy as np
import pytest

from cadenza.checkpoint import (
    CheckpointError,
    chunk_store,
    load_checkpoint,
    previous_checkpoint,
    save_checkpoint,
)
from cadenza.chunks import ChunkError, ChunkStore


def pieces(path):
    return sorted(chunk_store(path).folder.iterdir())


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).normal(size=(5000, 60)).astype(np.float32),
        np.random.default_rng(1).random(2_000_000) < 0.5,
        np.arange(200_000, dtype=np.int64)[::-1],
        np.random.default_rng(2).normal(size=(3, 100_000)).T,
    ],
)
def test_large_arrays_come_back(tmp_path, array):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"big": array, "small": array[:3]})
    loaded = load_checkpoint(path)
    for name, expected in (("big", array), ("small", array[:3])):
        assert loaded[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[name], expected)
    loaded["big"][0] = 0  # it can be written to, and the file does not notice
    np.testing.assert_array_equal(load_checkpoint(path)["big"], array)
    assert path.stat().st_size < 20_000


def test_only_what_changed_is_written_and_the_old_snapshot_stays(tmp_path):
    path = tmp_path / "c.pt"
    ring = np.random.default_rng(0).normal(size=(20_480, 64)).astype(np.float32)
    first = ring.copy()
    save_checkpoint(path, {"ring": ring})
    before = {p.name for p in pieces(path)}
    assert len(before) == 10
    ring[3000:3500] = 1.0
    save_checkpoint(path, {"ring": ring})
    after = {p.name for p in pieces(path)}
    assert len(after - before) == 1
    np.testing.assert_array_equal(load_checkpoint(path)["ring"], ring)
    np.testing.assert_array_equal(load_checkpoint(previous_checkpoint(path))["ring"], first)
    ring[:100] = 2.0
    save_checkpoint(path, {"ring": ring})
    # the piece that only the first one needed is gone
    assert len(pieces(path)) == 11
    assert before - {p.name for p in pieces(path)}
    save_checkpoint(path, {"ring": None})
    save_checkpoint(path, {"ring": None})
    assert pieces(path) == []


def test_a_repeated_block_is_held_once(tmp_path):
    block = np.random.default_rng(0).normal(size=(2560, 64)).astype(np.float32)
    save_checkpoint(tmp_path / "c.pt", {"tiled": np.tile(block, (20, 1))})
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "c.pt")["tiled"], np.tile(block, (20, 1)))
    assert sum(p.stat().st_size for p in pieces(tmp_path / "c.pt")) < 6 * block.nbytes


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "gone"])
def test_a_torn_piece_names_file_and_reason(tmp_path, damage):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"ring": np.random.default_rng(0).normal(size=(8192, 64))})
    piece, other = pieces(path)[3:5]
    data = piece.read_bytes()
    match damage:
        case "cut":
            piece.write_bytes(data[: len(data) // 2])
        case "flip":
            piece.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        case "swap":
            piece.write_bytes(other.read_bytes())
        case "gone":
            piece.unlink()
    reason = "missing" if damage == "gone" else "torn or changed"
    with pytest.raises(CheckpointError, match=rf"c\.pt: .*{piece.name}: {reason}"):
        load_checkpoint(path)


def test_what_a_killed_process_left_is_cleared(tmp_path):
    path = tmp_path / "c.pt"
    ring = np.ones((100_000, 16))
    save_checkpoint(path, {"ring": ring})
    (chunk_store(path).folder / ".half.123").write_bytes(b"x")
    save_checkpoint(path, {"ring": ring})
    assert not [p for p in pieces(path) if p.name.startswith(".")]


def test_a_torn_checkpoint_does_not_keep_the_next_from_being_saved(tmp_path):
    path = tmp_path / "c.pt"
    ring = np.ones((100_000, 16))
    save_checkpoint(path, {"ring": ring})
    path.write_bytes(path.read_bytes()[:-9])
    save_checkpoint(path, {"ring": ring + 1})  # the torn one is the previous one now
    np.testing.assert_array_equal(load_checkpoint(path)["ring"], ring + 1)
    save_checkpoint(path, {"ring": ring + 2})
    save_checkpoint(path, {"ring": ring + 3})
    assert len(pieces(path)) == 4  # a whole and a short one for each of the last two


def test_a_full_disk_leaves_the_old_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    ring = np.random.default_rng(0).normal(size=(8192, 64))
    save_checkpoint(path, {"ring": ring})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cadenza.chunks.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"ring": ring + 1.0})
    monkeypatch.undo()
    np.testing.assert_array_equal(load_checkpoint(path)["ring"], ring)
    assert not [p for p in pieces(path) if p.name.startswith(".")]


def test_pieces_of_another_array_do_not_fit(tmp_path):
    store = ChunkStore(tmp_path / "pieces")
    names = store.write(np.ones((1000, 64)))
    with pytest.raises(ChunkError, match="more than 51200 bytes"):
        store.read(names, (100, 64), np.dtype(float))
    with pytest.raises(ChunkError, match="hold 512000 bytes, 1024000 wanted"):
        store.read(names, (2000, 64), np.dtype(float))
