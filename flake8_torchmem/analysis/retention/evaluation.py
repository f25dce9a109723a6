"""Loops that evaluate: forwards over data that nothing back-propagates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import frameworks, ir, paths
from flake8_torchmem.analysis.evidence import carriers
from flake8_torchmem.analysis.retention.handed_back import trained_by_callers
from flake8_torchmem.analysis.values import PLAIN, Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_CALLS = 2
# Methods of models that are forwards by another name. A plain `encode` or `generate` often guards itself.
RUNS_MODEL = Words(
    r"^(?:forward_\w+|encode_(?:image|text|audio|video)\w*|extract_features?|get_(?:image|text|audio|video)_features|get_intermediate_layers)$"
)
PREDICTOR = Words(r"Predict|Inferen|Infer(?:er)?$|Detector|Extractor|Embedder")
EVALUATION_DATA = Words(r"(?:^|_)(?:val|valid|validation|test|eval|dev|query|gallery)(?:$|_|loader|dataloader|set|dl|data)", re.I)
TRAINS_BY_NAME = Words(r"train|fit|update|learn|optimi|step|loss|forward", re.I)
TRAINING_DATA = Words(r"(?:^|_)train", re.I)


def goes_over_data(facts: FileFacts, loop: ir.Loop, function: ir.Function) -> bool:
    """Whether a loop takes batches: from something named like data, or a whole-run `while`."""
    if loop.iterable is None:
        return loop.kind == "while"
    words = [torchapi.last(path) for path in ir.names(loop.iterable)]
    if any(torchapi.DATA_NAME.search(word) or EVALUATION_DATA.search(word) for word in words):
        return True
    return any(torchapi.DATA_NAME.search(torchapi.last(facts.bindings.canonical(path, function))) for path in ir.names(loop.iterable))


def evaluates(facts: FileFacts, loop: ir.Loop, function: ir.Function) -> bool:
    """Whether the code around a loop says that it evaluates: names, `.eval()` before the loop, or every caller in sight."""
    if is_unit_test(function):
        return False
    words = [torchapi.last(path) for path in ir.names(loop.iterable)] if loop.iterable is not None else []
    if any(TRAINING_DATA.search(word) for word in words) and not mode_before(function, loop):
        return False
    if any(EVALUATION_DATA.search(word) for word in words):
        return True
    if mode_before(function, loop) or _called_in_eval_mode(facts, function):
        return True
    if torchapi.EVAL_NAME.search(function.name) and (goes_over_data(facts, loop, function) or not returns_graph(facts, function)):
        return True
    return any("loader" in word.lower() for word in words) and _cannot_train(facts, function)


def returns_graph(facts: FileFacts, function: ir.Function) -> bool:
    """Whether a tensor with graph, or a container of some, is handed to the caller: it may be a differentiable helper."""
    values = facts.values(function)
    stores = [event for event in function.events() if isinstance(event, ir.Store)]
    filled = {event.place for event in stores if values.at(event.value, event) is Kind.GRAPH}
    return any(
        values.at(event.value, event) is Kind.GRAPH or filled & set(carriers(event.value))
        for event in function.events()
        if isinstance(event, ir.Return)
    )


def _cannot_train(facts: FileFacts, function: ir.Function) -> bool:
    """Whether nothing that the function computes can be back-propagated: no result with graph leaves it, to callers or callees."""
    if facts.summaries.effects(function) or TRAINS_BY_NAME.search(function.name) or function.name == "<module>":
        return False
    values = facts.values(function)
    for event in function.events():
        if isinstance(event, ir.Return) and values.at(event.value, event) not in PLAIN:
            return False
        if isinstance(event, ir.Invoke) and _hands_out(facts, function, event):
            return False
    return True


def _hands_out(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether a callee that is no torch function gets a tensor with graph, an optimizer, or calls `.train()`."""
    call, values = event.call, facts.values(function)
    if call.method == "train":
        return True
    path = facts.evidence.resolve(call.path or "", function)
    if path.startswith("torch.") or path in torchapi.NUMBER_FUNCTIONS or values.at(call.func, event) is Kind.MODULE:
        return False
    kept = call.receiver is not None and values.at(call.receiver, event) is Kind.GRAPH
    given = [arg for arg in call.operands if values.at(arg, event) is Kind.GRAPH]
    optimizers = [path for arg in call.operands for path in ir.names(arg) if torchapi.looks_like_optimizer(path)]
    return bool(optimizers) or (bool(given) and not kept)


def is_unit_test(function: ir.Function) -> bool:
    """Whether a test runner calls the function: `test_*` without data of its own, or a method of a class of tests."""
    if not function.name.startswith("test_"):
        return False
    in_class = function.owner is not None and "Test" in function.owner.name
    return in_class or not any(torchapi.DATA_NAME.search(param) or torchapi.MODULE_NAME.match(param) for param in function.params)


def _called_in_eval_mode(facts: FileFacts, function: ir.Function) -> bool:
    """Whether every caller in sight calls the function after `.eval()`."""
    callers = facts.summaries.callers.get(function, ())
    return bool(callers) and all(
        torchapi.EVAL_NAME.search(caller.name) or _mode(caller, partial(_is_call, call=call)) for caller, call in callers
    )


def _is_call(event: ir.Event, call: ir.Call) -> bool:
    return isinstance(event, ir.Invoke) and event.call is call


def mode_before(function: ir.Function, loop: ir.Loop) -> bool:
    """Whether the last `.eval()` or `.train()` before the loop was `.eval()`."""
    return _mode(function, lambda event: loop in event.ctx.loops)


def _mode(function: ir.Function, stop: Callable[[ir.Event], bool]) -> bool:
    """Whether modules are in eval mode where an event is reached."""
    mode = None
    for event in function.events():
        if stop(event):
            break
        if isinstance(event, ir.Invoke) and not event.call.args:
            mode = {"eval": True, "train": False}.get(event.call.method, mode)
        elif isinstance(event, ir.Bind) and isinstance(event.value, ir.Call) and event.value.method == "eval" and event.value.receiver:
            mode = True
        elif isinstance(event, ir.Invoke) and event.call.method == "train" and isinstance(event.call.args[0], ir.Const):
            mode = event.call.args[0].value is False
    return bool(mode)


def forwards(facts: FileFacts, function: ir.Function, guarded: bool = False) -> tuple[ir.Invoke, ...]:
    """Calls of models (not of criteria) with gradients on, in order; `guarded`: also without gradients."""
    found = facts.forwards(function)
    return found if guarded else tuple([event for event in found if event.call.ctx.grad is ir.Grad.ON])


def model_calls(facts: FileFacts, function: ir.Function) -> Iterator[ir.Invoke]:
    """Calls of models, not of criteria, in order."""
    values = facts.values(function)
    for event in facts.calls(function):
        call = event.call
        if torchapi.CRITERION_NAME.search(call.method):
            continue
        env = values.reaching.at.get(event, {})
        callee = facts.bindings.callee(call, function)
        if callee is not None and (callee.grad is not ir.Grad.ON or callee.name not in ("forward", "__call__")):
            continue
        receiver = call.receiver
        named = call.method == "forward" or RUNS_MODEL.match(call.method)
        is_forward = named and receiver is not None and values.kind(receiver, env, call.ctx) is Kind.MODULE
        if is_forward or values.kind(call.func, env, call.ctx) is Kind.MODULE:
            yield event


def runs(facts: FileFacts, function: ir.Function) -> Iterator[ir.Invoke]:
    """Forwards with gradients on, and calls of helpers in sight that run one for the batch that they are given."""
    direct = set(forwards(facts, function))
    for event in facts.calls(function):
        if event in direct:
            yield event
        elif event.ctx.grad is ir.Grad.ON:
            callee = facts.bindings.callee(event.call, function)
            if callee is not None and callee is not function and _runs_for_batch(facts, callee):
                yield event


def _runs_for_batch(facts: FileFacts, helper: ir.Function, calls: int = MAX_CALLS) -> bool:
    """Whether a helper runs a model on what it is given, with gradients on unless its caller guards, and takes no gradient itself."""
    own = helper.name in ("forward", "__call__", "__init__") or helper.grad is not ir.Grad.ON
    if own or facts.summaries.effects(helper) or takes_gradients(facts, helper) or proves_no_grad(facts, helper):
        return False
    if any(goes_over_data(facts, loop, helper) or evaluates(facts, loop, helper) for loop in helper.loops):
        return False
    if forwards(facts, helper):
        return True
    inner = (facts.bindings.callee(event.call, helper) for event in facts.calls(helper) if event.ctx.grad is ir.Grad.ON)
    return calls > 0 and any(callee is not None and _runs_for_batch(facts, callee, calls - 1) for callee in inner)


def proves_no_grad(facts: FileFacts, function: ir.Function) -> bool:
    """Whether the code would raise with gradients on: `.numpy()` of a result that was not detached."""
    values = facts.values(function)
    for event in facts.calls(function):
        receiver = event.call.receiver
        if event.call.method != "numpy" or receiver is None or event.call.ctx.grad is not ir.Grad.ON:
            continue
        if values.kind(receiver, values.reaching.at.get(event, {}), event.call.ctx) is Kind.GRAPH:
            return True
    return False


def is_batch_loop(facts: FileFacts, loop: ir.Loop, function: ir.Function) -> bool:
    """Whether a loop handles one batch per turn: it goes over data, or runs models and trains, with no such loop inside."""
    inner = [other for other in function.loops if other.parent is loop and other.kind != "comp"]
    if any(goes_over_data(facts, other, function) or facts.effect_in(other, function, "backward") for other in inner):
        return False
    if any(torchapi.EPOCH_NAME.search(target) for target in loop.targets) and not goes_over_data(facts, loop, function):
        return False
    running = [event for event in forwards(facts, function, guarded=True) if loop in event.ctx.loops]
    if any(paths.root(event.call.path or "") in loop.assigned for event in running):
        return False  # one model per turn
    if facts.trains_each_turn(loop, function) and (loop.kind == "for" or facts.effect_in(loop, function, "step")):
        return True
    named = loop.kind == "for" and (goes_over_data(facts, loop, function) or evaluates(facts, loop, function))
    return named and bool(running)


def may_evaluate_alone(facts: FileFacts, function: ir.Function) -> bool:
    """Whether the name or the class of a function allows for a forward that evaluates alone."""
    predicts = function.owner is not None and function.name == "__call__" and PREDICTOR.search(function.owner.name)
    named = torchapi.EVAL_NAME.search(function.name) or function.name == "prediction_step"
    return bool(named or predicts or frameworks.is_process_function(facts.bindings, function))


def evaluates_alone(facts: FileFacts, function: ir.Function, forward: ir.Invoke) -> bool:
    """Whether the loop of an evaluation is elsewhere, or there is only one batch."""
    return any(known(facts, function, forward) for known in (_predicts_per_call, _evaluates_once, _evaluates_for_engine))


def _evaluates_once(facts: FileFacts, function: ir.Function, forward: ir.Invoke) -> bool:
    """Whether a function in eval mode runs one forward over all data, called from a loop that trains, and returns no graph."""
    if not torchapi.EVAL_NAME.search(function.name) or forward.ctx.loops or is_unit_test(function) or facts.summaries.effects(function):
        return False
    training = any(
        facts.effect_in(loop, caller, "backward") for caller, call in facts.summaries.callers.get(function, ()) for loop in call.ctx.loops
    )
    return training and _mode(function, lambda event: event is forward) and _returns_plain(facts, function)


def _evaluates_for_engine(facts: FileFacts, function: ir.Function, forward: ir.Invoke) -> bool:
    """Whether a framework that does not guard calls the function with every batch of an evaluation."""
    if forward.ctx.loops or facts.summaries.effects(function):
        return False
    if frameworks.is_process_function(facts.bindings, function):
        return _mode(function, lambda event: event is forward)
    bases = function.owner.bases if function.owner is not None else ()
    return function.name == "prediction_step" and any(base.startswith(("transformers", "trl")) for base in bases)


def _returns_plain(facts: FileFacts, function: ir.Function) -> bool:
    values = facts.values(function)
    return all(values.at(event.value, event) in PLAIN for event in function.events() if isinstance(event, ir.Return))


def _predicts_per_call(facts: FileFacts, function: ir.Function, forward: ir.Invoke) -> bool:
    """Whether a method predicts one batch per call, with a model that its class keeps in eval mode, and returns no graph."""
    cls = function.owner
    if cls is None or forward.ctx.loops or is_unit_test(function) or not facts.bindings.complete(cls):
        return False
    if not torchapi.EVAL_NAME.search(function.name) and not (function.name == "__call__" and PREDICTOR.search(cls.name)):
        return False
    path = forward.call.path or ""
    built = [node for bind in facts.bindings.binds(path, function) for node in ir.walk(bind.value)]
    always = any(isinstance(node, ir.Call) and node.method == "eval" for node in built) or any(
        event.call.path == f"{path}.eval" for event in (facts.calls(cls.methods["__init__"]) if "__init__" in cls.methods else ())
    )
    if not always and not _mode(function, lambda event: event is forward):
        return False
    return _returns_plain(facts, function)


def _wants_gradient(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether an input, not a module, is told to collect gradients."""
    receiver, argument = event.call.receiver, (event.call.args or (ir.Const(True),))[0]
    if event.call.method != "requires_grad_" or receiver is None or (isinstance(argument, ir.Const) and not argument.value):
        return False
    return facts.values(function).at(receiver, event) is not Kind.MODULE


def takes_gradients(facts: FileFacts, function: ir.Function) -> bool:
    """Whether the function takes gradients of something: by `autograd.grad`, or of an input that it asks them for."""
    for event in facts.calls(function):
        path = facts.evidence.resolve(event.call.path or "", function)
        if path in ("torch.autograd.grad", "autograd.grad") or _wants_gradient(facts, function, event):
            return True
    return False


def model_takes_gradients(facts: FileFacts) -> bool:
    """Whether a model in sight takes gradients in its own forward, as forces are those of an energy: it does not run without."""
    for cls in facts.program.classes.values():
        forward = cls.methods.get("forward") if facts.evidence.module_class(cls.full) else None
        if forward is not None and any(takes_gradients(facts, reached) for reached in facts.summaries.reached(forward)):
            return True
    return False


def needs_gradients(facts: FileFacts, function: ir.Function) -> bool:
    """Whether gradients are taken of something: of the input, by `autograd.grad`, or by a caller that trains on the result."""
    if takes_gradients(facts, function):
        return True
    returns = any(
        isinstance(event, ir.Return) and facts.values(function).at(event.value, event) is Kind.GRAPH for event in function.events()
    )
    callers = (caller for caller, _ in facts.summaries.callers.get(function, ()))
    if returns and any(facts.summaries.back_propagates(caller) for caller in callers):
        return True
    return returns_graph(facts, function) and trained_by_callers(facts, function)
