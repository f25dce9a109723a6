"""Words of single rules: what makes a definition worth lowering beside what every gradient and retention rule needs.

A definition that matches is lowered and analysed, which is most of what checking costs: the patterns are as narrow as the
rules' evidence allows, and only those of rules that run are searched for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from flake8_torchmem import torchapi
from flake8_torchmem.analysis.units import Unit
from flake8_torchmem.lazy import regex

# What a module makes in one call of its own is let go with the call.
NOT_FORWARD = r"\A(?!\s*(?:@[^\n]*\n\s*)*def (?:forward|__init__|_init_weights)\b)"


def _all(*patterns: str) -> str:
    """A pattern that finds all of these, in any order, and in no `forward`."""
    return NOT_FORWARD + "".join(rf"(?=[\s\S]*(?:{pattern}))" for pattern in patterns)


LOADERS = r"DataLoader|\bbatch_size\s*=|\bfor\b[^\n]*\bin\b[^\n]*(?i:loader|\bdl\b)"

# Rules that look at what the data sets of a loader do, on a device or not.
READ_DATA_SETS = frozenset({"TM302", "TM303", "TM305", "TM307"})

# Code to a pattern, searched in the text of one function, method or statement of the module.
WORDS: dict[str, str] = {
    "TM215": _all(
        r"\b(?:for|while)\b|_step\b",
        r"append|extend|\]\s*=",
        r"no_?grad|inference_mode|detach|\.data\b|_step\b",
        r"\[[^\]\n]*[:.][^\]\n]*\]",
    ),
    "TM213": r"\bdeepcopy\b|\bstate_dict\b[\s\S]*clone|\bclone\b[\s\S]*(?:state_dict|parameters)",
    "TM204": r"\bdef training_epoch_end\b",
    "TM109": r"set_to_none\s*=\s*False|\bzero_grad\s*\(\s*False",
    "TM110": r"\bclip_grad\w*\s*\(",
    "TM203": _all(
        r"\b(?:for|while)\b|_step\s*\(",
        r"append|extend|concat|\bcat\b|\bfor\b",
        r"\bcuda\b|\.to\b|device|accelerator|_step\s*\(",
        r"no_?grad|inference_mode|detach|\.data\b|_step\s*\(",
    ),
    "TM207": r"\bcreate_graph\b|\bzero_grad\b",
    "TM208": (
        r"\A\s*(?:@[^\n]*\n\s*)*def forward\b[^)]*\b(?:hidden(?!_states)|\w*state\b|mem|h[xcn]?\b|carry|cell)[^)]*\)"
        r"[\s\S]*(?:detach|repackage|\.data\b|no_grad)"
    ),
    "TM209": r"\bregister_\w*hook\b",
    "TM205": r"\bEngine\s*\(|\bdef prediction_step\b",
    "TM210": _all(
        r"\b(?:for|while)\b|_step\b",
        r"(?P<joined>[\w.]+)\s*=\s*[\w.]*(?:cat|concat|concatenate|hstack|vstack)\s*\(\s*[\[(][^\])]*(?P=joined)",
    ),
    "TM211": r"OutOfMemory|[oO]ut.of.memory|\bexcept\b[^\n:]*(?:oom|OOM)|oom\w*\(",
    "TM212": (
        r"=[^=\n]*\bstate_dict\s*\(\s*\)|append\([^\n]*\bstate_dict\s*\(\s*\)\)|\bbest\w*\s*=\s*[\w.]*model\b"
        r"|load_state_dict\(\s*self\.|(?:save|load_state_dict)\([^\n]*\bbest_?(?:w|m|st|sd|p|net)"
    ),
    "TM214": (
        r"(?m:^[^\S\n]*@[\w. (]*cache\b)[\s\S]*(?:Tensor|Module|\bself\b|torch|model|\bnn\b|\.\s*(?:"
        + "|".join(sorted(torchapi.OF_TENSORS | torchapi.OF_MODULES))
        + r")\b)"
    ),
    "TM302": LOADERS,
    "TM303": LOADERS,
    "TM306": r"\b(?:zeros|ones|empty|full|arange|linspace|logspace|eye|rand|randn|randint|randperm|normal)\s*\([^\n]*\.(?:to|cuda)\s*\(",
    # What becomes a data set, and statements of the module that move something.
    "TM305": r"\bTensorDataset\b|\bbatch_size\s*=|\bdef __getitem__\b|\A(?!\s*(?:@|class\b|(?:async\s+)?def\b))[\s\S]*\.(?:cuda|to)\b\s*\("
    r"|\A\w[\w, ]*=\s*\w+\[[^\n]*:",
    "TM304": r"[(,]\s*num_workers\s*=[^=]",
    "TM403": r"\bpad_sequence\b|\bpadding\s*=|\bDataCollator\w+\(|ALLOC_CONF|expandable_segments",
    "TM307": r"[(,]\s*num_workers\s*=[^=]",
}
# What a file must speak of, one of these, for a rule to have anything to say: else it is not even imported.
NEEDED: dict[str, tuple[str, ...]] = {
    "TM209": ("register",),
    "TM210": ("cat", "stack"),
    "TM211": ("except",),
    "TM212": ("state_dict", "best"),
    "TM213": ("copy", "clone", "state_dict"),
    "TM214": ("cache",),
    "TM301": ("load",),
    "TM304": ("num_workers",),
    "TM401": ("empty_cache",),
    "TM402": ("empty_cache",),
}
# Of these, a backward, step or clear must be in sight.
OF_GRADIENTS = regex(r"TM1|TM20[67]")
# Rules about state that several definitions share: what matches is looked at together with its class and what it names.
WITH_COMPANIONS = frozenset({"TM209", "TM305"})
# Rules that ask what becomes of the lists which a method fills.
OF_COLLECTIONS = frozenset({"TM203"})


# A text that has none of these cannot match the pattern, which costs a hundred times what looking for a plain word does.
LITERALS: dict[str, str] = {
    "TM215": "append extend ]",
    "TM213": "deepcopy state_dict clone",
    "TM204": "training_epoch_end",
    "TM205": "Engine prediction_step",
    "TM109": "set_to_none zero_grad",
    "TM110": "clip_grad",
    "TM203": "no_grad nograd inference_mode detach .data _step",
    "TM207": "create_graph zero_grad",
    "TM208": "forward",
    "TM209": "register_",
    "TM210": "cat hstack vstack",
    "TM211": "emory oom OOM",
    "TM212": "state_dict best",
    "TM214": "cache",
    "TM302": "DataLoader batch_size loader dl Loader",
    "TM303": "DataLoader batch_size loader dl Loader",
    "TM306": ".to .cuda",
    "TM305": "TensorDataset batch_size __getitem__ .to .cuda [",
    "TM304": "num_workers",
    "TM403": "pad ollator ALLOC_CONF expandable_segments",
    "TM307": "num_workers",
}


# What brings something new with every turn: a move to the device, random numbers, a step that a framework calls.
BRINGS = regex(
    r"\.\s*(?:to|cuda|xpu|npu|mps|hpu)\b|_step\s*\(|(?:to|on)_?(?:device|cuda|gpu)|move_data|send_to|put_on|prepare_"
    r"|\b(?:randn?|randn_like|randint|normal|sample)\s*\("
)
DATA = regex(rf"{torchapi.DATA_NAME.pattern}|loader|(?:^|_)(?:val|valid|validation|test|eval|dev|query|gallery|train|set)(?:$|_)", re.I)


def _is_called_in_turns(unit: Unit) -> bool:
    """Whether a framework may call it with every batch: joining in a loop matters to rules only where the gate looks in any case."""
    return unit.name.endswith("_step") or ".on(" in unit.text


def _goes_over_inputs(unit: Unit) -> bool:
    """Whether something new comes with every turn, and a model may run over it."""
    if not unit.has_loops:
        return True
    return unit.runs_models and bool(BRINGS.search(unit.text) or any(DATA.search(word) for word in unit.loop_words))


# What is asked of a definition whose text matches: words alone say little of it.
ASKED: dict[str, Callable[[Unit], bool]] = {"TM210": _is_called_in_turns, "TM203": _goes_over_inputs}


def may_report(code: str, text: str, trains: bool) -> bool:
    """Whether a rule can have anything to say of a file.

    Args:
        code: of the rule.
        text: of the file.
        trains: whether it, or what it imports, back-propagates, steps or clears gradients.
    """
    return (trains or not OF_GRADIENTS.match(code)) and (code not in NEEDED or any(word in text for word in NEEDED[code]))


class Triggers:
    """The words of some rules.

    Args:
        codes: of the rules.
    """

    def __init__(self, codes: Iterable[str]) -> None:
        self._rules = [(code, LITERALS[code].split(), regex(WORDS[code]), ASKED.get(code)) for code in sorted(WORDS.keys() & codes)]

    def of(self, text: str) -> Triggers:
        """Those of the rules whose words are in a file at all: what is in no file is in none of its units."""
        return triggers(frozenset(code for code, words, _, _ in self._rules if any(word in text for word in words)))

    def found(self, unit: Unit) -> bool:
        """Whether a unit has the words of one of the rules."""
        text = unit.text
        return any(
            any(word in text for word in words) and pattern.search(text) and (asked is None or asked(unit))
            for _, words, pattern, asked in self._rules
        )


@lru_cache(maxsize=64)
def triggers(codes: frozenset[str]) -> Triggers:
    """The words of these rules."""
    return Triggers(codes)
