"""Large arrays in pieces that are written once: what makes a checkpoint of a large replay cheap.

A piece is a run of rows, compressed, in a file named after the SHA-256 of its bytes. A piece that is there
already is not written again, so a checkpoint costs what changed since the one before it, and a replay that
repeats a block holds it once. Pieces are never changed: an older checkpoint stays whole while training goes
on.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

LEAST_BYTES = 1 << 19
ROWS = 512
"""A piece holds a multiple of this many rows, and at least `LEAST_BYTES`."""


class ChunkError(ValueError):
    """A piece that is missing or torn; the text names its file and the reason."""


class ChunkStore:
    """A folder of pieces.

    Args:
        folder: made when the first piece is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, array: np.ndarray) -> list[str]:
        """Store an array of at least one dimension; the names of its pieces, in order."""
        array = np.ascontiguousarray(array)
        each = max(1, array[:1].nbytes)
        rows = ROWS * max(1, -(-LEAST_BYTES // (ROWS * each)))
        return [self._write(array[at : at + rows].tobytes()) for at in range(0, len(array), rows)]

    def read(self, names: Iterable[str], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The array again.

        Raises:
            ChunkError: a piece is missing, torn, or of another size.
        """
        out = np.empty(shape, dtype)
        view = out.reshape(-1).view(np.uint8)
        at = 0
        for name in names:
            data = self._read(name)
            if at + len(data) > len(view):
                raise ChunkError(f"{self._path(name)}: the pieces hold more than {len(view)} bytes")
            view[at : at + len(data)] = np.frombuffer(data, np.uint8)
            at += len(data)
        if at != len(view):
            raise ChunkError(f"{self.folder}: the pieces hold {at} bytes, {len(view)} wanted")
        return out

    def sync(self) -> None:
        """Put the folder on the disk."""
        if self.folder.exists():
            fd = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def keep(self, names: set[str]) -> None:
        """Remove every other piece, and what a killed process left half-written."""
        if self.folder.exists():
            for path in self.folder.iterdir():
                if path.name not in names:
                    path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{name}.{os.getpid()}")
            try:
                with temporary.open("wb") as file:
                    file.write(zlib.compress(data, 1))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return name

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        try:
            data = zlib.decompress(path.read_bytes())
        except FileNotFoundError:
            raise ChunkError(f"{path}: missing") from None
        except zlib.error as error:
            raise ChunkError(f"{path}: torn or changed: {error}") from error
        if hashlib.sha256(data).hexdigest() != name:
            raise ChunkError(f"{path}: torn or changed: its bytes have another SHA-256")
        return data

    def _path(self, name: str) -> Path:
        return self.folder / name
