"""What is kept from run to run never changes an answer, whatever happens to the project, to the cache, or to the run."""

from __future__ import annotations

import ast
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from flake8_torchmem import Finding, cache, check_source
from flake8_torchmem.analysis.imports.disk import SEARCH, Disk
from flake8_torchmem.analysis.imports.project import Limits, Project
from flake8_torchmem.cache import open_cache
from flake8_torchmem.cache.store import FILE
from flake8_torchmem.settings import Settings
from flake8_torchmem.source import SourceError, decode
from tests.projects import ProjectCase, load
from tests.running import REPOSITORY, flake8, torchmem
from tests.samples import LEAKY

ALL = Settings(select=("TM",))
CASES = [case for case in load() if len(case.files) > 1]
STEPS = 10
TRAIN = """\
import torch
from {module} import finish


def train(model, loader, criterion):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        finish(optimizer)
"""
FINISH = "def finish(optimizer):\n    optimizer.step()\n"
FINISH_AND_CLEAR = FINISH + "    optimizer.zero_grad()\n"
EVALUATE = """\
import torch


def evaluate(model, loader):
    model.eval()
    outputs = 0
    for x, y in loader:
        outputs += model(x).argmax(1).eq(y).sum()
    return outputs
"""
RUN = "from {module} import evaluate\n\n\ndef run(model, loader):\n    return evaluate(model, loader)\n"
GUARD = "import torch\nfrom {module} import run\n\n\n@torch.no_grad()\ndef main(model, loader):\n    return run(model, loader)\n"
Findings = dict[str, list[Finding] | None]


def complaint(message: str) -> None:
    raise AssertionError(message)


def check_all(folder: Path, check: Callable[[str, str], list[Finding]]) -> Findings:
    """What is found in every file of a folder; None for one that cannot be read."""
    found: Findings = {}
    for path in sorted(folder.rglob("*.py")):
        found[str(path)] = None
        with suppress(OSError, SourceError):
            found[str(path)] = check(decode(path.read_bytes()), str(path))
    return found


def anew(folder: Path, settings: Settings = ALL, limits: Limits | None = None) -> Findings:
    project = Project(limits or Limits())

    def check(text: str, path: str) -> list[Finding]:
        with project.disk.tracing() as trace:
            found = check_source(text, path, settings, project)
        root = project.root(os.path.dirname(path))
        assert all(what.startswith(root) != (kind == SEARCH) for kind, what in trace.asked), "an entry would not hold in another clone"
        return found

    return check_all(folder, check)


def cached(
    folder: Path, kept: Path, settings: Settings = ALL, limits: Limits | None = None, complain: Callable[[str], None] = complaint
) -> Findings:
    with opened(kept, settings, Project(limits or Limits()), complain) as store:
        return check_all(folder, store.check)


def opened(kept: Path, settings: Settings, project: Project | None, complain: Callable[[str], None] = complaint) -> cache.Cache:
    found = open_cache(str(kept), settings, project, complain)
    assert found is not None
    return found


def entries(kept: Path) -> int:
    with sqlite3.connect(kept / FILE) as connection:
        count: int = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    connection.close()
    return count


def codes(found: Findings) -> dict[str, list[str]]:
    return {Path(path).name: [finding.code for finding in findings] for path, findings in found.items() if findings}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "project", {"setup.cfg": ""})
    return tmp_path / "project"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, every answer must have been kept."""

    def refuse(_text: str, path: str, *_: object) -> list[Finding]:
        raise AssertionError(f"{path} was checked")

    return lambda: monkeypatch.setattr(cache, "check_source", refuse)


@pytest.mark.parametrize("project", CASES, ids=[project.id for project in CASES])
def test_a_second_run_gives_the_same_without_any_work(
    project: ProjectCase, folder: Path, kept: Path, tmp_path: Path, no_work: Callable[[], None]
) -> None:
    project.write(folder)
    first = cached(folder, kept)
    assert first == anew(folder)
    no_work()
    assert cached(folder, kept) == first
    elsewhere = tmp_path / "elsewhere" / folder.name
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    moved = cached(elsewhere, kept)
    assert [len(found or ()) for found in moved.values()] == [len(found or ()) for found in first.values()]


@dataclass
class Walk:
    """Random changes of a project, the same ones in every run."""

    folder: Path
    project: ProjectCase
    dice: random.Random

    def step(self) -> str:
        """Do something; returns what."""
        kinds = [self.restore, self.restore, self.edit, self.empty, self.remove, self.break_, self.swap]
        kind = self.dice.choice([*kinds, self.module, self.package, self.mark, self.link])
        files = sorted(self.folder.rglob("*.py")) or [self.folder / "a.py"]
        path = self.dice.choice(files)
        kind(path, self.dice.choice(files))
        return f"{kind.__name__} {path}"

    def write(self, path: Path, text: str | None = None) -> None:
        """One of the project's own texts, if none is given."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(self.dice.choice([*self.project.files.values()]) if text is None else text, encoding="utf-8")

    def restore(self, _: Path, __: Path) -> None:
        name, text = self.dice.choice([*self.project.files.items()])
        self.write(self.folder / name, text)

    def edit(self, path: Path, _: Path) -> None:
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        del lines[self.dice.randrange(len(lines))]
        self.write(path, "\n".join(lines))

    def empty(self, path: Path, _: Path) -> None:
        self.write(path, "")

    def remove(self, path: Path, _: Path) -> None:
        path.unlink(missing_ok=True)

    def break_(self, path: Path, _: Path) -> None:
        self.write(path, "def (:\n")

    def swap(self, path: Path, other: Path) -> None:
        self.write(path, other.read_text(encoding="utf-8") if other.exists() else "")

    def module(self, path: Path, other: Path) -> None:
        self.write(path.parent / other.name)

    def package(self, path: Path, other: Path) -> None:
        self.write(path.parent / other.stem / "__init__.py")

    def mark(self, path: Path, _: Path) -> None:
        marker = path.parent / "setup.cfg"
        if marker.exists():
            marker.unlink()
        else:
            self.write(marker, "")

    def link(self, path: Path, other: Path) -> None:
        outside = self.folder.parent / "outside.py"
        self.write(outside)
        path.unlink(missing_ok=True)
        path.symlink_to(other if other != path else outside)


@pytest.mark.parametrize("project", CASES, ids=[project.id for project in CASES])
def test_whatever_changes_the_answer_is_that_of_a_new_check(project: ProjectCase, folder: Path, kept: Path) -> None:
    walk = Walk(folder, project, random.Random(project.title))
    project.write(folder)
    cached(folder, kept)
    done = []
    for step in range(STEPS):
        done += [walk.step() for _ in range(step % 2 + 1)]
        assert cached(folder, kept) == anew(folder), done


def test_all_files_that_import_what_has_changed_are_checked_anew(folder: Path, kept: Path) -> None:
    write(folder, {"a.py": TRAIN.format(module="lib"), "b.py": TRAIN.format(module="lib") + "\n", "lib.py": FINISH})
    assert codes(cached(folder, kept)) == {"a.py": ["TM101"], "b.py": ["TM101"]}
    write(folder, {"lib.py": FINISH_AND_CLEAR})
    assert codes(cached(folder, kept)) == {}


def test_a_file_that_now_hides_an_imported_one_counts(folder: Path, kept: Path) -> None:
    write(folder, {"tools/train.py": TRAIN.format(module="lib"), "lib.py": FINISH})
    assert codes(cached(folder, kept)) == {"train.py": ["TM101"]}
    write(folder, {"tools/lib.py": FINISH_AND_CLEAR})
    assert codes(cached(folder, kept)) == {}
    (folder / "tools" / "lib.py").unlink()
    assert codes(cached(folder, kept)) == {"train.py": ["TM101"]}


def test_one_text_in_two_places_is_two_entries(folder: Path, kept: Path) -> None:
    text = TRAIN.format(module=".lib")
    write(folder, {"a/train.py": text, "a/lib.py": FINISH, "b/train.py": text, "b/lib.py": FINISH_AND_CLEAR})
    for _ in range(2):
        assert [len(found or ()) for found in cached(folder, kept).values()] == [0, 1, 0, 0]


def test_a_caller_that_appears_counts(folder: Path, kept: Path) -> None:
    write(folder, {"lib/evaluation.py": EVALUATE, "lib/unrelated.py": "import torch\n"})
    assert codes(cached(folder, kept)) == {"evaluation.py": ["TM205"]}
    write(folder, {"app/runner.py": RUN.format(module="lib.evaluation").replace("    return", "    with torch.no_grad():\n        return")})
    assert codes(cached(folder, kept)) == {}


def test_a_search_is_answered_by_the_files_that_hold_the_words(folder: Path) -> None:
    def answer() -> bytes:
        return Disk(searched=1_000, digesting=True).answers([("search", "evaluate\0lib")], str(folder))

    write(folder, {"a.py": "lib.evaluate()", "b.py": "evaluate()", "c/d.py": ""})
    before = answer()
    write(folder, {"b.py": "evaluate(1)", "c/d.py": "lib", "c/e.py": ""})
    assert answer() == before
    write(folder, {"a.py": "lib.evaluate(1)"})
    edited = answer()
    write(folder, {"c/d.py": "lib.evaluate()"})
    added = answer()
    (folder / "a.py").rename(folder / "c.py")
    assert len({before, edited, added, answer()}) == 4
    assert [Path(path).name for path, _ in Disk(searched=1_000).texts(str(folder), "évaluer", "lib")] == ["c.py", "d.py"]


def test_who_calls_counts_by_its_name_too(folder: Path, kept: Path) -> None:
    write(folder, {"lib/evaluation.py": EVALUATE, "app/runner.py": RUN.format(module="lib.evaluation")})
    write(folder, {"app/main.py": GUARD.format(module="runner")})
    assert codes(cached(folder, kept)) == {}
    (folder / "app" / "runner.py").rename(folder / "app" / "starter.py")
    assert codes(cached(folder, kept)) == {"evaluation.py": ["TM205"]}


def test_a_package_is_known_by_the_name_of_its_folder(folder: Path, kept: Path, tmp_path: Path) -> None:
    write(
        folder, {"__init__.py": EVALUATE, "main.py": f"import torch\nimport {folder.name}\n\nwith torch.no_grad():\n    evaluate(m, l)\n"}
    )
    assert codes(cached(folder, kept)) == {}
    folder.rename(tmp_path / "other")
    assert codes(cached(tmp_path / "other", kept)) == {"__init__.py": ["TM205"]}


def test_a_project_within_a_project_has_names_of_its_own(folder: Path) -> None:
    module = "def train(model, batch, optimizer):\n    model(batch).mean().backward()\n    optimizer.step()\n"
    loop = "import torch\nfrom {} import train\n\n\ndef main(model, loader):\n    optimizer = torch.optim.SGD(model.parameters())\n"
    loop += "    for batch in loader:\n        train(model, batch, optimizer)\n"
    write(folder, {"inner/setup.cfg": "", "inner/lib.py": module, "inner/a.py": loop.format("lib"), "b.py": loop.format("inner.lib")})
    found: dict[str, Finding] = {}
    for order in (["inner/a.py", "b.py"], ["b.py", "inner/a.py"]):
        project = Project()
        for name in order:
            (finding,) = check_source((folder / name).read_text(), str(folder / name), ALL, project)
            assert found.setdefault(name, finding) == finding
    assert " of lib.py" in found["inner/a.py"].message
    assert " of inner/lib.py" in found["b.py"].message


def test_what_is_linked_from_outside_is_not_read(folder: Path, tmp_path: Path) -> None:
    write(folder, {"train.py": TRAIN.format(module="lib")})
    write(tmp_path, {"outside.py": FINISH})
    (folder / "lib.py").symlink_to(tmp_path / "outside.py")
    assert codes(anew(folder)).get("train.py") is None


@pytest.mark.parametrize("option", ["settings", "limits", "alone", "program", "sources"])
def test_what_is_asked_for_counts(folder: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    write(folder, {"a.py": TRAIN.format(module="lib"), "lib.py": FINISH})
    cached(folder, kept)
    before = entries(kept)
    cached(folder, kept)
    assert entries(kept) == before
    if option == "settings":
        assert codes(cached(folder, kept, Settings(select=("TM2",)))) == {}
    elif option == "limits":
        assert codes(cached(folder, kept, limits=Limits(depth=0))) == {}
    elif option == "alone":
        with opened(kept, ALL, None) as store:
            assert codes(check_all(folder, store.check)) == {}
    elif option == "program":
        monkeypatch.setattr(sys, "version", "another Python")
        cached(folder, kept)
    else:
        write(tmp_path, {"package/cache/__init__.py": ""})
        monkeypatch.setattr(cache, "__file__", str(tmp_path / "package" / "cache" / "__init__.py"))
        cached(folder, kept)
    assert entries(kept) == 2 * before


def test_what_failed_is_not_kept(folder: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    write(folder, {"a.py": LEAKY})
    with monkeypatch.context() as patch:
        patch.setattr("flake8_torchmem.analysis.gate.select", fail)
        assert codes(cached(folder, kept)) == {"a.py": ["TM900"]}
    assert codes(cached(folder, kept)) == {"a.py": ["TM201"]}


def test_nothing_is_kept_after_a_file_has_changed_under_the_run(folder: Path, kept: Path) -> None:
    write(folder, {"a.py": TRAIN.format(module="lib"), "lib.py": FINISH, "b.py": EVALUATE})
    project = Project()
    with opened(kept, ALL, project) as store:
        store.check((folder / "a.py").read_text(), str(folder / "a.py"))
        write(folder, {"lib.py": FINISH_AND_CLEAR})
        project.disk.text(str(folder / "lib.py"), str(folder))
        store.check((folder / "b.py").read_text(), str(folder / "b.py"))
    assert entries(kept) == 1
    assert cached(folder, kept) == anew(folder)


def test_flake8_keeps_nothing(folder: Path) -> None:
    write(folder, {"a.py": LEAKY})
    assert "TM201" in flake8("--select=TM", "a.py", cwd=folder).out
    assert not Path(os.environ["TORCHMEM_CACHE_DIR"]).exists()


def test_the_command_keeps_findings_unless_told_not_to(folder: Path, kept: Path) -> None:
    write(folder, {"a.py": LEAKY})
    plain = torchmem("check", "--no-cache", "a.py", cwd=folder)
    assert not Path(os.environ["TORCHMEM_CACHE_DIR"]).exists()
    for _ in range(2):
        assert torchmem("check", "--cache-dir", str(kept), "a.py", cwd=folder) == plain
        assert torchmem("check", "a.py", cwd=folder) == plain
    assert entries(kept) == entries(Path(os.environ["TORCHMEM_CACHE_DIR"])) == 1


def test_noqa_holds_for_what_was_kept(folder: Path, kept: Path) -> None:
    write(folder, {"a.py": LEAKY.replace("total += loss", "total += loss  # noqa: TM201")})
    assert [codes(cached(folder, kept)) for _ in range(2)] == [{}, {}]


READERS = {"glob", "io", "pathlib", "random", "shutil", "subprocess", "tempfile", "time", "flake8_torchmem.reach"}
ONLY_NAMES = {"abspath", "basename", "commonpath", "dirname", "join", "relpath", "splitext"}


def reads(path: Path) -> Iterator[str]:
    """What a module may learn from elsewhere than its arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in READERS)
        elif isinstance(node, ast.ImportFrom):
            yield from [node.module or ""] if node.module in READERS | {"os", "os.path"} else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"os", "os.path"}:
            yield from [node.attr] if node.attr not in ONLY_NAMES | {"path", "sep", "curdir", "pardir"} else []
        elif isinstance(node, ast.Name) and node.id == "open":
            yield node.id


def test_the_analysis_reads_the_disk_in_one_place_alone() -> None:
    package = REPOSITORY / "flake8_torchmem"
    found = {path.stem: {*reads(path)} for part in ("analysis", "rules") for path in (package / part).rglob("*.py")}
    assert "scandir" in found.pop("disk")
    assert not any(found.values())
