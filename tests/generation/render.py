"""A spec as source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tests.generation.spec import Pair, Spec, Turn

Body = list[str | tuple[str, "Body"]]

ATTRIBUTES = (
    "model", "criterion", "optimizer", "scaler", "n", "use_amp", "pending",
    "generator", "discriminator", "encoder", "decoder", "optimizer_a", "optimizer_b",
)  # fmt: skip
ARGUMENTS = ("loss", "model", "criterion", "optimizer", "scaler", "loader", "x", "y", "i", "n", "use_amp", "epochs")
DEFAULTS = {"n": "n=3", "use_amp": "use_amp=False", "epochs": "epochs=2"}
NAMES: list[dict[str, str]] = [
    {},
    {
        "model": "net", "optimizer": "opt", "criterion": "loss_fn", "loader": "data_loader", "scaler": "grad_scaler", "n": "accum_steps",
        "i": "batch_idx", "x": "inputs", "y": "targets", "loss": "batch_loss", "run_backward": "do_backward", "run_step": "optimizer_step",
        "run_zero": "reset", "run_turn": "train_batch",
    },
    {
        "model": "network", "optimizer": "optim", "loader": "batches", "n": "every", "i": "it", "x": "images", "y": "labels",
        "loss": "train_loss", "run_backward": "propagate", "run_step": "apply_update", "run_zero": "clear_gradients",
        "run_turn": "process", "pending": "seen",
    },
]  # fmt: skip
CONDITIONS = {
    "plus_one": "(i + 1) % n == 0", "last": "i % n == n - 1", "not": "not (i + 1) % n", "divmod": "remainder == 0",
    "should_step": "should_step", "continue": "(i + 1) % n == 0", "last_clause": "(i + 1) % n == 0 or i + 1 == len(loader)",
    "counter": "pending == n", "attribute": "pending % n == 0",
}  # fmt: skip
BEFORE = {
    "divmod": "quotient, remainder = divmod(i + 1, n)",
    "should_step": "should_step = (i + 1) % n == 0",
    "counter": "pending += 1",
    "attribute": "pending += 1",
}


def text(body: Body, depth: int = 0) -> str:
    """Indented lines."""
    lines = []
    for item in body:
        if isinstance(item, str):
            lines.append("    " * depth + item + "\n" if item else "\n")
        else:
            lines.append("    " * depth + item[0] + "\n" + text(item[1], depth + 1))
    return "".join(lines)


def used(body: Body, among: Iterable[str]) -> list[str]:
    """Which of these names the body reads."""
    source = text(body)
    return [name for name in among if re.search(rf"(?<![.\w]){name}\b", source)]


def renamed(source: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        source = re.sub(rf"(?<![^\W_]){old}\b" if old.startswith("run") else rf"\b{old}\b", new, source)
    return source


class Renderer:
    """Builds one program."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.cls = spec.setting != "function"
        self.defined: dict[str, Body] = {}
        self.leave = "return" if spec.turn_as != "inline" else "continue"

    def source(self) -> str:
        program = self.trainer() if self.cls else self.function()
        return renamed(text(program), NAMES[self.spec.names])

    # -- the parts of a turn

    def forward(self, amp: bool) -> Body:
        divided = " / n" if self.spec.divided else ""
        value = f"loss = criterion(model(x), y){divided}"
        body: Body = [("with torch.autocast('cpu'):", [value])] if amp else [value]
        if self.spec.guard == "nan":
            body.append(("if not torch.isfinite(loss):", ["continue" if self.spec.window == "inner" else self.leave]))
        return body

    def backward(self, amp: bool) -> Body:
        return self.helper("backward", ["scaler.scale(loss).backward()" if amp else "loss.backward()"])

    def step(self, amp: bool, clip: bool) -> Body:
        body: Body = ["scaler.unscale_(optimizer)"] if amp and clip else []
        body += ["torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)"] if clip else []
        body += ["scaler.step(optimizer)", "scaler.update()"] if amp else ["optimizer.step()"]
        return self.helper("step", body)

    def zero(self) -> Body:
        if self.spec.clear == "loop":
            return self.helper("zero", [("for p in model.parameters():", ["p.grad = None"])])
        return self.helper("zero", [f"{self.spec.clear}.zero_grad()"])

    def helper(self, event: str, body: Body) -> Body:
        """The statements, or a call of a function that holds them."""
        if event not in self.spec.helpers:
            return body
        name = f"_run_{event}" if self.spec.setting == "per_batch" else f"run_{event}"  # else others may call it between two batches
        if name in self.defined and self.defined[name] != body:
            name = f"{name}_plain"
        self.defined[name] = body
        return [self.call(name, body)]

    def call(self, name: str, body: Body) -> str:
        return f"{'self.' if self.cls else ''}{name}({', '.join(self.parameters(name, body))})"

    def parameters(self, name: str, body: Body) -> list[str]:
        """What a helper is given: a nested one sees the rest."""
        given = used(body, ARGUMENTS)
        if self.cls:
            return [argument for argument in given if argument not in ATTRIBUTES and not (argument == "loss" and name == "run_turn")]
        if name == "run_turn":
            return [argument for argument in given if argument in ("x", "y", "i") or (self.spec.turn_as == "helper" and argument != "loss")]
        return given

    def switched(self, make: Callable[[bool], Body]) -> Body:
        """One event, in both arms of `if use_amp` where precision is chosen event by event."""
        if self.spec.amp == "split":
            return [("if use_amp:", make(True)), ("else:", make(False))]
        return make(self.spec.amp == "scaler")

    # -- the turn

    def turn(self) -> Body:
        head: Body = [BEFORE[self.spec.window]] if self.spec.window in BEFORE else []
        if self.spec.amp == "arms":
            with_amp, without = self.spec.turns
            return [*head, ("if use_amp:", self.ordered(with_amp, True)), ("else:", self.ordered(without, False))]
        return [*head, *self.ordered(self.spec.turns[0], None)]

    def ordered(self, turn: Turn, amp: bool | None) -> Body:
        clip = turn.order.endswith(("BS", "BSZ")) and self.spec.noise
        make: dict[str, Callable[[bool], Body]] = {
            "F": self.forward,
            "B": self.backward,
            "S": lambda amp: self.step(amp, clip),
            "Z": lambda amp: self.zero(),
        }
        parts = {
            letter: (self.switched(make[letter]) if letter in "BS" else make[letter](self.spec.amp == "scaler"))
            if amp is None
            else make[letter](amp)
            for letter in turn.order
        }
        if self.spec.window == "none":
            return [line for letter in turn.order for line in parts[letter]]
        return self.inner(turn, parts) if self.spec.window == "inner" else self.windowed(turn, parts)

    def inner(self, turn: Turn, parts: dict[str, Body]) -> Body:
        """Micro-batches in a loop of their own."""
        inside = [letter for letter in turn.order if letter in "FB" or (letter == "Z" and turn.zero == "each")]
        chunks: Body = [line for letter in inside for line in parts[letter]]
        loop: Body = [("for x, y in zip(x.chunk(n), y.chunk(n)):", chunks)]
        outside = [letter for letter in turn.order if letter not in inside]
        if turn.zero == "first" and "Z" in outside:
            loop, outside = [*parts["Z"], *loop], ["S"]
        around = [line for letter in outside for line in parts[letter]]
        return [*around, *loop] if turn.order.index("S") < turn.order.index("F") else [*loop, *around]

    def windowed(self, turn: Turn, parts: dict[str, Body]) -> Body:
        scope = {"F": "each", "B": "each", "S": "window", "Z": turn.zero}
        condition = CONDITIONS[self.spec.window]
        body: Body = []
        if self.spec.window == "counter":
            parts["S"] = [*parts["S"], "pending = 0"]
        letters = turn.order.replace("B", "") if turn.else_backward else turn.order
        groups: list[tuple[str, Body]] = []
        for letter in letters:
            if groups and groups[-1][0] == scope[letter]:
                groups[-1][1].extend(parts[letter])
            else:
                groups.append((scope[letter], list(parts[letter])))
        for kind, lines in groups:
            if kind == "each":
                body += lines
            elif kind == "first":
                body.append(("if i % n == 0:", lines))
            elif self.spec.window == "continue":
                body += [("if (i + 1) % n != 0:", [self.leave]), *lines]
            else:
                body.append((f"if {condition}:", lines))
                body += [("else:", parts["B"])] if turn.else_backward else []
        return body

    # -- what stands around it

    def loop(self) -> Body:
        spec = self.spec
        turn = self.turn()
        if spec.turn_as != "inline":
            self.defined["run_turn"] = turn
            turn = [self.call("run_turn", turn)]
        if spec.noise:
            turn = [*turn, ("if i % 50 == 0:", ["print(i)"])]
        if spec.guard.startswith("try"):
            handler: Body = ["print('skipped')", *(self.zero() if spec.guard == "try_zero" else [])]
            turn = [("try:", turn), ("except RuntimeError:", handler)]
        counts = bool(used(turn, ["i"]))
        loop: Body = [("for i, (x, y) in enumerate(loader):" if counts else "for x, y in loader:", turn)]
        head: Body = ["model.train()"] if spec.noise else []
        head += self.zero() if spec.epoch_zero else []
        return [("for epoch in range(epochs):", [*head, *loop])] if spec.epochs else [*head, *loop]

    def built(self) -> Body:
        body: Body = [] if self.spec.given else ["optimizer = torch.optim.SGD(model.parameters(), lr=0.0)"]
        return body if self.spec.amp == "none" else [*body, "scaler = torch.amp.GradScaler('cpu')"]

    def function(self) -> Body:
        loop = self.loop()
        counter: Body = ["pending = 0"] if self.spec.window == "counter" else []
        nested, outer = self.definitions()
        body = [*self.built(), *counter, *nested, *loop]
        built = {"optimizer" if not self.spec.given else "", "scaler"}
        wanted = [name for name in ARGUMENTS[1:] if name in used(body, ARGUMENTS) and name not in built]
        inner = {"x", "y", "i"}
        arguments = ", ".join(DEFAULTS.get(name, name) for name in wanted if name not in inner)
        return ["import torch", "", "", *outer, (f"def train({arguments}):", body)]

    def definitions(self) -> tuple[Body, Body]:
        """Helpers as nested functions, and as functions of the file."""
        nested: Body = []
        outer: Body = []
        for name, body in self.defined.items():
            given = ", ".join(self.parameters(name, body))
            if name == "run_turn" and self.spec.turn_as == "nested":
                shared: Body = ["nonlocal pending"] if self.spec.window == "counter" else []
                nested.append((f"def {name}({given}):", [*shared, *body]))
            else:
                outer += [(f"def {name}({given}):", body), "", ""]
        return nested, outer

    def trainer(self) -> Body:
        per_batch = self.spec.setting == "per_batch"
        loop = self.turn() if per_batch else self.loop()
        methods = [(f"def {name}({', '.join(['self', *self.parameters(name, body)])}):", body) for name, body in self.defined.items()]
        main = "def training_step(self, x, y):" if per_batch else f"def fit({', '.join(['self', *self.arguments(loop)])}):"
        methods.append((main, loop))
        whole: Body = [line for method in methods for line in [*method[1]]]
        wanted = ["model", "optimizer"] if self.spec.given else ["model"]
        wanted += [name for name in ("criterion", "n", "use_amp") if name in used(whole, ATTRIBUTES)]
        init: Body = [f"self.{name} = {name}" for name in wanted]
        init += [f"self.{line}" for line in self.built() if isinstance(line, str)]
        init += ["self.pending = 0"] if self.spec.window in ("counter", "attribute") else []
        signature = ", ".join(["self", *(DEFAULTS.get(name, name) for name in wanted)])
        body: Body = [(f"def __init__({signature}):", init)]
        for header, lines in methods:
            body += ["", (header, own(lines))]
        return ["import torch", "", "", ("class Trainer:", body)]

    def arguments(self, body: Body) -> list[str]:
        names = [name for name in used(body, ARGUMENTS) if name not in ATTRIBUTES]
        source = text(body)
        bound = {"loss"} if re.search(r"\bloss = ", source) else set()
        bound |= {"x", "y", "i"} if re.search(r"for .* in (?:enumerate\()?loader", source) else set()
        return [DEFAULTS.get(name, name) for name in names if name not in bound]


def own(body: Body) -> Body:
    """The same with attributes of self."""
    pattern = re.compile(rf"(?<![.\w])({'|'.join(ATTRIBUTES)})\b")
    found: Body = []
    for item in body:
        if isinstance(item, str):
            found.append(pattern.sub(r"self.\1", item))
        else:
            found.append((pattern.sub(r"self.\1", item[0]), own(item[1])))
    return found


PAIR_NAMES: list[dict[str, str]] = [
    {"optimizer_a": "optimizer_d", "optimizer_b": "optimizer_g", "loss_a": "loss_d", "loss_b": "loss_g"},
    {
        "optimizer_a": "opt_d", "optimizer_b": "opt_g", "loss_a": "errD", "loss_b": "errG", "generator": "netG", "discriminator": "netD",
        "loader": "data_loader", "x": "real", "y": "labels",
    },
    {"optimizer_a": "first_optim", "optimizer_b": "second_optim", "loss_a": "loss1", "loss_b": "loss2", "criterion": "loss_fn"},
]  # fmt: skip


def pair_source(pair: Pair) -> str:
    """A program with two optimizers."""
    modules = ("discriminator", "generator") if pair.kind.startswith("gan") else ("encoder", "decoder")
    turn = joint(pair, modules) if pair.kind == "joint" else apart(pair, modules)
    loop: Body = [("for i, (x, y) in enumerate(loader):" if pair.every else "for x, y in loader:", turn)]
    if pair.epochs:
        loop = [("for epoch in range(epochs):", loop)]
    built: Body = [
        f"optimizer_{letter} = torch.optim.SGD({module}.parameters(), lr=0.0)" for letter, module in zip("ab", modules, strict=True)
    ]
    built += ["scaler = torch.amp.GradScaler('cpu')"] if pair.scaled else []
    wanted = [*modules, "criterion"]
    rest = ["loader", *(["n=3"] if pair.every else []), *(["epochs=2"] if pair.epochs else [])]
    if pair.setting == "function":
        program: Body = ["import torch", "", "", (f"def train({', '.join([*wanted, *rest])}):", [*built, *loop])]
    else:
        own_n = ["n=3"] if pair.every else []
        init: Body = [f"self.{name} = {name}" for name in (*wanted, *(["n"] if pair.every else []))]
        init += [f"self.{line}" for line in built if isinstance(line, str)]
        rest = [name for name in rest if name != "n=3"]
        methods: Body = [(f"def __init__({', '.join(['self', *wanted, *own_n])}):", init), ""]
        methods.append((f"def fit({', '.join(['self', *rest])}):", own(loop)))
        program = ["import torch", "", "", ("class Trainer:", methods)]
    return renamed(text(program), PAIR_NAMES[pair.names])


def apart(pair: Pair, modules: tuple[str, str]) -> Body:
    """Each optimizer has a loss of its own; a generator's goes through the discriminator."""
    detach = ".detach()" if pair.kind == "gan" else ""
    losses = (f"criterion({modules[0]}(x), y)", f"criterion({modules[1]}(x), y)")
    if pair.kind.startswith("gan"):
        losses = (
            f"criterion(discriminator(x), y) + criterion(discriminator(generator(x){detach}), y)",
            "criterion(discriminator(generator(x)), y)",
        )
    body: Body = []
    for letter, order, loss in zip("ab", pair.orders, losses, strict=True):
        backward = f"scaler.scale(loss_{letter}).backward()" if pair.scaled else f"loss_{letter}.backward()"
        step = f"scaler.step(optimizer_{letter})" if pair.scaled else f"optimizer_{letter}.step()"
        parts = {"F": f"loss_{letter} = {loss}", "Z": f"optimizer_{letter}.zero_grad()", "B": backward, "S": step}
        lines: Body = [parts[event] for event in order]
        body += [("if i % n == 0:", lines)] if letter == "b" and pair.every else lines
    return [*body, "scaler.update()"] if pair.scaled else body


def joint(pair: Pair, modules: tuple[str, str]) -> Body:
    """One loss through both modules: forward and backward are shared, clears and steps stand around them."""
    slots: list[Body] = [[], [], []]
    for letter, order in zip("ab", pair.orders, strict=True):
        step = f"scaler.step(optimizer_{letter})" if pair.scaled else f"optimizer_{letter}.step()"
        parts = {"Z": f"optimizer_{letter}.zero_grad()", "S": step}
        slot = 0
        for event in order:
            slot += event in "FB"
            slots[slot] += [parts[event]] if event in parts else []
    backward = "scaler.scale(loss).backward()" if pair.scaled else "loss.backward()"
    after: Body = ["scaler.update()"] if pair.scaled else []
    return [*slots[0], f"loss = criterion({modules[1]}({modules[0]}(x)), y)", *slots[1], backward, *slots[2], *after]
