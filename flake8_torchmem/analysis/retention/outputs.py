"""Which values are outputs of models, as large as a batch of them: no losses, metrics, predicted classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.reaching import in_order
from flake8_torchmem.analysis.settled import settled
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

ENCODES = Words(r"^(?:forward|encode|embed|extract|represent|features?|get_\w*(?:feat|embed|repr))", re.I)
KEEPS_SIZE = frozenset(
    (
        "detach clone contiguous float half double bfloat16 to type cuda view reshape squeeze unsqueeze flatten transpose permute t"
        " softmax log_softmax sigmoid tanh relu exp log sqrt abs neg clamp clip normalize div mul add sub pow flip expand_as type_as"
        " cat concat stack hstack vstack interpolate upsample gather gather_for_metrics pad_across_processes detach_ clamp_ mean"
    ).split()
)
# Of one number per sample, or fewer: too small to be worth a word.
SMALL_NAME = Words(r"(?:^|_)(?:ids?|idx|index|indices|labels?|lens?|lengths?|names?|keys?)$", re.I)


class Outputs:
    """Tells outputs of models from what is small: losses, metrics, predicted classes.

    Args:
        function: whose expressions.
        facts: of its file.
    """

    def __init__(self, function: ir.Function, facts: FileFacts) -> None:
        self.function = function
        self.facts = facts
        self.values = facts.values(function)

    def parts(self, expr: ir.Expr, event: ir.Event) -> Iterator[ir.Expr]:
        """The parts of a display, or the value itself, which are outputs of a model."""
        pending = [expr]
        while pending:
            node = pending.pop()
            if isinstance(node, ir.Seq) and node.kind != "slice":
                pending.extend(node.items)
            elif self.at(node, event):
                yield node

    def at(self, expr: ir.Expr, event: ir.Event) -> bool:
        """Whether an expression is as large as a model's output, where an event happens."""
        if isinstance(expr, ir.Name):
            return self._path(expr.path, event)
        if isinstance(expr, ir.Call):
            return self._call(expr, event)
        if isinstance(expr, ir.Op):
            if expr.op in ir.COMPARISONS or expr.op == "format":
                return False
            return any(self.at(arg, event) for arg in (expr.args[1:] if expr.op == "if" else expr.args))
        if isinstance(expr, ir.Seq):
            return any(self.at(item, event) for item in expr.items)
        if isinstance(expr, ir.Attr):
            return not _is_small(expr.name) and self.at(expr.base, event)
        if isinstance(expr, ir.Item):
            ranked = isinstance(expr.base, ir.Call) and expr.base.method in torchapi.PAIR_RESULT
            return not ranked and self.at(expr.base, event)
        return False

    def _path(self, path: str, event: ir.Event) -> bool:
        if _is_small(torchapi.last(path)) or torchapi.last(path) in torchapi.NUMBER_ATTRIBUTES:
            return False
        env = self.values.reaching.at.get(event, {})
        return any(self._bound(bind) for prefix in paths.prefixes(path) for bind in in_order(env.get(prefix, ())))

    @settled(False)
    def _bound(self, bind: ir.Bind) -> bool:
        return self.at(bind.value, bind)

    def _call(self, call: ir.Call, event: ir.Event) -> bool:
        if self.is_forward(call, event):
            return True
        if call.method not in KEEPS_SIZE or (call.method == "mean" and not call.operands):
            return False
        full = self.facts.evidence.resolve(call.path or "", self.function)
        held = call.receiver is not None and not full.startswith("torch.") and call.method not in torchapi.GATHERS
        sources = [call.receiver] if held else list(call.args)
        return any(self.at(source, event) for source in sources if source is not None)

    def is_forward(self, call: ir.Call, event: ir.Event) -> bool:
        """Whether a call runs a model: the module itself, or a method that encodes; not a criterion."""
        if torchapi.CRITERION_NAME.search(call.method):
            return False
        receiver = call.receiver
        if receiver is not None and ENCODES.match(call.method) and self.values.at(receiver, event) is Kind.MODULE:
            return True
        return isinstance(call.func, ir.Name) and self.values.at(call.func, event) is Kind.MODULE


def _is_small(name: str) -> bool:
    return bool(SMALL_NAME.search(name) or torchapi.LOSS_NAME.search(name))
