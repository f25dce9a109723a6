"""The JSON of a notebook as text: where the sources of code cells are, so that nothing else changes when they do.

`nbformat` would write the whole file anew, with other indentation, order and escapes than whoever wrote it had. Formats 3 and 4 are read.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flake8_torchmem.source import SourceError

_BLANK = re.compile(r"[ \t\r\n]*")
_PYTHON = frozenset({"python", "python2", "python3", "ipython"})
_BOM = "\ufeff"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Stored:
    """A code cell in the file.

    Attributes:
        number: among all cells, from 1.
        source: its code.
        begin: where in the text the value of its source begins.
        end: and ends.
    """

    number: int
    source: str
    begin: int
    end: int


@dataclass(frozen=True)
class Layout:
    """A notebook.

    Attributes:
        text: its JSON, without byte order mark.
        bom: that mark, if it has one.
        is_python: whether its code is Python, or it does not say what it is.
    """

    text: str
    bom: str
    is_python: bool

    @classmethod
    def of(cls, data: bytes) -> Layout:
        """The notebook in these bytes.

        Raises:
            SourceError: it is none.
        """
        try:
            text = data.decode("utf-8")
            content = json.loads(text.removeprefix(_BOM))
        except UnicodeDecodeError as error:
            raise SourceError("not valid UTF-8, which notebooks are written in", data.count(b"\n", 0, error.start) + 1) from None
        except json.JSONDecodeError as error:
            raise SourceError(f"not valid JSON, which notebooks are written in: {error.msg}", error.lineno) from None
        except (RecursionError, ValueError):
            raise SourceError("not valid JSON, which notebooks are written in") from None
        if not isinstance(content, dict) or not {"cells", "worksheets"} & content.keys():
            raise SourceError("no notebook: it has no cells")
        said = (_at(content, "metadata", "kernelspec", "language"), _at(content, "metadata", "language_info", "name"))
        is_python = all(language.lower() in _PYTHON for language in said if isinstance(language, str))
        return cls(text.removeprefix(_BOM), _BOM if text.startswith(_BOM) else "", is_python)

    def cells(self) -> Iterator[Stored]:
        """The code cells.

        Raises:
            SourceError: a cell has no source, or is not made as cells are.
        """
        root = _members(self.text, _skip(self.text, 0))
        lists = [root["cells"]] if "cells" in root else [_members(self.text, sheet)["cells"] for sheet in self._sheets(root)]
        number = 0
        for begin in lists:
            for cell, _ in _items(self.text, begin):
                number += 1
                found = self._stored(cell, number)
                if found is not None:
                    yield found

    def _sheets(self, root: Mapping[str, int]) -> list[int]:
        sheets = [begin for begin, _ in _items(self.text, root["worksheets"])]
        return [sheet for sheet in sheets if "cells" in _members(self.text, sheet)]

    def _stored(self, cell: int, number: int) -> Stored | None:
        members = _members(self.text, cell)
        values = {key: _value(self.text, begin) for key, begin in members.items() if key in {"cell_type", "source", "input", "language"}}
        if values.get("cell_type", (None,))[0] != "code" or values.get("language", ("python",))[0] != "python":
            return None
        key = "source" if "source" in values else "input"
        source, end = values.get(key, (None, 0))
        if isinstance(source, list) and all(isinstance(part, str) for part in source):
            source = "".join(source)
        if not isinstance(source, str):
            raise SourceError(f"no notebook: cell {number} has no source")
        return Stored(number, source, members[key], end)

    def row(self, cell: Stored, line: int) -> int:
        """The line of the file, from 1, that holds a line of a cell."""
        begin, first = cell.begin, 1
        if self.text[begin] == "[":
            for item, _ in _items(self.text, cell.begin):
                if first > line:
                    break
                begin, first = item, first + _value(self.text, item)[0].count("\n")
        return self.text.count("\n", 0, begin) + 1

    def with_sources(self, sources: Mapping[Stored, str]) -> bytes:
        """The file with other sources, LF line ends, in some of its code cells."""
        pieces, done = [self.bom], 0
        for cell in sorted(sources, key=lambda cell: cell.begin):
            lines_end = "\r\n" if "\r\n" in cell.source else "\n"
            pieces += [self.text[done : cell.begin], self._written(cell, sources[cell].replace("\n", lines_end))]
            done = cell.end
        return "".join([*pieces, self.text[done:]]).encode("utf-8")

    def _written(self, cell: Stored, source: str) -> str:
        """The value of a source, in the form that it has: a string, or a list whose items that stay are left as they are."""
        if self.text[cell.begin] != "[":
            return self._string(source)
        spans = list(_items(self.text, cell.begin))
        old = [_value(self.text, begin)[0] for begin, _ in spans]
        new = re.findall(r"[^\n]*\n|[^\n]+", source)
        written: list[tuple[int, str]] = []  # which item of old stood there, as far as one did, and what stands there now
        for tag, first, last, begin, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            for index in range(begin, end):
                place = first + index - begin
                same = tag == "equal"
                written.append((place if place < last else -2, self.text[slice(*spans[place])] if same else self._string(new[index])))
        lead, between, trail = self._blanks(cell, spans)
        pieces = [lead]
        for (place, text), (following, _) in itertools.pairwise([*written, (-9, "")]):
            pieces += [text, self.text[spans[place][1] : spans[following][0]] if following == place + 1 else between]
        return f"[{''.join(pieces[:-1])}{trail}]"

    def _blanks(self, cell: Stored, spans: Sequence[tuple[int, int]]) -> tuple[str, str, str]:
        """What is before the first item of a list, between two of them, and behind the last one."""
        if not spans:
            return "", ", ", ""
        lead, trail = self.text[cell.begin + 1 : spans[0][0]], self.text[spans[-1][1] : cell.end - 1]
        return lead, self.text[spans[0][1] : spans[1][0]] if len(spans) > 1 else f",{lead or ' '}", trail

    def _string(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=self.text.isascii())


def _at(value: object, *path: str) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _skip(text: str, begin: int) -> int:
    blank = _BLANK.match(text, begin)
    return blank.end() if blank else begin


def _value(text: str, begin: int) -> tuple[Any, int]:
    """A value, and where it ends."""
    found: tuple[Any, int] = _DECODER.raw_decode(text, begin)
    return found


def _members(text: str, begin: int) -> dict[str, int]:
    """The keys of an object, each with where its value begins.

    Raises:
        SourceError: there is something else.
    """
    if text[begin] != "{":
        raise SourceError("no notebook: a cell is no object")
    found, at = {}, _skip(text, begin + 1)
    while text[at] != "}":
        key, end = _value(text, at)
        found[key] = _skip(text, _skip(text, end) + 1)
        at = _after(text, _value(text, found[key])[1])
    return found


def _items(text: str, begin: int) -> Iterator[tuple[int, int]]:
    """Where each item of a list begins and ends.

    Raises:
        SourceError: there is something else.
    """
    if text[begin] != "[":
        raise SourceError("no notebook: its cells are no list")
    at = _skip(text, begin + 1)
    while text[at] != "]":
        end = _value(text, at)[1]
        yield at, end
        at = _after(text, end)


def _after(text: str, end: int) -> int:
    """Where the next one begins, or the bracket that closes."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at
