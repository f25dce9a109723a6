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
device cannot load at all. In this rule's fixture the peak of a training that resumes is {measured:resume.peak_more} bytes higher, the
weights; that of a test, which has no use for the moments, {measured:accuracy.peak_more}.

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

SAFE where the result only feeds `load_state_dict` of modules, optimizers and schedulers, or gives numbers: it adds
`map_location="cpu"`, and the copies to the device are made there. UNSAFE where an object of unknown class loads a part: it may take the
tensors over. None where anything else is made of it, since other code may expect the tensors on the device.

## References

- torch.load: https://docs.pytorch.org/docs/stable/generated/torch.load.html
- Module.load_state_dict: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.checkpoints import alive_at_work, is_checkpoint, load_without_location
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
            call = load_without_location(facts, function, event.value)
            if call is not None and is_checkpoint(function, event) and alive_at_work(facts, function, event):
                yield Report(
                    call.site,
                    "`torch.load` puts the checkpoint on the device it was saved from,"
                    f" and `{event.place}` holds it there while the program goes on",
                    'load with `map_location="cpu"`, or `del` it once it is loaded',
                    remedy=facts.remedies.onto_host(function, event, call) if facts.fixing else None,
                )
