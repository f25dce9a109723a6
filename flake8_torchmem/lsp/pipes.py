"""Objects through a pipe between two processes of ours: eight bytes of length, then a pickle."""

from __future__ import annotations

import pickle
import struct
from asyncio import StreamReader
from typing import BinaryIO

_HEAD = struct.Struct(">Q")


def frame(value: object) -> bytes:
    """An object as it goes through the pipe."""
    body = pickle.dumps(value)
    return _HEAD.pack(len(body)) + body


async def receive(reader: StreamReader) -> object:
    """The next object.

    Raises:
        asyncio.IncompleteReadError: the other end is gone.
    """
    (size,) = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return pickle.loads(await reader.readexactly(size))  # noqa: S301 - we have started the other end


def read_frame(source: BinaryIO) -> object | None:
    """The next object, None if the other end is gone."""
    head = source.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    (size,) = _HEAD.unpack(head)
    body = source.read(size)
    return pickle.loads(body) if len(body) == size else None  # noqa: S301 - it has started us


def write_frame(sink: BinaryIO, value: object) -> None:
    """Send an object."""
    sink.write(frame(value))
    sink.flush()
