"""TM206 retain-graph: backward keeps a graph that is never used again

## What it does

Reports `backward(retain_graph=True)` where nothing goes through that graph again before it is built anew. Often it was added to
silence "Trying to backward through the graph a second time", whose cause (a state that is carried on without `detach()`) remains.

## Why it matters

A backward frees what its graph saved as it goes. With `retain_graph=True` all of it stays until the names of that graph are bound
anew, so it lives beside the activations of the next forward: a higher peak, no growth. In this rule's fixture (16-64-64-16 network,
batch 32) the peak is {measured:plain_loop.bad_peak} bytes against {measured:plain_loop.fixed_peak} without the argument, and stays
there. If something also keeps the loss (TM201, TM202), every step's activations stay, since no backward has freed them.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward(retain_graph=True)
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

- a second backward or `autograd.grad` through a part of the same graph: two losses on shared features, a generator and its critic
- a loop of backwards through one graph (the rows of a Jacobian), or a graph that is built before the loop
- an argument that is passed through (`retain_graph=retain_graph`) or is False
- `torch.autograd.grad(..., create_graph=True, retain_graph=True)`

## Fix safety

SAFE: it drops the argument. The gradients are the same to the last bit. Should another backward need the graph after all, PyTorch
raises and says so; it never computes something else in silence.

## References

- Tensor.backward: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.backward.html
- Autograd mechanics: https://docs.pytorch.org/docs/stable/notes/autograd.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.reuse import graph_is_reused
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM206",
    name="retain-graph",
    summary="backward keeps a graph that is never used again",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="The gradients are the same to the last bit; the graph is only freed earlier.",
    effect="peak: higher by the activations of one batch; no growth where the loss is bound anew each turn",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Backwards that keep a graph which is rebuilt before anything could use it again."""
    for function in facts.functions:
        for event in function.events():
            if isinstance(event, ir.Backward) and _retains(event.call) and not graph_is_reused(facts, function, event):
                yield Report(
                    event.site,
                    "`retain_graph=True` keeps the activations until the graph is rebuilt, and nothing back-propagates through it again",
                    "drop the argument",
                    remedy=facts.remedies.without_argument(event.site, _keyword(event.call), 1) if facts.fixing else None,
                )


def _keyword(call: ir.Call) -> str:
    return "retain_variables" if "retain_variables" in call.kwargs else "retain_graph"


def _retains(call: ir.Call) -> bool:
    positional = call.args[1] if len(call.args) > 1 and call.method == "backward" else None
    argument = call.kwargs.get("retain_graph") or call.kwargs.get("retain_variables") or positional
    creates = "create_graph" in call.kwargs or len(call.args) > 2
    return isinstance(argument, ir.Const) and argument.value is True and not creates
