"""TM304 device-tensor-in-worker: the worker processes of a loader make or index tensors on the device

## What it does

Reports a call that puts a tensor on a CUDA device where a `DataLoader` with workers runs it: in `__getitem__` or `__iter__` of its data
set, in its collate function, or in what those call. Also a call that puts there what the data set's workers then index: the tensors of a
`TensorDataset`, an attribute that `__getitem__` reads.

## Why it matters

Workers are forked from the training process on Linux (up to Python 3.13), and CUDA cannot be used in a process that was forked after
its parent had used it: the first batch raises "Cannot re-initialize CUDA in forked subprocess". Where the parent had not yet, or where
workers are started afresh, each worker makes a CUDA context of its own: several hundred megabytes of device memory per worker, which
`torch.cuda.memory_allocated` of the training process does not show. Its tensors cross to the training process by handles, and their
memory is given back only when both sides have let go of them. `pin_memory=True` raises for them. This project measures on a CPU
build, where none of this can be seen: no numbers of its own.

## Example

Reported:

```python
import torch
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, files):
        self.files = files

    def __getitem__(self, index):
        return torch.load(self.files[index], map_location="cpu").cuda()


def batches(files):
    return DataLoader(Images(files), batch_size=64, num_workers=8)
```

Right:

```python
import torch
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, files):
        self.files = files

    def __getitem__(self, index):
        return torch.load(self.files[index], map_location="cpu")


def batches(files):
    for images in DataLoader(Images(files), batch_size=64, num_workers=8, pin_memory=True):
        yield images.cuda(non_blocking=True)
```

## What it stays silent on

- a data set or collate function whose loader is not in the file, or has no workers, or as many as a caller elsewhere decides
- workers that are started afresh by choice: a `multiprocessing_context`, `set_start_method`
- a device that is handed in, or chosen by anything but `torch.cuda.is_available()`: it may be the CPU
- a call under a condition of the program's own, and functions that ask `get_worker_info`

## Fix safety

DISPLAY: the samples have to stay on the host, and each batch is moved in the loop, which is another place.

## References

- torch.utils.data (memory pinning, multi-process loading): https://docs.pytorch.org/docs/stable/data.html
- Multiprocessing best practices (CUDA in multiprocessing): https://docs.pytorch.org/docs/stable/notes/multiprocessing.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.loading.loaders import Loader, forking_loaders
from flake8_torchmem.analysis.loading.workers import indexed_on_device, made_on_device
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM304",
    name="device-tensor-in-worker",
    summary="the worker processes of a loader make or index tensors on the device",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="The samples have to stay on the host, and each batch is moved where the loop is.",
    effect="on a CUDA device: the first batch raises in a forked worker, else a CUDA context per worker; nothing on a CPU",
)

HELP = "leave samples and batches on the host, and move each batch in the loop over the loader"


def check(facts: FileFacts) -> Iterator[Report]:
    """Calls that put tensors on the device in workers, and what workers find there."""
    for loader in forking_loaders(facts):
        for function, call in made_on_device(facts, loader):
            yield _report(
                call,
                loader,
                f"`{function.name}` runs in the workers of the loader on line {{0}}, and puts a tensor on the device",
                f"the workers of this loader run `{function.name}`, which puts a tensor on the device (line {{0}})",
            )
        for call in indexed_on_device(facts, loader):
            yield _report(
                call,
                loader,
                "the workers of the loader on line {0} index what this puts on the device",
                "the workers of this loader index what line {0} puts on the device",
            )


def _report(call: ir.Call, loader: Loader, here: str, elsewhere: str) -> Report:
    """At the call, or at the loader where the call is in another file."""
    site, other = call.site, loader.call.site
    if site.file.linked:
        site, other, here = other, site, elsewhere
    return Report(
        site, f"{here}: that raises in a forked worker, and costs a CUDA context per worker in any other", HELP, mentions=(other,)
    )
