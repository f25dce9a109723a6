"""TM109 gradients-kept-as-zeros: gradients are set to zero where None would let their memory go

## What it does

Reports `zero_grad(set_to_none=False)`. Off unless it is selected.

## Why it matters

A gradient takes as much memory as its parameter. Set to None it goes until the next backward makes it anew; set to zero it stays
beside the activations of the next forward. In this rule's fixture (batch 32) the peak is {measured:plain_loop.bad_peak} bytes against
{measured:plain_loop.fixed_peak}. Nothing grows.

Zeros also move parameters that had no gradient in this turn: optimizers pass over None, and take zero as a gradient. A layer that
was trained for one step and then left out for 15 moves on by 0.64 with Adam, by 0.38 with SGD and momentum, and by 0.03 with weight
decay alone (norm of the difference); with None it stays where it is.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        optimizer.zero_grad(set_to_none=False)
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

Right:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- an argument that is passed through (`set_to_none=args.set_to_none`), and `zero_grad()` itself: None is its default since 2.0
- zeros that are read before the next backward
- zeros that are written by hand, `parameter.grad.zero_()`
- files that capture CUDA graphs: a replay adds into the memory that was there at the capture
- tests

## Fix safety

SAFE: it drops the argument. Where one backward feeds every turn and nothing in the file reads `.grad`, gradients and training are the
same to the last bit. UNSAFE elsewhere: code that reads a gradient may find None, and parameters that get no gradient in some turns
stay where they are, which zeros would have moved.

## References

- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
- Performance tuning guide: https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.retention.evaluation import is_unit_test
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM109",
    name="gradients-kept-as-zeros",
    summary="gradients are set to zero where None would let their memory go",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="Training is the same to the last bit where one backward feeds every turn and nothing reads `.grad`.",
    effect="peak: higher by the size of the gradients; no growth",
)

READ = r"(?<!autograd)\.grad\b(?!\s*\(|\s*=[^=]|\.zero_)"
CAPTURES = frozenset({"torch.cuda.graph", "torch.cuda.CUDAGraph", "torch.cuda.make_graphed_callables"})


def check(facts: FileFacts) -> Iterator[Report]:
    """Clears that leave zeros where nothing reads them."""
    calls = [(event.call, function) for function in facts.functions for event in facts.calls(function)]
    if any(facts.evidence.resolve(call.path or "", function) in CAPTURES for call, function in calls):
        return
    for function in facts.functions:
        for event in function.events() if not is_unit_test(function) else ():
            if isinstance(event, ir.Zero) and event.call is not None and _leaves_zeros(event.call) and not _read(function, event):
                safety = _safety(facts, function) if facts.fixing else None
                yield Report(
                    event.call.site,
                    "gradients are set to zero and keep their memory through the next forward",
                    "drop the argument: `zero_grad()` sets gradients to None",
                    remedy=facts.remedies.without_argument(event.call.site, "set_to_none", 0, safety, READ) if facts.fixing else None,
                )


def _leaves_zeros(call: ir.Call) -> bool:
    argument = call.args[0] if call.args else call.kwargs.get("set_to_none")
    return call.method == "zero_grad" and isinstance(argument, ir.Const) and argument.value is False


def _read(function: ir.Function, zero: ir.Zero) -> bool:
    """Whether a gradient is read, but to be cleared, before the next backward of the turn."""
    for event in following(function, zero):
        if isinstance(event, ir.Backward):
            return False
        if not isinstance(event, ir.Zero) and any(".grad" in path for path in ir.reads(event)):
            return True
    return False


def _safety(facts: FileFacts, function: ir.Function) -> Safety | None:
    """UNSAFE where `.grad` is read, which may now be None, or where a turn may leave out parameters, whose zeros moved them."""
    everywhere = [event for other in facts.functions for event in other.events() if isinstance(event, ir.Backward)]
    backwards = [event for event in function.events() if isinstance(event, ir.Backward)] or everywhere
    partial = len(backwards) != 1 or any(event.ctx.conds_inside(event.ctx.loops[-1] if event.ctx.loops else None) for event in backwards)
    skips = any(event.ctx.conds for other in facts.functions if other.name == "forward" and other.owner for event in facts.calls(other))
    reading = (event for other in facts.functions for event in other.events() if not isinstance(event, ir.Zero))
    read = any(".grad" in f"{path}." and path.rpartition(".grad")[2][:1] in ("", ".") for event in reading for path in ir.reads(event))
    return Safety.UNSAFE if partial or skips or read else None
