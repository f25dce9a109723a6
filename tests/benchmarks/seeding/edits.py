"""Source text, and changes of it that remember where every line came from."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from flake8_torchmem.source import decode, parse

INDENT = "    "
Positioned = ast.stmt | ast.expr


class Source:
    """One file, its tree linked upwards.

    Args:
        path: of the file.
        project: the folder that it was found in.
    """

    def __init__(self, path: Path, project: Path) -> None:
        self.path = path
        self.name = f"{project.name}/{path.relative_to(project)}"
        self.project = project.name
        self.text = decode(path.read_bytes())
        self.lines = self.text.split("\n")
        self.tree = parse(self.text)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def blocks(self) -> dict[ast.stmt, list[ast.stmt]]:
        """The list of statements that each statement is in."""
        lists = (value for node in ast.walk(self.tree) for _, value in ast.iter_fields(node) if isinstance(value, list))
        return {stmt: block for block in lists for stmt in block if isinstance(stmt, ast.stmt)}

    def alone(self, node: Positioned) -> bool:
        """Whether nothing but a comment shares the node's lines."""
        first, last = self.lines[node.lineno - 1].encode(), self.lines[last_line(node) - 1].encode()
        rest = last[node.end_col_offset or 0 :].strip()
        return not first[: node.col_offset].strip() and (not rest or rest.startswith(b"#"))

    def indent(self, line: int) -> str:
        """The white space at the start of a line."""
        text = self.lines[line - 1]
        return text[: len(text) - len(text.lstrip())]

    def block_of(self, node: Positioned, indent: str) -> list[str]:
        """The node's lines, moved to another indentation."""
        old = self.indent(node.lineno)
        lines = self.lines[node.lineno - 1 : last_line(node)]
        return [indent + line.removeprefix(old) if line.strip() else line for line in lines]


@dataclass
class Edits:
    """Changes of one file, in any order: lines are those of the original.

    Attributes:
        source: the file.
        before: lines that are put in front of a line.
        after: lines that are put behind it.
        instead: what a line becomes, None when it goes.
    """

    source: Source
    before: dict[int, list[str]] = field(default_factory=dict)
    after: dict[int, list[str]] = field(default_factory=dict)
    instead: dict[int, str | None] = field(default_factory=dict)

    def put_before(self, line: int, *texts: str) -> Edits:
        """Lines in front of a line."""
        self.before.setdefault(line, []).extend(texts)
        return self

    def put_after(self, line: int, *texts: str) -> Edits:
        """Lines behind a line."""
        self.after.setdefault(line, []).extend(texts)
        return self

    def rewrite(self, node: Positioned, text: str) -> Edits:
        """Other source for a node; its first line holds all of it."""
        first, last = self.source.lines[node.lineno - 1].encode(), self.source.lines[last_line(node) - 1].encode()
        self.instead[node.lineno] = first[: node.col_offset].decode() + text + last[node.end_col_offset or 0 :].decode()
        self.instead.update(dict.fromkeys(range(node.lineno + 1, last_line(node) + 1)))
        return self

    def drop(self, stmt: ast.stmt) -> Edits:
        """A statement that does nothing, in a statement's place."""
        return self.rewrite(stmt, "pass")

    def remove(self, stmt: ast.stmt) -> Edits:
        """A statement with nothing in its place."""
        self.instead.update(dict.fromkeys(range(stmt.lineno, last_line(stmt) + 1)))
        return self

    def move_before(self, stmt: ast.stmt, line: int) -> Edits:
        """A statement in front of a line, as deep as that is."""
        return self.drop(stmt).put_before(line, *self.source.block_of(stmt, self.source.indent(line)))

    def move_after(self, stmt: ast.stmt, other: ast.stmt) -> Edits:
        """A statement behind another one."""
        return self.drop(stmt).put_after(last_line(other), *self.source.block_of(stmt, self.source.indent(other.lineno)))

    def render(self) -> tuple[str, tuple[int, ...]]:
        """The changed text, and the original line of each of its lines."""
        rows: list[tuple[str, int]] = []
        for number, line in enumerate(self.source.lines, 1):
            rows += [(text, number) for text in self.before.get(number, ())]
            kept = self.instead.get(number, line)
            rows += [(kept, number)] if kept is not None else []
            rows += [(text, number) for text in self.after.get(number, ())]
        return "\n".join(text for text, _ in rows), tuple(number for _, number in rows)


def last_line(node: Positioned) -> int:
    """The line that a node ends on."""
    return node.end_lineno or node.lineno
