"""TM212 state-dict-alias: weights are kept without a copy, and change with every later step

## What it does

Reports weights that are meant to stay as they are, kept as `model.state_dict()` (also through `.copy()`, `dict(...)`, as an entry of
a dict or list, or as `best_model = model`) while training goes on, and then loaded back, saved, returned or handed on.

## Why it matters

`state_dict()` hands out the parameters' own memory, and optimizers and `load_state_dict` write in place. So "the best weights" are
the last ones, `model.load_state_dict(best)` does nothing, and every entry of a list of checkpoints is the same. No memory is lost
and nothing raises: only the result is wrong. Measured (torch 2.13, CPU build): after one step of Adam the entries of `state_dict()`,
`state_dict().copy()`, `dict(state_dict())`, `copy.copy(state_dict())` and `{k: v.detach() ...}` have all changed, those of
`copy.deepcopy(state_dict())` have not. `v.cpu()` copies from a device, and on a CPU it does not. In this rule's fixture a network
that overfits ends with a validation loss of 1.06, and so do its "best weights"; copied, they have 0.62.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion, epochs):
    best_loss, best_weights = float("inf"), None
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
        loss = validate(model)
        if loss < best_loss:
            best_loss, best_weights = loss, model.state_dict()
    model.load_state_dict(best_weights)
```

Right:

```python
import copy


def train(model, loader, optimizer, criterion, epochs):
    best_loss, best_weights = float("inf"), None
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
        loss = validate(model)
        if loss < best_loss:
            best_loss, best_weights = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
```

## What it stays silent on

- `copy.deepcopy`, and comprehensions that clone the tensors or move them to the host
- state dicts that are saved, sent or loaded elsewhere before the next step, or taken when training has ended
- a new model in every turn, and optimizers that are built from other modules
- a dict whose entries are replaced before it is loaded (partial loading)

## Fix safety

SAFE: `copy.deepcopy(model.state_dict())` keeps what the name says; training itself stays the same. UNSAFE where training goes on from
what was kept (trials, swapped weights, a roll-back), and for a copy of the whole model. To keep the copy on the host:
`{k: v.detach().cpu().clone() for k, v in model.state_dict().items()}`.

## References

- Saving and loading models: https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html
- Module.state_dict: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.kept_weights import kept_by_objects
from flake8_torchmem.analysis.retention.snapshots import Held, Snapshots, Stale
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.remedies import NoRemedy, Remedy

RULE = Rule(
    code="TM212",
    name="state-dict-alias",
    summary="weights are kept without a copy, and change with every later step",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="Training stays the same; only what was kept is now what it was when it was taken.",
    effect="results: the weights that are loaded back or saved are the last ones, not those that were kept; no memory",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Snapshots that training changes before they are read, each reported once."""
    for function in facts.functions:
        snapshots = Snapshots(facts, function)
        stale = list(snapshots.stale())
        in_loops = {found.held.place for found in stale if found.held.origin.ctx.loops}
        reported: set[ir.Event] = set()
        for found in stale:
            origin = found.held.origin
            if origin not in reported and (origin.ctx.loops or found.held.place not in in_loops):
                reported.add(origin)
                goes_on = any(other.goes_on for other in stale if other.held.origin is origin)
                yield _read_later(found, facts.remedies.copied(found.held, goes_on) if facts.fixing else None)
        for kept in kept_by_objects(facts, snapshots):
            if kept.held.origin not in reported:
                reported.add(kept.held.origin)
                mentions = (kept.restored.site,) if kept.restored is not None else ()
                end = ", and loading it back in line {0} does nothing" if mentions else ""
                goes_on = kept.restored is not None and (function.name == "__init__" or kept.swapped)
                mended = facts.remedies.copied(kept.held, goes_on) if facts.fixing else None
                yield _report(kept.held, f"every later step changes it{end}", mentions, mended)


def _read_later(found: Stale, mended: Remedy | NoRemedy | None) -> Report:
    """What has changed it, and where it is read all the same."""
    change = found.held.changed
    mentions = (change.site, found.read.site) if change is not None else ()
    end = "loading it back in line {1} does nothing" if found.restores else "line {1} gets the newest weights, not these"
    return _report(found.held, f"line {{0}} changes it, and {end}", mentions, mended)


def _report(held: Held, consequence: str, mentions: tuple[ir.Site, ...], mended: Remedy | NoRemedy | None) -> Report:
    value, module = held.origin.value, held.module
    same = isinstance(value, ir.Name)
    what = f"is `{module}` itself" if same else f"shares the memory of `{module}`, as `state_dict()` copies nothing"
    code = f"copy.deepcopy({module})" if same else f"copy.deepcopy({module}.state_dict())"
    place = held.origin.place.partition("[")[0]
    return Report(held.origin.site, f"`{place}` {what}: {consequence}", f"keep a copy: `{code}`", mentions=mentions, remedy=mended)
