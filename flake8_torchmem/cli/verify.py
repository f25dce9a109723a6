"""`torchmem verify`: run fixtures or a script, and say what memory and gradients do, measured."""

from __future__ import annotations

import importlib.util
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, selection, settings_of
from flake8_torchmem.cli.progress import bar
from flake8_torchmem.cli.streams import wants_colour, write_file, write_lines
from flake8_torchmem.source import SourceError

if TYPE_CHECKING:
    from flake8_torchmem.settings import Settings
    from flake8_torchmem.verify.fixtures import Fixture, Report
    from flake8_torchmem.verify.runner import Limits

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


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("target", required=False, type=click.Path(exists=True, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "module", metavar="MODULE", help="Run a module as python -m does, in place of a file.")
@click.option("--device", type=click.Choice(["auto", "cuda", "virtual"]), default="auto", show_default=True, help="Where to run.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to report.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Fixtures: write plots to a page.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Fixtures: write all figures to a table.")
@click.option("--jobs", type=click.IntRange(1), default=None, help="Fixtures: processes at a time on the stand-in device.")
@click.option("--beats", type=click.IntRange(10), default=20, show_default=True, help="A script: steps after which it is stopped.")
@click.option("--gpu-memory", type=Size(), default="24GiB", show_default=True, help="A script: memory of the device that is to be filled.")
@selection("Measure")
@click.option("--timeout", type=click.FloatRange(1), default=600.0, show_default=True, metavar="SECONDS", help="For each process.")
@click.option("--memory-limit", type=Size(), default="16GiB", show_default=True, help="Host memory of each process.")
def verify(
    target: Path | None,
    arguments: tuple[str, ...],
    module: str | None,
    device: str,
    output_format: str,
    page: Path | None,
    record: Path | None,
    jobs: int | None,
    beats: int,
    gpu_memory: int,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    extend_select: tuple[str, ...],
    timeout: float,
    memory_limit: int,
) -> int:
    """Run TARGET and judge what it does to memory and gradients, measured.

    A folder holds fixtures: each claims an effect, which the flagged program must show and the fixed one must not. A
    file is a script of yours, with ARGUMENTS after a `--`: it is checked, run for some steps as it is, with all of its
    findings fixed and with each one fixed alone, and stopped. Nothing is written to the script.

    This executes code, in processes of its own that are bounded in time and memory but otherwise may do what the code
    does. Exits with 0 if nothing was refuted, 1 if something was, 2 if nothing could be measured.
    """
    if importlib.util.find_spec("torch") is None:
        raise click.ClickException("verify needs PyTorch: pip install 'flake8-torchmem[verify]'")
    from flake8_torchmem.verify.runner import Limits

    if record is not None:
        _require_place(record, whole=module is None and target is not None and target.is_dir())
    limits = Limits(timeout, memory_limit)
    settings = settings_of(select, ignore, extend_select)
    if module is not None:
        given = arguments if target is None else (str(target), *arguments)
        return _script(_file_of(module), module, given, device, output_format, beats, gpu_memory, limits, settings)
    if target is None:
        raise click.UsageError("name a folder of fixtures, a script, or -m and a module")
    if target.is_file():
        return _script(target, None, arguments, device, output_format, beats, gpu_memory, limits, settings)
    return _fixtures(target, device, output_format, page, record, jobs or os.cpu_count() or 1, limits, settings)


def _require_place(record: Path, whole: bool) -> None:
    """The table can be written at the end: minutes of measuring must not be lost."""
    if not whole:
        raise click.UsageError("--record takes the figures of a folder of fixtures")
    folder = record.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise click.UsageError(f"--record: {folder} is no folder that can be written to")


def _file_of(module: str) -> Path:
    """The file that `python -m` would run, found without running anything of the project but its packages' own files."""
    parts = module.split(".")
    for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__main__.py")):
        if path.is_file():
            return path
    raise click.UsageError(f"no module {module!r} in this folder")


def _fixtures(
    folder: Path,
    device: str,
    output_format: str,
    page: Path | None,
    record: Path | None,
    jobs: int,
    limits: Limits,
    settings: Settings,
) -> int:
    from flake8_torchmem.verify import fixtures, report

    chosen = settings.enabled_codes() if settings != type(settings)() else None
    found: list[Fixture] = [fixture for fixture in fixtures.find([folder]) if chosen is None or fixture.code in chosen]
    if not found:
        raise click.UsageError("there is no fixture in this folder: each has a fixture.toml, a bad.py and a fixed.py")
    click.echo("torchmem verify executes the programs of these fixtures.", err=True)
    with bar("verifying", len(found)) as advance:
        result = fixtures.verify(found, device, limits, jobs, lambda _fixture: advance())
    write_lines(report.as_json(result) if output_format == "json" else report.as_text(result, wants_colour()))
    if page is not None:
        from flake8_torchmem.verify.page import render

        write_file(str(page), render(result))
    if not result.device:
        return FAILURE
    if record is not None:
        _record(result, record)
    return FINDINGS if any(row.verdict.verdict.value == "REFUTED" for row in result.rows) else CLEAN


def _record(result: Report, file: Path) -> None:
    from flake8_torchmem.verify.record import OtherDeviceError, write

    try:
        changed = write(result, file, datetime.now(timezone.utc).date().isoformat())
    except (OSError, OtherDeviceError) as error:
        raise click.ClickException(f"{file}: {error}") from error
    click.echo(f"{file}: {'written' if changed else 'the figures are those that it holds'}", err=True)


def _script(
    path: Path,
    module: str | None,
    arguments: tuple[str, ...],
    device: str,
    output_format: str,
    beats: int,
    memory: int,
    limits: Limits,
    settings: Settings,
) -> int:
    from flake8_torchmem.verify import script

    click.echo(f"torchmem verify executes {path}, several times, for {beats} steps each.", err=True)
    try:
        result = script.verify(script.Script(path, module, arguments, beats), device, limits, settings, lambda: None)
    except (SourceError, OSError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    write_lines([script.as_json(result, memory)] if output_format == "json" else script.as_text(result, memory))
    return FAILURE if result.now is None else CLEAN
