"""TM403 fragmenting-loop: training batches are padded to lengths of their own, with the allocator as it is by default

## What it does

Reports a training loop whose batches are padded to their own longest sample, in the loop or in the collate function of its loader, when
the file does not configure the allocator.

## Why it matters

The caching allocator keeps freed blocks and hands them out again for requests that they fit. When every batch asks for other sizes,
blocks are split, and remainders that fit nothing pile up: memory is reserved and not usable, and a batch may fail although enough
is free in sum. Segments that can grow are meant against that. In this rule's fixture the 48 batches (sequences of 5 to 400 tokens, four
in a batch) have 42 different lengths; padded to multiples of 64 they have 5. Memory on a device was not measured here.

## Example

Reported:

```python
from torch.nn.utils.rnn import pad_sequence


def train(model, batches, optimizer, criterion, device):
    for sequences, targets in batches:
        tokens = pad_sequence(sequences, batch_first=True).to(device)
        optimizer.zero_grad()
        loss = criterion(model(tokens), targets.to(device))
        loss.backward()
        optimizer.step()
```

Right:

```python
import os

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

from torch.nn.utils.rnn import pad_sequence


def train(model, batches, optimizer, criterion, device):
    for sequences, targets in batches:
        tokens = pad_sequence(sequences, batch_first=True).to(device)
        optimizer.zero_grad()
        loss = criterion(model(tokens), targets.to(device))
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- files that set the allocator up; a setting in the environment of the process cannot be seen, so the rule is off by default
- padding to one length or to multiples of one, also by `functional.pad` afterwards; samplers that bring like lengths together
- loops that do not train, and code that moves nothing to a device

## Fix safety

DISPLAY: the setting belongs to the process, before its first allocation on the device.

## References

- CUDA semantics (PYTORCH_CUDA_ALLOC_CONF): https://docs.pytorch.org/docs/stable/notes/cuda.html
- pad_sequence: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_sequence.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.loading.padding import allocator_is_set, on_device, padding_of
from flake8_torchmem.analysis.retention.evaluation import is_batch_loop
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM403",
    name="fragmenting-loop",
    summary="training batches are padded to lengths of their own, with the allocator as it is by default",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="The setting belongs to the process, before its first allocation on the device.",
    effect="peak: on a device, reserved memory that fits no request; nothing on a CPU",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Training loops over batches of ever other sizes."""
    if allocator_is_set(facts):
        return
    for function in facts.functions:
        for loop in function.loops:
            if loop.site is None or loop.kind == "comp" or not facts.trains_each_turn(loop, function):
                continue
            padding = padding_of(facts, function, loop) if is_batch_loop(facts, loop, function) else None
            if padding is not None and on_device(facts, function):
                yield Report(
                    loop.site,
                    "line {0} pads each batch of this training to a length of its own: the sizes asked of the allocator hardly repeat",
                    'set PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True", or pad to multiples of some length',
                    mentions=(padding.site,),
                )
