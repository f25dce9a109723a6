"""Where a window of micro-batches multiplies the gradient: mean losses that are added up and not divided by their number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.gradients.reductions import Reduced
from flake8_torchmem.analysis.gradients.windows import Fires, Window
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

SCALES_GRADIENTS = Words(
    r"(?:(?<!un)scale|mul|multiply|div|divide|normali[sz]e|average|avg|reduce)\w{0,80}grad|grad\w{0,80}(?:_scale(?!r)|_mul|_div|normali|averag|reduc)",
    re.I,
)
GRADIENTS = Words(r"(?:^|[._])grads?(?:$|[._\[])")
GRADIENT = Words(r"\.grad(?:\.data)?$|\.grad[\[.]")
SCALING_METHODS = frozenset({"div_", "mul_", "copy_", "_foreach_div_", "_foreach_mul_"})
RATE = Words(r"(?:^|[._'])(?:\w{0,80}lr|learning_rate|step_size)(?:$|[_'\]])", re.I)
ADAPTIVE = Words(r"adam|rmsprop|adafactor|lion|lamb|adagrad|rprop", re.I)
EPISODE = Words(r"episode|rollout|traject|(?:^|_)tasks?(?:$|_)", re.I)
LEAVES_LOSSES = Words(r"manual_backward$|(?:^|\.)fabric\.backward$")


@dataclass(frozen=True, eq=False)
class Fault:
    """A backward whose loss is not divided by the size of its window.

    Attributes:
        window: the window.
        backward: of one micro-batch.
        divisor: what the loss is divided by instead, None for nothing.
        counter: the divisor is the running counter.
        adaptive: the optimizer divides by the size of the gradient itself.
    """

    window: Window
    backward: ir.Backward
    divisor: ir.Expr | None
    counter: bool
    adaptive: bool


def faults(facts: FileFacts) -> Iterator[Fault]:
    """The losses of all windows that are not divided as they should be."""
    found = [fault for window in facts.windows if window.size is not None for fault in _of_window(facts, window, window.size)]
    # What scales gradients is looked for in the whole program, so only where there is something to say.
    everywhere = tuple(facts.program.all_functions()) if found else ()
    if any(map(rescales, everywhere)):
        return
    divisors = {name for function in everywhere for name in rate_divisors(function)}
    for fault in found:
        if fault.window.size is not None and divisors.isdisjoint(map(torchapi.last, ir.names(fault.window.size))):
            yield fault


def _of_window(facts: FileFacts, window: Window, size: ir.Expr) -> Iterator[Fault]:
    number = facts.periods.number(size, window.function)
    if (number is not None and number <= 1) or window.fires is Fires.INVERTED or _on_purpose(window):
        return
    for function in facts.functions:
        for event in function.events():
            if isinstance(event, ir.Backward) and event in window.backwards and _plain(event, window):
                found = facts.reductions.of(event.value, event, function)
                yield from _fault(facts, window, event, found)


def _on_purpose(window: Window) -> bool:
    """Whether a sum is what is wanted: over the episodes or tasks of one update."""
    loop, size = window.loop, window.size
    names = [*loop.targets, *(ir.names(loop.iterable) if loop.iterable else ())] if loop else []
    return any(EPISODE.search(torchapi.last(name)) for name in (*names, *(ir.names(size) if size else ())))


def _plain(backward: ir.Backward, window: Window) -> bool:
    """Whether nothing else scales: no engine, no gradient handed in, no test of the window's size around it."""
    given = bool(backward.call.operands) and not backward.call.kwargs.keys() <= {"retain_graph", "create_graph"}
    if not LEAVES_LOSSES.search(backward.call.path or "") and (backward.engine or backward.call.args or given):
        return False
    sizes = set(ir.names(window.size)) if window.size else set()
    return not any(sizes & set(ir.names(cond)) for cond, _, _ in backward.ctx.conds)


def _fault(facts: FileFacts, window: Window, backward: ir.Backward, loss: Reduced) -> Iterator[Fault]:
    size = window.size
    given = {path for call in loss.calls for arg in call.operands for path in ir.names(arg)}
    if not loss.mean or (size is not None and given & set(ir.names(size))):
        return
    binds = facts.bindings.binds(window.step.owner, window.function)
    adaptive = any(ADAPTIVE.search(node.method) for bind in binds for node in ir.walk(bind.value) if isinstance(node, ir.Call))
    if not loss.divisors:
        yield Fault(window, backward, None, False, adaptive)
    elif len(loss.divisors) == 1:
        divisor = loss.divisors[0]
        counter = _counts(divisor, facts, window)
        number, wanted = (facts.periods.number(expr, window.function) for expr in (divisor, size))
        if counter or (number is not None and wanted is not None and number != wanted and number > 1):
            yield Fault(window, backward, divisor, counter, adaptive)


def _counts(divisor: ir.Expr, facts: FileFacts, window: Window) -> bool:
    """Whether a divisor is the number of the micro-batch: `i + 1`, or the counter that the window resets."""
    if window.period is None:
        return False
    ours = facts.periods.shifted(window.period.counter, window.function)
    theirs = facts.periods.shifted(divisor, window.function)
    same = ours and theirs and isinstance(ours[0], ir.Name) and isinstance(theirs[0], ir.Name) and ours[0].path == theirs[0].path
    return bool(same)


def rescales(function: ir.Function) -> bool:
    """Whether a function scales gradients by hand, by a hook, or through a helper that says so."""
    for event in function.events():
        if isinstance(event, ir.Bind) and GRADIENT.search(event.place) and not isinstance(event.value, ir.Const):
            return True
        if isinstance(event, ir.Invoke):
            method = event.call.method
            given = (path for arg in (event.call.func, *event.call.operands) for path in ir.names(arg))
            if method == "register_hook" or (method in SCALING_METHODS and any(map(GRADIENTS.search, given))):
                return True
            if SCALES_GRADIENTS.search(method) and not method.startswith(("clip", "zero")):
                return True
    return False


def rate_divisors(function: ir.Function) -> Iterator[str]:
    """What a learning rate is divided by, by the last parts of its names."""
    rates = [event.value for event in function.events() if isinstance(event, (ir.Bind, ir.Store)) and RATE.search(event.place)]
    calls = (
        node for event in function.events() if isinstance(event, ir.Bind) for node in ir.walk(event.value) if isinstance(node, ir.Call)
    )
    rates += [value for call in calls for key, value in call.kwargs.items() if RATE.search(key)]
    quotients = (node for rate in rates for node in ir.walk(rate) if isinstance(node, ir.Op) and node.op == "/")
    return (torchapi.last(path) for quotient in quotients for path in ir.names(quotient.args[1]))
