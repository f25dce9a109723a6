"""What mends windows and clips: the divisor of a loss, the test that ends a window, where gradients are unscaled and clipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.gradients.clipping import Clipping, Misplaced
from flake8_torchmem.analysis.gradients.periods import MIRRORED
from flake8_torchmem.analysis.gradients.places import SPELLED
from flake8_torchmem.analysis.gradients.scaling import Fault
from flake8_torchmem.analysis.gradients.windows import Window
from flake8_torchmem.remedies import Insert, Move, NoRemedy, Remedy, Rewrite, Role, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

OPPOSITE = {"==": "!=", "!=": "==", "is": "is not", "is not": "is", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
ARITHMETIC = frozenset({"+", "-", "*", "/", "//", "%", "**"})
UNSEEN = NoRemedy("where the counter starts cannot be seen")


def source(expr: ir.Expr | None, operand: bool = False) -> str | None:
    """An expression as Python spells it, None if it is more than names, literals, arithmetic and plain calls.

    Args:
        expr: the expression.
        operand: it is to stand beside an operator.
    """
    if isinstance(expr, ir.Name):
        return expr.path if SPELLED.match(expr.path) else None
    if isinstance(expr, ir.Const):
        return repr(expr.value)
    if isinstance(expr, ir.Op) and len(expr.args) == 2 and (expr.op in ARITHMETIC or expr.op in MIRRORED):
        left, right = (source(arg, operand=True) for arg in expr.args)
        text = f"{left} {expr.op} {right}" if left and right else None
        return f"({text})" if text and operand else text
    if isinstance(expr, ir.Item):
        base, key = source(expr.base, operand=True), source(expr.key)
        return f"{base}[{key}]" if base and key else None
    if isinstance(expr, ir.Call) and not expr.star:
        given = [source(arg) for arg in expr.args] + [f"{name}={source(arg)}" for name, arg in expr.kwargs.items()]
        func = source(expr.func)
        return f"{func}({', '.join(map(str, given))})" if func and None not in given else None
    return None


def divided(fault: Fault, facts: FileFacts) -> Remedy | NoRemedy:
    """The loss is divided by the size of its window, where it is back-propagated; a wrong divisor is replaced."""
    home = next(function for function in facts.program.all_functions() if fault.backward in set(function.events()))
    size = source(fault.window.size, operand=True)
    if size is None or not _is_visible(fault.window.size, fault.window.function, home):
        return NoRemedy("the size of the window has no name where the loss is back-propagated")
    if fault.divisor is None:
        return remedy(Rewrite(fault.backward.site, Role.LOSS, f"{{}} / {size}"))
    place = _division(fault, home)
    if place is None:
        return NoRemedy("the division is in another function")
    return remedy(Rewrite(place, Role.DIVISOR, size))


def _division(fault: Fault, home: ir.Function) -> ir.Site | None:
    """The backward, or the assignment before it, that divides."""
    for event in home.events():
        values = [event.value] if isinstance(event, (ir.Bind, ir.Backward)) else []
        if any(fault.divisor is arg for value in values for node in ir.walk(value) if isinstance(node, ir.Op) for arg in node.args):
            return event.site
    return None


def _is_visible(size: ir.Expr | None, function: ir.Function, home: ir.Function) -> bool:
    """Whether the names of a window's size mean the same in another function."""
    if function is home or size is None:
        return True
    scopes = [home]
    while scopes[-1].parent is not None:
        scopes.append(scopes[-1].parent)
    for path in ir.names(size):
        root = paths.root(path)
        shared = root == "self" and home.owner is not None and home.owner is function.owner
        around = function in scopes and not any(root in scope.locals for scope in scopes[: scopes.index(function)])
        outside = root not in function.locals and root not in home.locals
        if not (shared or around or outside):
            return False
    return True


def rephased(window: Window, facts: FileFacts) -> Remedy | NoRemedy:
    """The test is true where the window is full, by what the counter is at its first micro-batch."""
    period = window.period
    shifted = facts.periods.shifted(period.counter, window.function) if period is not None else None
    counter = source(shifted[0]) if shifted is not None else None
    if period is None or window.test is None or window.first is None or counter is None or period.size is None:
        return UNSEEN
    size = source(period.size, operand=True)
    test = period.read.value if period.read is not None else window.test
    found = next(_comparisons(test, window.function, facts), None)
    old = source(found)
    if found is None or size is None or old is None:
        return NoRemedy("the test is not written as a remainder")
    amount = 1 - window.first
    dividend = counter if amount == 0 else f"({counter} {'+' if amount > 0 else '-'} {abs(amount)})"
    bare = not isinstance(found, ir.Op) or found.op not in MIRRORED
    holds = _holds(found, period.holds)
    new = f"{dividend} % {size}" + ("" if bare and not holds else " == 0" if holds else " != 0")
    sites = [window.site, *_repeated(window)]
    return remedy(*(Rewrite(site, Role.TEST, new, path=old) for site in sites))


def _comparisons(test: ir.Expr, function: ir.Function, facts: FileFacts) -> Iterator[ir.Expr]:
    """The comparison of a remainder in a condition, or the remainder itself."""
    for node in ir.walk(test):
        if isinstance(node, ir.Op) and node.op in MIRRORED and any(facts.periods.remainder(arg, function) for arg in node.args):
            yield node
    yield from (node for node in ir.walk(test) if facts.periods.remainder(node, function))


def _holds(found: ir.Expr, holds: bool) -> bool:
    """Whether the step comes where this comparison is true, given whether it comes for the remainder that is asked for."""
    positive = isinstance(found, ir.Op) and found.op in ("==", "is", "<", "<=")
    return holds is positive


def _repeated(window: Window) -> Iterator[ir.Site]:
    """Other tests of the same text, behind the backward, that wait for a clear."""
    first = window.carriers[0].site.mark.number
    for block in window.function.blocks:
        for edge in block.edges:
            same = edge.cond is not None and edge.cond is not window.test and ir.text(edge.cond) == ir.text(window.test or edge.cond)
            clears = any(edge.cond is cond for clear in window.clears for cond, _, _ in clear.ctx.conds)
            if same and clears and edge.arm and edge.site is not None and edge.site.mark.number > first:
                yield edge.site


def clipped(found: Misplaced, clipping: Clipping) -> Remedy | NoRemedy:
    """The clip goes between the unscaling, or the backward, and the step; the unscaling comes in where it is missing."""
    clip, step = found.clip, found.step
    scaler = step.call.receiver if step.call is not None and step.call.args else None
    if not SPELLED.match(step.owner) and scaler is not None:
        return NoRemedy("the optimizer has no name where the clip is")
    loop = next((loop for loop in step.ctx.loops if paths.root(step.owner) in loop.targets), None)
    anchor = loop.site if loop is not None and loop.site is not None else step.site
    unscales = any("unscale" in clipping.does(event) for event in clipping.before(step))
    unscale = f"{scaler.path}.unscale_({step.owner})" if isinstance(scaler, ir.Name) and not unscales else ""
    if unscale and loop is not None:
        return NoRemedy("the optimizer has no name where the clip is")
    if found.kind == "scaled" and found.cause is None and not _apart(clip, step):
        others = [other for other in clipping.clips if other in set(clipping.before(step)) and not _between(other, clip, clipping)]
        first, last = others[0], others[-1]
        return remedy(Insert(unscale, _outside(first, step), beside=last.site if last is not first else None))
    if found.kind == "scaled" and found.cause is not None:
        return remedy(Move(clip.site, found.cause.site, beside=clip.site, whole=True))
    following = [other for other in clipping.steps if other in clipping.after(clip)]
    if found.kind == "scaled" and len(following) > 1:
        return _unscaled_in_arm(unscale, clip, step)
    if found.kind == "early" and len(following) > 1:
        return NoRemedy("several steps follow")
    if found.kind == "late" and _needs(clip, step, clipping):
        return NoRemedy("what it needs is computed after the step")
    inserts = (Insert(unscale, anchor),) if unscale else ()
    return remedy(*inserts, Move(clip.site, anchor, after=False, whole=True))


def _unscaled_in_arm(unscale: str, clip: ir.Event, step: ir.Step) -> Remedy | NoRemedy:
    """One clip for several steps: what is scaled is unscaled first, under the condition of the scaler's step."""
    known = {id(cond) for cond, _, _ in clip.ctx.conds}
    own = [(cond, arm) for cond, arm, _ in step.ctx.conds if id(cond) not in known]
    cond = own[0][0] if len(own) == 1 else None
    text = source(cond)
    if cond is None or text is None or not unscale:
        return NoRemedy("several steps follow")
    if not own[0][1]:
        opposite = OPPOSITE.get(cond.op) if isinstance(cond, ir.Op) else None
        text = source(ir.Op(opposite, cond.args)) if opposite and isinstance(cond, ir.Op) else f"not {source(cond, operand=True)}"
    return remedy(Insert(f"if {text}:\n    {unscale}", _outside(clip, step)))


def _apart(clip: ir.Event, step: ir.Step) -> bool:
    """Whether the step waits for something that the clip does not wait for: unscaling twice in a window raises."""
    conds = {id(cond) for cond, _, _ in clip.ctx.conds}
    return any(id(cond) not in conds for cond, _, _ in step.ctx.conds)


def _between(other: ir.Event, clip: ir.Event, clipping: Clipping) -> bool:
    """Whether a backward or a step is between two clips: they are for different steps."""
    events = list(clipping.events)
    low, high = sorted((events.index(other), events.index(clip)))
    return any(clipping.does(event) & {"backward", "step"} for event in events[low:high])


def _outside(clip: ir.Event, step: ir.Step) -> ir.Site:
    """The clip, or the loop over parameters that it is in."""
    return next((loop.site for loop in clip.ctx.loops if loop not in step.ctx.loops and loop.site is not None), clip.site)


def _needs(clip: ir.Event, step: ir.Step, clipping: Clipping) -> bool:
    """Whether something that the clip reads gets its value behind the step."""
    events = list(clipping.events)
    between = events[events.index(step) : events.index(clip)]
    own = {target for loop in clip.ctx.loops if loop not in step.ctx.loops for target in loop.targets}
    read = {paths.root(path) for path in ir.reads(clip)} - own
    return any(isinstance(event, ir.Bind) and event.place in read for event in between if event.site.mark is not clip.site.mark)
