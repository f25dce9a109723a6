"""TM208 hidden-state-not-detached: a recurrent state takes its graph from turn to turn

## What it does

Reports the call of a recurrent model outside `forward` that gets a state which an earlier turn of the loop (or an earlier call of a
method that runs once per batch) has made, with nothing that detaches it in between. In training it asks for more evidence: the model's
class or a recurrent layer of torch is in sight, or the backward retains its graph.

## Why it matters

The state is part of the graph of the turn that made it, and that of the one before. Where every turn back-propagates, the second
backward goes through the first turn's graph again and raises: its saved tensors are gone. `retain_graph=True` does not help: after a
step the saved weights have been changed in place, so it raises all the same; with no step it goes through all turns so far. Where
nothing back-propagates, as in an evaluation with gradients on, the graph of all batches stays. In this rule's fixture (LSTM 16-32,
pieces of 16 x 8) that is {measured:evaluation.per_beat_bad} bytes per piece, and {measured:evaluation.per_beat_fixed} under `no_grad`;
the training loops stop at their second piece.

## Example

Reported:

```python
from torch import nn


def train(model: nn.LSTM, loader, optimizer, criterion):
    hidden = None
    for inputs, targets in loader:
        optimizer.zero_grad()
        outputs, hidden = model(inputs, hidden)
        criterion(outputs, targets).backward()
        optimizer.step()
```

Right:

```python
from torch import nn


def train(model: nn.LSTM, loader, optimizer, criterion):
    hidden = None
    for inputs, targets in loader:
        if hidden is not None:
            hidden = tuple(state.detach() for state in hidden)
        optimizer.zero_grad()
        outputs, hidden = model(inputs, hidden)
        criterion(outputs, targets).backward()
        optimizer.step()
```

## What it stays silent on

- states that are detached, by `detach`, `.data` or a helper, or that start anew in every batch
- loops over time steps whose batch starts with a new state and is back-propagated as a whole
- roll-outs with one backward after the loop, or a retained one per time step and one step; everything under `no_grad`
- `forward` itself, and models that detach inside it or in what it calls
- training of a model out of sight: code that runs would have raised at its second batch, so such a model detaches by itself

## Fix safety

UNSAFE: a detach at the head of the turn ends back-propagation through time at the batch's edge. That is what truncated
back-propagation means; whoever wants longer memory must keep several batches in one graph and step after them. The state is detached
as what it is seen to be, a tensor or each part of a tuple, and as either where that is not in sight; None is passed over. A
`retain_graph=True` that was to silence the error goes as well. Where nothing back-propagates, the fix is that of TM205.

## References

- torch.Tensor.detach: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.detach.html
- torch.nn.LSTM: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
- FAQ, "Don't accumulate history across your training loop": https://docs.pytorch.org/docs/stable/notes/faq.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.retention.recurrence import Carried, Recurrence, retains
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM208",
    name="hidden-state-not-detached",
    summary="a recurrent state takes its graph from turn to turn",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Back-propagation through time then ends where the batch begins.",
    effect="results: training raises at the second turn; grows: an evaluation keeps the activations of all batches",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Model calls whose state still hangs on the turns before."""
    for function in facts.functions:
        for carried in Recurrence(facts, function).carried():
            mentions = (carried.backward.site,) if carried.backward is not None else ()
            message = f"`{carried.state}` {_consequence(carried)}"
            fix = facts.remedies.detached(function, carried) if facts.fixing else None
            yield Report(carried.event.site, message, _help(carried), mentions=mentions, remedy=fix, tentative=not carried.seen)


def _consequence(carried: Carried) -> str:
    if carried.backward is None:
        return "takes its graph from turn to turn: the activations of all turns are kept"
    if not retains(carried.backward):
        return "hangs on the graph of the turn before: the backward in line {0} goes through that a second time and raises"
    if carried.steps:
        return "hangs on the graph of the turn before, whose weights the step has changed in place: the backward in line {0} raises"
    return "takes its graph from turn to turn: the backward in line {0} retains and goes through all turns so far"


def _help(carried: Carried) -> str:
    if carried.backward is None:
        return "put the loop under `with torch.no_grad():`"
    state = carried.state
    return f"detach it first: `{state} = {state}.detach()`, or each part of a tuple"
