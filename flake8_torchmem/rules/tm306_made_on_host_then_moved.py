"""TM306 made-on-host-then-moved: a tensor is made on the host and copied to the device with every turn

## What it does

Reports `torch.zeros(...).to(device)`, `torch.arange(...).cuda()` and the like in a loop over batches, in the `forward` of a module, or
in a method that is called once per batch. Off by default.

## Why it matters

The host fills memory, the driver copies it to the device, and as that memory is not pinned the process waits for the copy. A
factory function with `device=` runs on the device alone, and the process goes on at once. This project measures on a CPU build, where
`.to(device)` copies nothing: no numbers of its own. Random tensors are another matter: the device has a generator of its own, so
`torch.randn(..., device=device)` draws other numbers than the host. They are reported with words that say so.

## Example

Reported:

```python
import torch


def train(model, loader, optimizer, device):
    for inputs in loader:
        inputs = inputs.to(device)
        targets = torch.ones(len(inputs), 1).to(device)
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

Right:

```python
import torch


def train(model, loader, optimizer, device):
    for inputs in loader:
        inputs = inputs.to(device)
        targets = torch.ones(len(inputs), 1, device=device)
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- tensors made of data: `torch.tensor(values)`, `torch.from_numpy(array)`: that data is on the host in any case
- calls that say where: `device=`, `pin_memory=`, `generator=`, `out=`
- what is made once: outside of loops, or where it is missing or has changed (`if self.mask is None`)
- moves to the host, and to a type

## Fix safety

SAFE: `device=` in the factory makes the same values. UNSAFE for random tensors, for which the device draws other numbers, and for ranges
with fractions and what is computed on the way, which it may round in another way. None where the target may be something else than a
device, as `cuda(args.gpu)` with an option that is None, and for leaves that collect gradients.

## References

- Tensor creation (device): https://docs.pytorch.org/docs/stable/tensor_attributes.html
- Performance tuning guide (create tensors directly on the target device): https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
- torch.Generator: https://docs.pytorch.org/docs/stable/generated/torch.Generator.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.loading.devices import RANDOM, is_transfer, made_by_factory
from flake8_torchmem.analysis.retention.evaluation import forwards, goes_over_data, is_unit_test
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM306",
    name="made-on-host-then-moved",
    summary="a tensor is made on the host and copied to the device with every turn",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="The device makes the same values; fixes of random and rounded ones, which it does not, are unsafe.",
    effect="time: on a device, every turn waits for a copy from the host; nothing on a CPU",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Transfers of what a factory function has just made, turn by turn."""
    for function in facts.functions:
        for event in facts.calls(function):
            made = made_by_factory(facts, event.call, function) if is_transfer(facts, event.call, function) else None
            if made is None or not _every_turn(facts, function, event):
                continue
            factory, way = made.path, "the device" if event.call.method == "cuda" else "a device"
            random = torchapi.last(factory or "") in RANDOM
            note = "; the device would draw other numbers" if random else ""
            yield Report(
                event.site,
                f"with every turn, `{factory}` fills host memory that is then copied to {way}{note}",
                f"write `{factory}(..., device=...)`: it is made where it is needed" + (", with other numbers" if random else ""),
                remedy=facts.remedies.made_there(function, event.call, made) if facts.fixing else None,
            )


def _every_turn(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether an event comes again with every batch, and not only when something is missing or new."""
    if is_unit_test(function):
        return False
    running = {loop for other in forwards(facts, function, guarded=True) for loop in other.ctx.loops}
    loops = [
        loop
        for loop in event.ctx.loops
        if loop in running or goes_over_data(facts, loop, function) or facts.effect_in(loop, function, "backward")
    ]
    if not loops:
        module = function.name == "forward" and function.owner is not None and facts.evidence.module_class(function.owner.name)
        if not module and not facts.lifetimes(function).per_batch():
            return False
    return not any(_asks_once(cond, arm) for cond, arm in event.ctx.conds_inside(loops[-1] if loops else None))


def _asks_once(cond: ir.Expr, arm: bool) -> bool:
    """`not self.ready`, `x is None`, `step == 0`, `hasattr(...)`, `key not in cache`, `mask.size(0) != n`, `isnan(x).any()`."""
    return (not arm and isinstance(cond, ir.Name)) or any(
        (isinstance(node, ir.Op) and node.op in ("is", "==", "!=", "not in", "not", "<", "%"))
        or (isinstance(node, ir.Call) and node.method in ("hasattr", "getattr", "isnan", "isinf", "isfinite"))
        for node in ir.walk(cond)
    )
