"""TM211 oom-in-except: work is tried again while the handled out-of-memory error still holds the failed attempt

## What it does

Reports a handler of an out-of-memory error that tries the work again before it ends: the same call with less, the enclosing function
itself, or another run of a model. Also a handler in a loop that keeps the error object while the loop tries on.

## Why it matters

An exception holds its traceback, the traceback holds the frames of the failed calls, and those hold their tensors: every
activation of the attempt that did not fit. They go when the handler ends, not before, so what is tried inside has that much less
memory, and `empty_cache()` inside gives none of it back. Recursion inside the handler adds one failed attempt per level. In this
rule's fixture (16-256-256-2 network) the peak is {measured:retry_in_halves.peak_more} bytes higher where the halves of a batch of 64 are
tried inside, which is what the failed attempt holds; with quarters tried by recursion
{measured:split_until_it_fits.peak_more} bytes. Keeping the error in a
variable costs the same as staying inside.

## Example

Reported:

```python
import torch


def run(model, batch):
    try:
        return model(batch)
    except torch.cuda.OutOfMemoryError:
        first, second = batch.chunk(2)
        return torch.cat([model(first), model(second)])
```

Right:

```python
import torch


def run(model, batch):
    try:
        return model(batch)
    except torch.cuda.OutOfMemoryError:
        pass
    first, second = batch.chunk(2)
    return torch.cat([model(first), model(second)])
```

## What it stays silent on

- a handler that skips the batch, sets a smaller size, cleans up, notes a flag or gives up: the next attempt comes after it
- an attempt on the CPU, which needs none of the memory that is held
- single operations of torch: when they fail, no frame holds anything
- handlers of other errors, and the paths of a `RuntimeError` handler on which it was something else
- `traceback.clear_frames(error.__traceback__)`, which lets the tensors go

## Fix safety

UNSAFE: the recovery, with what prepares it, moves behind the handler, under a flag where others get there as well. What runs is the
same, but an exception that the recovery raises no longer has the first one as its context. None where the recovery uses the
exception, where the `try` has a `finally`, which would run first, and where a kept error may be raised again.

## References

- Frequently asked questions (my out of memory exception handler can't allocate memory): https://docs.pytorch.org/docs/stable/notes/faq.html
- torch.cuda.empty_cache: https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.empty_cache.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.oom import attempts, handlers, stored
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM211",
    name="oom-in-except",
    summary="work is tried again while the handled out-of-memory error still holds the failed attempt",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="The recovery moves out of the handler: errors that it raises lose the first one as their context.",
    effect="peak: the activations of the failed attempt stay while the work is tried again",
)

HELP = "set a flag in the handler and recover after it, when the error and its traceback are gone"


def check(facts: FileFacts) -> Iterator[Report]:
    """Handlers that run the work again, or keep the error while a loop does."""
    for function in facts.functions:
        for handler in handlers(facts, function):
            again = next(attempts(facts, handler), None)
            if again is not None:
                first = next(event for event in handler.events if event is again or _empties_cache(event))
                mentions = () if first is again else (again.site,)
                after = facts.remedies.after_handler(again.site) if facts.fixing else None
                yield Report(first.site, _message(first, again), HELP, mentions=mentions, remedy=after)
            for event in stored(facts, handler):
                yield Report(
                    event.site,
                    f"`{event.place}` keeps the out-of-memory error, and with it the failed attempt's tensors, while the loop tries on",
                    "keep `str(error)`, or a flag",
                    remedy=facts.remedies.none("what reads the error later may need more of it than its text") if facts.fixing else None,
                )


def _empties_cache(event: ir.Event) -> bool:
    return isinstance(event, ir.Invoke) and event.call.method == "empty_cache"


def _message(first: ir.Event, again: ir.Invoke) -> str:
    name = again.call.path or "the work"
    held = "the error being handled still holds the tensors of the failed attempt"
    if first is again:
        return f"`{name}` is tried again inside the handler: {held}"
    return f"`empty_cache` inside the handler cannot free the failed attempt: {held}, also while line {{0}} tries `{name}` again"
