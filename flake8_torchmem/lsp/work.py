"""What the process that computes does: checks and fixes of one document, as `torchmem check` and `torchmem fix` do them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from flake8_torchmem import check_source
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.fixes import Document, fix_document
from flake8_torchmem.fixes.preview import previews, replacements
from flake8_torchmem.lsp.jobs import Checked, Diagnosed, Failure, Job, Kind, Mended, Offer, Related
from flake8_torchmem.lsp.titles import title
from flake8_torchmem.model import Edit, Finding, Safety
from flake8_torchmem.remedies import Remedy, Remove
from flake8_torchmem.source import SourceError
from flake8_torchmem.suppression import silencing

Answer = Checked | list[Offer] | Mended | Failure | None


def do(job: Job) -> Answer:
    """The answer to a job: of a check `Checked`, of `MEND` the offers for the findings, of `MEND_ALL` one fix or None."""
    try:
        return _done(job, _project(job))
    except Exception as error:  # noqa: BLE001 - the next job may be a better one
        return Failure(f"{type(error).__name__}: {error}")


def _done(job: Job, project: Project | None) -> Answer:
    try:
        if job.kind is Kind.CHECK:
            return _checked(job, project)
        document = Document(job.text, "utf-8")
        if job.kind is Kind.MEND:
            return list(_offers(job, document, project))
        return _all_safe(job, document, project)
    except SourceError as error:
        return Checked(broken=str(error)) if job.kind is Kind.CHECK else [] if job.kind is Kind.MEND else None


def _project(job: Job) -> Project | None:
    """A new one for each job: the disk is looked at as it is now."""
    if not job.follow:
        return None
    project = Project(top=job.top)
    project.disk.unsaved = job.unsaved
    return project


def _checked(job: Job, project: Project | None) -> Checked:
    if project is None:
        return Checked(_diagnosed(job, None))
    with project.disk.tracing() as trace:
        found = _diagnosed(job, project)
    return Checked(found, frozenset(trace.asked))


def _diagnosed(job: Job, project: Project | None) -> tuple[Diagnosed, ...]:
    findings = check_source(job.text, job.path, job.settings, project)
    if not findings:
        return ()
    text = Document(job.text, "utf-8").normal
    # Remedies take a look at the whole file, which only one with findings is worth.
    mended = check_text(text, job.path, job.settings.enabled_codes(job.path), project=project, whole=True, own=job.settings.own)
    remedies = {(finding.code, finding.span): finding.remedy for finding in mended}
    return tuple(
        Diagnosed(replace(each, remedy=None), tuple(_related(each, job, text, project)), _is_removal(remedies.get((each.code, each.span))))
        for each in findings
    )


def _is_removal(remedy: object) -> bool:
    return isinstance(remedy, Remedy) and all(isinstance(action, Remove) for action in remedy.actions)


def _related(finding: Finding, job: Job, text: str, project: Project | None) -> Iterator[Related]:
    for mention in finding.mentions:
        path, source = job.path, text
        if mention.path:
            if project is None:
                continue
            root = project.root(os.path.dirname(job.path))
            path = os.path.join(root, mention.path)
            source = project.disk.text(path, root)
        yield Related(path, mention.span, source.split("\n")[mention.span.line - 1] if source else "")


def _offers(job: Job, document: Document, project: Project | None) -> Iterator[Offer]:
    for preview in previews(document, job.path, job.settings, project, lambda each: (each.code, each.span) in job.findings):
        finding, fix = preview.finding, None
        if preview.after is not None:
            fix = Mended(title(document.normal, preview.after.normal), preview.safety, _edits(document, preview.after))
        yield Offer((finding.code, finding.span), fix, silencing(document.normal, finding))


def _all_safe(job: Job, document: Document, project: Project | None) -> Mended | None:
    edits = _edits(document, fix_document(document, job.path, job.settings, project).document)
    return Mended("make all safe fixes", Safety.SAFE, edits) if edits else None


def _edits(before: Document, after: Document) -> tuple[Edit, ...]:
    return tuple(Edit(each.span, each.text) for each in replacements(before, after))
