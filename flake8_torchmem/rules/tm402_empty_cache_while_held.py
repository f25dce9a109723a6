"""TM402 empty-cache-while-held: the cache is emptied while variables still hold what should go

## What it does

Reports `torch.cuda.empty_cache()` at a point where a variable of the function still holds a model that it built or the output of one,
although nothing reads it again.

## Why it matters

`empty_cache` gives back blocks that hold no tensor. What a variable refers to stays, with its graph and the activations of that, until
the name is deleted, gets a new value, or the function ends. In this rule's fixture an output with its graph that is held
through the next phase costs {measured:output_of_the_first_phase.peak_more} bytes of peak, and a model that is done with
{measured:model_of_the_first_phase.peak_more}. Whether the call then gives
anything to the driver has not been measured: on a CPU build it does nothing.

## Example

Reported:

```python
import torch


def compare(model, student, images):
    wanted = model(images)
    score = wanted.softmax(-1).max().item()
    torch.cuda.empty_cache()
    return score, student(images).argmax(-1)
```

Right:

```python
import torch


def compare(model, student, images):
    wanted = model(images)
    score = wanted.softmax(-1).max().item()
    del wanted
    torch.cuda.empty_cache()
    return score, student(images).argmax(-1)
```

## What it stays silent on

- variables that are read again, deleted, or set to something else before the call
- what a caller or an attribute holds, what was put into a container or got a second name, what is on the host
- calls in loops over batches (TM401) and in handlers (TM211)

## Fix safety

DISPLAY: the name to delete is shown. Whether something else holds the tensors too is for the reader to see.

## References

- torch.cuda.empty_cache: https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.empty_cache.html
- Frequently asked questions (don't hold onto tensors and variables you don't need): https://docs.pytorch.org/docs/stable/notes/faq.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.holding import held_for_nothing
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM402",
    name="empty-cache-while-held",
    summary="the cache is emptied while variables still hold what should go",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="Something out of sight may hold the tensors as well; then deleting the name frees nothing.",
    effect="peak: what the variables hold stays through the next phase",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """`empty_cache` calls that come before the last reference is gone."""
    for function in facts.functions:
        for event in facts.calls(function):
            held = held_for_nothing(facts, function, event) if _empties_cache(facts, function, event) else {}
            if held:
                names = ", ".join(f"`{name}`" for name in held)
                yield Report(
                    event.site,
                    f"the cache is emptied while {names} (line {{0}}) still holds its tensors, which nothing reads again: they stay",
                    f"`del {', '.join(held)}` before the call",
                    mentions=(next(iter(held.values())).site,),
                )


def _empties_cache(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    path = facts.evidence.resolve(event.call.path or "", function)
    return path in ("torch.cuda.empty_cache", "torch.accelerator.empty_cache")
