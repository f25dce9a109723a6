"""TM214 cached-tensor: a cache keeps tensors, modules or graphs that nothing else uses

## What it does

Reports `functools.lru_cache` and `functools.cache` around a function

- that takes a tensor or a module, also as the `self` of a module's method: the cache holds what it looks up by
- whose results carry a graph

## Why it matters

Tensors and modules are keys by identity. A new tensor with the same numbers is another key, so a cache of tensors mostly finds
nothing, and holds every input beside its result. The cache of a method belongs to the class, so it holds every module that the
method was ever called on, with parameters and gradients. A result with graph holds the activations that it was made from. In this
rule's fixture (batch 32) tensors as keys keep {measured:tensors_as_keys.per_beat_bad} bytes per step, modules as keys
{measured:modules_as_keys.per_beat_bad} bytes per model, results with graph {measured:graphs_as_values.per_beat_bad} bytes per call against
{measured:graphs_as_values.per_beat_fixed} under no_grad. `maxsize=128`, the default, stops that after
128 batches.

## Example

Reported:

```python
from functools import lru_cache

from torch import Tensor


@lru_cache(maxsize=None)
def features(inputs: Tensor) -> Tensor:
    return inputs.sin()
```

Right:

```python
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=None)
def window(size: int) -> Tensor:
    return torch.hann_window(size)
```

## What it stays silent on

- tensors made from numbers and names: masks, windows, position encodings, filters, also on a device
- a loader of models or checkpoints: what it returns is meant to stay
- a cache of at most 8 entries, and `cached_property`, whose value goes with its object
- methods of objects that are no modules, where results carry no graph

## Fix safety

DISPLAY: what the cache is for, and what could be a small key, is the author's to say.

## References

- Serialization and identity of modules, torch.nn.Module: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
- Frequently asked questions (memory): https://docs.pytorch.org/docs/stable/notes/faq.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.retention.caching import Kept, kept
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM214",
    name="cached-tensor",
    summary="a cache keeps tensors, modules or graphs that nothing else uses",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="What to cache by instead is the author's to say.",
    effect="grows: inputs, modules or activations of every call, up to the size of the cache",
)

HELP = {
    "tensor": "cache by a shape, a length or an index, or not at all",
    "module": "keep the result in an attribute of the module",
    "self": "make it a function of its other arguments, or keep the result in an attribute",
    "graph": "compute it under `torch.no_grad()`, or return `.detach()`",
}


def check(facts: FileFacts) -> Iterator[Report]:
    """Caches that keep something large."""
    for function in facts.functions:
        found = kept(facts, function) if function.decorators else None
        if found is not None:
            yield Report(function.decorator(found.decorator), _message(found), HELP[found.kind])


def _message(found: Kept) -> str:
    span = "every call" if found.size is None else f"the last {found.size} calls"
    if found.kind == "tensor":
        return f"the cache looks the tensor `{found.name}` up by identity: a new tensor is never found, and the tensors of {span} stay"
    if found.kind == "module":
        return f"the cache keeps the module `{found.name}` of {span}, with all its parameters, when nobody else does"
    if found.kind == "self":
        return f"the cache belongs to the class: it keeps the modules that {span} came from, with all their parameters"
    return f"the cache keeps the results of {span} with their graphs, and so their activations"
