"""An editor: a real client that speaks with a real server process over its standard input and output."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.lsp.client import LanguageClient

from tests.running import SCRIPTS, TIMEOUT

Result = TypeVar("Result")
MODERN = types.ClientCapabilities(
    workspace=types.WorkspaceClientCapabilities(
        workspace_edit=types.WorkspaceEditClientCapabilities(document_changes=True),
        did_change_watched_files=types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=True),
    )
)


class Editor:
    """Open documents, and what the server has said about them.

    Args:
        folders: of the workspace.
        capabilities: of the client.
        arguments: of `torchmem lsp`.
        command: another server.
        cwd: where the server is started.
    """

    def __init__(
        self,
        *folders: Path,
        capabilities: types.ClientCapabilities = MODERN,
        arguments: Iterable[str] = (),
        command: Iterable[str] = (str(SCRIPTS / "torchmem"), "lsp"),
        cwd: Path | None = None,
    ) -> None:
        self.published: dict[str, list[types.PublishDiagnosticsParams]] = {}
        self.log: list[str] = []
        self.messages: list[str] = []
        self.watched: list[types.Registration] = []
        self.texts: dict[str, tuple[int, str]] = {}
        self.news = threading.Condition()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.client = self.call(self._started([*command, *arguments], cwd))
        self._listen()
        given = [types.WorkspaceFolder(folder.as_uri(), folder.name) for folder in folders]
        initialize = types.InitializeParams(capabilities, workspace_folders=given, root_uri=given[0].uri if given else None)
        self.result: types.InitializeResult = self.wait(self.client.initialize(initialize))
        self.client.initialized(types.InitializedParams())

    async def _started(self, command: list[str], cwd: Path | None) -> LanguageClient:
        client = LanguageClient("editor", "1")
        await client.start_io(*command, cwd=cwd)
        return client

    def _listen(self) -> None:
        def publish(params: types.PublishDiagnosticsParams) -> None:
            with self.news:
                self.published.setdefault(params.uri, []).append(params)
                self.news.notify_all()

        def log(params: types.LogMessageParams) -> None:
            with self.news:
                self.log.append(params.message)
                self.news.notify_all()

        def message(params: types.ShowMessageParams) -> None:
            with self.news:
                self.messages.append(params.message)
                self.news.notify_all()

        def registered(params: types.RegistrationParams) -> None:
            with self.news:
                self.watched += params.registrations
                self.news.notify_all()

        self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(publish)
        self.client.feature(types.WINDOW_LOG_MESSAGE)(log)
        self.client.feature(types.WINDOW_SHOW_MESSAGE)(message)
        self.client.feature(types.CLIENT_REGISTER_CAPABILITY)(registered)

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT)

    def wait(self, request: Future[Result]) -> Result:
        return request.result(TIMEOUT)

    def until(self, seen: Callable[[], object]) -> None:
        """Wait until something has been seen."""
        with self.news:
            assert self.news.wait_for(seen, TIMEOUT), (self.published, self.log)

    def open(self, path: Path | str, text: str, language: str = "python") -> str:
        """Open a document; its address."""
        uri = path.as_uri() if isinstance(path, Path) else path
        self.texts[uri] = 1, text
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(types.TextDocumentItem(uri, language, 1, text)))
        return uri

    def change(self, uri: str, text: str) -> int:
        """Type; the new version."""
        version = self.texts[uri][0] + 1
        self.texts[uri] = version, text
        changed = types.VersionedTextDocumentIdentifier(version, uri)
        whole = types.TextDocumentContentChangeWholeDocument(text)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(changed, [whole]))
        return version

    def save(self, uri: str) -> None:
        self.client.text_document_did_save(types.DidSaveTextDocumentParams(types.TextDocumentIdentifier(uri)))

    def close(self, uri: str) -> None:
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri)))

    def touched(self, path: Path, how: types.FileChangeType = types.FileChangeType.Changed) -> None:
        """A file has changed on the disk."""
        self.client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams([types.FileEvent(path.as_uri(), how)]))

    def diagnostics(self, uri: str, after: int = 0) -> list[types.Diagnostic]:
        """What was published for the newest version of a document, once more than so many reports of it are there."""

        def seen() -> bool:
            reports = self.published.get(uri, [])
            return len(reports) > after and reports[-1].version == self.texts[uri][0]

        self.until(seen)
        return list(self.published[uri][-1].diagnostics)

    def reports(self, uri: str) -> int:
        """How many times something was published for a document."""
        return len(self.published.get(uri, []))

    def hover(self, uri: str, line: int) -> types.Hover | None:
        where = types.HoverParams(types.TextDocumentIdentifier(uri), types.Position(line, 0))
        return self.wait(self.client.text_document_hover(where))

    def actions(self, uri: str, line: int, *only: str, automatic: bool = False) -> list[types.CodeAction]:
        trigger = types.CodeActionTriggerKind.Automatic if automatic else types.CodeActionTriggerKind.Invoked
        context = types.CodeActionContext([], [*only] or None, trigger)
        place = types.Range(types.Position(line, 0), types.Position(line, 0))
        found = self.wait(self.client.text_document_code_action(types.CodeActionParams(types.TextDocumentIdentifier(uri), place, context)))
        return [action for action in found or [] if isinstance(action, types.CodeAction)]

    def edited(self, uri: str, action: types.CodeAction) -> str:
        """The text of a document after an action."""
        version, text = self.texts[uri]
        assert action.edit is not None
        if action.edit.document_changes is None:
            edits: Iterable[Any] = (action.edit.changes or {})[uri]
        else:
            (change,) = action.edit.document_changes
            assert isinstance(change, types.TextDocumentEdit)
            assert change.text_document == types.OptionalVersionedTextDocumentIdentifier(uri, version)
            edits = change.edits
        for edit in sorted(edits, key=lambda edit: (edit.range.start.line, edit.range.start.character), reverse=True):
            begin, end = (self._offset(text, place) for place in (edit.range.start, edit.range.end))
            text = text[:begin] + edit.new_text + text[end:]
        return text

    def _offset(self, text: str, place: types.Position) -> int:
        """A place as the protocol says: lines end with CR, LF or both, characters are counted in the units that were agreed on."""
        encoding = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[self.result.capabilities.position_encoding or "utf-16"]
        unit = {"utf-8": 1, "utf-16-le": 2, "utf-32-le": 4}[encoding]
        lines = text.replace("\r\n", "\0\n").replace("\r", "\n").replace("\0", "\r").split("\n")
        before = sum(len(line) + 1 for line in lines[: place.line])
        return before + len(lines[place.line].encode(encoding)[: place.character * unit].decode(encoding))

    def slice(self, uri: str, place: types.Range) -> str:
        """What a range covers."""
        text = self.texts[uri][1]
        return text[self._offset(text, place.start) : self._offset(text, place.end)]

    def goodbye(self) -> int | None:
        """Shut the server down as the protocol says; its exit code."""
        self.wait(self.client.shutdown(None))
        self.client.exit(None)
        return self.ended()

    def ended(self) -> int | None:
        """The exit code of a server that ends."""
        process = self.client._server
        assert process is not None
        status = self.call(asyncio.wait_for(process.wait(), TIMEOUT))
        self.call(self.client.stop())  # type: ignore[no-untyped-call]
        self.loop.call_soon_threadsafe(self.loop.stop)
        return status
