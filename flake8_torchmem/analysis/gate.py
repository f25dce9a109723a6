"""Which definitions of a file can matter: from the text and the syntax tree, before what analyses them is imported.

The text is searched for bare words, never for spellings: `loss . backward ( )` is legal. What is kept is a superset of
what the rules look at; a test holds every finding against it.
"""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis.imports.statements import imports
from flake8_torchmem.analysis.triggers import OF_COLLECTIONS, READ_DATA_SETS, WITH_COMPANIONS, triggers
from flake8_torchmem.analysis.units import Unit, declares_option, descendants, first_line, units_of
from flake8_torchmem.lazy import regex
from flake8_torchmem.ownnames import NONE, OwnNames

MAX_UNIT = 200_000
MAX_MODULE_STATEMENT = 4_000
MAX_CALLER = 40_000
MAX_CALLEES = 40_000
MAX_TURN = 2_500
MAX_METHOD = 12_000
MAX_CALL = 1_000
MAX_HELPER = 400
MAX_CLASS_LINES = 250
MAX_ARMS = 100

CORE = regex(r"(?<!def )(?<!def  )\b(?:manual_)?backward\b|\bempty_cache\b")
CORE_WORDS = ("backward", "empty_cache")
GROWTH = regex(r"\bappend\b|\bextend\b|\+=|\badd_\b|\bupdate\b|\]\s*=[^=]|=[^=\n]*\+|\[[^\]\n]{0,500}\bfor\b")
TRAINING = regex(r"backward|zero_grad|\bstep\b|\.grad\b|no_grad|inference_mode|optim|requires_grad")
DETACHES = regex(TRAINING.pattern + r"|detach|repackage|\.data\b")
CUDA = regex(r"\.cuda\b|[\"']cuda")
KEEPS = regex(TRAINING.pattern + r"|\b(?:append|extend|update|item|float|reset|return)\b|[-+*/]=|\]\s*=[^=]|detach")
FOR, WHILE = (regex(rf"{word}(?<=\b{word})\b[^\n]*") for word in ("for", "while"))
DATA = regex(torchapi.DATA_NAME.pattern.replace("(?:$|_|\\d)", "(?![A-Za-z])"), re.I)
EVALUATION_DATA = regex(r"loader|(?:^|_)(?:val|valid|validation|test|eval|dev|query|gallery)(?:$|_|set|dl|data)", re.I)
JOINS = regex(r"\b(?:cat|concat|concatenate|hstack|vstack)\b")
ALIAS = regex(r"import(?<=\bimport)\s+torch\s+as\s+(\w+)")
LOAD = regex(r"load(?<![\w.]load)\s*\(")
EVAL_CALL = regex(r"eval(?<=\beval)\s*\(")
# What a loader calls of the data set or collate function that it is given, and what makes that matter.
OF_LOADERS = frozenset({"__getitem__", "__getitems__", "__iter__", "__next__", "__call__"})
LOADER = regex(r"\b(?:num_workers|batch_size|collate_fn)\s*=|DataLoader\b")
ON_DEVICE = regex(r"\.cuda\b|[\"']cuda|\bdevice\b|\.to\(", re.I)
BINDS = regex(r"\(|cuda|workers", re.I)
NAME = regex(r"[A-Za-z_]\w*")
CUTS = regex(r"detach|repackage|\.data\b|no_grad|inference_mode")
FILLS = regex(r"\bself\.(\w+)[^\n=]{0,500}(?:\.(?:append|extend)\b|\]\s*=[^=])")
STEPS = regex(r"\bself\s*\.\s*(\w+)[^\n=]{0,500}\.\s*step\b")
EMPTIES = regex(r"\.clear\b|\.pop\w*\b|=\s*(?:\[\]|\{\}|list\(|dict\(|defaultdict\()")
GUARDS = regex(r"no_?grad|inference_mode", re.I)
NEVER = frozenset({"__init__", "__getitem__", "__len__", "__repr__", "__iter__", "__next__", "collate_fn"})


class Selection(NamedTuple):
    """What is to be lowered.

    Attributes:
        ranges: the lines [first, end) that it is on, 1-based.
        body: its statements, those of the module before definitions; each method is in a class of its own.
        imports: local name to full dotted name, of the whole file.
        relative: imports that begin with dots: how many, and what follows.
        bases: base names of every top-level class, as written.
        guarded: top-level classes whose calls run without gradients by themselves.
    """

    ranges: list[tuple[int, int]]
    body: list[ast.stmt]
    imports: dict[str, str]
    bases: dict[str, tuple[str, ...]]
    guarded: frozenset[str]
    relative: dict[str, tuple[int, str]]


def select(text: str, tree: ast.Module, codes: frozenset[str], own: OwnNames = NONE) -> Selection | None:
    """The lines that matter, None when none do.

    Args:
        text: the file.
        tree: its syntax tree.
        codes: rules to run.
        own: names that are read as PyTorch's.
    """
    words = triggers(codes).of(own.spelled(text))
    units = list(units_of(tree, text, own))
    script = any(EVAL_CALL.search(unit.text) for unit in units if not unit.name)
    evaluating = {unit.cls for unit in units if unit.cls is not None and EVAL_CALL.search(unit.text)}
    predicting = {unit for unit in units if unit.cls in evaluating and torchapi.EVAL_NAME.search(unit.name)}
    chosen = {unit for unit in units if _matters(unit, own) or unit in predicting or (script and not unit.name and unit.has_loops)}
    chosen |= _loading(units, text)
    chosen |= {unit for unit in units if unit not in chosen and len(unit.text) < MAX_UNIT and words.found(unit)}
    chosen |= _growing(units, chosen)
    if not chosen:
        return None
    shared = triggers(codes & WITH_COMPANIONS)
    chosen |= _companions(units, [unit for unit in chosen if shared.found(unit)])
    collecting = triggers(codes & OF_COLLECTIONS)
    chosen |= _readers(units, [unit for unit in chosen if unit.cls is not None and collecting.found(unit)])
    callers = _callers(units, chosen)
    # A caller that is one turn: its loop lies further up.
    chosen |= callers | _callers(units, {unit for unit in callers if len(unit.text) < MAX_TURN or not _loops(unit.text)})
    chosen |= _callees(units, chosen)
    chosen |= _builders(units, chosen)
    chosen |= {unit for unit in units if _context(unit, chosen)}
    chosen |= _of_loaders(units, chosen, bool(codes & READ_DATA_SETS)) | _starters(units, chosen)
    chosen = {unit for unit in chosen if _short(unit)}
    return _selection(tree, [unit for unit in units if unit in chosen], own, *imports(tree)) if chosen else None


def everything(text: str, tree: ast.Module, codes: frozenset[str], own: OwnNames = NONE) -> Selection | None:
    """All lines, where some matter: who edits has to know of every use of a value, also of those that no rule looks at.

    Args:
        text: the file.
        tree: its syntax tree.
        codes: rules to run.
        own: names that are read as PyTorch's.
    """
    if select(text, tree, codes, own) is None:
        return None
    chosen = (unit for unit in units_of(tree, text, own) if unit.name or len(unit.text) < MAX_MODULE_STATEMENT)
    return _selection(tree, [unit for unit in chosen if len(unit.text) < MAX_UNIT and _short(unit)], own, *imports(tree), trimmed=False)


def matching(text: str, tree: ast.Module, pattern: re.Pattern[str], own: OwnNames) -> Selection:
    """The definitions and statements in which a pattern is found.

    Args:
        text: the file.
        tree: its syntax tree.
        pattern: searched in the text of each.
        own: names that are read as PyTorch's; the pattern is not of them.
    """
    units = [unit for unit in units_of(tree, text, NONE) if pattern.search(unit.text) and _short(unit)]
    return _selection(tree, units, own, *imports(tree))


def whole(text: str, tree: ast.Module, names: dict[str, str], own: OwnNames) -> Selection:
    """All of a piece of a file that is read for its definitions, without what no caller of them looks at.

    Args:
        text: the whole file.
        tree: of the piece, its lines numbered as in the file.
        names: what names of the file stand for.
        own: names that are read as PyTorch's.
    """
    units = list(units_of(tree, text, own))
    detaching = {unit.cls for unit in units if unit.cls is not None and DETACHES.search(unit.text)}
    return _selection(tree, [unit for unit in units if _is_looked_at(unit, detaching) and _short(unit)], own, names, {})


def _is_looked_at(unit: Unit, detaching: set[ast.ClassDef]) -> bool:
    """Of a class: what may train, keep, guard or make items; of a module less, as that it makes graphs is known.

    Of a module that detaches, `forward` and short methods lead there.
    """
    if unit.cls is None:
        return True
    if len(unit.text) > MAX_METHOD:
        return False
    if unit.name == "forward" or any(torchapi.MODULE_BASE.search(ast.unparse(base)) for base in unit.cls.bases):
        leads = unit.cls in detaching and (unit.name == "forward" or len(unit.text) < MAX_CALL)
        return leads or DETACHES.search(unit.text) is not None
    if unit.name in NEVER:
        return True
    long = (unit.cls.end_lineno or 0) - unit.cls.lineno > MAX_CLASS_LINES
    return (TRAINING if long else KEEPS).search(unit.text) is not None


def _matters(unit: Unit, own: OwnNames) -> bool:
    """Whether a rule may have something to say about this unit itself."""
    text = unit.text
    if len(text) > MAX_UNIT:
        return False
    if any(word in text for word in CORE_WORDS) and CORE.search(text):
        return True
    if unit.name and torchapi.BATCH_METHOD.match(unit.name):
        return True
    if unit.name in NEVER or unit.name == "forward" or not _loops(text) or _is_guarded(unit, own):
        return False
    if EVAL_CALL.search(text):
        return unit.has_loops
    # What is asked of the text costs little, so it comes before what is asked of the syntax.
    collects = _loops_over_data(text) and (GROWTH.search(text) or "loader" in text) and _evaluates(unit)
    return bool(collects or torchapi.EVAL_NAME.search(unit.name)) and unit.runs_models


def _loops(text: str) -> bool:
    return bool(FOR.search(text) or WHILE.search(text))


def _loops_over_data(text: str) -> bool:
    """Whether the line of a loop speaks of data."""
    return any(DATA.search(line) for keyword in (FOR, WHILE) for line in keyword.findall(text))


def _evaluates(unit: Unit) -> bool:
    """Whether a loop goes over what is named as data to evaluate on, or as a loader: rules ask for no less."""
    return any(EVALUATION_DATA.search(word) and torchapi.DATA_NAME.search(word) for word in unit.loop_words)


def _is_guarded(unit: Unit, own: OwnNames) -> bool:
    return any(GUARDS.search(own.spelled(ast.unparse(decorator))) for decorator in getattr(unit.node, "decorator_list", ()))


def _loading(units: list[Unit], text: str) -> set[Unit]:
    """Definitions that call `torch.load`."""
    if "load" not in text:
        return set()
    # Each of them begins with a plain word, which is looked for much faster than one of several.
    loads = [LOAD, *(re.compile(rf"{torch}(?<=\b{torch})\s*\.\s*load\b") for torch in {"torch", *ALIAS.findall(text)})]
    return {
        unit for unit in units if "load" in unit.text and len(unit.text) < MAX_UNIT and any(pattern.search(unit.text) for pattern in loads)
    }


def _growing(units: list[Unit], chosen: set[Unit]) -> set[Unit]:
    """Definitions that collect something in loops over data, or join tensors in any loop, for a caller that evaluates."""
    evaluating = (unit for unit in units if EVAL_CALL.search(unit.text) or (unit.name and torchapi.EVAL_NAME.search(unit.name)))
    names = {name for unit in evaluating for name in unit.called}
    names -= NEVER | {"forward"}
    return {
        unit
        for unit in units
        if unit.name in names and unit not in chosen and len(unit.text) < MAX_UNIT and _loops(unit.text)
        if JOINS.search(unit.text) or (GROWTH.search(unit.text) and _loops_over_data(unit.text))
        if unit.runs_models
    }


def _companions(units: list[Unit], matched: list[Unit]) -> set[Unit]:
    """Definitions that share state with these: methods of their classes, what they name, and what may empty a container."""
    named = {word for unit in matched for word in NAME.findall(unit.text)}
    classes = {unit.cls for unit in matched if unit.cls is not None}
    found = (unit for unit in units if matched and len(unit.text) < MAX_CALLER)
    return {
        unit
        for unit in found
        if EMPTIES.search(unit.text) or (unit.cls in classes or unit.cls.name in named if unit.cls is not None else unit.name in named)
    }


def _readers(units: list[Unit], matched: list[Unit]) -> set[Unit]:
    """Methods that get at a list which another method of their class fills."""
    filled = {(unit.cls, name) for unit in matched for name in FILLS.findall(unit.text)}
    return {unit for unit in units if filled and any(unit.cls is cls and f"self.{name}" in unit.text for cls, name in filled)}


def _builders(units: list[Unit], chosen: set[Unit]) -> set[Unit]:
    """Methods that bind an attribute which a chosen one steps: by them it is known whether the class builds its optimizer."""
    stepped = {name for unit in chosen if unit.cls is not None and "step" in unit.text for name in STEPS.findall(unit.text)}
    if not stepped:
        return set()
    binds = re.compile(rf"\bself\s*\.\s*(?:{'|'.join(sorted(stepped))})\b[^\n=]{{0,100}}=(?!=)")
    return {
        unit for unit in units if unit.cls is not None and unit not in chosen and len(unit.text) < MAX_CALLER and binds.search(unit.text)
    }


def _callers(units: list[Unit], chosen: set[Unit]) -> set[Unit]:
    """Who calls what was chosen: the guard, the loop or the clear may stand there."""
    names = {unit.name for unit in chosen if unit.name} - NEVER - {"forward", "main"}
    return {unit for unit in units if unit not in chosen and len(unit.text) < MAX_CALLER and names & unit.called} if names else set()


def _callees(units: list[Unit], chosen: set[Unit]) -> set[Unit]:
    """In-file functions, own methods, and methods of classes that are built here; what they call only where it is short or trains."""
    found: set[Unit] = set()
    frontier, budget = set(chosen), MAX_CALLEES
    cutting = {unit.cls for unit in units if unit.cls is not None and CUTS.search(unit.text)}
    for hop in range(2):
        names = {name for unit in frontier for name in unit.called}
        classes = {unit.cls for unit in frontier if unit.cls}
        reached = [unit for unit in units if unit not in chosen and unit not in found and _is_callee(unit, names, classes, cutting)]
        reached = reached if hop == 0 else [unit for unit in reached if len(unit.text) < MAX_HELPER or TRAINING.search(unit.text)]
        frontier = set()
        for unit in sorted(reached, key=lambda unit: len(unit.text)):
            budget -= len(unit.text)
            if budget > 0:
                frontier.add(unit)
        found |= frontier
    return found


def _is_callee(unit: Unit, names: set[str], classes: set[ast.ClassDef], cutting: set[ast.ClassDef]) -> bool:
    if not isinstance(unit.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    if unit.cls is None:
        return unit.name in names
    if unit.name == "__call__" and len(unit.text) < MAX_CALL and GROWTH.search(unit.text):
        return True
    if unit.name == "__init__":
        return unit.cls in classes or (unit.cls.name in names and "requires_grad" in unit.text)
    if unit.cls.name in names and unit.cls in cutting and (unit.name == "forward" or CUTS.search(unit.text)):
        return True  # a model that is built here and may detach its state
    return unit.name != "forward" and unit.name in names and (unit.cls in classes or unit.cls.name in names or len(unit.text) < 2_000)


def _of_loaders(units: list[Unit], chosen: set[Unit], everything: bool) -> set[Unit]:
    """Data sets that chosen loaders may read, and in a class that keeps a loader what makes them.

    Of classes that do not speak of the device only if `everything` is asked for.
    """
    samples = {unit.cls.name: unit.cls for unit in units if unit.cls and unit.name in OF_LOADERS}
    around = {unit for unit in chosen if LOADER.search(unit.text)} if samples else set()
    if not around:
        return set()
    classes = {unit.cls for unit in around if unit.cls}
    makers = {unit for unit in units if unit.cls in classes and samples.keys() & unit.called}
    named = {name for unit in chosen | makers for name in unit.called}
    read = {samples[name] for name in samples.keys() & named}
    helpers = {unit.name: unit for unit in units if unit.cls is None and unit.name and CUDA.search(unit.text)}
    used = {helpers[name] for unit in units if unit.cls in read for name in helpers.keys() & unit.called} if helpers else set()
    names = {unit.name for unit in used}
    on_device = {unit.cls for unit in units if unit.cls in read and (everything or ON_DEVICE.search(unit.text) or names & unit.called)}
    return makers | used | {unit for unit in units if unit.cls in on_device and len(unit.text) < MAX_CALLER}


def _starters(units: list[Unit], chosen: set[Unit]) -> set[Unit]:
    """What says how the workers of chosen loaders are started, whatever these load."""
    found = {unit for unit in units if len(unit.text) < MAX_CALLER and any(word in unit.text for word in torchapi.START_METHODS)}
    return found if found and any(LOADER.search(unit.text) for unit in chosen) else set()


def _context(unit: Unit, chosen: set[Unit]) -> bool:
    """Small module-level statements that may bind or freeze models, bind optimizers, switch gradients off, or call what was chosen."""
    if unit.cls or unit.name or len(unit.text) > MAX_MODULE_STATEMENT or (declares_option(unit.node) and not unit.rest):
        return False
    if not BINDS.search(unit.text):
        names = [name for node in (unit.node, *unit.rest) if (name := _number(node)) is not None]
        return any(name in other.text for other in chosen for name in names)
    binds = any(isinstance(node, (ast.Assign, ast.AnnAssign)) for node in (unit.node, *unit.rest))
    if binds or torchapi.GRAD_SWITCH in unit.text or "requires_grad" in unit.text:
        return True
    if isinstance(unit.node, ast.Expr):
        return any(not other.name for other in chosen)
    if any(name in other.text for name in _bound_within(unit) for other in chosen):
        return True
    return bool({other.name for other in chosen if other.name} & unit.called)


def _bound_within(unit: Unit) -> set[str]:
    """Names that a module-level branch, loop or block binds."""
    nodes = (node for statement in (unit.node, *unit.rest) for node in descendants(statement))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _number(node: ast.stmt) -> str | None:
    """The name of a constant like `ACCUMULATE = 4`, which may be the size of a window."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, ast.Constant) or type(node.value.value) is not int:
        return None
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return target.id if isinstance(target, ast.Name) else None


def _short(unit: Unit) -> bool:
    """Whether no chain of `elif` is so long that it must have been generated: each arm has the conditions of all before it."""
    return unit.text.count("elif") <= MAX_ARMS


def _selection(
    tree: ast.Module,
    units: list[Unit],
    own: OwnNames,
    names: dict[str, str],
    relative: dict[str, tuple[int, str]],
    trimmed: bool = True,
) -> Selection:
    """The chosen units: statements of the module body first, then functions, and methods under their class's header."""
    ranges: list[tuple[int, int]] = []
    body: list[ast.stmt] = []
    for unit in sorted(units, key=lambda unit: bool(unit.name)):
        node = unit.trimmed() if trimmed else unit.node
        ranges.append((unit.first, unit.end))
        if unit.cls is None:
            body += [node, *unit.rest]
            continue
        header = ast.ClassDef(name=unit.cls.name, bases=unit.cls.bases, keywords=unit.cls.keywords, body=[node], decorator_list=[])
        body.append(ast.copy_location(header, unit.cls))
        ranges.append((first_line(unit.cls), first_line(unit.cls.body[0])))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {cls.name: tuple(map(ast.unparse, cls.bases)) for cls in classes}
    guarded = frozenset(cls.name for cls in classes if any(_is_guarded_call(node, own) for node in cls.body))
    return Selection(ranges, body, names, bases, guarded, relative)


def _is_guarded_call(node: ast.stmt, own: OwnNames) -> bool:
    """Whether this is a `forward` or `__call__` under no_grad, by decorator or by a block that is all of its body."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name not in ("forward", "__call__"):
        return False
    managers = [item.context_expr for block in node.body if isinstance(block, ast.With) for item in block.items]
    return any(GUARDS.search(own.spelled(ast.unparse(guard))) for guard in (*node.decorator_list, *managers))
