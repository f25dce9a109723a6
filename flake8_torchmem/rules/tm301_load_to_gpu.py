"""TM301 load-to-gpu: a checkpoint is loaded without map_location and kept while the work goes on

## What it does

Reports a `torch.load` without `map_location` whose result lives on while a training, a test or a prediction runs: a local variable
of the function that goes on to train, a module-level name or an attribute.

## Why it matters

`torch.load` puts each tensor back on the device that it was saved from. `load_state_dict` of a module copies the weights, so a
second set stays on the device as long as the name lives. An optimizer's `load_state_dict` takes tensors over as they are where
device and type already fit (seen on torch 2.13, CPU build), so its moments are shared while it uses them; where only the weights
are used, they are held for nothing. A checkpoint with both moments of Adam is three times the weights: 12 GB for a billion
float32 parameters. Besides, each process of a distributed run loads to the device of the one that saved, and a machine without that
device cannot load at all. Not measured on a device here: on a CPU both forms are alike.

## Example

Reported:

```python
import torch


def resume(path, model, loader, optimizer, criterion):
    checkpoint = torch.load(path)
    model.load_state_dict(checkpoint["model"])
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

Right:

```python
import torch


def resume(path, model, loader, optimizer, criterion):
    checkpoint = torch.load(path, map_location="cpu")
    model.load_state_dict(checkpoint["model"])
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- a `map_location` of any kind
- a result that is never bound: `model.load_state_dict(torch.load(path))`
- a name that is deleted or bound anew before the work begins, or that is local to a function which only loads
- files that hold data instead of a checkpoint

## Fix safety

SAFE where the result only feeds `load_state_dict`: it adds `map_location="cpu"`, and the copies to the device are made there.
Elsewhere no fix is offered, since other code may expect the tensors on the device.

## References

- torch.load: https://docs.pytorch.org/docs/stable/generated/torch.load.html
- Module.load_state_dict: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.evaluation import forwards
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM301",
    name="load-to-gpu",
    summary="a checkpoint is loaded without map_location and kept while the work goes on",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="load_state_dict copies to where the parameters are, so the model and the optimizer end up the same.",
    effect="peak: on a device, a second copy of the weights (and whatever else the file holds) for as long as the name lives",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Checkpoints loaded to the device they were saved from, by a name that training does not let go."""
    for function in facts.functions:
        for event in function.events():
            if not isinstance(event, ir.Bind) or "[" in event.place:
                continue
            call = _load(facts, function, event.value)
            if call is not None and is_checkpoint(function, event) and _alive_while_training(facts, function, event):
                yield Report(
                    call.site,
                    f"`torch.load` puts the checkpoint on the device it was saved from, and `{event.place}` holds it there while the program goes on",
                    'load with `map_location="cpu"`, or `del` it once it is loaded',
                )


def _load(facts: FileFacts, function: ir.Function, value: ir.Expr) -> ir.Call | None:
    """The `torch.load` without map_location whose result, or a part of it, is bound."""
    while isinstance(value, (ir.Item, ir.Attr)):
        value = value.base
    if not isinstance(value, ir.Call) or value.star or "map_location" in value.kwargs or len(value.args) != 1:
        return None
    return value if facts.evidence.resolve(value.path or "", function) == "torch.load" else None


def _alive_while_training(facts: FileFacts, function: ir.Function, load: ir.Bind) -> bool:
    """Whether the name still holds it, or what was made from it, where the function or its class trains or evaluates."""
    if load.place.startswith("self.") and function.owner:
        methods = [method for method in function.owner.methods.values() if method is not function]
        dropped = any(
            bind.kind == "delete" or isinstance(bind.value, ir.Const)
            for bind in facts.bindings.binds(load.place, function)
            if bind is not load
        )
        return not dropped and any("backward" in facts.summaries.effects(method) for method in methods)
    at = facts.evidence.reaching(function).at
    holding = {load}
    for event in function.events():
        if isinstance(event, ir.Bind) and event.place == load.place and _reads(event.value, load.place):
            holding.add(event)
    return any(holding & at.get(event, {}).get(load.place, frozenset()) for event in works(facts, function))


def _reads(expr: ir.Expr, place: str) -> bool:
    return any(place in ir.prefixes(path) for path in ir.names(expr))


def is_checkpoint(function: ir.Function, load: ir.Bind) -> bool:
    """Whether the keys that are read, a `load_state_dict`, or a part that is named so say that it is a checkpoint and no data set."""
    place = load.place
    for event in function.events():
        for expr in _expressions(event):
            for node in ir.walk(expr):
                if isinstance(node, ir.Name) and node.path.startswith(f"{place}['"):
                    if node.path[len(place) + 2 :].partition("'")[0] in torchapi.CHECKPOINT_KEYS:
                        return True
                if isinstance(node, ir.Call) and node.method == "load_state_dict":
                    named = bool(torchapi.CHECKPOINT_NAME.search(torchapi.last(place)))
                    if named or any(_reads(arg, place) for arg in node.args):
                        return True
    return False


def _expressions(event: ir.Event) -> Iterator[ir.Expr]:
    if isinstance(event, (ir.Bind, ir.Store, ir.Return)):
        yield event.value
    elif isinstance(event, ir.Invoke):
        yield event.call


def works(facts: FileFacts, function: ir.Function) -> Iterator[ir.Event]:
    """Events that train or run a model over data, here or in what is called by a name that says so."""
    running = {event for event in forwards(facts, function, guarded=True) if event.ctx.loops}
    for event in function.events():
        if (
            isinstance(event, ir.Backward)
            or event in running
            or (isinstance(event, ir.Invoke) and event.call.operands and torchapi.WORK_NAME.search(event.call.method))
        ):
            yield event
