"""What frameworks do with the code that they call: once per batch, and with a backward over what it returns."""

from __future__ import annotations

from collections.abc import Iterator

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.bindings import Bindings, class_around
from flake8_torchmem.lazy import Words

# Methods whose result the caller back-propagates: of Lightning, of the Trainer of transformers, and of what is modelled on them.
RETURNS_LOSS = frozenset({"training_step", "training_step_end", "compute_loss"})
ENGINES = frozenset({"Engine", "DeterministicEngine"})
PER_BATCH_EVENT = Words(r"Events\.(?:ITERATION_\w+|GET_BATCH_\w+|BACKWARD_\w+|MODEL_\w+|OPTIM_\w+)$")


def calls_per_batch(bindings: Bindings, function: ir.Function) -> bool:
    """Whether a framework calls the function with every batch, by its name or because it is registered for that."""
    if torchapi.BATCH_METHOD.match(function.name) or function.name in torchapi.EVALUATION_STEPS:
        return True
    return handles_iterations(function) or is_process_function(bindings, function)


def handles_iterations(function: ir.Function) -> bool:
    """Whether ignite calls the function: `@trainer.on(Events.ITERATION_COMPLETED)`."""
    return any(
        isinstance(decorator, ir.Call) and decorator.method == "on" and any(PER_BATCH_EVENT.search(path) for path in ir.names(decorator))
        for decorator in function.decorators
    )


def is_process_function(bindings: Bindings, function: ir.Function) -> bool:
    """Whether ignite runs the function on every batch: `Engine(update)`."""
    if function.owner is None and len(function.params) != 2:
        return False
    return any((engine, function.name) in bindings.handed for engine in ENGINES)


def returned_losses(bindings: Bindings, function: ir.Function) -> Iterator[tuple[ir.Return, ir.Expr]]:
    """What a method returns to be back-propagated by the framework that calls it."""
    if function.name not in RETURNS_LOSS or function.owner is None or _optimizes_itself(bindings, function):
        return
    for event in function.events():
        if isinstance(event, ir.Return) and event.kind == "return":
            yield from ((event, loss) for loss in _loss(event.value))


def _loss(value: ir.Expr) -> Iterator[ir.Expr]:
    """`loss`, `{"loss": loss}`, `(loss, outputs) if return_outputs else loss`."""
    if isinstance(value, ir.Op) and value.op == "if":
        for arm in value.args[1:]:
            yield from _loss(arm)
    elif isinstance(value, ir.Seq) and value.kind == "tuple":
        yield from value.items[:1]
    elif isinstance(value, ir.Seq):
        entries = zip(value.keys, value.items, strict=False)
        yield from (item for key, item in entries if isinstance(key, ir.Const) and key.value == "loss")
    else:
        yield value


def _optimizes_itself(bindings: Bindings, function: ir.Function) -> bool:
    """Whether the method takes the step itself: Lightning's manual optimization."""
    cls = class_around(function)
    methods = bindings.methods(cls) if cls is not None else []
    manual = (bind for method in methods for bind in bindings.assigned(method).get("self.automatic_optimization", ()))
    return any(isinstance(bind.value, ir.Const) and bind.value.value is False for bind in manual) or any(
        isinstance(event, ir.Backward) for event in function.events()
    )
