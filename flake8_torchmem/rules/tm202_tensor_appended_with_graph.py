"""TM202 tensor-appended-with-graph: a growing container keeps tensors together with their graphs

## What it does

Reports a tensor with a graph that goes into a list, a dict or another container which outlives the turn and grows with it (`append`,
a new key, an attribute's list), when nothing back-propagates the content later.

## Why it matters

Each element holds its whole graph. What that costs depends on whether a backward went through it (this rule's fixture: 16-64-64-2
network, batch 32):

- A backward did: graph nodes in host memory, 8.6 kB per step against 0.8 kB after the fix (torch 2.13, CPU build, resident set, steps
  1,000 to 4,000), and the tensor itself, {measured:list_of_losses.bytes_per_beat_bad} bytes for a loss.
- No backward did: all activations of every step, {measured:fixed_batch.per_beat_bad} bytes here against
  {measured:fixed_batch.per_beat_fixed} after the fix. `.cpu()` is no help: it moves the result and keeps the graph, whose saved tensors
  stay where they were.

Even a detached scalar can be large: on the CPU build of torch 2.13 the mean of `mse_loss`, `smooth_l1_loss`, `soft_margin_loss` and
`binary_cross_entropy` sits in a storage of the size of the inputs, 2,048 bytes for 32 x 16 floats. `.item()` lets go of that too.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses
```

Right:

```python
def train(model, loader, optimizer, criterion):
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses
```

## What it stays silent on

- content that is back-propagated later: log-probabilities of an episode, the losses of a window
- a list that lives within one turn or one `forward`, is cleared in the loop, or is bounded (`deque(maxlen=...)`)
- `.item()`, `.detach()`, `argmax`, anything under `no_grad`
- modules, parameters, paths, strings and numbers

## Fix safety

SAFE: it adds `.detach()`, before a trailing `.cpu()` where there is one, to each part of a tuple or record that has a graph. The
element stays a tensor with the same value, on the same device; only a backward through it would no longer work, and there is none.
Outputs that would pile up on the device without their graphs get `.detach().cpu()`, which is UNSAFE (TM203). What may be a tuple or
dict of tensors, as the output of a model out of sight, is left alone unless some use shows that it is one tensor.

## References

- Autograd mechanics: https://docs.pytorch.org/docs/stable/notes/autograd.html
- Tensor.detach: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
- Frequently asked questions (which puts all of this under running out of device memory): https://docs.pytorch.org/docs/stable/notes/faq.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.retained import comprehensions
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.remedies import NoRemedy, Remedy

RULE = Rule(
    code="TM202",
    name="tensor-appended-with-graph",
    summary="a growing container keeps tensors together with their graphs",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="The values stay the same to the last bit and remain tensors; only their graphs are let go.",
    effect="grows: all activations of every step where no backward went through them; else graph nodes in host memory",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Growing containers that take up tensors with graph."""
    for found in facts.retained:
        if found.growth.kind not in ("sum", "cat"):
            mended = facts.remedies.mending(found.function).grown(found.growth) if facts.fixing else None
            yield _report(found.growth.event.site, found.growth.place, found.freed, mended)
    for function, comprehension, event in comprehensions(facts):
        mended = facts.remedies.mending(function).comprehended(comprehension, event) if facts.fixing else None
        yield _report(comprehension.site or event.site, "the list", False, mended)


def _report(site: ir.Site, place: str, freed: bool, mended: Remedy | NoRemedy | None) -> Report:
    if freed:
        message = f"`{place}` keeps a tensor with its autograd graph from every turn: backward freed the activations, output and nodes stay"
    else:
        message = f"`{place}` keeps a tensor with its autograd graph from every batch, and with it all activations"
    advice = "store `.detach()` of it, with `.cpu()` where the device need not hold it, or `.item()` of a scalar"
    return Report(site, message, advice, remedy=mended)
