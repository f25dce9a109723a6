"""Mutants of real files: what editors, merges and bad luck make of them, and what only a fuzzer does."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

TOKEN = re.compile(r"\w+|[^\S\n]+|\n|[-+*/%@&|^<>=!:]?=|\*\*|//|[^\w\s]")
MAX_BEFORE_EXCERPT = 6_000
MAX_DEFINITIONS = 3
ATTEMPTS = 8
MAX_COPIES, MAX_COPIED = 100, 20_000
VALID = 0.85  # of the mutants, at least, are Python if that can be had
VOCABULARY = r"""
    backward step zero_grad loss optimizer model loader detach item cpu cuda to no_grad torch nn append extend self data grad scaler scale
    unscale_ update clip_grad_norm_ parameters accumulate eval train empty_cache cat stack save load state_dict load_state_dict hidden
    retain_graph create_graph register_forward_hook DataLoader num_workers pin_memory zeros ones empty tensor randn device outputs losses
    total None True False 0 1 i epoch lambda yield await async global nonlocal del return break continue pass in is not and or if else elif
    for while try except finally with as import from class def match case type
    + - * / % @ ** // := == = += , . : ( ) [ ] { } ; -> ... # \
""".split()
WORDS = 60  # of the vocabulary, that are names
HEADS = (
    "if model.training:",
    "if (i + 1) % 4 == 0:",
    "if False:",
    "for x, y in loader:",
    "for epoch in range(3):",
    "for i, batch in enumerate(tqdm(loader)):",
    "while True:",
    "while (loss := model(x)) is not None:",
    "with torch.no_grad():",
    "with autocast(), open(p) as f:",
    "try:",
    "def step(self, loss):",
    "def forward(self, x):",
    "async def training_step(self, batch, i):",
    "async with model.no_sync():",
    "async for x in loader:",
    "class Model(nn.Module):",
    "class Data(torch.utils.data.Dataset):",
    "@torch.no_grad()\ndef evaluate(model, loader):",
)
ENCODINGS = "latin-1 cp1252 utf-8 utf-16 koi8-r shift_jis gb18030 iso2022_jp utf-7 mac-roman hz ascii utf-8-sig".split()
ODD = "\x0c \x0b \x1a \x85 \xa0 \u2028 \ufeff \x00 \r \x1c \u200b \t \\\n \xe9 \u017f \ufb01 \U0001d431 \u0301 \u4e2d".split(" ")
STRINGS = (
    "'\xe9\u2028 \u4e2d'",
    'f"{loss!r:>{width}} {x=}"',
    'f"{loss.item():.3f}"',
    "rb'\\''",
    '"""a\nb"""',
    "b'' b''",
    'f"{f"{loss}"}"',
    "'a' 'b'",
    '"# noqa"',
)
COMMENTS = ("# \xe9\u2028 \u4e2d", "# noqa", "# noqa: TM101", "# type: ignore", "#", "#!", "# fmt: off", "# -*- x -*-")


@dataclass(frozen=True)
class Block:
    """Lines of a text that hold one statement, and how deep that stands."""

    first: int
    end: int
    column: int


class Mutator:
    """Makes mutants of some texts.

    Args:
        seeds: that are mutated and spliced into one another.
        random: that decides.
    """

    def __init__(self, seeds: Sequence[str], random: Random) -> None:
        self._seeds = seeds
        self._random = random
        self._other = ""

    def reseed(self, number: int) -> None:
        """Draw as this number says from here on."""
        self._random.seed(number)

    def mutant(self) -> bytes:
        """The next one."""
        return self.of(self._excerpt(self._random.choice(self._seeds)))

    def of(self, seed: str) -> bytes:
        """A mutant of a text."""
        random = self._random
        valid = random.random() < VALID
        text = seed
        for _ in range(random.choice((1, 1, 2, 2, 3, 5))):
            for _ in range(ATTEMPTS):
                self._other = self._excerpt(random.choice(self._seeds))
                made = random.choice(TEXTUAL)(self, text)
                if made != text and (not valid or is_python(made)):
                    text = made
                    break
        return self._encoded(text) if random.random() < 0.25 else text.encode("utf-8", "surrogatepass")

    def _excerpt(self, text: str) -> str:
        """Some definitions of a long file, with its imports."""
        if len(text) < MAX_BEFORE_EXCERPT:
            return text
        blocks = [block for block in blocks_of(text) if block.column == 0]
        lines = text.split("\n")
        if not blocks:
            return "\n".join(lines[:100])
        imports = [block for block in blocks if re.match(r"import|from", lines[block.first])]
        chosen = self._random.sample(blocks, min(MAX_DEFINITIONS, len(blocks)))
        kept = sorted({*imports, *chosen}, key=lambda block: block.first)
        return "\n".join("\n".join(lines[block.first : block.end]) for block in kept) + "\n"

    # Lines.

    def _lines(self, text: str) -> str:
        lines = text.split("\n")
        first, second = (self._random.randrange(len(lines)) for _ in range(2))
        count = self._random.choice((1, 1, 1, 2, 5, 20))
        piece = lines[first : first + count]
        match self._random.randrange(6):
            case 0:
                del lines[first : first + count]
            case 1:
                lines[second:second] = piece
            case 2:
                lines[first], lines[second] = lines[second], lines[first]
            case 3:
                del lines[first:]
            case 4:
                del lines[:first]
            case _:
                lines[first] = lines[first][: self._random.randrange(len(lines[first]) + 1)]
        return "\n".join(lines)

    def _tokens(self, text: str) -> str:
        tokens = TOKEN.findall(text)
        if not tokens:
            return text
        random = self._random
        first, second = (random.randrange(len(tokens)) for _ in range(2))
        match random.randrange(6):
            case 0:
                del tokens[first : first + random.choice((1, 1, 2, 5))]
            case 1:
                tokens[second:second] = tokens[first : first + random.choice((1, 2, 5))]
            case 2:
                tokens[first], tokens[second] = tokens[second], tokens[first]
            case 3:
                del tokens[first:]
            case 4:
                tokens.insert(first, random.choice((*ODD, *STRINGS)))
            case _:
                tokens[first] = random.choice(VOCABULARY)
        return "".join(tokens)

    def _renamed(self, text: str) -> str:
        """A word becomes another one, once or wherever it stands."""
        words = re.findall(r"[A-Za-z_]\w*", text)
        if not words:
            return text
        old, new = self._random.choice(words), self._random.choice([*words, *VOCABULARY[:WORDS]])
        return re.sub(rf"\b{old}\b", lambda _: new, text, count=self._random.choice((0, 1)))

    # Statements.

    def _statements(self, text: str) -> str:
        blocks, lines, random = blocks_of(text), text.split("\n"), self._random
        if not blocks:
            return text
        one, other = random.choice(blocks), random.choice(blocks)
        piece = shifted(lines[one.first : one.end], other.column - one.column)
        match random.randrange(4):
            case 0:
                lines[one.first : one.end] = []
            case 1:
                lines[other.first : other.first] = piece
            case 2:
                lines[other.end : other.end] = piece
            case _:
                lines[other.first : other.end] = piece
        return "\n".join(lines)

    def _spliced(self, text: str) -> str:
        """A block of another file comes in."""
        foreign, blocks = blocks_of(self._other), blocks_of(text)
        if not foreign or not blocks:
            return text
        one, other, lines = self._random.choice(foreign), self._random.choice(blocks), text.split("\n")
        piece = shifted(self._other.split("\n")[one.first : one.end], other.column - one.column)
        lines[other.first : self._random.choice((other.first, other.end))] = piece
        return "\n".join(lines)

    def _wrapped(self, text: str) -> str:
        """Statements go into a block, or into many."""
        blocks, lines, random = blocks_of(text), text.split("\n"), self._random
        if not blocks:
            return text
        block = random.choice(blocks)
        for _ in range(random.choice((1, 1, 1, 2, 4, 15, 60))):
            head = random.choice(HEADS)
            tail = ["finally:", "    pass"] if head == "try:" else []
            if head.startswith(("if", "for", "while")) and random.random() < 0.3:
                tail = ["else:", "    pass"]
            inner = shifted(lines[block.first : block.end], 4)
            lines[block.first : block.end] = [" " * block.column + line for line in head.split("\n")] + inner + shifted(tail, block.column)
            block = Block(block.first, block.first + len(head.split("\n")) + len(inner) + len(tail), block.column)
        return "\n".join(lines)

    def _one_line(self, text: str) -> str:
        """Statements are joined by semicolons, or a block goes behind its colon."""
        lines = text.split("\n")
        at = self._random.randrange(len(lines))
        following = lines[at + 1].strip() if at + 1 < len(lines) else ""
        lines[at : at + 2] = [lines[at] + (" " if lines[at].rstrip().endswith(":") else "; ") + following]
        return "\n".join(lines)

    # Expressions.

    def _expressions(self, text: str) -> str:
        """An expression goes into another one, or around another one, or into brackets, or many of them."""
        found = expressions_of(text)
        if not found:
            return text
        random = self._random
        begin, end = random.choice(found)
        inner = text[begin:end]
        other_begin, other_end = random.choice(found)
        other = text[other_begin:other_end]
        times = random.choice((1, 1, 1, 2, 3, 20, 100))
        around = (
            ("(" * times, ")" * times), ("[" * times, "]" * times), ("-" * times, ""), ("(\n", "  # a comment\n)"), ("(\\\n", ")"),
            ("", random.choice((".item()", ".detach()", "[0]", ".mean()", ".cpu()", "()", ".grad")) * times), ("", f" + {inner}" * times),
            ("(", f" if {other} else None)"), ("[", f" for x in {other}]"), (f"{{**{other}, 'loss': ", "}"), ("(x := ", ")"), ("f'{", "}'"),
            ("(lambda *a, **k: ", f")({other})"), (f"{other}(", f", *x, key={other})"), ("(yield ", ")"), ("(await ", ")"), ("not ", ""),
            ("(", f") < ({other}) < 3"), ("", f"[{other}:, ..., ::2]"), ("(", ",)"), ("*", ","),
        )  # fmt: skip
        before, after = random.choice(around)
        made = random.choice((before + inner + after,) * 9 + (other,))
        return text[:begin] + made + text[end:]

    # The whole file.

    def _indented(self, text: str) -> str:
        unit = self._random.choice(("\t", " ", "  ", "   ", "        ", " \t", "\t "))

        def other(match: re.Match[str]) -> str:
            return unit * (len(match[0].expandtabs(4)) // 4)

        return re.sub(r"^[ \t]+", other, text, flags=re.MULTILINE)

    def _odd(self, text: str) -> str:
        """An odd character somewhere, or many."""
        odd = self._random.choice(ODD)
        if self._random.random() < 0.3:
            return re.sub(self._random.choice((r"(?m)^", r"\n\n", r"(?m)$", r" = ", r"(?m)#")), lambda match: match[0] + odd, text)
        at = self._random.randrange(len(text) + 1)
        return text[:at] + odd + text[at:]

    def _commented(self, text: str) -> str:
        comment = self._random.choice(COMMENTS)
        lines = text.split("\n")
        for _ in range(self._random.choice((1, 5, len(lines)))):
            at = self._random.randrange(len(lines))
            lines[at] += "  " + comment
        return "\n".join(lines)

    def _long(self, text: str) -> str:
        """Much of the same."""
        blocks, lines = blocks_of(text), text.split("\n")
        if not blocks or len(text) > 2 * MAX_BEFORE_EXCERPT:
            return text
        block = self._random.choice(blocks)
        lines[block.end : block.end] = lines[block.first : block.end] * min(
            100, 20_000 // (1 + sum(map(len, lines[block.first : block.end])))
        )
        return "\n".join(lines)

    def _encoded(self, text: str) -> bytes:
        """Other line ends, encodings, marks."""
        random = self._random
        end = random.choice(("\n", "\n", "\r\n", "\r", "mixed"))
        text = re.sub("\n", lambda _: random.choice(("\n", "\r\n", "\r")) if end == "mixed" else end, text)
        if random.random() < 0.2:
            text = text.rstrip()
        if random.random() < 0.4:
            encoding = random.choice(ENCODINGS)
            cookie = random.choice((encoding, encoding, random.choice(ENCODINGS), "unknown", ""))
            head = f"# -*- coding: {cookie} -*-\n" if cookie else ""
            try:
                data = (head + text).encode(encoding, random.choice(("replace", "ignore", "xmlcharrefreplace", "backslashreplace")))
            except (UnicodeError, LookupError):
                data = text.encode("utf-8", "replace")
        else:
            data = text.encode("utf-8", "surrogatepass")
        if random.random() < 0.2:
            data = b"\xef\xbb\xbf" + data
        if random.random() < 0.1 and data:
            at = random.randrange(len(data))
            data = data[:at] + bytes([random.randrange(256)]) + data[at + random.randrange(2) :]
        return data


TEXTUAL: tuple[Callable[[Mutator, str], str], ...] = (
    Mutator._lines, Mutator._tokens, Mutator._tokens, Mutator._renamed, Mutator._renamed, Mutator._statements, Mutator._statements,
    Mutator._spliced, Mutator._spliced, Mutator._wrapped, Mutator._wrapped, Mutator._one_line, Mutator._expressions, Mutator._expressions,
    Mutator._indented, Mutator._odd, Mutator._commented, Mutator._long,
)  # fmt: skip


def _tree(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_python(text: str) -> bool:
    """Whether it parses."""
    return _tree(text) is not None


def blocks_of(text: str) -> list[Block]:
    """The statements that have their lines for themselves."""
    tree = _tree(text)
    if tree is None:
        return []
    found, lines = [], text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            first = min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))
            end = node.end_lineno or node.lineno
            if end <= len(lines) and not lines[first - 1][: node.col_offset].strip():
                found.append(Block(first - 1, end, node.col_offset))
    return found


def expressions_of(text: str) -> list[tuple[int, int]]:
    """Where expressions begin and end; in ASCII alone, where bytes are characters."""
    tree = _tree(text) if text.isascii() else None
    if tree is None:
        return []
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return [
        (starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and node.end_lineno is not None and node.end_col_offset is not None
        if node.end_lineno < len(starts)
    ]


def shifted(lines: Sequence[str], columns: int) -> list[str]:
    """Lines further to the right, or to the left as far as they can go."""
    if columns >= 0:
        return [" " * columns + line if line.strip() else line for line in lines]
    return [line[min(-columns, len(line) - len(line.lstrip())) :] for line in lines]
