"""A checkout that is installed with `pip install -e` brings the command `torchmem-dev`; what is built for users does not."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DevelopersCommand(BuildHookInterface):
    """Adds the script to editable installs alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling; `version` is the kind of wheel, `standard` or `editable`."""
        if version == "editable":
            build_data["shared_scripts"]["tools/torchmem-dev"] = "torchmem-dev"
