"""The first look at a file, at its text alone. This module imports nothing: every start of flake8 pays for what it does."""

from __future__ import annotations

# What each kind of a project's own names is read as.
SPELLINGS = {
    "backward": "backward",
    "step": "step",
    "zero_grad": "zero_grad",
    "detach": "detach",
    "to_host": "item",
    "no_grad": "no_grad",
}


def candidate(text: str) -> bool:
    """Whether a file can hold training code at all."""
    return "torch" in text or "state_dict" in text or ("backward" in text and ("zero_grad" in text or "optimizer" in text))
