"""TM215 view-keeps-storage: a small part of every output is collected, and holds the whole output

## What it does

Reports `out[:, 0]`, `out[:, -1]` and the like, of an output of a model and without graph, that is collected over a data set without a
copy. Off by default: where the part is most of the output, the copy gains little.

## Why it matters

Indexing with numbers and slices makes a view: a tensor that shares the storage of the whole, and keeps all of it alive. In this rule's
fixture (outputs of 32 x 16 floats, one column of which is kept) every batch holds {measured:first_column.per_beat_bad} bytes,
{measured:first_column.per_beat_fixed} after the fix. The first token of 512 is one part in 512.

## Example

Reported:

```python
import torch


@torch.no_grad()
def embed(model, loader):
    features = []
    for inputs in loader:
        features.append(model(inputs)[:, 0])
    return torch.cat(features)
```

Right:

```python
import torch


@torch.no_grad()
def embed(model, loader):
    features = []
    for inputs in loader:
        features.append(model(inputs)[:, 0].clone())
    return torch.cat(features)
```

## What it stays silent on

- what has a storage of its own: `.clone()`, `.cpu()`, `.float()`, arithmetic, masks and lists of indices
- several parts of one output: together they may be most of it
- rows up to a bound, `out[:n]`, which may be nearly all
- parts of one batch that are used within it
- tensors with a graph (TM202)

## Fix safety

UNSAFE: it adds `.clone()` to the part that is stored. Writing to the collected part no longer writes to the output, nor the other way
round.

## References

- Tensor views: https://docs.pytorch.org/docs/stable/tensor_view.html
- Tensor.clone: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.clone.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.retention.views import views
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM215",
    name="view-keeps-storage",
    summary="a small part of every output is collected, and holds the whole output",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Writing to the collected part no longer writes to the output, nor the other way round.",
    effect="grows: the whole output per batch instead of the part",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Growing places that take up views of outputs."""
    for found in views(facts):
        yield Report(
            found.site,
            f"`{found.place}` keeps a view of every batch's output, and with it the storage of the whole output",
            "store `.clone()` of the part, or `.cpu()` of it where it lives on a device",
            remedy=facts.remedies.cloned(found) if facts.fixing else None,
        )
