"""Findings and fixes as the protocol has them: positions in the units that client and server agreed on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from lsprotocol import types
from pygls.uris import from_fs_path
from pygls.workspace import PositionCodec

from flake8_torchmem.catalogue import catalogue, page
from flake8_torchmem.lsp.documents import Opened
from flake8_torchmem.lsp.jobs import Diagnosed, Mended, Offer, Related
from flake8_torchmem.model import Edit, Safety, Severity, Span

SOURCE = "torchmem"
FIX_ALL = types.CodeActionKind.SourceFixAll.value + ".torchmem"
_SEVERITIES = {Severity.ERROR: types.DiagnosticSeverity.Error, Severity.WARNING: types.DiagnosticSeverity.Warning}
_AFTER_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_COMPOUND = re.compile(r"(?:async\s+)?(?:for|while|with|def|class|if|try|match)\b")
_BOM = "\ufeff"


def lines_of(text: str) -> list[str]:
    """The lines as an editor counts them, with their ends: after the last end there is one more, which may be empty."""
    return _AFTER_LINE.split(text)


class Speaker:
    """Says what the server knows in terms of the protocol.

    Args:
        codec: counts characters as client and server agreed to.
        versioned: the client takes edits that name the version of the document.
    """

    def __init__(self, codec: PositionCodec, versioned: bool) -> None:
        self.codec = codec
        self.versioned = versioned

    def diagnostics(self, document: Opened) -> list[types.Diagnostic]:
        """The findings of a document as they were shown last."""
        lines = lines_of(document.text)
        return [self._diagnostic(each, document, lines) for each in document.findings]

    def _diagnostic(self, diagnosed: Diagnosed, document: Opened, lines: Sequence[str]) -> types.Diagnostic:
        finding = diagnosed.finding
        return types.Diagnostic(
            range=self._range(finding.span, lines),
            message=f"{finding.message}\n{finding.help}",
            severity=_SEVERITIES[finding.severity],
            code=finding.code,
            source=SOURCE,
            tags=[types.DiagnosticTag.Unnecessary] if diagnosed.unneeded else None,
            related_information=[self._related(each, document, lines) for each in diagnosed.related] or None,
        )

    def _related(self, related: Related, document: Opened, lines: Sequence[str]) -> types.DiagnosticRelatedInformation:
        here = related.path == (document.path or document.uri)
        uri = document.uri if here else from_fs_path(related.path) or ""
        place = self._range(related.span, lines if here else _Alone(related.span.line, related.line))
        return types.DiagnosticRelatedInformation(types.Location(uri, place), f"line {related.span.line}: `{related.line.strip()}`")

    def _range(self, span: Span, lines: Sequence[str]) -> types.Range:
        """A span; of a compound statement its first line, as the rest is another matter."""
        first = lines[span.line - 1].rstrip("\r\n") if span.line <= len(lines) else ""
        if span.line != span.end_line and (isinstance(lines, _Alone) or _COMPOUND.match(first[span.column - 1 :])):
            span = Span(span.line, span.column, span.line, len(first.removeprefix(_BOM)) + 1)
        return self._exact(span, lines)

    def _exact(self, span: Span, lines: Sequence[str]) -> types.Range:
        begin, end = self._position(span.line, span.column, lines), self._position(span.end_line, span.end_column, lines)
        return types.Range(begin, end)

    def _position(self, line: int, column: int, lines: Sequence[str]) -> types.Position:
        """From lines and characters counted from 1, a byte order mark not counted, to what the client counts."""
        text = lines[line - 1] if line <= len(lines) else ""
        characters = column - 1 + text.startswith(_BOM)
        return types.Position(line - 1, self.codec.client_num_units(text[:characters]))

    def edit(self, document: Opened, wanted: Iterable[Edit]) -> types.WorkspaceEdit:
        """An edit of a document, good for this version of it alone."""
        lines = lines_of(document.text)
        edits: list[types.TextEdit] = [types.TextEdit(self._exact(edit.span, lines), edit.text) for edit in wanted]
        if not self.versioned:
            return types.WorkspaceEdit(changes={document.uri: edits})
        identifier = types.OptionalVersionedTextDocumentIdentifier(document.uri, document.version)
        return types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(identifier, [*edits])])

    def quick_fixes(self, document: Opened, diagnosed: Diagnosed, offer: Offer) -> Iterator[types.CodeAction]:
        """What can be done about one finding."""
        about = [self._diagnostic(diagnosed, document, lines_of(document.text))]
        if offer.fix is not None:
            yield self._fix(document, offer.fix, about)
        code = diagnosed.finding.code
        name = f"{SOURCE}: silence {code} here with `# noqa: {code}`"
        yield types.CodeAction(name, types.CodeActionKind.QuickFix, about, edit=self.edit(document, [offer.silence]))

    def _fix(self, document: Opened, fix: Mended, about: list[types.Diagnostic]) -> types.CodeAction:
        safe = fix.safety is Safety.SAFE
        name = f"{SOURCE}: {fix.title} ({'safe' if safe else 'unsafe: it changes training, or a type'})"
        edit = self.edit(document, fix.edits)
        return types.CodeAction(name, types.CodeActionKind.QuickFix, about, is_preferred=True if safe else None, edit=edit)

    def fix_all(self, document: Opened, fix: Mended) -> types.CodeAction:
        """All safe fixes at once."""
        return types.CodeAction(f"{SOURCE}: {fix.title}", FIX_ALL, edit=self.edit(document, fix.edits))


class _Alone(Sequence[str]):
    """The one line that is known of another file, at its place."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self.text if index == self.number - 1 else ""


def pages(codes: Iterable[str]) -> str:
    """The pages of rules, each with what running the code showed, in Markdown."""
    return "\n\n---\n\n".join(f"# {page(code)}\n\nMeasured: {catalogue()[code].effect}" for code in dict.fromkeys(codes))
