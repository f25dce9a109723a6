"""TM209 hook-keeps-activation: a hook keeps what it sees of every batch, or is registered again with every batch

## What it does

Reports a hook that appends what it sees to a list, or stores it under a key that is new each time, when nothing empties the
place: inputs and outputs with their graphs, and gradients. Also a hook that a loop over batches registers on the same module again and
again without removing it.

## Why it matters

In this rule's fixture, batch 32:

- Where no backward goes through what is kept, its whole graph stays: {measured:factory_on_a_probe.per_beat_bad} bytes per step for an
  output of 32 x 2 floats. `.cpu()` is no help, `.detach().cpu()` brings it down to {measured:factory_on_a_probe.per_beat_fixed}.
- Where a backward does, the output stays, detached or not ({measured:recorder_in_training.bytes_per_beat_bad} bytes per step), and the
  graph's nodes: 6.2 kB of host memory per batch for a 16-64-64-2 network (torch 2.13, CPU build, resident set). On a
  device only `.detach().cpu()`, a number, or emptying the list every turn lets go of the output.
- A hook that is registered with every batch runs once more with every batch: after 2,000 batches a step took 1,260 us instead of 180,
  and each hook holds whatever its function refers to.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    activations = []

    def hook(module, args, output):
        activations.append(output)

    model.encoder.register_forward_hook(hook)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
    return activations
```

Right:

```python
def train(model, loader, optimizer, criterion):
    activations = []

    def hook(module, args, output):
        activations.append(output.detach().cpu())

    model.encoder.register_forward_hook(hook)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
    return activations
```

## What it stays silent on

- one slot per layer that each batch overwrites, numbers, detached tensors
- a place that is emptied every turn, is bounded, is made anew for every use, or feeds a loss
- models that run without gradients in all that is in sight; what is kept on the module itself, where others may empty it
- hooks that are removed, or entered as a context; one hook for each of several layers
- classes that nobody in sight makes objects of, in this file or in the ones that name it, and that run no batches by themselves

## Fix safety

SAFE: it stores `.detach()` of the tensor, whose value is the same. Only a backward through what was kept would no longer work, and there
is none in sight. UNSAFE are `.cpu()` for gradients, which are on the host then, and `handle.remove()` at the end of a turn that
registers a hook, which runs once per forward then. Outputs that may be tuples, and the tuple of all inputs, are left alone.

## References

- Module.register_forward_hook: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
- Autograd mechanics (saved tensors): https://docs.pytorch.org/docs/stable/notes/autograd.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.retention.hook_growth import grows, in_use, trains, unremoved
from flake8_torchmem.analysis.retention.hooks import Kept, kept
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.remedies import NoRemedy, Remedy

RULE = Rule(
    code="TM209",
    name="hook-keeps-activation",
    summary="a hook keeps what it sees of every batch, or is registered again with every batch",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="The kept values stay the same to the last bit and remain tensors; only their graphs are let go.",
    effect="grows: the kept tensors, and all activations before them where no backward goes through them",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Hooks whose places grow, and hooks that pile up."""
    for found in kept(facts):
        if grows(facts, found):
            yield _report(facts, found, facts.remedies.let_go(found) if facts.fixing else None)._replace(tentative=not in_use(facts, found))
    for function, event, loop in unremoved(facts):
        yield Report(
            event.site,
            "every batch registers one hook more on the same module: all of them run with each forward, and none is ever removed",
            "register it once before the loop, or keep the handle and call `remove()` at the end of the turn",
            remedy=facts.remedies.unregistered(function, event, loop) if facts.fixing else None,
        )


def _report(facts: FileFacts, found: Kept, mended: Remedy | NoRemedy | None) -> Report:
    place = found.place
    if found.hook.gradients:
        message = f"`{place}` keeps the gradient that the hook sees with every backward, and nothing empties it"
        advice = "keep a number or `.cpu()` of it, or empty the place every turn"
        return Report(found.event.site, message, advice, Severity.WARNING, remedy=mended)
    if trains(facts, found):
        message = (
            f"`{place}` keeps what the hook sees of every batch with its autograd graph: backward frees the rest, tensor and nodes stay"
        )
    else:
        message = f"`{place}` keeps what the hook sees of every batch with its autograd graph, and with it the activations before it"
    return Report(found.event.site, message, "store `.detach().cpu()` of it, or empty the place every turn", remedy=mended)
