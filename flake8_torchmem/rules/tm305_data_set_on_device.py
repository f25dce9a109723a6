"""TM305 data-set-on-device: a whole data set is put on the device before the loop that takes batches of it

## What it does

Reports the call that moves a whole data set to the device: what a training loop, or a function that it calls, then takes slices of;
what becomes a `TensorDataset`; the attribute of a data set that `__getitem__` reads. Off by default: whether it fits is not in the code.

## Why it matters

The data lies beside the model, its activations and the optimizer's state for as long as the training runs, and a batch needs a few
thousandths of it. The 50,000 images of CIFAR-10 are 614 MB as floats, of which a batch of 128 is 1.6 MB; what has been moved stays until
the last name for it goes, and the host's copy stays too. The program stops with the first data set that does not fit. In this
rule's fixture the peak is {measured:sliced.bad_peak} bytes against {measured:sliced.fixed_peak}. A small one is well kept there, if it
is sliced: a `DataLoader` over a `TensorDataset` takes sample after sample and stacks them, on the device with
work for the driver at each. Measured on the CPU build, for such images in batches of 128: 1.0 ms per batch through the loader, 0.6 ms
by `images[order[i : i + 128]]`.

## Example

Reported:

```python
import torch


def train(model, path, optimizer, criterion, epochs, device):
    train_x, train_y = torch.load(path, map_location="cpu")
    train_x, train_y = train_x.to(device), train_y.to(device)
    for _ in range(epochs):
        order = torch.randperm(len(train_x))
        for i in range(0, len(train_x), 128):
            batch = order[i : i + 128]
            optimizer.zero_grad()
            loss = criterion(model(train_x[batch]), train_y[batch])
            loss.backward()
            optimizer.step()
```

Right:

```python
import torch


def train(model, path, optimizer, criterion, epochs, device):
    train_x, train_y = torch.load(path, map_location="cpu")
    for _ in range(epochs):
        order = torch.randperm(len(train_x))
        for i in range(0, len(train_x), 128):
            batch = order[i : i + 128]
            optimizer.zero_grad()
            loss = criterion(model(train_x[batch].to(device)), train_y[batch].to(device))
            loss.backward()
            optimizer.step()
```

## What it stays silent on

- data that the model takes whole in every turn, as graphs and small regressions are trained
- grids, literals, random numbers and the toy data sets of libraries; tables, masks and indices
- a policy's experience, which is as new as the policy; batches that are cut into smaller ones
- moves that the program asks about: `if args.cache_on_gpu`, `if data.nbytes < limit`
- data sets that workers read (TM304)

## Fix safety

DISPLAY: where the batch is moved is another place, and a data set that fits may be kept on the device on purpose.

## References

- torch.utils.data: https://docs.pytorch.org/docs/stable/data.html
- CUDA semantics (memory management): https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.loading.resident import residents
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM305",
    name="data-set-on-device",
    summary="a whole data set is put on the device before the loop that takes batches of it",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="The batch is moved in another place, and a data set that fits may be kept on the device on purpose.",
    effect="peak: on a device, the whole data set beside the model for as long as the training runs; nothing on a CPU",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Calls that move whole data sets."""
    for found in residents(facts):
        name = f"`{found.name}`" if found.name else "a data set"
        site = found.loop.site if found.loop is not None else None
        reader = "the training on line {0} takes" if site is not None else f"`{found.reader}` takes"
        yield Report(
            found.call.site,
            f"all of {name} is put on the device at once, and stays there while {reader} one batch of it after another",
            "leave it on the host and move each batch; where it surely fits, keep it there and slice it yourself",
            mentions=() if site is None else (site,),
        )
