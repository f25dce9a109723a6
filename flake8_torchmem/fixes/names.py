"""How a file spells the names of modules, and the imports that it lacks."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import libcst as cst

from flake8_torchmem.fixes.syntax import Refused, Syntax
from flake8_torchmem.model import Edit, Span

MODULES = ("torch", "copy")
FULL = re.compile(rf"(?<![\w.])(?P<module>{'|'.join(MODULES)})\.(?P<rest>[A-Za-z_][\w.]*)")
KEY = re.compile(r"\['([^'\"\\]*)'\]")  # as paths spell it


def spelled(syntax: Syntax, code: str) -> tuple[str, list[Edit]]:
    """Code with full names as this file spells them, and the edits that import what it lacks.

    Args:
        syntax: the file.
        code: where `torch.no_grad` and `copy.deepcopy` are written in full.

    Raises:
        Refused: the file uses the name of a module for something else.
    """
    names = imported(syntax)
    needed: dict[str, None] = {}

    def spell(match: re.Match[str]) -> str:
        full, module = match[0], match["module"]
        for length in range(full.count("."), -1, -1):
            head = ".".join(full.split(".")[: length + 1])
            local = next((local for local, name in names.items() if name == head), None)
            if local is not None:
                return local + full[len(head) :]
        needed[module] = None
        return full

    text = KEY.sub(lambda match: f'["{match[1]}"]' if f'["{match[1]}"]' in syntax.text else match[0], FULL.sub(spell, code))
    return text, [_import(syntax, module) for module in needed]


def imported(syntax: Syntax) -> dict[str, str]:
    """Names that the module's own imports bind, to what they stand for."""
    found: dict[str, str] = {}
    for node in _imports(syntax):
        if isinstance(node, cst.Import):
            for alias in node.names:
                full = _dotted(alias.name)
                found[_local(alias) or full.partition(".")[0]] = full if alias.asname else full.partition(".")[0]
        elif not node.relative and node.module is not None and not isinstance(node.names, cst.ImportStar):
            for alias in node.names:
                found[_local(alias) or _dotted(alias.name)] = f"{_dotted(node.module)}.{_dotted(alias.name)}"
    return found


def is_imported_later(syntax: Syntax, code: str, line: int) -> bool:
    """Whether the name that code begins with is only imported after a line, where it is evaluated."""
    found = re.match(r"\w+", code)
    bound = [
        syntax.span(node).line
        for node in _imports(syntax)
        if not isinstance(node.names, cst.ImportStar)
        for alias in node.names
        if found is not None and _binds(alias) == found[0]
    ]
    return bool(bound) and min(bound) > line


def idle(syntax: Syntax) -> set[str]:
    """Names that the module's own imports bind and nothing in the file reads."""
    used = {node.value for node in syntax.parents if isinstance(node, cst.Name) and not _in_import(syntax, node)}
    told = {node.raw_value for node in syntax.parents if isinstance(node, cst.SimpleString)}  # `__all__`, annotations in quotes
    return {name for name in imported(syntax) if name not in used and not any(name in text for text in told)}


def without_imports(syntax: Syntax, names: set[str]) -> Iterator[Edit]:
    """Imports of these names go; lines that hold more than one statement, and those with a `noqa`, stay."""
    for node in _imports(syntax):
        aliases = () if isinstance(node.names, cst.ImportStar) else tuple(node.names)
        line, gone = syntax.parents[node], [alias for alias in aliases if _binds(alias) in names]
        if not gone or len(line.body) > 1 or "noqa" in syntax.lines[syntax.span(line).line - 1]:  # type: ignore[attr-defined]
            continue
        if len(gone) == len(aliases):
            yield _without_line(syntax, line)
            continue
        for alias in gone:
            yield _without_alias(syntax, aliases, alias)


def _without_alias(syntax: Syntax, aliases: tuple[cst.ImportAlias, ...], alias: cst.ImportAlias) -> Edit:
    index, span = aliases.index(alias), syntax.span(alias)
    if index + 1 < len(aliases):
        following = syntax.span(aliases[index + 1])
        return Edit(Span(span.line, span.column, following.line, following.column), "")
    before = syntax.span(aliases[index - 1].asname or aliases[index - 1].name)
    return Edit(Span(before.end_line, before.end_column, span.end_line, span.end_column), "")


def _without_line(syntax: Syntax, line: cst.CSTNode) -> Edit:
    """A line goes; a section of imports that it was all of goes with the space before it, at the head of the file with that behind it."""
    first, last = syntax.span(line).line, syntax.span(line).end_line
    blank = [True, *(not text.strip() for text in syntax.lines), True]
    if blank[first - 1] and blank[last + 1]:
        if first == 1:
            while last + 1 < len(syntax.lines) and blank[last + 1]:
                last += 1
        while first > 1 and blank[first - 1]:
            first -= 1
    return Edit(Span(first, 1, last + 1, 1), "")


def _binds(alias: cst.ImportAlias) -> str:
    return _local(alias) or _dotted(alias.name).partition(".")[0]


def _in_import(syntax: Syntax, node: cst.CSTNode) -> bool:
    return any(isinstance(around, (cst.Import, cst.ImportFrom)) for around in syntax.around(node))


def _import(syntax: Syntax, module: str) -> Edit:
    """An import of a module, where sorted imports have it."""
    _require_free(syntax, module)
    lines = [line for line in syntax.module.body if _import_of(line) is not None and not _is_future(line)]
    builtin = module in sys.stdlib_module_names
    for line in lines:
        node = _import_of(line)
        root = _root(node)
        own_section = (root in sys.stdlib_module_names) == builtin
        later = not own_section if builtin else own_section or root not in sys.stdlib_module_names
        if later or (own_section and (isinstance(node, cst.ImportFrom) or root > module)):
            apart = "" if own_section or line is not lines[0] else "\n"
            number = syntax.span(line).line
            return Edit(Span(number, 1, number, 1), f"import {module}\n{apart}")
    anchor = lines[-1] if lines else _preamble(syntax)
    if anchor is None:
        return Edit(Span(1, 1, 1, 1), f"import {module}\n")
    end = syntax.span(anchor)
    column = len(syntax.lines[end.end_line - 1]) + 1
    return Edit(Span(end.end_line, column, end.end_line, column), f"{'' if lines else chr(10)}\nimport {module}")


def _require_free(syntax: Syntax, module: str) -> None:
    for node in syntax.parents:
        if isinstance(node, cst.Name) and node.value == module:
            parent = syntax.parents[node]
            attribute = isinstance(parent, cst.Attribute) and parent.attr is node
            keyword = isinstance(parent, cst.Arg) and parent.keyword is node
            if isinstance(parent, (cst.Param, cst.AssignTarget, cst.FunctionDef, cst.ClassDef, cst.ImportAlias, cst.AsName)) and not (
                attribute or keyword
            ):
                raise Refused(f"the name `{module}` is not that module everywhere in this file")


def _preamble(syntax: Syntax) -> cst.CSTNode | None:
    """The docstring or the last `from __future__` import, behind which imports begin."""
    found: cst.CSTNode | None = None
    for index, line in enumerate(syntax.module.body):
        first = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
        docstring = index == 0 and isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
        if not (docstring or _is_future(line)):
            break
        found = line
    return found


def _imports(syntax: Syntax) -> list[cst.Import | cst.ImportFrom]:
    lines = (line for line in syntax.module.body if isinstance(line, cst.SimpleStatementLine))
    return [small for line in lines for small in line.body if isinstance(small, (cst.Import, cst.ImportFrom))]


def _import_of(line: cst.CSTNode) -> cst.Import | cst.ImportFrom | None:
    node = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
    return node if isinstance(node, (cst.Import, cst.ImportFrom)) else None


def _is_future(line: cst.CSTNode) -> bool:
    return _root(_import_of(line)) == "__future__"


def _root(node: cst.Import | cst.ImportFrom | None) -> str:
    if isinstance(node, cst.Import):
        return _dotted(node.names[0].name).partition(".")[0]
    if node is None or node.module is None or node.relative:
        return ""
    return _dotted(node.module).partition(".")[0]


def _local(alias: cst.ImportAlias) -> str | None:
    return alias.asname.name.value if alias.asname is not None and isinstance(alias.asname.name, cst.Name) else None


def _dotted(node: cst.BaseExpression) -> str:
    return f"{_dotted(node.value)}.{node.attr.value}" if isinstance(node, cst.Attribute) else node.value  # type: ignore[attr-defined]
