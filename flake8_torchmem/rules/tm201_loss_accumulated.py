"""TM201 loss-accumulated: a tensor is added up together with its graph, and nothing back-propagates the sum

## What it does

Reports `total += loss`, `total = total + loss`, `self.sum += value`, `sums[key] += loss` or `meter.update(loss)` where the value
carries a graph, the sum outlives the turn of the loop, and no backward ever goes through it. Using the sum as a number at the end
does not help: until then it holds every graph.

## Why it matters

What is kept depends on whether a backward went through the graph (this rule's fixture: 16-64-64-16 network, batch 32):

- A backward did: it freed the saved tensors, and live bytes do not grow. The graph's nodes stay, in host memory:
  {measured:printed_mean.per_beat_bad} per step here. They took 8.1 kB per step against less than 0.1 kB after the fix (torch 2.13, CPU
  build, resident set, steps 1,000 to 4,000), about 0.8 kB per node. At that rate a graph of 300 nodes takes 24 GB of host memory in
  100,000 steps, and none of the device's.
- No backward did (an evaluation with gradients on, a second forward): each step keeps all of its activations,
  {measured:drift.per_beat_bad} bytes here. This is the form that runs a device out of memory.
- A metric that is computed from the outputs of a loss that was back-propagated has a small graph of its own, which was not: one
  buffer as large as the outputs per step, {measured:metric.per_beat_bad} bytes here.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    total = 0.0
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss
    print(f"mean loss {total / len(loader):.4f}")
```

Right:

```python
def train(model, loader, optimizer, criterion):
    total = 0.0
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"mean loss {total / len(loader):.4f}")
```

## What it stays silent on

- a sum that is back-propagated here, or returned to a caller that does it
- numbers, `.item()`, `float(...)`, `.detach()`, `.data`, comparisons and `argmax`, and anything under `no_grad`
- a sum that is begun anew in each turn or window
- a function that returns a number, and a meter that detaches what it is given
- values that nothing shows to be tensors with a graph

## Fix safety

SAFE: `.item()` where the value is surely a single one and every use of the sum in sight wants a number (division, formatting,
comparison, a log, a caller that does so), else `.detach()`: before a later `.item()`, `.cpu()` or `torch.stack`, an unknown function,
a sum that starts as a tensor. Parameters and losses stay the same to the last bit. `.item()` waits for the device, once per step, and
adds in double precision, so the last printed digits may differ. A value that may be no tensor, as a part of a tuple that a criterion
out of sight returns, is left alone.

## References

- Frequently asked questions (which puts all of this under running out of device memory): https://docs.pytorch.org/docs/stable/notes/faq.html
- Tensor.detach: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
- Tensor.item: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.item.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.retained import accumulates
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.remedies import NoRemedy, Remedy

RULE = Rule(
    code="TM201",
    name="loss-accumulated",
    summary="a tensor is added up together with its graph, and nothing back-propagates the sum",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="The training stays the same to the last bit; only the sum's last digits may be rounded differently.",
    effect="grows: all activations of every step where no backward went through them; else graph nodes in host memory",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Sums that outlive the turn and take up tensors with graph, directly or through a meter of the file."""
    for found in facts.retained:
        if found.growth.kind == "sum":
            mended = facts.remedies.mending(found.function).summed(found.growth) if facts.fixing else None
            yield _report(found.growth.event.site, f"`{found.growth.place}`", found.freed, mended)
    yield from _meters(facts)


def _report(site: ir.Site, place: str, freed: bool, mended: Remedy | NoRemedy | None) -> Report:
    if freed:
        message = f"{place} keeps the autograd graph of every turn: backward freed the activations, its nodes stay in host memory"
    else:
        message = f"{place} keeps the autograd graph of every batch, and with it all activations: memory grows until it runs out"
    return Report(site, message, "add the number: `.item()`; or `.detach()` where the sum has to stay a tensor", remedy=mended)


def _meters(facts: FileFacts) -> Iterator[Report]:
    """Calls that hand a tensor with graph to a method which adds it to an attribute."""
    for function in facts.functions:
        for event in facts.calls(function):
            callee = facts.bindings.callee(event.call, function)
            if callee is None or callee.owner is None or not (event.ctx.loops or facts.turn(function) is not None):
                continue
            if facts.guarded_by_callers(function):
                continue
            values = facts.values(function)
            given = callee.arguments(event.call)
            kept = [(param, arg) for param, arg in given if values.at(arg, event) is Kind.GRAPH and accumulates(facts, callee, param)]
            if kept:
                freed = not event.ctx.loops or facts.effect_in(event.ctx.loops[-1], function, "backward")
                place = f"`{callee.owner.name}.{callee.name}`" + (f" in {callee.file.name}" if callee.file.linked else "")
                mended = facts.remedies.mending(function).given(event, kept, callee, summed=True) if facts.fixing else None
                yield _report(event.site, place, freed, mended)
