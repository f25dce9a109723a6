"""The language server, over standard input and output, with a real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from lsprotocol import types

from flake8_torchmem import check_source, fix_source
from flake8_torchmem.analysis.imports.disk import MAX_FILE
from tests.editor import Editor
from tests.running import SCRIPTS, TIMEOUT, run
from tests.samples import BOTH, CLEAN, LEAK_LINE, LEAKY

LEAK = LEAK_LINE - 1  # as the protocol counts
BOTH_LEAK = LEAK - 1
ASTRAL = LEAKY.replace("        total += loss", '        mark = "\U0001f600\u00e9\u2028"; total += loss')
EMPTIED = """\
import torch


def train(model, loader, criterion, optimizer):
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        torch.cuda.empty_cache()
"""
HELPER = "def clear(optimizer):\n    optimizer.zero_grad()\n"
IDLE_HELPER = "def clear(optimizer):\n    print(optimizer)\n"
CALLER = """\
import torch
from helper import clear


def train(model, loader, criterion, optimizer):
    for x, y in loader:
        clear(optimizer)
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """One for all tests that only open documents of their own."""
    editor = Editor(tmp_path_factory.mktemp("workspace"), arguments=["--stdio"])
    yield editor
    assert editor.goodbye() == 0


def codes(diagnostics: Iterable[types.Diagnostic]) -> list[object]:
    return [diagnostic.code for diagnostic in diagnostics]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pid_of(editor: Editor) -> int:
    process = editor.client._server
    assert process is not None
    return process.pid


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def offering(encoding: str) -> types.ClientCapabilities:
    return types.ClientCapabilities(general=types.GeneralClientCapabilities(position_encodings=[encoding]))


def assert_positions_are_right(editor: Editor, folder: Path, encoding: str) -> None:
    assert editor.result.capabilities.position_encoding == encoding
    uri = editor.open(folder / "astral.py", ASTRAL)
    (found,) = editor.diagnostics(uri)
    assert editor.slice(uri, found.range) == "total += loss"
    fix, silence = editor.actions(uri, LEAK, "quickfix")
    assert editor.edited(uri, fix) == ASTRAL.replace("total += loss", "total += loss.detach()")
    assert editor.edited(uri, silence) == ASTRAL.replace("total += loss", "total += loss  # noqa: TM201")
    editor.close(uri)


def test_what_check_finds_is_published(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", BOTH)
    found = editor.diagnostics(uri)
    expected = check_source(BOTH, "a.py")
    assert [(each.code, each.source, each.severity) for each in found] == [
        (finding.code, "torchmem", types.DiagnosticSeverity.Error) for finding in expected
    ]
    assert [each.message.split("\n") for each in found] == [[finding.message, finding.help] for finding in expected]
    assert [editor.slice(uri, each.range) for each in found] == ["loss.backward()", "total += loss"]


def test_places_that_a_message_speaks_of_are_related(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", BOTH)
    cleared, leaked = editor.diagnostics(uri)
    assert "line 9" in cleared.message
    assert cleared.related_information is not None
    (related,) = cleared.related_information
    assert (related.location.uri, related.message) == (uri, "line 9: `optimizer.step()`")
    assert editor.slice(uri, related.location.range) == "optimizer.step()"
    assert leaked.related_information is None


def test_places_in_other_files_are_related(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "stepping.py").write_text('def step(optimizer):\n    "\U0001f600"; optimizer.step()\n', "utf-8")
    text = CALLER.replace("from helper import clear", "from stepping import step")
    uri = editor.open(tmp_path / "a.py", text.replace("        clear(optimizer)\n", "").replace("optimizer.step()", "step(optimizer)"))
    (found,) = editor.diagnostics(uri)
    assert found.related_information is not None
    (related,) = found.related_information
    assert related.location.uri == (tmp_path / "stepping.py").as_uri()
    assert related.location.range == types.Range(types.Position(1, 10), types.Position(1, 26))


def test_what_only_has_to_go_is_unnecessary(editor: Editor, tmp_path: Path) -> None:
    (found,) = editor.diagnostics(editor.open(tmp_path / "a.py", EMPTIED))
    assert (found.code, [*(found.tags or ())]) == ("TM401", [types.DiagnosticTag.Unnecessary])


def test_a_change_is_checked_and_closing_clears(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", LEAKY)
    assert codes(editor.diagnostics(uri)) == ["TM201"]
    editor.change(uri, CLEAN)
    assert editor.diagnostics(uri) == []
    editor.change(uri, BOTH)
    assert codes(editor.diagnostics(uri)) == ["TM101", "TM201"]
    seen = editor.reports(uri)
    editor.close(uri)
    assert editor.diagnostics(uri, after=seen) == []


def test_only_the_newest_version_of_a_burst_is_published(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", CLEAN)
    editor.diagnostics(uri)
    for number in range(20):
        last = editor.change(uri, LEAKY + "\n" * number)
    assert codes(editor.diagnostics(uri)) == ["TM201"]
    versions = [report.version or 0 for report in editor.published[uri]]
    assert versions[-1] == last
    assert versions == sorted(set(versions))
    assert len(versions) < 10


def test_broken_syntax_keeps_what_was_shown(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", LEAKY)
    editor.diagnostics(uri)
    editor.change(uri, LEAKY + "for x in (")
    assert editor.hover(uri, LEAK) is None  # it waits for the check, and that has found nothing new
    assert editor.actions(uri, LEAK) == []
    assert editor.reports(uri) == 1
    editor.change(uri, "\n" + LEAKY)
    (found,) = editor.diagnostics(uri)
    assert found.range.start.line == LEAK + 1


def test_positions_are_counted_in_utf_16(editor: Editor, tmp_path: Path) -> None:
    assert_positions_are_right(editor, tmp_path, "utf-16")


@pytest.mark.parametrize(("name", "end"), [("crlf", "\r\n"), ("cr", "\r"), ("lf", "\n")])
def test_lines_end_as_they_do(editor: Editor, tmp_path: Path, name: str, end: str) -> None:
    text = ASTRAL.replace("import torch\n", "import torch\n\f\n# \v \x85 \x1c\n").replace("\n", end)
    uri = editor.open(tmp_path / f"{name}.py", text)
    (found,) = editor.diagnostics(uri)
    assert editor.slice(uri, found.range) == "total += loss"
    fix, *_ = editor.actions(uri, found.range.start.line, "quickfix")
    assert editor.edited(uri, fix) == text.replace("total += loss", "total += loss.detach()")


def test_a_byte_order_mark_is_a_character(editor: Editor, tmp_path: Path) -> None:
    line = "for x in loader: loss = criterion(model(x), x); loss.backward(); optimizer.step(); total += loss"
    uri = editor.open(tmp_path / "a.py", f"\ufeff{line}")
    found = {each.code: each for each in editor.diagnostics(uri)}
    assert editor.slice(uri, found["TM101"].range) == "loss.backward()"


def test_fixes_say_how_safe_they_are(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", BOTH)
    fix, silence, every = editor.actions(uri, BOTH_LEAK)
    assert (fix.title, fix.kind, fix.is_preferred) == ("torchmem: write `total += loss.detach()` (safe)", "quickfix", True)
    assert codes(fix.diagnostics or []) == ["TM201"]
    assert (silence.title, silence.is_preferred) == ("torchmem: silence TM201 here with `# noqa: TM201`", None)
    assert (every.title, every.kind) == ("torchmem: make all safe fixes", "source.fixAll.torchmem")
    fix, *_ = editor.actions(uri, LEAK - 3)
    title = "torchmem: insert `optimizer.zero_grad()` (unsafe: it changes training, or a type)"
    assert (fix.title, fix.is_preferred) == (title, None)


def test_fixes_make_what_torchmem_fix_makes(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", BOTH)
    (every,) = editor.actions(uri, 0, "source.fixAll")
    assert editor.edited(uri, every) == fix_source(BOTH).document.text
    leak, clear = editor.actions(uri, BOTH_LEAK)[0], editor.actions(uri, LEAK - 3)[0]
    assert editor.edited(uri, leak) == fix_source(BOTH).document.text
    editor.change(uri, fix_source(BOTH).document.text)
    assert codes(editor.diagnostics(uri)) == ["TM101"]
    (clear, _) = editor.actions(uri, LEAK - 3)
    assert editor.edited(uri, clear) == fix_source(BOTH, unsafe=True).document.text
    assert editor.actions(uri, 0, "source.fixAll.torchmem") == []  # no safe one is left


def test_actions_are_of_the_kind_that_is_asked_for(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", LEAKY)
    assert {action.kind for action in editor.actions(uri, LEAK, "quickfix")} == {"quickfix"}
    assert {action.kind for action in editor.actions(uri, LEAK, "source")} == {"source.fixAll.torchmem"}
    assert {action.kind for action in editor.actions(uri, LEAK, automatic=True)} == {"quickfix"}
    assert editor.actions(uri, LEAK, "refactor", "source.organizeImports") == []
    assert editor.actions(uri, 0, automatic=True) == []


def test_silencing_joins_codes_that_are_silenced(editor: Editor, tmp_path: Path) -> None:
    text = LEAKY.replace("total += loss\n", "total += loss  # noqa: E501 why\n")
    uri = editor.open(tmp_path / "a.py", text)
    (silence,) = editor.actions(uri, LEAK)  # fixes leave such lines alone
    assert editor.edited(uri, silence) == text.replace("E501", "E501,TM201")
    assert check_source(editor.edited(uri, silence)) == []


def test_a_plain_client_gets_plain_edits_and_text(tmp_path: Path) -> None:
    plain = types.HoverClientCapabilities(content_format=[types.MarkupKind.PlainText])
    capabilities = offering("utf-8")
    capabilities.text_document = types.TextDocumentClientCapabilities(hover=plain)
    editor = Editor(capabilities=capabilities)
    assert_positions_are_right(editor, tmp_path, "utf-8")
    uri = editor.open("untitled:Untitled-1", LEAKY)
    assert codes(editor.diagnostics(uri)) == ["TM201"]
    fix, *_ = editor.actions(uri, LEAK)
    assert fix.edit is not None
    assert fix.edit.document_changes is None
    assert editor.edited(uri, fix) == fix_source(LEAKY).document.text
    shown = editor.hover(uri, LEAK)
    assert shown is not None
    assert isinstance(shown.contents, types.MarkupContent)
    assert shown.contents.kind == types.MarkupKind.PlainText
    assert editor.watched == []
    assert editor.goodbye() == 0


def test_the_page_of_a_rule_is_shown_over_its_line(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.py", LEAKY)
    shown = editor.hover(uri, LEAK)
    assert shown is not None
    assert isinstance(shown.contents, types.MarkupContent)
    assert shown.contents.kind == types.MarkupKind.Markdown
    assert shown.contents.value.startswith("# TM201 loss-accumulated: ")
    assert "\nMeasured: " in shown.contents.value
    assert editor.hover(uri, LEAK - 1) is None


def test_other_documents_are_read_as_the_editor_holds_them(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "helper.py").write_text(HELPER)
    caller = editor.open(tmp_path / "caller.py", CALLER)
    assert editor.diagnostics(caller) == []
    helper = editor.open(tmp_path / "helper.py", HELPER)
    editor.change(helper, IDLE_HELPER)
    editor.diagnostics(helper)
    editor.save(helper)
    assert codes(editor.diagnostics(caller, after=1)) == ["TM101"]
    editor.close(helper)  # on the disk, nothing has changed
    assert editor.diagnostics(caller, after=2) == []
    (tmp_path / "helper.py").write_text(IDLE_HELPER)
    editor.touched(tmp_path / "helper.py")
    assert codes(editor.diagnostics(caller, after=3)) == ["TM101"]
    (tmp_path / "helper.py").unlink()
    editor.touched(tmp_path / "helper.py", types.FileChangeType.Deleted)
    assert editor.diagnostics(caller, after=4) == []  # whatever `clear` may do
    editor.close(caller)


def test_each_folder_has_its_configuration_and_it_may_change(editor: Editor, tmp_path: Path) -> None:
    strict, lax = tmp_path / "strict", tmp_path / "lax"
    for folder in (strict, lax):
        folder.mkdir()
        (folder / "pyproject.toml").write_text("[tool.flake8_torchmem]\n")
    configuration = lax / "pyproject.toml"
    configuration.write_text('[tool.flake8_torchmem]\nignore = ["TM201"]\nseverity = { TM1 = "warning" }\nextend-exclude = ["old_*.py"]\n')
    one, other, old = (editor.open(path, BOTH) for path in (strict / "a.py", lax / "a.py", lax / "old_a.py"))
    assert codes(editor.diagnostics(one)) == ["TM101", "TM201"]
    (found,) = editor.diagnostics(other)
    assert (found.code, found.severity) == ("TM101", types.DiagnosticSeverity.Warning)
    assert editor.diagnostics(old) == []
    configuration.write_text('[tool.flake8_torchmem]\nselect = ["TM201"]\n')
    editor.touched(configuration)
    assert codes(editor.diagnostics(other, after=1)) == ["TM201"]
    assert codes(editor.diagnostics(old, after=1)) == ["TM201"]
    configuration.write_text("[tool.flake8_torchmem]\nselekt = []\n")
    editor.touched(configuration)
    editor.touched(configuration)
    assert codes(editor.diagnostics(other, after=2)) == ["TM201"]  # what held before
    assert len([line for line in editor.messages if "selekt" in line]) == 1
    for uri in (one, other, old):
        editor.close(uri)


def test_files_that_findings_depend_on_are_watched(editor: Editor) -> None:
    editor.until(lambda: editor.watched)
    (registration,) = editor.watched
    assert registration.method == types.WORKSPACE_DID_CHANGE_WATCHED_FILES
    assert registration.register_options is not None
    assert {"globPattern": "**/pyproject.toml"} in registration.register_options["watchers"]


def test_a_huge_document_is_left_with_one_line_in_the_log(editor: Editor, tmp_path: Path) -> None:
    huge = LEAKY + "#" * MAX_FILE
    uri = editor.open(tmp_path / "huge.py", huge)
    assert editor.diagnostics(uri) == []
    editor.change(uri, huge + "\n")
    assert editor.diagnostics(uri) == []
    assert editor.actions(uri, LEAK) == []
    assert len([line for line in editor.log if "huge.py is not checked: longer than" in line]) == 1
    editor.change(uri, LEAKY)
    assert codes(editor.diagnostics(uri)) == ["TM201"]
    editor.close(uri)


@pytest.mark.parametrize(
    "text",
    [
        "\0" + LEAKY,
        LEAKY + "x = '\ud800'\n",
        LEAKY + f"y = {'(' * 5000}1{')' * 5000}\n",
        LEAKY + "z" + ".a" * 50_000 + "\n",
        LEAKY + "\n".join(" " * depth + "if x:" for depth in range(300)),
        "# coding: klingon\n" + LEAKY,
        "\x1b]0;\x07" * 1000,
        "%matplotlib inline\n" + LEAKY,
    ],
    ids=["nul", "surrogate", "parentheses", "attributes", "blocks", "encoding", "control", "magic"],
)
def test_hostile_text_harms_nobody(editor: Editor, tmp_path: Path, text: str) -> None:
    uri = editor.open(tmp_path / "hostile.py", text)
    assert editor.hover(uri, 0) is None
    editor.actions(uri, LEAK)
    other = editor.open(tmp_path / "a.py", LEAKY)
    assert codes(editor.diagnostics(other)) == ["TM201"]
    editor.close(uri)
    editor.close(other)


def test_what_is_no_python_is_left_alone(editor: Editor, tmp_path: Path) -> None:
    uri = editor.open(tmp_path / "a.txt", LEAKY, language="plaintext")
    assert editor.hover(uri, LEAK) is None
    assert editor.actions(uri, LEAK) == []
    editor.change(uri, BOTH)
    editor.save(uri)
    editor.close(uri)
    assert editor.hover((tmp_path / "never-opened.py").as_uri(), 0) is None
    assert editor.reports(uri) == 0


def frame(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def message(method: str, identifier: int | None = None, **params: object) -> bytes:
    known = {} if identifier is None else {"id": identifier}
    return frame(json.dumps({"jsonrpc": "2.0", "method": method, **known, "params": params}).encode())


def test_nonsense_from_a_client_is_survived(tmp_path: Path) -> None:
    nonsense = [
        message("initialize", 1, processId=None, rootUri=None, capabilities={}),
        frame(b"{"),
        frame(b"[]"),
        frame(b'{"jsonrpc": "2.0", "id": 2, "method": "no/such", "params": {}}'),
        message("textDocument/didChange", textDocument={"uri": "file:///gone.py", "version": 1}, contentChanges=[]),
        message("textDocument/didOpen", textDocument={"uri": 7}),
        message("textDocument/hover", 3, textDocument={"uri": "file:///gone.py"}, position={"line": 10**9, "character": 10**9}),
        frame(b"[" * 100_000),
        message("shutdown", 4),
        message("exit"),
    ]
    done = run([str(SCRIPTS / "torchmem"), "lsp"], tmp_path, b"".join(nonsense))
    assert done.status == 0
    assert [f'"id": {number}' in done.out for number in (1, 2, 3, 4)] == [True] * 4
    assert "Traceback" not in done.err


def test_a_client_that_leaves_without_a_word(tmp_path: Path) -> None:
    hello = message("initialize", 1, processId=None, rootUri=None, capabilities={})
    assert run([str(SCRIPTS / "torchmem"), "lsp"], tmp_path, hello + message("exit")).status == 1


@needs_proc
def test_a_slow_check_holds_up_nobody_and_a_dead_one_is_told(tmp_path: Path) -> None:
    editor = Editor(tmp_path, capabilities=offering("utf-32"))
    assert_positions_are_right(editor, tmp_path, "utf-32")
    quick, slow = editor.open(tmp_path / "quick.py", LEAKY), editor.open(tmp_path / "slow.py", LEAKY)
    editor.diagnostics(quick)
    editor.diagnostics(slow)
    (worker,) = children(pid_of(editor))
    os.kill(worker, signal.SIGSTOP)
    editor.save(slow)
    asked = time.monotonic()
    assert editor.hover(quick, LEAK) is not None
    assert time.monotonic() - asked < 20, "a third of what one check may take"
    editor.change(slow, CLEAN)  # nobody waits for the first answer any more
    assert editor.diagnostics(slow) == []
    assert not is_alive(worker)
    (worker,) = children(pid_of(editor))
    os.kill(worker, signal.SIGSTOP)
    editor.save(slow)
    time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    editor.until(lambda: any("slow.py is not checked: the process that checks came to an end" in line for line in editor.log))
    editor.change(slow, BOTH)
    assert codes(editor.diagnostics(slow)) == ["TM101", "TM201"]
    assert editor.goodbye() == 0


@needs_proc
def test_the_end_of_the_client_is_the_end_of_all(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.diagnostics(editor.open(tmp_path / "a.py", LEAKY))
    server = pid_of(editor)
    (worker,) = children(server)
    process = editor.client._server
    assert process is not None
    assert process.stdin is not None
    editor.loop.call_soon_threadsafe(process.stdin.close)
    assert editor.ended() == 1
    deadline = time.monotonic() + TIMEOUT
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(worker)


def test_a_folder_cannot_put_its_modules_before_ours(tmp_path: Path) -> None:
    for name in ("pickle", "libcst", "torch", "queue", "flake8_torchmem"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run')\n")
    editor = Editor(tmp_path, cwd=tmp_path, arguments=["--ignore", "TM201", "--no-imports"])
    assert codes(editor.diagnostics(editor.open(tmp_path / "a.py", BOTH))) == ["TM101"]
    assert editor.goodbye() == 0


def test_the_extra_is_asked_for_in_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pygls'] = None; sys.argv = ['torchmem', 'lsp']; from flake8_torchmem.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: lsp needs pygls 2: pip install 'flake8-torchmem[lsp]'")
