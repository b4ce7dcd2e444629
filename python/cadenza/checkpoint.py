"""Checkpoints: one file, written atomically, read only if whole.

Layout: the line `cadenza-checkpoint 1`, the SHA-256 of the rest as a line of hexadecimal, then a torch
archive that is loaded with `weights_only`, so that a foreign file cannot run code. Large arrays lie beside
it in `<name>.chunks`, in pieces that are written once (`cadenza.chunks`), so a checkpoint of a large replay
costs what changed. Nothing that training does later touches a snapshot. Saving keeps the one before it as
`<name>.previous`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from cadenza.chunks import LEAST_BYTES, ChunkError, ChunkStore

_MAGIC = b"cadenza-checkpoint 1\n"
_DIGEST = 64
_ARRAY, _BYTES, _BIG, _CHUNKS = "__ndarray__", "__bytes__", "__int__", "__chunks__"


class CheckpointError(ValueError):
    """A checkpoint that is missing, torn or foreign; the text names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors, arrays, numbers, strings, bytes and None.

    The new file replaces the old one in one step, after its bytes are on the disk; the old one becomes
    `<name>.previous`. A crash at any moment leaves a whole checkpoint.

    Raises:
        TypeError: a value of another type, with its place.
        OSError: the disk is full or the path not writable; the old checkpoint stays.
    """
    path = Path(path)
    store = chunk_store(path)
    encoded = _encode(state, "state", store)
    store.sync()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w+b") as file:
            file.write(_MAGIC + b"0" * _DIGEST + b"\n")
            hashing = _Hashing(file)
            torch.save(encoded, hashing)  # pyright: ignore[reportArgumentType]
            file.seek(len(_MAGIC))
            file.write(hashing.sha256.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            _keep(path)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    if store.folder.exists():
        kept = previous_checkpoint(path)
        # a torn one is nobody's snapshot any more, and the new one is safe already
        with contextlib.suppress(CheckpointError):
            store.keep(_chunks(encoded) | (_kept_chunks(kept) if kept.exists() else set()))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: no file, another kind of file, or one whose bytes changed or end early.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _check(path, file)
            return _decode(torch.load(file, map_location="cpu", weights_only=True), chunk_store(path))
    except FileNotFoundError:
        raise CheckpointError(path, "no such checkpoint") from None
    except IsADirectoryError:
        raise CheckpointError(path, "a folder, not a checkpoint") from None
    except ChunkError as error:
        raise CheckpointError(path, str(error)) from error


def previous_checkpoint(path: str | Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def chunk_store(path: str | Path) -> ChunkStore:
    """Where the large arrays of the checkpoint `path`, and of the one before it, lie."""
    path = Path(path)
    return ChunkStore(path.with_name(path.name.removesuffix(".previous") + ".chunks"))


def _chunks(encoded: Any) -> set[str]:
    """Names of all pieces that an encoded state needs."""
    match encoded:
        case dict() if _CHUNKS in encoded:
            return set(encoded[_CHUNKS])
        case dict():
            return set().union(*map(_chunks, encoded.values()))
        case list() | tuple():
            return set().union(*map(_chunks, encoded))
        case _:
            return set()


def _kept_chunks(path: Path) -> set[str]:
    with path.open("rb") as file:
        _check(path, file)
        return _chunks(torch.load(file, map_location="cpu", weights_only=True))


def _check(path: Path, file: BufferedReader) -> None:
    head = file.read(len(_MAGIC) + _DIGEST + 1)
    if not head.startswith(_MAGIC[:18]):
        raise CheckpointError(path, "not a Cadenza checkpoint")
    if not head.startswith(_MAGIC):
        version = head[18:].split(b"\n")[0].strip().decode(errors="replace")
        raise CheckpointError(path, f"checkpoint format {version!r}, this version reads format 1")
    body = file.tell()
    found = hashlib.file_digest(file, "sha256").hexdigest()
    expected = head[len(_MAGIC) : -1].decode(errors="replace")
    if found != expected or head[-1:] != b"\n":
        text = f"torn or changed: SHA-256 {found[:12]}…, expected {expected[:12]}…"
        kept = previous_checkpoint(path)
        raise CheckpointError(path, text + (f"; the one before it is {kept.name}" if kept.exists() else ""))
    file.seek(body)


def _keep(path: Path) -> None:
    kept = previous_checkpoint(path)
    link = kept.with_name(f".{kept.name}.{os.getpid()}")
    link.unlink(missing_ok=True)
    os.link(path, link)
    link.replace(kept)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Hashing:
    """A file that hashes what is written to it; torch writes its archive front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _encode(value: Any, at: str, store: ChunkStore) -> Any:
    match value:
        case torch.Tensor():
            # a view would drag its whole storage into the file
            return value.detach().clone()
        case np.ndarray() if value.ndim and value.nbytes >= 2 * LEAST_BYTES:
            return {_CHUNKS: store.write(value), "shape": list(value.shape), "dtype": value.dtype.str}
        case np.ndarray():
            array = np.require(value, requirements=("C", "W"))
            return {_ARRAY: torch.from_numpy(array), "shape": list(value.shape)}
        case bytes():
            return {
                _BYTES: torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.zeros(0)
            }
        case np.generic():
            return value.item()
        case bool() | float() | str() | None:
            return value
        case int():
            return value if -(2**62) < value < 2**62 else {_BIG: str(value)}
        case Mapping():
            return {key: _encode(v, f"{at}.{key}", store) for key, v in value.items()}
        case list() | tuple():
            return type(value)(_encode(v, f"{at}[{i}]", store) for i, v in enumerate(value))
        case _:
            raise TypeError(f"{at} is a {type(value).__name__}, which a checkpoint cannot hold")


def _decode(value: Any, store: ChunkStore) -> Any:
    match value:
        case dict() if _CHUNKS in value:
            return store.read(value[_CHUNKS], tuple(value["shape"]), np.dtype(value["dtype"]))
        case dict() if _ARRAY in value:
            return value[_ARRAY].numpy().reshape(value["shape"])
        case dict() if _BYTES in value:
            return value[_BYTES].to(torch.uint8).numpy().tobytes()
        case dict() if _BIG in value:
            return int(value[_BIG])
        case dict():
            return {key: _decode(v, store) for key, v in value.items()}
        case list() | tuple():
            return type(value)(_decode(v, store) for v in value)
        case _:
            return value
