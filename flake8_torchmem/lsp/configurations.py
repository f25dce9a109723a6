"""What holds for each document: the command line, and the `pyproject.toml` around it, which may change while the server runs."""

from __future__ import annotations

import os
from collections.abc import Callable

from flake8_torchmem.configuration import Configuration, ConfigurationError

Configure = Callable[[str], Configuration]


class Configurations:
    """Decides about documents, each folder once until something has changed.

    Args:
        configure: decides about a path.
        complain: told once of each file that cannot be obeyed.
    """

    def __init__(self, configure: Configure, complain: Callable[[str], None]) -> None:
        self._configure = configure
        self._complain = complain
        self._known: dict[str, Configuration] = {}
        self._before: dict[str, Configuration] = {}
        self._told = ""

    def of(self, path: str) -> Configuration:
        """What holds for a file; what held before, while its configuration is one that cannot be obeyed."""
        folder = os.path.dirname(path)
        if folder not in self._known:
            try:
                self._known[folder] = self._configure(path)
            except ConfigurationError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    self._complain(self._told)
                self._known[folder] = self._before.get(folder, Configuration())
        return self._known[folder]

    def forget(self) -> None:
        """Look at the files again."""
        self._before |= self._known
        self._known = {}
