"""`torchmem verify`: run fixtures and say whether they show what their rules claim."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import click

from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS
from flake8_torchmem.cli.streams import wants_colour, write_lines

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: `16GiB`, `500M`."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        if isinstance(value, int):
            return value
        found = _SIZE.match(value.strip())
        if found is None:
            self.fail(f"{value!r} is no size like 16GiB", param, ctx)
        return int(float(found[1]) * _UNITS[found[2].upper()])


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FOLDERS...", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--device", type=click.Choice(["auto", "cuda", "virtual"]), default="auto", show_default=True, help="Where to run.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to report.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page with plots as well.")
@click.option("--jobs", type=click.IntRange(1), default=None, help="Processes at a time on the stand-in device; by default one per core.")
@click.option("--timeout", type=click.FloatRange(1), default=300.0, show_default=True, metavar="SECONDS", help="For each process.")
@click.option("--memory-limit", type=Size(), default="16GiB", show_default=True, help="Host memory of each process.")
def verify(
    paths: tuple[Path, ...], device: str, output_format: str, page: Path | None, jobs: int | None, timeout: float, memory_limit: int
) -> int:
    """Run the fixtures in FOLDERS, flagged against fixed, and judge the effects that they claim.

    This executes their code, in processes of its own that are bounded in time and memory. Exits with 0 if nothing was
    refuted, 1 if something was, 2 if PyTorch is missing or there is no fixture.
    """
    if importlib.util.find_spec("torch") is None:
        raise click.ClickException("verify needs PyTorch: pip install 'flake8-torchmem[verify]'")
    from flake8_torchmem.cli.progress import bar
    from flake8_torchmem.verify import fixtures, report
    from flake8_torchmem.verify.runner import Limits

    found = list(fixtures.find(paths))
    if not found:
        raise click.UsageError("there is no fixture in these folders: each has a fixture.toml, a bad.py and a fixed.py")
    click.echo("torchmem verify executes the programs of these fixtures.", err=True)
    with bar("verifying", len(found)) as advance:
        result = fixtures.verify(found, device, Limits(timeout, memory_limit), jobs or os.cpu_count() or 1, lambda _fixture: advance())
    write_lines(report.as_json(result) if output_format == "json" else report.as_text(result, wants_colour()))
    if page is not None:
        from flake8_torchmem.verify.page import render

        page.write_text("\n".join(render(result)), "utf-8")
    if not result.device:
        return FAILURE
    return FINDINGS if any(row.verdict.verdict.value == "REFUTED" for row in result.rows) else CLEAN
