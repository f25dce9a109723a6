"""What a call into the unknown may do to gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.gradients.owners import Frame, Owners
from flake8_torchmem.lazy import Words

LIBRARY = (
    "torch.",
    "torchvision.",
    "numpy.",
    "math.",
    "wandb.",
    "os.",
    "time.",
    "logging.",
    "copy.",
    "random.",
    "json.",
    "contextlib.",
    "functools.",
    "einops.",
)
HOLDERS = Words(r"callback|hook|trainer|runner|engine|handler|learner|event|plugin|strategy|algorithm", re.I)
BACKPROPAGATES = Words(r"backward|optim|step|update|train|scaler|grad|engine|backprop|learn", re.I)
# Objects and copies made of modules; what they do later is another call.
CONSTRUCTS = Words(r"^(?:[A-Z]\w*[a-z]\w*|(?:create|build|make|copy|clone|wrap)(?:_\w+)?)$")
MODULE_METHODS_THAT_CLEAR = Words(r"zero|(?:reset|clear)_?grad", re.I)


class Touch(Enum):
    """What may have happened: nothing, anything to the gradients, or the loss was back-propagated as well."""

    NOTHING = 0
    GRADIENTS = 1
    LOSS = 2


def may_touch(call: ir.Call, function: ir.Function, bindings: Bindings) -> bool:
    """Whether a call out of sight is worth a judgement, whoever calls the function: most are of libraries, or hand over nothing.

    Args:
        call: the call.
        function: that it is in.
        bindings: what names stand for.
    """
    name, path = call.method, bindings.canonical(call.path, function) if call.path else ""
    if name in torchapi.NUMBER_FUNCTIONS:
        return False
    if any(True for _ in _given(call)):
        # Only what no caller gives another meaning is surely the library.
        fixed = not any(paths.root(path) in scope.locals for scope in function.scopes())
        return not (fixed and torchapi.resolve(path, call.ctx.file.imports).startswith(LIBRARY))
    return name == "replay" or (isinstance(call.receiver, ir.Name) and _may_change(name))


def _may_change(name: str) -> bool:
    """Whether a method of whoever holds the gradients may do something to them."""
    return bool(torchapi.MAY_TOUCH_GRADIENTS.search(name)) and not torchapi.HARMLESS_TO_GRADIENTS.search(name)


def touches(call: ir.Call, frame: Frame, owners: Owners, losses: frozenset[str]) -> Touch:
    """Judge a call whose callee is not in the file.

    Args:
        call: the call.
        frame: where it happens.
        owners: names things.
        losses: variables that the root function back-propagates.
    """
    name = call.method
    path = torchapi.resolve(owners.canonical(call.path, frame), call.ctx.file.imports) if call.path else ""
    if name == "replay" and not call.operands:
        return Touch.LOSS  # a captured graph runs whatever it holds
    if path.startswith(LIBRARY) or name in torchapi.NUMBER_FUNCTIONS:
        return Touch.NOTHING
    given = list(_given(call))
    if BACKPROPAGATES.search(name) and any(p in losses for p in given):
        return Touch.LOSS
    if _may_change(name) and _holder(call, frame, owners):
        return Touch.LOSS
    if name in ("train", "eval", "__init__") or torchapi.HARMLESS_TO_GRADIENTS.search(name):
        return Touch.NOTHING
    if call.receiver is not None and torchapi.looks_like_scheduler(path.rpartition(".")[0]):
        return Touch.NOTHING
    named = [owners.canonical(p, frame) for p in given]
    if any(torchapi.looks_like_optimizer(p) or p in ("self", "trainer", "self.trainer") for p in named):
        return Touch.LOSS
    if torchapi.CRITERION_NAME.search(name) or "loss" in name.lower() or constructs(name) or _is_model(path, owners):
        return Touch.NOTHING
    modules = any(_is_model(p, owners) and not _random(p, frame, owners) for p in named)
    return Touch.LOSS if modules else Touch.NOTHING


def constructs(name: str) -> bool:
    """Whether a name says that something is made, and nothing trained or cleared."""
    trains = BACKPROPAGATES.search(name) or MODULE_METHODS_THAT_CLEAR.search(name)
    return name == "from_pretrained" or bool(CONSTRUCTS.match(name) and not trains)


def _random(path: str, frame: Frame, owners: Owners) -> bool:
    """Whether what is named `generator` makes random numbers."""
    binds = owners.bindings.binds(path, frame.function)
    return any(isinstance(node, ir.Call) and node.method == "Generator" for bind in binds for node in ir.walk(bind.value))


def _given(call: ir.Call) -> Iterator[str]:
    """Paths that the callee gets in hand: arguments, also inside displays, but not what is computed from them."""
    pending = list(call.operands)
    while pending:
        arg = pending.pop()
        if isinstance(arg, ir.Name):
            yield arg.path
        elif isinstance(arg, ir.Seq):
            pending.extend(arg.items)


def _holder(call: ir.Call, frame: Frame, owners: Owners) -> bool:
    """Whether the callee hangs on something that may hold the optimizer: self, a trainer, callbacks, the optimizer."""
    receiver = call.receiver
    if not isinstance(receiver, ir.Name):
        return False
    path = owners.canonical(receiver.path, frame)
    if path == "self" or HOLDERS.search(torchapi.last(path)):
        return True
    if torchapi.looks_like_optimizer(path):
        return call.method not in ("state_dict", "load_state_dict", "add_param_group", "synchronize")
    return _is_model(path, owners) and bool(MODULE_METHODS_THAT_CLEAR.search(call.method))


def _is_model(path: str, owners: Owners) -> bool:
    """Whether a path is a module whose gradients matter."""
    linked = any(path == module for modules in owners.bindings.links.values() for module in modules)
    return linked or bool(torchapi.MODULE_NAME.match(torchapi.last(path)) and not torchapi.CRITERION_NAME.search(torchapi.last(path)))
