"""TM204 attribute-keeps-graph: a tensor goes, with its graph, to a buffer or record that outlives the step

## What it does

Reports a tensor with a graph that nothing back-propagates later, and that

- is written into a tensor which outlives the turn: `bank[rows] = features`, `queue[i].copy_(keys)`, `curve[i] = loss`
- is handed to a method of the file which keeps it in a list or dict of its object: `record.add("loss", loss)`
- goes into a `deque(maxlen=...)` without having been back-propagated
- is returned by a Lightning `training_step` under a key other than "loss", where a `training_epoch_end` makes Lightning (before 2.0)
  keep all returned dicts until the epoch ends

## Why it matters

A tensor that is written in place becomes part of the graph, and stays part of the graphs of all writes, also of rows that later ones
have overwritten: its size is fixed and memory grows. This rule's fixture (16-64-64-8 network, batch 32):

- No backward went through what is written: {measured:memory_bank.per_beat_bad} bytes more per step, for a bank of 4,096 bytes.
- A backward did: graph nodes in host memory, 8.3 kB per step against less than 0.1 kB after the fix (torch 2.13, CPU build, resident
  set, steps 1,000 to 4,000).
- A queue of eight outputs that were never back-propagated holds eight graphs: a peak of {measured:last_outputs.bad_peak} bytes against
  {measured:last_outputs.fixed_peak}.

## Example

Reported:

```python
import torch


def train(model, loader, optimizer, criterion, size):
    bank = torch.zeros(size, 128)
    for inputs, targets, rows in loader:
        features = model(inputs)
        loss = criterion(features, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank[rows] = features
    return bank
```

Right:

```python
import torch


def train(model, loader, optimizer, criterion, size):
    bank = torch.zeros(size, 128)
    for inputs, targets, rows in loader:
        features = model(inputs)
        loss = criterion(features, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank[rows] = features.detach()
    return bank
```

## What it stays silent on

- one slot that is overwritten: `self.loss = loss`, `self.attention = weights`, `logs["loss"] = loss` hold one graph at a time
- what is back-propagated later: terms of an episode, outputs that are filled in and trained, rollouts
- writes under `no_grad`, through `.data`, of numbers or of detached tensors; queues of losses that were back-propagated
- tensors of one turn or one `forward`
- dicts that a Lightning step returns where nothing keeps them

## Fix safety

SAFE: it adds `.detach()`. The values stay the same to the last bit, and no backward goes through them. Of what a Lightning step
returns, the entry "loss" keeps its graph, also where another entry is the same tensor.

## References

- In-place operations in autograd mechanics: https://docs.pytorch.org/docs/stable/notes/autograd.html
- Tensor.detach: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.retention import buffers
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM204",
    name="attribute-keeps-graph",
    summary="a tensor goes, with its graph, to a buffer or record that outlives the step",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="The values stay the same to the last bit; only the graphs are let go, and nothing back-propagates them.",
    effect="grows: all activations of every step where no backward went through them; else graph nodes in host memory",
)
HELP = "store `.detach()` of it"


def check(facts: FileFacts) -> Iterator[Report]:
    """Values with graph that a buffer, a record or the end of an epoch waits with."""
    for kept in buffers.in_place(facts):
        stays = "graph nodes stay in host memory" if kept.freed else "all activations stay, also of rows that were overwritten"
        message = f"`{kept.place}` becomes part of the autograd graph of every turn that writes to it: {stays}"
        yield Report(kept.event.site, message, HELP, remedy=facts.remedies.kept(kept) if facts.fixing else None)
    for kept in buffers.bounded(facts):
        message = f"`{kept.place}` holds as many autograd graphs, with all activations, as it is long"
        yield Report(kept.event.site, message, HELP, remedy=facts.remedies.kept(kept) if facts.fixing else None)
    for kept in buffers.recorded(facts):
        stays = "backward freed the activations, its nodes stay in host memory" if kept.freed else "all activations of every turn stay"
        message = f"`{kept.place}` keeps the tensor with its autograd graph: {stays}"
        yield Report(kept.event.site, message, HELP, remedy=facts.remedies.kept(kept) if facts.fixing else None)
    for step, event, key in buffers.epoch_end(facts):
        message = f"Lightning keeps `{key}` with its autograd graph until `training_epoch_end`: output and graph nodes of every batch"
        mended = facts.remedies.mending(step).reported(event) if facts.fixing else None
        yield Report(event.site, message, "return `.detach()` of it", remedy=mended)
