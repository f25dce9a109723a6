"""What every start has to know, and the first look at a file. This module imports nothing: each run of flake8 pays for what it does."""

from __future__ import annotations

# Codes of the rules that are off by default: reading them off the rules would import them all.
DEFAULT_OFF: tuple[str, ...] = ("TM107", "TM109", "TM213", "TM215", "TM302", "TM303", "TM305", "TM306", "TM307", "TM402", "TM403")
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
