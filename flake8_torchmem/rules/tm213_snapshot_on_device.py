"""TM213 snapshot-on-device: copies of whole models pile up on the device

## What it does

Reports a deep copy of a model, or of its weights, that a training loop appends to a list or stores under a new key, while the model is
on the device. Off by default: to keep them there can be intended, and a few small models do no harm.

## Why it matters

Each copy takes as much of the device as the model itself. In this rule's fixture (26,296 parameters) every snapshot
adds {measured:list_of_weights.per_beat_bad} bytes. A model of a billion parameters in single precision takes 4 GB for each.

## Example

Reported:

```python
import copy


def train(model, loader, criterion, optimizer, epochs, device):
    model.to(device)
    snapshots = []
    for epoch in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs.to(device)), targets.to(device)).backward()
            optimizer.step()
        snapshots.append(copy.deepcopy(model.state_dict()))
    return snapshots
```

Right:

```python
def train(model, loader, criterion, optimizer, epochs, device):
    model.to(device)
    snapshots = []
    for epoch in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs.to(device)), targets.to(device)).backward()
            optimizer.step()
        snapshots.append({name: value.detach().cpu().clone() for name, value in model.state_dict().items()})
    return snapshots
```

## What it stays silent on

- one slot that is overwritten, as the best weights so far
- copies that go to the host, or to a file
- lists that drop old copies
- layers, ensembles and target networks that are copied where nothing trains
- code that names no device

## Fix safety

DISPLAY: copy to the host. What uses the copies later may need them on the device.

## References

- Saving and loading models: https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html
- Tensor.cpu: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.cpu.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.retention.model_copies import copies
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM213",
    name="snapshot-on-device",
    summary="copies of whole models pile up on the device",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="What uses the copies later may need them on the device.",
    effect="grows: one model per snapshot, on the device",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Growing places that take up copies of models."""
    for event, place in copies(facts):
        yield Report(
            event.site,
            f"`{place}` takes up a copy of the whole model, on the device, with every turn",
            "copy to the host: `{name: value.detach().cpu().clone() for name, value in model.state_dict().items()}`",
        )
