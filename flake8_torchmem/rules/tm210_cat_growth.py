"""TM210 cat-growth: a buffer is concatenated with a tensor and its graph in every turn

## What it does

Reports `buffer = torch.cat([buffer, x])` where `x` carries a graph, the buffer outlives the turn of the loop, and nothing
back-propagates it.

## Why it matters

The buffer holds the graph of every turn, as a list would (TM202), and is copied as a whole in each. What that costs depends on whether
a backward went through the graphs (this rule's fixture: 16-64-64-64 network, batch 32, torch 2.13, CPU build):

- No backward did: all activations of every turn, {measured:after_every_step.per_beat_bad} bytes per step here against
  {measured:after_every_step.per_beat_fixed} with a list of detached tensors.
- A backward did: tensor bytes are those of a list, graph nodes stay in host memory. They can cost more than themselves: they lie
  between ever larger buffers, so the heap cannot use the old ones again. With outputs of 32 x 8 floats the resident set reached 4.5 GB
  after 4,000 steps (glibc), against 0.33 GB with a list; what was collected is 4 MB.
- Copying takes time that grows with the square of the number of turns: 2,000 steps took 32 s here, 1.5 s with a list.

## Example

Reported:

```python
import torch


def train(model, loader, optimizer, criterion):
    outputs = torch.empty(0)
    for inputs, targets in loader:
        optimizer.zero_grad()
        predicted = model(inputs)
        criterion(predicted, targets).backward()
        optimizer.step()
        outputs = torch.cat([outputs, predicted])
    return outputs.mean().item()
```

Right:

```python
import torch


def train(model, loader, optimizer, criterion):
    outputs = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        predicted = model(inputs)
        criterion(predicted, targets).backward()
        optimizer.step()
        outputs.append(predicted.detach())
    return torch.cat(outputs).mean().item()
```

## What it stays silent on

- a buffer that is back-propagated, here or by a caller that gets it
- buffers of one turn or one `forward`: features that are joined for the next layer
- a sequence that the model itself goes on with: tokens of a generation, states of a rollout
- detached tensors, numbers, predicted classes and anything under `no_grad`: those cost copies, and no graph

## Fix safety

DISPLAY: a list, `.detach()` of each tensor and one `torch.cat` after the loop. Other code may read the buffer within the loop.

## References

- torch.cat: https://docs.pytorch.org/docs/stable/generated/torch.cat.html
- Autograd mechanics: https://docs.pytorch.org/docs/stable/notes/autograd.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM210",
    name="cat-growth",
    summary="a buffer is concatenated with a tensor and its graph in every turn",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="The buffer becomes a list until the loop ends, and what reads it within the loop has to change with it.",
    effect="grows: all activations of every step where no backward went through them; else graph nodes in host memory, and copies",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Buffers that are joined with tensors with graph."""
    for found in facts.retained:
        if found.growth.kind != "cat":
            continue
        kept = "its graph nodes stay in host memory" if found.freed else "all activations stay"
        yield Report(
            found.growth.event.site,
            f"`{found.growth.place}` is concatenated with a tensor and its autograd graph in every turn: {kept}, and all of it is copied",
            "append `.detach()` of the tensor to a list, and call `torch.cat` once after the loop",
        )
