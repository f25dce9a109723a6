"""TM302 loader-in-main-process: batches for the device are loaded by the process that drives it

## What it does

Reports a `DataLoader` without `num_workers` whose batches move to a device: in a loop over it, in what that loop calls, or because
`accelerate` prepares it. Off by default.

## Why it matters

Without workers, the training process reads, decodes and transforms each batch itself, and gives the device nothing to do meanwhile.
Measured with samples that take 1 ms each to read, batches of 32 and 30 ms of work for the device (on the CPU build, both as waiting):
66 ms per batch without workers, 37 with two, and 37 with four on that machine of two cores. Workers cost too: each holds a copy of the
interpreter and, in time, of the data set's Python objects (TM307), and each batch crosses between processes. For tensors that are in
memory already they made loading slower, from 0.3 to 1.2 ms per batch.

There is no right number. Start with 1 or 2 and raise it while the time per step falls; stop when it does not, or when cores or host
memory run out. `persistent_workers=True` keeps the workers from one epoch to the next.

## Example

Reported:

```python
from torch.utils.data import DataLoader


def train(model, dataset, optimizer, criterion):
    loader = DataLoader(dataset, batch_size=64, shuffle=True, pin_memory=True)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs.cuda()), targets.cuda())
        loss.backward()
        optimizer.step()
```

Right:

```python
from torch.utils.data import DataLoader


def train(model, dataset, optimizer, criterion, workers):
    loader = DataLoader(dataset, batch_size=64, shuffle=True, pin_memory=True, num_workers=workers)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs.cuda()), targets.cuda())
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- any `num_workers` in writing, `num_workers=0` too, and arguments that are spread into the call and may hold it
- data that is in memory: a `TensorDataset`, a list, a class of the project whose `__getitem__` does nothing but index
- classes that iterate: every worker would run all of it, unless it shares the work out itself
- samples that are made on a device, which workers cannot do (TM304)
- loaders whose batches go to no device in sight

## Fix safety

DISPLAY: how many workers are right depends on the machine and on the work per sample, and their random numbers differ from those of
the training process.

## References

- torch.utils.data (single- and multi-process data loading): https://docs.pytorch.org/docs/stable/data.html
- Performance tuning guide: https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.loading.batches import moved, prepared
from flake8_torchmem.analysis.loading.loaders import loaders
from flake8_torchmem.analysis.loading.workers import cannot_help, leaves_host
from flake8_torchmem.analysis.retention.evaluation import is_unit_test
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM302",
    name="loader-in-main-process",
    summary="batches for the device are loaded by the process that drives it",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="How many workers are right depends on the machine and the samples, and their random numbers differ.",
    effect="time: loading and computing take turns instead of running side by side",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Loaders that say nothing of workers, and whose batches go to a device."""
    for loader in loaders(facts):
        silent = loader.call.star or loader.argument("num_workers") is not None or is_unit_test(loader.function)
        if silent or cannot_help(facts, loader) or leaves_host(facts, loader):
            continue
        move = moved(facts, loader) or prepared(facts, loader)
        if move is not None:
            yield Report(
                loader.call.site,
                "the training process loads these batches itself, and the device that they go to (line {0}) waits meanwhile",
                "say `num_workers=`: raise it from 1 while the time per step falls; `num_workers=0` in writing says that this is meant",
                mentions=(move.site,),
            )
