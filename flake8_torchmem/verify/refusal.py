"""What cannot be measured, and why."""

from __future__ import annotations


class RefusedError(RuntimeError):
    """The code asks for something that the chosen backend cannot show; the text says what."""
