"""flake8 with or without this project's plugin, in one environment: `flake8_runner.py with|without ARGUMENTS OF FLAKE8`.

The last line on standard error names every module that the process has imported.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Iterator

PACKAGE = "flake8_torchmem."


def main() -> int:
    """Run flake8's own command line on what flake8 is allowed to see of the environment."""
    mode = sys.argv.pop(1)
    everything = importlib.metadata.distributions

    def visible() -> Iterator[importlib.metadata.Distribution]:
        """All distributions, or all but the one whose entry points lead to the plugin. Both modes read the entry points."""
        found: Iterable[importlib.metadata.Distribution] = everything()
        for distribution in found:
            ours = any(point.value.startswith(PACKAGE) for point in distribution.entry_points)
            if mode == "with" or not ours:
                yield distribution

    importlib.metadata.distributions = visible  # type: ignore[assignment]
    from flake8.main.cli import main as flake8

    status: int = flake8(sys.argv[1:])
    sys.stderr.write("\n" + " ".join(sys.modules))
    return status


if __name__ == "__main__":
    sys.exit(main())
