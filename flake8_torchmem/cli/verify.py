"""`torchmem verify`: run fixtures or a script, and say what memory and gradients do, measured."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, INTERRUPTED, selection, settings_of
from flake8_torchmem.cli.progress import bar
from flake8_torchmem.cli.streams import wants_colour, write_file, write_lines
from flake8_torchmem.output.text import count
from flake8_torchmem.source import SourceError

if TYPE_CHECKING:
    from flake8_torchmem.settings import Settings
    from flake8_torchmem.verify.fixtures import Fixture, Report
    from flake8_torchmem.verify.runner import Limits, Runner
    from flake8_torchmem.verify.script import Script

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


@click.command(short_help="Run code and measure what findings cost.", context_settings={"ignore_unknown_options": False})
@click.argument("target", required=False, type=click.Path(exists=True, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "module", metavar="MODULE", help="Run a module as python -m does, in place of a file.")
@click.option("--device", type=click.Choice(["auto", "cuda", "virtual"]), default="auto", show_default=True, help="Where to run.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to report.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Fixtures: write plots to a page.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Fixtures: write all figures to a table.")
@click.option(
    "--snapshot",
    "snapshots",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="On a CUDA device: save what the allocator did in each run, for the viewer at pytorch.org/memory_viz.",
)
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
    snapshots: Path | None,
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

    What is known is printed as it comes. Ctrl-C ends what runs, and what was measured by then is reported.

    This executes code, in processes of its own that are bounded in time and memory but otherwise may do what the code
    does. Exits with 0 if nothing was refuted, 1 if something was, 2 if nothing could be measured.
    """
    if importlib.util.find_spec("torch") is None:
        raise click.ClickException("verify needs PyTorch: pip install 'flake8-torchmem[verify]'")
    from flake8_torchmem.verify.runner import Limits
    from flake8_torchmem.verify.script import Script

    if record is not None:
        _require_place(record, whole=module is None and target is not None and target.is_dir())
    limits = Limits(timeout, memory_limit)
    settings = settings_of(select, ignore, extend_select)
    if module is not None:
        given = arguments if target is None else (str(target), *arguments)
        script = Script(_file_of(module), module, given, beats)
        return _script(script, device, output_format, gpu_memory, snapshots, limits, settings)
    if target is None:
        raise click.UsageError("name a folder of fixtures, a script, or -m and a module")
    if target.is_file():
        script = Script(target, None, arguments, beats)
        return _script(script, device, output_format, gpu_memory, snapshots, limits, settings)
    return _fixtures(target, device, output_format, page, record, snapshots, jobs or os.cpu_count() or 1, limits, settings)


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
    snapshots: Path | None,
    jobs: int,
    limits: Limits,
    settings: Settings,
) -> int:
    from flake8_torchmem.verify import fixtures, report
    from flake8_torchmem.verify.runner import Runner

    chosen = settings.enabled_codes() if settings != type(settings)() else None
    found: list[Fixture] = [fixture for fixture in fixtures.find([folder]) if chosen is None or fixture.code in chosen]
    if not found:
        raise click.UsageError("there is no fixture in this folder: each has a fixture.toml, a bad.py and a fixed.py")
    click.echo("torchmem verify executes the programs of these fixtures.", err=True)
    text = report.Text([name for fixture in found for name in fixture.names()], wants_colour()) if output_format == "text" else None
    result = fixtures.device_of(limits, device)
    _refuse_snapshots(snapshots, result.device)
    if text:
        write_lines(text.head(result))
    with Runner(limits, result.device) as runner, _ended_by_signals(runner) as ended, bar("verifying", len(found)) as advance:
        for rows in fixtures.verify(found, result, runner, jobs, snapshots, advance) if result.device else ():
            if text:
                write_lines(text.rows(rows))
    write_lines(text.table(result) if text else report.as_json(result))
    if page is not None:
        from flake8_torchmem.verify.page import render

        write_file(str(page), render(result))
    if ended:
        return INTERRUPTED
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
    script: Script, device: str, output_format: str, memory: int, snapshots: Path | None, limits: Limits, settings: Settings
) -> int:
    from flake8_torchmem.verify import script as scripts
    from flake8_torchmem.verify import script_report
    from flake8_torchmem.verify.fixtures import device_of
    from flake8_torchmem.verify.runner import Runner

    try:
        planned = scripts.plan(script, settings)
    except (SourceError, OSError) as error:
        raise click.ClickException(f"{script.path}: {error}") from error
    click.echo(f"torchmem verify executes {script.path}, {count(planned.runs, 'time')}, for {script.beats} steps each.", err=True)
    found, shown = device_of(limits, device), 0
    _refuse_snapshots(snapshots, found.device)
    result = scripts.ScriptReport(script, found.device, found.why, found.torch, failure=found.why)
    runner = Runner(limits, found.device, own_environment=True)
    with runner, _ended_by_signals(runner) as ended, bar("verifying", planned.runs) as advance:
        for _ in scripts.measure(planned, result, runner, snapshots) if found.device else ():
            advance()
            if output_format == "text":
                lines = list(script_report.as_text(result, memory))
                write_lines(lines[shown:])
                shown = len(lines)
    rest = list(script_report.as_text(result, memory))[shown:] if output_format == "text" else [script_report.as_json(result, memory)]
    write_lines(rest)
    return INTERRUPTED if ended else FAILURE if result.now is None else CLEAN


def _refuse_snapshots(folder: Path | None, device: str) -> None:
    if folder is not None and device == "virtual":
        raise click.UsageError("--snapshot takes a CUDA device: the stand-in has no allocator whose history could be saved")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _ended_by_signals(runner: Runner) -> Iterator[list[int]]:
    """Ctrl-C, or a request to end, stops the runs, and what was measured by then is reported; the second one ends this process.

    Gives the signals that came.
    """
    came: list[int] = []
    numbers = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _frame: object) -> None:
        came.append(number)
        restore()
        runner.stop()

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        restore()
