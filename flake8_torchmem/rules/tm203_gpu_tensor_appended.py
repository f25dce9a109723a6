"""TM203 gpu-tensor-appended: the model's outputs of a whole data set are collected on the device

## What it does

Reports an output of a model, without graph, that is stored batch by batch (`append`, a new key, `torch.cat([all, out])`) over a whole
data set, or over the rounds of a sampler, while it still lives on the device.

## Why it matters

`no_grad` and `.detach()` let go of the graph, not of the result: after n batches the device holds n outputs, beside the model and the
running batch, and the `torch.cat` at the end needs the same space a second time. This rule's fixture (outputs of 32 x 16 floats) holds
{measured:predictions.per_beat_bad} bytes more after every batch; where each batch is joined to those before it, the peak of
{measured:concatenated.beats} batches is {measured:concatenated.bad_peak} bytes against {measured:concatenated.fixed_peak}. Logits of
a vocabulary or masks of images are larger: 32 segmentations of 21 classes and 512 x 512 pixels are 672 MiB per batch. The host has more
room, and the device's share can be used for larger batches.

## Example

Reported:

```python
import torch


@torch.no_grad()
def predict(model, loader, device):
    outputs = []
    for inputs, _ in loader:
        outputs.append(model(inputs.to(device)))
    return torch.cat(outputs).cpu().numpy()
```

Right:

```python
import torch


@torch.no_grad()
def predict(model, loader, device):
    outputs = []
    for inputs, _ in loader:
        outputs.append(model(inputs.to(device)).cpu())
    return torch.cat(outputs).numpy()
```

## What it stays silent on

- `.cpu()`, `.numpy()`, `.tolist()`, `.item()`, helpers named for it, and code that names no device
- losses, metrics and predicted classes: a few bytes per batch
- what is computed with on the device afterwards: a bank of features, a similarity matrix, gathering over processes
- lists of one batch or one `forward`: layers, scales, crops, chunks, ensemble members, the states of a sampler
- lists that are emptied in the loop, or take only the first few batches
- outputs that the code moves to a place of the caller's choice

## Fix safety

UNSAFE: it adds `.cpu()`, so what is collected is on the host afterwards; what a concatenation starts from is made on the host as well.
Arithmetic with tensors of the device, out of sight, raises until the result is moved back. Each copy waits for the device. What may
be a tuple or dict of tensors is left alone.

## References

- Tensor.cpu: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.cpu.html
- CUDA semantics, memory management: https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.loading.placement import Place
from flake8_torchmem.analysis.retention.collected import collected
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM203",
    name="gpu-tensor-appended",
    summary="the model's outputs of a whole data set are collected on the device",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="What is collected is on the host afterwards: later arithmetic with tensors of the device needs it moved back.",
    effect="grows: one output per batch, on the device",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Growing places that take up outputs where they were computed."""
    for found in collected(facts):
        if facts.placement(found.function).at(found.part, found.event) is Place.DEVICE:
            yield Report(
                found.site,
                f"`{found.place}` keeps the model's output of every batch on the device",
                "store `.cpu()` of it: the device then holds the output of one batch; move the whole back where it is needed there",
                remedy=facts.remedies.moved(found) if facts.fixing else None,
            )
