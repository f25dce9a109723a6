"""The server: documents come and change, findings are published; it waits for those who compute, and computes nothing itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterable

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from flake8_torchmem import __version__
from flake8_torchmem.analysis.imports.disk import MAX_FILE
from flake8_torchmem.configuration import Configuration
from flake8_torchmem.lsp.configurations import Configurations, Configure
from flake8_torchmem.lsp.documents import Opened
from flake8_torchmem.lsp.jobs import Checked, Job, Key, Kind
from flake8_torchmem.lsp.messages import SOURCE, Speaker
from flake8_torchmem.lsp.worker import Worker, WorkerError

PAUSE = 0.25  # seconds without a key before a changed document is checked


class Server(LanguageServer):
    """The state of one connection.

    Args:
        configure: decides about a path.
    """

    def __init__(self, configure: Configure) -> None:
        # Whole texts, as pygls counts form feeds and other characters as ends of lines, which the protocol and Python do not.
        super().__init__(SOURCE, __version__, types.TextDocumentSyncKind.Full, max_workers=1)
        self.configurations = Configurations(configure, self.show)
        self.documents: dict[str, Opened] = {}
        self.worker = Worker()
        self.keeper: asyncio.Task[None] | None = None
        self.ending = False

    @property
    def speaker(self) -> Speaker:
        """What says things in this client's terms."""
        workspace = self.client_capabilities.workspace
        edits = workspace.workspace_edit if workspace else None
        return Speaker(self.workspace.position_codec, bool(edits and edits.document_changes))

    def report_server_error(self, error: Exception, source: object) -> None:
        """What a client sent and nobody can use goes to its log; a message on the screen would be one too many."""
        del source
        self.log(f"{type(error).__name__}: {error}", types.MessageType.Error)

    def log(self, message: str, kind: types.MessageType = types.MessageType.Warning) -> None:
        """A line in the client's log."""
        self.window_log_message(types.LogMessageParams(kind, f"{SOURCE}: {message}"))

    def show(self, message: str) -> None:
        """A message that the user is to see."""
        self.window_show_message(types.ShowMessageParams(types.MessageType.Error, f"{SOURCE}: {message}"))

    def configuration(self, document: Opened) -> Configuration:
        """What holds for a document; for one without a place what does in the first folder of the workspace."""
        folders = [to_fs_path(uri) or "" for uri in self.workspace.folders]
        return self.configurations.of(document.path or os.path.join(next(iter(folders), "") or os.getcwd(), "untitled.py"))

    def open(self, item: types.TextDocumentItem) -> None:
        """Begin with a document, if it is Python."""
        path = to_fs_path(item.uri) or ""
        if item.language_id == "python" or path.endswith((".py", ".pyi")):
            self.documents[item.uri] = document = Opened(item.uri, path, item.version, item.text)
            self.check(document)

    def change(self, uri: str, version: int) -> None:
        """Take over a new text, and check it when the keyboard rests."""
        document = self.documents.get(uri)
        if document is not None:
            document.text, document.version = self.workspace.get_text_document(uri).source, version
            self.check(document, PAUSE)

    def close_document(self, uri: str) -> None:
        """Let go of a document; others read the disk in its place."""
        document = self.documents.pop(uri, None)
        if document is not None:
            if document.check is not None:
                document.check.cancel()
            self._publish(document, [])
            self.recheck(document.path)

    def recheck(self, path: str, folder: str = "") -> None:
        """Check what depends on a file that has changed; for `folder` see `Opened.depends_on`."""
        for document in self.documents.values():
            if document.path != path and document.depends_on(path, folder):
                self.check(document)

    def check(self, document: Opened, pause: float = 0) -> None:
        """Check a document, after a pause; a check of it that goes on is ended."""
        if document.check is not None:
            document.check.cancel()
        document.shown = None
        document.check = asyncio.create_task(self._check(document, pause))

    async def _check(self, document: Opened, pause: float) -> None:
        await asyncio.sleep(pause)
        if document.path and self.configuration(document).exclusions.match_named(document.path, is_folder=False):
            self._clear(document)
            return
        if len(document.text) > MAX_FILE:
            self._leave(document, f"longer than {MAX_FILE:,} characters")
            return
        try:
            found = await self.worker.ask(self.job(document, Kind.CHECK))
        except WorkerError as error:
            self._leave(document, str(error))
            return
        # Whoever types faster than this, or closes the document, has cancelled it before it comes here.
        if isinstance(found, Checked) and not found.broken:
            document.told = False
            document.show(found.findings, found.asked)
            self._publish(document, self.speaker.diagnostics(document))

    def _leave(self, document: Opened, reason: str) -> None:
        """Show nothing of a document that cannot be checked, and say so once."""
        if not document.told:
            self.log(f"{document.path or document.uri} is not checked: {reason}")
        document.told = True
        self._clear(document)

    def _clear(self, document: Opened) -> None:
        document.show((), ())
        self._publish(document, [])

    def _publish(self, document: Opened, diagnostics: list[types.Diagnostic]) -> None:
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(document.uri, diagnostics, document.version))

    async def seen(self, uri: str) -> Opened | None:
        """A document with findings in its text, be it that they are looked for anew: that may wait for the check of another one."""
        document = self.documents.get(uri)
        return document if document is not None and document.seen == document.version else await self.settled(uri)

    async def settled(self, uri: str) -> Opened | None:
        """A document whose findings are those of its text, once they are; None if it is none, or no Python, or changes again."""
        document = self.documents.get(uri)
        if document is not None and document.check is not None:
            await asyncio.wait({document.check})
        return document if document is not None and document.shown == document.version else None

    def job(self, document: Opened, kind: Kind, findings: Iterable[Key] = ()) -> Job:
        """A look at a document as it is."""
        unsaved = {each.path: each.text for each in self.documents.values() if each.path and len(each.text) <= MAX_FILE}
        configuration = self.configuration(document)
        return Job(
            kind,
            document.text,
            document.path or document.uri,
            follow=configuration.follow_imports and bool(document.path),
            settings=configuration.settings,
            top=configuration.project_root,
            unsaved=unsaved,
            findings=frozenset(findings),
        )

    async def keep(self) -> None:
        """Start the process that computes before it is needed, and end it when the server ends, however it does."""
        try:
            await self.worker.start()
            await asyncio.Event().wait()
        finally:
            await self.worker.close()


def serve(configure: Configure) -> int:
    """Speak with the client on standard input and output until it goes.

    Args:
        configure: decides about a path.

    Returns:
        the exit code that the protocol asks for: 1 if the client left without a word.
    """
    from flake8_torchmem.lsp.features import register

    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # what is worth saying, `report_server_error` says
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # pygls would wait for more input
    server = Server(configure)
    register(server)
    server.start_io()
    return 0 if server.ending else 1
