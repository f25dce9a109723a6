"""TM307 dataset-copies-on-read: a data set keeps many Python objects, which every worker comes to copy

## What it does

Reports a list or dict that a data set fills in its constructor, item by item or from a file, and that `__getitem__` reads, where a
loader with workers reads the data set. Off by default: how many items there are cannot be read off the code.

## Why it matters

Forked workers share the memory of the training process until one side writes to it. Reading an item of a list writes its reference
count, and so copies the page that it lies on. Within a quarter of an epoch each worker held nearly all of it: of a million file names
88 MB of its own per worker, of a million small dicts 164 MB, of the same names in one numpy array 11 MB, which is what a worker
takes with no data at all (measured with two workers, Python 3.11). Eight workers on four devices hold it 32 times. An array, a
tensor, or one block of bytes with offsets is a single object, whose items have no counts.

## Example

Reported:

```python
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, index, read):
        self.names = [line.strip() for line in open(index)]
        self.read = read

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return self.read(self.names[i])


def loader(index, read):
    return DataLoader(Images(index, read), batch_size=64, num_workers=8, pin_memory=True)
```

Right:

```python
import numpy as np
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __init__(self, index, read):
        self.names = np.array([line.strip() for line in open(index)], dtype=np.bytes_)
        self.read = read

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return self.read(self.names[i].decode())


def loader(index, read):
    return DataLoader(Images(index, read), batch_size=64, num_workers=8, pin_memory=True)
```

## What it stays silent on

- data sets that no loader with workers reads, as far as the file shows
- arrays and tensors, and lists of them: there are few objects then, and their data lies outside of them
- lists that are written out, handed in, or never read by `__getitem__`

## Fix safety

DISPLAY: items of an array have other types (bytes for strings), and what suits depends on what the items are.

## References

- torch.utils.data (multi-process data loading, the warning on memory): https://docs.pytorch.org/docs/stable/data.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.loading.loaders import Samples, has_workers, loaders, samples
from flake8_torchmem.analysis.loading.workers import many_objects
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM307",
    name="dataset-copies-on-read",
    summary="a data set keeps many Python objects, which every worker comes to copy",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="Items of an array have other types, and what suits depends on what the items are.",
    effect="host memory: every worker comes to hold a copy of its own, 88 MB for a million file names",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Containers of Python objects that the workers of a loader read."""
    for loader in loaders(facts):
        data = loader.argument("dataset")
        if data is None or not has_workers(facts, loader):
            continue
        for made in samples(facts, data, loader.function):
            for bind in many_objects(facts, made.cls) if isinstance(made, Samples) else ():
                if not bind.site.file.linked:
                    yield Report(
                        bind.site,
                        f"reading an item of `{bind.place}` writes its reference count, so each worker of the loader on line {{0}} comes"
                        " to copy what it holds",
                        "keep it as one object: a numpy array, a tensor, or a block of bytes with offsets",
                        mentions=(loader.call.site,),
                    )
