"""What the server does with each message of the protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from lsprotocol import types
from pygls.uris import to_fs_path

from flake8_torchmem.lsp.documents import Opened
from flake8_torchmem.lsp.jobs import Diagnosed, Key, Kind, Mended, Offer
from flake8_torchmem.lsp.messages import FIX_ALL, pages
from flake8_torchmem.lsp.server import Server
from flake8_torchmem.lsp.worker import WorkerError

WATCHED = ("**/*.py", "**/pyproject.toml")


def register(server: Server) -> None:
    """Let a server do all that is in this module."""
    for method, handler in HANDLERS.items():
        server.feature(method, OPTIONS.get(method))(handler)


def initialized(server: Server, params: types.InitializedParams) -> None:
    """The client is ready: watch the files that findings depend on, as far as it can do that."""
    del params
    server.keeper = asyncio.create_task(server.keep())
    workspace = server.client_capabilities.workspace
    watching = workspace.did_change_watched_files if workspace else None
    if watching and watching.dynamic_registration:
        options = types.DidChangeWatchedFilesRegistrationOptions([types.FileSystemWatcher(pattern) for pattern in WATCHED])
        registration = types.Registration("torchmem-files", types.WORKSPACE_DID_CHANGE_WATCHED_FILES, options)
        server.client_register_capability(types.RegistrationParams([registration]))


def opened(server: Server, params: types.DidOpenTextDocumentParams) -> None:
    """A document is there."""
    server.open(params.text_document)


def changed(server: Server, params: types.DidChangeTextDocumentParams) -> None:
    """A document has another text."""
    server.change(params.text_document.uri, params.text_document.version)


def saved(server: Server, params: types.DidSaveTextDocumentParams) -> None:
    """A document is on the disk as it is: others may see it with new eyes."""
    document = server.documents.get(params.text_document.uri)
    if document is not None:
        server.configurations.forget()  # not every client watches files
        server.check(document)
        server.recheck(document.path)


def closed(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    """A document is gone."""
    server.close_document(params.text_document.uri)


def files_changed(server: Server, params: types.DidChangeWatchedFilesParams) -> None:
    """Files have changed on the disk: what depends on them is checked again, and everything if it was a configuration."""
    for change in params.changes:
        path = to_fs_path(change.uri) or ""
        if path.endswith(".py"):
            server.recheck(path, os.path.dirname(path) if change.type != types.FileChangeType.Changed else "")
        elif path:
            server.configurations.forget()
            for document in server.documents.values():
                server.check(document)


def shut_down(server: Server, params: None) -> None:
    """The client is about to go."""
    del params
    server.ending = True


async def hover(server: Server, params: types.HoverParams) -> types.Hover | None:
    """The pages of the rules that found something on a line."""
    document = await server.seen(params.text_document.uri)
    here = types.Range(params.position, params.position)
    found = _on_lines(server, document, here) if document is not None else []
    if not found:
        return None
    text = pages(diagnosed.finding.code for diagnosed, _ in found)
    return types.Hover(types.MarkupContent(_markup(server), text), found[0][1].range)


def _markup(server: Server) -> types.MarkupKind:
    document = server.client_capabilities.text_document
    formats = document.hover.content_format if document and document.hover else None
    return types.MarkupKind.Markdown if not formats or types.MarkupKind.Markdown in formats else types.MarkupKind.PlainText


async def code_actions(server: Server, params: types.CodeActionParams) -> list[types.CodeAction] | None:
    """What can be done about the findings on some lines, and about all of the document."""
    document = await server.settled(params.text_document.uri)
    if document is None:
        return None
    version = document.version
    found = _on_lines(server, document, params.range) if _wants(params.context, types.CodeActionKind.QuickFix.value) else []
    try:
        offers = await _offers(server, document, [diagnosed for diagnosed, _ in found])
        whole = await _all_safe(server, document) if document.findings and _wants_all(params.context) else None
    except WorkerError as error:
        server.log(f"no fixes of {document.path or document.uri}: {error}")
        return None
    if document.version != version or document.shown != version:
        return None
    about = ((diagnosed, offers[diagnosed.key]) for diagnosed, _ in found if diagnosed.key in offers)
    actions = [action for each in about for action in server.speaker.quick_fixes(document, *each)]
    return actions + ([server.speaker.fix_all(document, whole)] if whole is not None else [])


def _wants(context: types.CodeActionContext, kind: str) -> bool:
    """Whether a client asks for a kind of action, or for one that this is a kind of."""
    return context.only is None or any(kind == only or kind.startswith(f"{only}.") for only in context.only)


def _wants_all(context: types.CodeActionContext) -> bool:
    """Whether all safe fixes are worth computing: not for a light bulb that comes up with every move of the cursor."""
    automatic = context.trigger_kind == types.CodeActionTriggerKind.Automatic
    return _wants(context, FIX_ALL) and not (automatic and context.only is None)


def _on_lines(server: Server, document: Opened, place: types.Range) -> list[tuple[Diagnosed, types.Diagnostic]]:
    """The findings that share a line with a range, each as it is shown."""
    shown = zip(document.findings, server.speaker.diagnostics(document), strict=True)
    return [(each, as_shown) for each, as_shown in shown if _touch(as_shown.range, place)]


def _touch(one: types.Range, other: types.Range) -> bool:
    return one.start.line <= other.end.line and other.start.line <= one.end.line


async def _offers(server: Server, document: Opened, found: list[Diagnosed]) -> dict[Key, Offer]:
    """What can be done about findings; what was asked before of this text is not computed again."""
    missing = [each.key for each in found if each.key not in document.offers]
    if missing:
        answer = await server.worker.ask(server.job(document, Kind.MEND, missing))
        for offer in answer if isinstance(answer, list) else []:
            document.offers[offer.key] = offer
    return dict(document.offers)


async def _all_safe(server: Server, document: Opened) -> Mended | None:
    """All safe fixes of a document at once, if there are any."""
    if not document.all_safe:
        answer = await server.worker.ask(server.job(document, Kind.MEND_ALL))
        document.all_safe.append(answer if isinstance(answer, Mended) else None)
    return document.all_safe[0]


HANDLERS: dict[str, Callable[..., object]] = {
    types.INITIALIZED: initialized,
    types.SHUTDOWN: shut_down,
    types.TEXT_DOCUMENT_DID_OPEN: opened,
    types.TEXT_DOCUMENT_DID_CHANGE: changed,
    types.TEXT_DOCUMENT_DID_SAVE: saved,
    types.TEXT_DOCUMENT_DID_CLOSE: closed,
    types.TEXT_DOCUMENT_HOVER: hover,
    types.TEXT_DOCUMENT_CODE_ACTION: code_actions,
    types.WORKSPACE_DID_CHANGE_WATCHED_FILES: files_changed,
}
OPTIONS = {
    types.TEXT_DOCUMENT_DID_SAVE: types.SaveOptions(include_text=False),
    types.TEXT_DOCUMENT_CODE_ACTION: types.CodeActionOptions([types.CodeActionKind.QuickFix, FIX_ALL]),
}
