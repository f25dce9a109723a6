"""TM303 loader-unpinned: batches are copied to the device from memory that is not pinned

## What it does

Reports a `DataLoader` without `pin_memory` whose batches move to a device in a loop over it, or in what that loop calls. Off by default.

## Why it matters

A device reads host memory directly only where it is pinned, that is, cannot be swapped out. From other memory the driver first copies
each batch into a pinned buffer of its own, while the training process waits, and `non_blocking=True` has no effect. With
`pin_memory=True` the loader does that copy in a thread ahead of time, and the transfer can run beside the computation. Pinning takes
time and locks host memory, so it pays for batches that are moved whole, and not on a machine that is short of memory. This project
measures on a CPU build, where nothing is pinned: no numbers of its own, so measure yours.

## Example

Reported:

```python
from torch.utils.data import DataLoader


def train(model, dataset, optimizer, criterion):
    loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=2)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs.cuda()), targets.cuda())
        loss.backward()
        optimizer.step()
```

Right:

```python
from torch.utils.data import DataLoader


def train(model, dataset, optimizer, criterion):
    loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=2, pin_memory=True)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs.cuda(non_blocking=True)), targets.cuda(non_blocking=True))
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- any `pin_memory` in writing, `pin_memory=False` too, and arguments that are spread into the call and may hold it
- samples that are made on a device, or hold what a call made before, as embeddings do: pinning what lies on the device raises
- loaders whose batches go to no device in sight, or to the host, and files that pin by hand
- loaders that an engine prepares and whose batches it moves: they may hold texts

## Fix safety

SAFE: it adds `pin_memory=True`, which changes no value. On a machine without a device the loader warns, once, and pins nothing. It adds
no `non_blocking=True`: where the batch is moved, code may reuse its host memory.

## References

- torch.utils.data (memory pinning): https://docs.pytorch.org/docs/stable/data.html
- Good usage of non_blocking and pin_memory: https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.loading.batches import moved
from flake8_torchmem.analysis.loading.loaders import loaders
from flake8_torchmem.analysis.loading.workers import leaves_host
from flake8_torchmem.analysis.retention.evaluation import is_unit_test
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM303",
    name="loader-unpinned",
    summary="batches are copied to the device from memory that is not pinned",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="Pinned or not, the batches hold the same values.",
    effect="time: on a device, each transfer waits for a copy into pinned memory; nothing on a CPU",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Loaders that say nothing of pinning, and whose batches go to a device."""
    if any(event.call.method == "pin_memory" for function in facts.functions for event in facts.calls(function)):
        return  # by hand
    for loader in loaders(facts):
        silent = loader.call.star or loader.argument("pin_memory") is not None or is_unit_test(loader.function)
        if silent or leaves_host(facts, loader):
            continue
        move = moved(facts, loader)
        if move is not None:
            yield Report(
                loader.call.site,
                "these batches move to a device (line {0}) from memory that is not pinned: the transfer waits for one more copy",
                "add `pin_memory=True`, and `non_blocking=True` where the batch is moved",
                mentions=(move.site,),
                remedy=facts.remedies.with_argument(loader.call.site, "pin_memory", "True") if facts.fixing else None,
            )
