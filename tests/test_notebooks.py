"""Notebooks: the same findings as in a file of Python, at cells and lines, and fixes that change nothing but the lines they change."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flake8_torchmem import check_source, fix_source
from flake8_torchmem.fixes import document_of, fix_document
from flake8_torchmem.fixes.cells import CellsDocument
from flake8_torchmem.fixes.syntax import Refused
from flake8_torchmem.model import Edit, Span
from flake8_torchmem.notebooks import Notebook
from flake8_torchmem.notebooks.magics import Magics
from flake8_torchmem.settings import Settings
from flake8_torchmem.source import SourceError, parse
from tests.running import REPOSITORY, Result, torchmem
from tests.samples import LEAKY, UNCLEARED

TRAIN = LEAKY.removeprefix("import torch\n\n\n")
FIXTURES = sorted((REPOSITORY / "fixtures").glob("*/bad.py"))
TEXT_CELL = "# A title"


def notebook(*cells: str, metadata: dict[str, Any] | None = None, whole: bool = False, style: dict[str, Any] | None = None) -> bytes:
    """A notebook of format 4 that begins with a text cell; `whole`: sources are strings, not lists of lines."""
    entries: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": [TEXT_CELL]}]
    for number, cell in enumerate(cells):
        source = cell if whole else cell.splitlines(keepends=True)
        output = {"name": "stdout", "output_type": "stream", "text": [f'"source": ["{number}"]']}
        entries.append({"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [output], "source": source})
    content = {"cells": entries, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(content, **{"indent": 1, **(style or {})}) + "\n").encode()


def cut(text: str) -> list[str]:
    """The cells of a program whose statements have one each."""
    starts = sorted({min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))]) for node in ast.parse(text).body})
    lines = text.split("\n")
    ranges = zip([1, *starts[1:]], [*starts[1:], len(lines) + 1], strict=True)
    return ["\n".join(lines[begin - 1 : end - 1]) for begin, end in ranges]


def sources(data: bytes) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(data.decode("utf-8-sig"))["cells"] if cell["cell_type"] == "code"]


def found(folder: Path, data: bytes, *arguments: str) -> list[str]:
    """The lines of the report that name places."""
    (folder / "nb.ipynb").write_bytes(data)
    result = torchmem("check", "--no-cache", *arguments, "nb.ipynb", cwd=folder)
    assert "Traceback" not in result.err
    return [line for line in result.out.splitlines() if line.startswith("nb.ipynb:")]


def mended(folder: Path, data: bytes, *arguments: str) -> tuple[bytes, Result]:
    (folder / "nb.ipynb").write_bytes(data)
    result = torchmem("fix", *arguments, "nb.ipynb", cwd=folder)
    return (folder / "nb.ipynb").read_bytes(), result


def fixed(data: bytes, unsafe: bool = False) -> bytes:
    """The notebook after its fixes, in this process."""
    return fix_document(document_of("nb.ipynb", data), "nb.ipynb", Settings(), unsafe=unsafe).document.data


def test_findings_name_cell_and_line(tmp_path: Path) -> None:
    data = notebook("%matplotlib inline\n!pip install 'torch\nimport torch", "%%time\n\n" + TRAIN, "train?")
    (line,) = found(tmp_path, data)
    assert line.startswith("nb.ipynb:cell 3:10:9: TM201 [loss-accumulated] ")
    report = json.loads(torchmem("check", "--output-format=json", "nb.ipynb", cwd=tmp_path).out)
    assert [(each["cell"], each["line"], each["column"]) for each in report["findings"]] == [(3, 10, 9)]
    assert torchmem("check", ".", cwd=tmp_path).out.startswith("./nb.ipynb:cell 3:10:9: TM201 ")
    again = torchmem("check", "--jobs=2", ".", cwd=tmp_path).out  # kept by now, and found by another process
    assert "        total += loss\n" in again
    assert again == torchmem("check", "--no-cache", "--stdin-display-name=./nb.ipynb", "-", cwd=tmp_path, stdin=data).out


def test_messages_name_lines_by_their_cells(tmp_path: Path) -> None:
    head = "import torch\nmodel = Net()\noptimizer = torch.optim.SGD(model.parameters(), lr=0.1)\ndef window():\n    pass\n"
    loop = "for step, (x, y) in enumerate(loader):\n    optimizer.zero_grad()\n    loss = model(x).sum() / 4\n    loss.backward()\n"
    (line,) = found(tmp_path, notebook(head, loop + "    if (step + 1) % 4 == 0:\n        optimizer.step()\n"))
    assert line.startswith("nb.ipynb:cell 3:2:5: TM105 ")
    assert "(line 6 of cell 3)" in line


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.parent.name.partition("-")[0])
def test_cells_are_one_program(path: Path) -> None:
    """Cut between any two statements, a program has the findings and the fixes that it has in one piece."""
    text = path.read_text("utf-8")
    lines, cells = text.split("\n"), cut(text)
    whole = Settings(select=("TM",))
    program = Notebook.of(notebook(*cells)).text
    assert [(f.code, lines[f.span.line - 1]) for f in check_source(text, "a.py", whole)] == [
        (f.code, program.split("\n")[f.span.line - 1]) for f in check_source(program, "a.py", whole)
    ]


@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"indent": None}, {"indent": None, "separators": (",", ":")}, None])
@pytest.mark.parametrize("escapes", [True, False])
def test_all_but_changed_lines_is_the_same_to_the_byte(style: dict[str, Any] | None, escapes: bool) -> None:
    code = TRAIN.replace("return total", "return total  # größer ☃")
    data = notebook("import torch", "%%capture out\n" + code, "!ls", whole=style is None, style={"ensure_ascii": escapes, **(style or {})})
    after = fixed(data)
    assert after == data.replace(b"total += loss", b"total += loss.detach()")
    assert after != data
    assert fixed(after) == after


@pytest.mark.parametrize("form", ["crlf", "bom", "no-end", "odd"])
def test_unusual_files_stay_as_unusual_as_they_are(form: str) -> None:
    data = notebook("import torch", TRAIN)
    if form == "crlf":
        data = notebook("import torch", TRAIN.replace("\n", "\r\n")).replace(b"\n", b"\r\n")
    elif form == "bom":
        data = b"\xef\xbb\xbf" + data
    elif form == "no-end":
        data = data.rstrip()
    else:
        data = data.replace(b'": ', b'" : ').replace(b'"    total = 0.0\\n"', b'"    to\\u0074al = 0.0\\n"  ')
    after = fixed(data)
    assert after == data.replace(b"total += loss", b"total += loss.detach()")
    assert after != data


def test_format_3(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "collapsed": False, "input": source, "language": "python", "metadata": {}, "outputs": []}
        for source in ("import torch", TRAIN)
    ]
    cells.insert(1, {"cell_type": "markdown", "metadata": {}, "source": "text"})
    content = {"metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells, "metadata": {}}]}
    data = json.dumps(content, indent=1).encode()
    (line,) = found(tmp_path, data)
    assert line.startswith("nb.ipynb:cell 3:8:9: TM201 ")
    assert fixed(data) == data.replace(b"total += loss", b"total += loss.detach()")


def test_what_is_written_is_what_nbformat_reads() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    v4 = nbformat.v4
    made = v4.new_notebook(
        cells=[v4.new_code_cell("import torch\n%load_ext autoreload"), v4.new_markdown_cell("t"), v4.new_code_cell(TRAIN + UNCLEARED)]
    )
    data = nbformat.writes(made).encode()
    after = fixed(data, unsafe=True)
    nbformat.validate(nbformat.reads(after.decode(), as_version=4))
    now = nbformat.reads(after.decode(), as_version=4)
    assert [cell.source for cell in now.cells[:2]] == [cell.source for cell in made.cells[:2]]
    assert now.cells[2].source == fix_source("import torch\n" + made.cells[2].source, unsafe=True).document.text.removeprefix(
        "import torch\n"
    )
    assert after == nbformat.writes(now).encode(), "it is written as nbformat writes it, if it was"


IPYTHON = [
    "%matplotlib inline\nx = 1",
    "if a:\n    !ls 'b\nelse:\n    %cd ..\n    b = 1",
    "x = !ls -l\nfiles, errors = %sx ls\ny[0] = !pwd",
    "!pip install \\\n    torch \\\n    torchvision\nimport torch",
    "?print\nprint?\nnp.array??\n??x",
    "%time y = f(x); z = 2  # note\n%timeit -n 3 f(x)\n%time for x in y: z\n%timeit f(x)",
    "%%bash\nfor f in *; do (\n\n  echo $f; done",
    "\n%%html\n<b>'</b>",
    "%%timeit -n 1\nloss.backward()",
    "/f a\n,f a b\n;f a b",
    "!echo (\n!echo '''\nx = 1",
    "text = '''\n%matplotlib\n!ls\n'''\nx = (1\n%y)",
    "await f()\nasync with a:\n    pass\nx;",
    "def f():\n    %time g()\n    return 1",
    "# IPython:0\n%magic",
    "",
    "   ",
    "%%writefile a.py",
    "pip install -r requirements.txt",
    "import torch\ncd ../data\nload_ext autoreload\nif torch:\n    matplotlib inline\ncd = 1",
]


@pytest.mark.parametrize("source", IPYTHON)
def test_what_is_no_python_is_put_back(source: str) -> None:
    magics = Magics(IPYTHON)
    text = magics.python(source)
    parse(text)
    assert text.count("\n") == source.count("\n")
    assert magics.restored(text, text) == source
    deeper = "\n".join(f"  {line}" if line else line for line in text.split("\n"))
    if not source.lstrip().startswith("%%") and "\\\n" not in source:
        assert magics.restored(text, deeper) == "\n".join(f"  {line}" if line else line for line in source.split("\n"))


def test_what_stays_python_keeps_its_columns() -> None:
    for source in ("%time y = f(x)", "x = 1; y = f(x)", "if a:\n    %time  y = f(x)"):
        assert Magics([source]).python(source).split("\n")[-1].index("y = f(x)") == source.split("\n")[-1].index("y = f(x)")


@pytest.mark.parametrize("source", ["x = (", "def f(:\n%magic", "'%d' %", "x = 1\n  y = 2", "pip = (", "time(", "run.me("])
def test_what_is_neither_is_said(source: str) -> None:
    with pytest.raises(SourceError, match=r"^cell 2, line \d: syntax error: "):
        Notebook.of(notebook(source)).whole()


def edit(line: int, text: str, column: int = 1, end: int | None = None) -> Edit:
    return Edit(Span(line, column, end or line, column), text)


def test_fixes_stay_in_their_cells() -> None:
    document = CellsDocument.of(notebook("a = 1\nb = 2", "%%time\nc = 3", "%%bash\nls", "import x\nd = 4"))
    starts = [1, 4, 7, 10]
    assert document.now.starts == starts
    both: Sequence[Edit] = [edit(1, "", end=2), edit(5, "a = 1\n")]
    for edits, reason in (
        (both, "several cells"),
        ([edit(2, "", end=5)], "reach over cells"),
        ([edit(5, "import y\n"), edit(2, "z = y\n")], "come after it"),
        ([edit(4, "import y\n")], "above all in its cell"),
        ([edit(4, "", end=5)], "no Python would go"),
        ([edit(7, "import y\n")], "above all in its cell"),
        ([edit(7, "z", column=2)], "no Python would be changed"),
    ):
        with pytest.raises(Refused, match=reason):
            document.admit(edits)
    fine = [edit(1, "import y\n"), edit(11, "e = y\n"), edit(12, "f = y\n")]
    document.admit(fine)
    assert sources(document.edited(fine).data) == ["import y\na = 1\nb = 2", "%%time\nc = 3", "%%bash\nls", "import x\ne = y\nd = 4\nf = y"]
    assert document.data == notebook("a = 1\nb = 2", "%%time\nc = 3", "%%bash\nls", "import x\nd = 4")


def test_a_guard_around_a_magic_takes_it_along() -> None:
    code = "def evaluate(model, loader):\n    model.eval()\n    outputs = []\n    for x, y in loader:\n        %time out = model(x)\n"
    code += "        outputs.append(out)\n    !date\n    return outputs\n"
    (_, now) = sources(fixed(notebook("import torch", code), unsafe=True))
    assert "no_grad" in now
    assert [line.strip() for line in now.split("\n") if line.strip() in code] == [line.strip() for line in code.split("\n")]


def test_diff_shows_cells(tmp_path: Path) -> None:
    data = notebook("import torch\n!ls", "%%time\n" + TRAIN)
    after, result = mended(tmp_path, data, "--diff")
    assert after == data
    assert result.out.startswith("--- nb.ipynb:cell 3\n+++ nb.ipynb:cell 3\n@@ -6,5 +6,5 @@\n")
    assert "\n-        total += loss\n+        total += loss.detach()\n" in result.out
    assert result.err.startswith("nb.ipynb:cell 3:9:9: TM201 [loss-accumulated] would be fixed (safe)\n")


@pytest.mark.parametrize("whole", [False, True])
def test_programs_that_know_files_get_lines_of_the_file(tmp_path: Path, whole: bool) -> None:
    data = notebook("import torch", "%%time\n" + TRAIN, whole=whole)
    (tmp_path / "nb.ipynb").write_bytes(data)
    (row,) = [number for number, line in enumerate(data.decode().split("\n"), start=1) if "total += loss" in line]
    assert f"file=nb.ipynb,line={row},endLine={row},title" in torchmem("check", "--output-format=github", "nb.ipynb", cwd=tmp_path).out
    assert f'"begin": {row}' in torchmem("check", "--output-format=gitlab", "nb.ipynb", cwd=tmp_path).out
    sarif = json.loads(torchmem("check", "--output-format=sarif", "nb.ipynb", cwd=tmp_path).out)
    (result,) = sarif["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": row, "endLine": row}
    assert ">nb.ipynb:cell 3:9:9</a>" in torchmem("check", "--output-format=html", "nb.ipynb", cwd=tmp_path).out


def test_comments_suppress_in_cells(tmp_path: Path) -> None:
    assert found(tmp_path, notebook("import torch", TRAIN.replace("+= loss", "+= loss  # noqa: TM201"))) == []
    assert found(tmp_path, notebook("# flake8: noqa\nimport torch", TRAIN)) == []


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "nb.ipynb:1: TM901 [unreadable-file] not valid JSON"),
        (b'{"cells": [\n}', "nb.ipynb:2: TM901 [unreadable-file] not valid JSON"),
        (b'{"cells": \xff', "nb.ipynb:1: TM901 [unreadable-file] not valid UTF-8"),
        (b"[]", "nb.ipynb: TM901 [unreadable-file] no notebook: it has no cells"),
        (b'{"cells": 3}', "nb.ipynb: TM901 [unreadable-file] no notebook: its cells are no list"),
        (b'{"cells": [3]}', "nb.ipynb: TM901 [unreadable-file] no notebook: a cell is no object"),
        (b'{"cells": [{"cell_type": "code"}]}', "nb.ipynb: TM901 [unreadable-file] no notebook: cell 1 has no source"),
        (b'{"cells": [{"cell_type": "code", "source": [1]}]}', "nb.ipynb: TM901 [unreadable-file] no notebook: cell 1 has no source"),
        (b"[" * 100_000, "nb.ipynb: TM901 [unreadable-file] not valid JSON"),
    ],
)
def test_what_is_no_notebook_is_said_and_left(tmp_path: Path, data: bytes, complaint: str) -> None:
    (line,) = found(tmp_path, data)
    assert line.startswith(complaint)
    after, result = mended(tmp_path, data)
    assert after == data
    assert result.status == 2
    assert complaint in result.out


def test_notebooks_in_other_languages_are_passed_over(tmp_path: Path) -> None:
    for metadata in ({"kernelspec": {"language": "R", "name": "ir"}}, {"language_info": {"name": "julia"}}):
        (tmp_path / "nb.ipynb").write_bytes(notebook("x <- 1 (", metadata=metadata))
        assert torchmem("check", "nb.ipynb", cwd=tmp_path) == Result(0, "no findings; 1 file checked\n", "")
    assert found(
        tmp_path, notebook("import torch", TRAIN, metadata={"kernelspec": {"language": "python"}, "language_info": {"name": "python"}})
    )


def test_folders_hold_notebooks_without_their_checkpoints(tmp_path: Path) -> None:
    for name in ("a.ipynb", ".ipynb_checkpoints/a-checkpoint.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(notebook("import torch", TRAIN))
    assert torchmem("check", ".", cwd=tmp_path).out.endswith("1 finding in 1 file; 1 file checked\n")


def test_imports_of_notebooks_are_followed(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "lib.py").write_text("def finish(optimizer):\n    optimizer.step()\n")
    loop = "import torch\nfrom lib import finish\ndef train(model, loader, criterion):\n"
    loop += "    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
    loop += "    for x, y in loader:\n        criterion(model(x), y).backward()\n        finish(optimizer)\n"
    (line,) = found(tmp_path, notebook("%pylab", loop))
    assert line.startswith("nb.ipynb:cell 3:6:9: TM101 ")
    assert "line 2 of lib.py" in line
