"""TM401 empty-cache-in-loop: the allocator's cache is thrown away for every batch

## What it does

Reports `torch.cuda.empty_cache()` that runs for every batch, without a condition: in the inner loop of a training or an evaluation,
or in a method that is called once per batch.

## Why it matters

The caching allocator keeps freed blocks so that the next batch, which mostly asks for the same sizes, gets them without a call to
the driver. Emptying the cache gives them back to the driver, and the next batch asks the driver again. PyTorch itself gains no
memory by it: what is cached was free for PyTorch already, and what is still referenced is not freed. It helps other programs on the
device, and against fragmentation now and then, for which once per phase or once in many batches is enough. A loop that runs out of
memory without the call mostly keeps something (TM201, TM202, TM205). The numbers of this project come from a CPU build, where the
call does nothing, so no time is quoted here.

## Example

Reported:

```python
import torch


def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        torch.cuda.empty_cache()
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

- a call once per epoch, per model, per phase, or outside of any loop
- a call under a condition that is not met for every batch: a modulo, a failure, a flag that a handler has set
- a loop whose turns are whole epochs or whole trainings
- another object's method of that name

## Fix safety

UNSAFE: it removes the call, with an `if torch.cuda.is_available():` that does nothing else, and imports that only it used. Results never
change. But a program that runs close to the limit, or shares its device, may need the cache emptied from time to time; then guard
it, as in `if step % 100 == 0`.

## References

- torch.cuda.empty_cache: https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.empty_cache.html
- CUDA semantics (memory management): https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.evaluation import is_batch_loop
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM401",
    name="empty-cache-in-loop",
    summary="the allocator's cache is thrown away for every batch",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="A program close to the limit, or one that shares its device, may rely on the cache being emptied.",
    effect="time: on a CUDA device, every batch allocates anew; nothing on a CPU",
)

EMPTY_CACHE = frozenset({"torch.cuda.empty_cache", "torch.accelerator.empty_cache"})


def check(facts: FileFacts) -> Iterator[Report]:
    """`empty_cache` calls that every batch runs into."""
    for function in facts.functions:
        for event in facts.calls(function):
            path = facts.evidence.resolve(event.call.path or "", function)
            if path in EMPTY_CACHE and _every_batch(facts, function, event):
                yield Report(
                    event.site,
                    "the cache is emptied with every batch: each turn pays for synchronising and for allocating anew what the cache held",
                    "remove the call, or run it once per epoch",
                    remedy=facts.remedies.removed(event.site) if facts.fixing else None,
                )


def _every_batch(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether nothing stands between the call and a loop over batches."""
    if event.ctx.handler:
        return False
    if not event.ctx.loops:
        return facts.lifetimes(function).per_batch() and all(_is_device_check(cond) for cond, _, _ in event.ctx.conds)
    loop = event.ctx.loops[-1]
    if not all(_is_device_check(cond) for cond, _ in event.ctx.conds_inside(loop)):
        return False
    return is_batch_loop(facts, loop, function)


def _is_device_check(cond: ir.Expr) -> bool:
    """`if torch.cuda.is_available():` is no guard."""
    calls = [node for node in ir.walk(cond) if isinstance(node, ir.Call)]
    paths = [path for path in ir.names(cond) if path.endswith(("is_available", "device.type")) or "cuda" in path.lower()]
    ordered = any(isinstance(node, ir.Op) and node.op not in ("==", "!=", "and") for node in ir.walk(cond))
    return bool(paths) and not ordered and all(call.method == "is_available" for call in calls)
