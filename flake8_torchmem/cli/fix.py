"""`torchmem fix`: mend what can be mended, and say what was mended, what was left, and why."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import click

from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, configured
from flake8_torchmem.cli.progress import with_progress
from flake8_torchmem.cli.streams import wants_colour, write_lines, write_source
from flake8_torchmem.configuration import Configuration
from flake8_torchmem.files import STDIN, cannot, find_files, read, unreadable
from flake8_torchmem.fixes import Document, Outcome, Planned, document_of, fix_document
from flake8_torchmem.model import FileError
from flake8_torchmem.output.fixes import FixReport, Mended, differences, finding_lines, json_lines, text_lines
from flake8_torchmem.output.text import count
from flake8_torchmem.rules.internal import UNREADABLE_FILE
from flake8_torchmem.settings import Settings
from flake8_torchmem.source import SourceError

Wanted = Callable[[Planned, Document], bool]


@click.command(short_help="Mend findings in files and folders.")
@configured("Mend")
@click.option("--diff", is_flag=True, help="Write nothing: show what would change.")
@click.option("--unsafe-fixes", is_flag=True, help="Make the fixes that change training behaviour, or a type, as well: read them.")
@click.option("--interactive", is_flag=True, help="Show each fix and ask before it is made.")
@click.option("--exit-non-zero-on-fix", is_flag=True, help="Exit with 1 if something was, or with --diff would be, changed.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to report.")
@click.option("--stdin-display-name", default="stdin", show_default=True, metavar="PATH", help="What to call standard input in the report.")
def fix(
    paths: tuple[str, ...],
    configuration: Configuration,
    diff: bool,
    unsafe_fixes: bool,
    interactive: bool,
    exit_non_zero_on_fix: bool,
    output_format: str,
    stdin_display_name: str,
) -> int:
    """Mend PATHS in place: Python files, notebooks, folders (without what git ignores), or - for standard input to standard output.

    Only fixes that keep what the program computes are made, unless --unsafe-fixes is given. Exits with 0 if the work was
    done, whether or not findings are left, and with 2 if a path does not exist or a file could not be read or written.
    """
    if STDIN in paths and (len(paths) > 1 or interactive or (output_format == "json" and not diff)):
        raise click.UsageError("standard input is mended alone, to standard output")
    settings = configuration.settings
    sources = find_files(paths, configuration.exclusions)
    project = partial(Project, top=configuration.project_root) if configuration.follow_imports else None
    questions = _Questions() if interactive else None
    run = _Run(settings, unsafe_fixes, not diff, project, questions)
    if questions is None:
        for path in with_progress(sources.files, len(sources.files)):
            run.mend(path, stdin_display_name if path == STDIN else path)
    else:
        _mend_until(questions, run, sources.files)
    listed = [
        error for error in sources.errors if error.path in sources.missing or UNREADABLE_FILE.code in settings.enabled_codes(error.path)
    ]
    report = FixReport(run.mended, [*listed, *run.errors], not diff)
    _write(report, diff, output_format, stdin=STDIN in paths)
    if sources.missing or run.errors:
        return FAILURE
    return FINDINGS if report.changed and exit_non_zero_on_fix else CLEAN


class _Run:
    """One run over some files.

    Args:
        settings: whose findings are to be mended.
        unsafe: make unsafe fixes as well.
        writing: put results back into the files.
        project: makes what follows imports; None judges each file alone.
        wanted: asked about each fix; None takes all.
    """

    def __init__(
        self, settings: Settings, unsafe: bool, writing: bool, project: Callable[[], Project] | None, wanted: Wanted | None
    ) -> None:
        self.settings = settings
        self.unsafe = unsafe
        self.writing = writing
        self.new_project = project
        self.project = project() if project else None
        self.wanted = wanted
        self.mended: list[Mended] = []
        self.errors: list[FileError] = []

    def mend(self, path: str, name: str) -> None:
        """Mend one file; what goes wrong becomes an entry, and the file stays as it was."""
        from flake8_torchmem.fixes.write import ChangedError, replace_file

        try:
            data = read(path)
            before = document_of(name, data)
            outcome = self._outcome(before, name)
            now = outcome.document.data
        except SourceError as error:
            self.errors.append(unreadable(name, str(error), error.line))
            return
        except OSError as error:
            self.errors.append(cannot("read", name, error))
            return
        after = outcome.document
        if self.writing and path != STDIN and after.text != before.text:
            try:
                replace_file(path, data, now)
            except ChangedError:
                self.errors.append(unreadable(name, "it was changed by somebody else meanwhile, and is left so"))
                return
            except OSError as error:
                self.errors.append(cannot("written", name, error))
                return
            # What was read of this file for others is no longer true.
            self.project = self.new_project() if self.new_project else None
        self.mended.append(Mended(name, before, outcome))

    def _outcome(self, document: Document, name: str) -> Outcome:
        if self.wanted is None:
            return fix_document(document, name, self.settings, self.project, self.unsafe)
        return fix_document(document, name, self.settings, self.project, self.unsafe, self.wanted)


class _Questions:
    """Shows a fix and asks, on standard error as standard output may be a report; after `a`ll or `q`uit no more."""

    def __init__(self) -> None:
        self.last = ""
        self.colour = wants_colour(sys.stderr)

    @property
    def are_over(self) -> bool:
        """Whether nothing more is wanted."""
        return self.last == "q"

    def __call__(self, planned: Planned, document: Document) -> bool:
        """Whether a fix is wanted."""
        if self.last not in ("a", "q"):
            after = document.edited(planned.fix.edits)
            write_lines(finding_lines(document.located(planned.finding), planned.fix.safety, self.colour), sys.stderr)
            write_lines(differences(planned.finding.path, document, after, self.colour), sys.stderr)
            self.last = _answer()
        return self.last in ("y", "a")


def _mend_until(questions: _Questions, run: _Run, files: Sequence[str]) -> None:
    """Mend file by file until whoever is asked quits: no later one is read."""
    for done, path in enumerate(files):
        if questions.are_over:
            click.echo(f"torchmem: {count(len(files) - done, 'file')} not looked at", err=True)
            return
        run.mend(path, path)


def _answer() -> str:
    """One of the letters that are asked for, once it is given."""
    while True:
        click.echo("Make this fix? [y]es, [n]o, [a]ll, [q]uit: ", nl=False, err=True)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            raise click.Abort
        if line.strip().lower() in ("y", "n", "a", "q"):
            return line.strip().lower()


def _write(report: FixReport, diff: bool, output_format: str, stdin: bool) -> None:
    """Source and differences go to standard output, and then what is said about them to standard error."""
    if output_format == "json":
        write_lines(json_lines(report, diff))
        return
    colour = wants_colour()
    if diff:
        for mended in report.mended:
            write_lines(differences(mended.path, mended.before, mended.outcome.document, colour))
    elif stdin:
        for mended in report.mended:
            write_source(mended.outcome.document.data)
    write_lines(text_lines(report, colour and not (diff or stdin)), sys.stderr if diff or stdin else None)
