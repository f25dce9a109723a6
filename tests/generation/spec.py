"""What a generated program is made of, and strategies that choose it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

# F: the forward, Z: zero_grad, B: the backward, S: the step. Each order is one turn.
ORDERS = ["ZFBS", "FZBS", "FBSZ", "SZFB", "SFZB", "FBZS", "SFBZ", "ZFSB", "FZSB", "FSZB", "FSBZ", "ZSFB", "FBS", "SFB", "FSB"]
RIGHT = ["ZFBS", "FZBS", "FBSZ"]
# Of two optimizers one is right, and a step before its backward is the second one's: whose gradients it was meant to use is
# not to be seen from the order alone.
WRONG = ["FBZS", "ZFSB", "FZSB", "FSZB", "FBS"]
BY_INDEX = ["plus_one", "last", "not", "divmod", "should_step", "continue", "last_clause"]
WINDOWS = [*BY_INDEX, "counter", "attribute", "inner"]


@dataclass(frozen=True)
class Turn:
    """One order of events. `zero`: the clear runs in `each` turn, in those of the step (`window`), or in the `first` of a window."""

    order: str
    zero: str = "each"
    else_backward: bool = False


@dataclass(frozen=True)
class Spec:
    """A program with one optimizer.

    Attributes:
        turns: the order of events; two of them are the arms of `if use_amp`.
        window: how the step waits for its window, `none` when it does not.
        amp: `none`, `scaler`, `split` (an `if use_amp` around each event) or `arms` (one around the turn).
        clear: by the `optimizer`, the `model` or a `loop` over parameters.
        epoch_zero: one more clear at the head of each epoch.
        divided: the loss is divided by the window.
        guard: `none`, `nan` (leaves the turn), `try` or `try_zero` (around the turn).
        setting: `function`, `method`, or `per_batch`: a method whose loop lies elsewhere.
        turn_as: the turn is `inline`, in a `helper` or in a `nested` function.
        helpers: events that are moved to functions of their own.
        names: which set of names.
        noise: logging around it.
        given: the optimizer is handed in.
    """

    turns: tuple[Turn, ...]
    window: str = "none"
    amp: str = "none"
    clear: str = "optimizer"
    epoch_zero: bool = False
    divided: bool = True
    guard: str = "none"
    epochs: bool = True
    setting: str = "function"
    turn_as: str = "inline"
    helpers: frozenset[str] = frozenset()
    names: int = 0
    noise: bool = False
    given: bool = False


@dataclass(frozen=True)
class Pair:
    """A program with two optimizers: GAN (`detach` or not), two parts of their own, or one loss through both."""

    kind: str
    orders: tuple[str, str]
    setting: str = "function"
    epochs: bool = False
    names: int = 0
    scaled: bool = False
    every: bool = field(default=False)


def legal(turn: Turn, window: str) -> bool:
    """Whether these fit, and the program is one that the codes have a word for."""
    order = turn.order
    if turn.else_backward and (window in ("none", "inner", "continue") or not order.endswith(("BS", "BSZ"))):
        return False
    late = order.index("S") > order.index("B")
    if "Z" not in order or window == "none":
        return turn.zero == "each" and (late or window != "continue")
    if window == "inner":
        return "FSB" not in order.replace("Z", "") and (turn.zero != "window" or "SZ" in order or "ZS" in order)
    if window == "continue" and not late:
        return False
    if turn.zero == "first":
        return window in BY_INDEX and window != "last_clause" and order.index("Z") < order.index("B") and late
    return turn.zero == "each" or "SZ" in order or "ZS" in order


@st.composite
def turns(draw: st.DrawFn, window: str) -> Turn:
    order = draw(st.sampled_from(ORDERS) | st.sampled_from(RIGHT))
    turn = Turn(order, draw(st.sampled_from(["each", "window", "first"])), draw(st.integers(0, 9)) == 0)
    for candidate in (turn, Turn(order, turn.zero), Turn(order, "window"), Turn(order)):
        if legal(candidate, window):
            return candidate
    return Turn("FBSZ")


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    setting = draw(st.sampled_from(["function", "function", "method", "method", "per_batch"]))
    possible = {"function": [*BY_INDEX, "counter", "inner"], "method": WINDOWS, "per_batch": ["attribute", "inner"]}[setting]
    window = draw(st.just("none") | st.sampled_from(possible))
    amp = draw(st.sampled_from(["none", "none", "scaler", "split", "arms"]))
    arms = (draw(turns(window)), draw(turns(window))) if amp == "arms" else (draw(turns(window)),)
    guards = ["none", "none", "none", "try", "try_zero"]
    if not any(turn.zero == "first" and turn.order.startswith("FZ") for turn in arms):
        guards.append("nan")  # else the batch that is left out may be the one that clears
    forms = ["inline"] if setting == "per_batch" else ["inline", "inline", "helper", "nested"]
    if window == "counter" and setting == "function":
        forms.remove("helper")
    return Spec(
        turns=arms,
        window=window,
        amp=amp,
        clear=draw(st.sampled_from(["optimizer", "optimizer", "model", "loop"])),
        epoch_zero=setting != "per_batch" and draw(st.integers(0, 4)) == 0,
        divided=window != "none",
        guard=draw(st.sampled_from(guards)) if setting != "per_batch" else "none",
        epochs=draw(st.booleans()),
        setting=setting,
        turn_as=draw(st.sampled_from(forms)),
        helpers=draw(st.frozensets(st.sampled_from(["backward", "step", "zero"]))),
        names=draw(st.integers(0, 2)),
        noise=draw(st.booleans()),
        given=draw(st.booleans()) if setting != "per_batch" else False,
    )


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    kind = draw(st.sampled_from(["gan", "gan_attached", "apart", "joint"]))
    right, late = draw(st.sampled_from(RIGHT)), kind != "joint" and draw(st.booleans())
    wrong = draw(st.sampled_from(RIGHT) | st.sampled_from(WRONG if late else ["FBZS", "FBS"]))
    if wrong not in RIGHT and late and right == "FBSZ":
        right = "ZFBS"
    return Pair(
        kind,
        (right, wrong) if late or draw(st.booleans()) else (wrong, right),
        draw(st.sampled_from(["function", "method"])),
        draw(st.booleans()),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 3)) == 0,
        kind != "joint" and draw(st.integers(0, 3)) == 0,
    )
