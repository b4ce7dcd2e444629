"""The canonical archive, written field by field so that any field can be wrong."""

import struct
import zlib
from dataclasses import dataclass, field

DATE = 0x0021


@dataclass
class Entry:
    """One entry; what is None is computed. `local` and `central` override header fields on one side only."""

    name: bytes
    data: bytes
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)
    pad: bytes | None = None
    tail: bytes = b""
    """Bytes after the data, before the next header."""


def common(entry: Entry, extra: int, change: dict) -> bytes:
    values = {
        "version": 10,
        "flags": 0,
        "method": 0,
        "time": 0,
        "date": DATE,
        "crc": zlib.crc32(entry.data),
        "compressed": len(entry.data),
        "size": len(entry.data),
        "name": len(entry.name),
        "extra": extra,
    }
    values |= {key: value for key, value in change.items() if key in values}
    return struct.pack("<HHHHHIIIHH", *values.values())


def archive(entries: list[Entry], *, prefix=b"", comment=b"", suffix=b"", end: dict | None = None) -> bytes:
    """Local headers and data, central directory, end record."""
    file, directory = bytearray(prefix), bytearray()
    for entry in entries:
        offset = len(file)
        padding = -(offset + 30 + len(entry.name) + 4) % 64
        extra = struct.pack("<HH", 0xCADE, padding) + bytes(padding) if entry.pad is None else entry.pad
        file += b"PK\3\4" + common(entry, len(extra), entry.local)
        file += entry.local.get("as", entry.name) + extra + entry.data + entry.tail
        offset = entry.central.get("offset", offset)
        more = entry.central.get("more", b"")
        directory += b"PK\1\2" + struct.pack("<H", 10) + common(entry, len(more), entry.central)
        directory += struct.pack("<HHHII", 0, 0, 0, entry.central.get("attributes", 0), offset)
        directory += entry.central.get("as", entry.name) + more
    record = {"disk": 0, "start": 0, "here": len(entries), "all": len(entries)} | (end or {})
    start = len(file)
    file += directory + b"PK\5\6" + struct.pack("<HHHH", *record.values())
    file += struct.pack("<IIH", len(directory), start, len(comment)) + comment + suffix
    return bytes(file)
