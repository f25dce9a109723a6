"""What names stand for across a file: callees, classes of objects, aliases, which optimizer holds which module."""

from __future__ import annotations

from functools import cached_property

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.memo import memoized
from flake8_torchmem.analysis.objects import class_at, path_of

MAX_ALIASES = 8
NOT_ENGINES = frozenset({"self", "accelerator", "self.accelerator", "fabric", "self.fabric", "super()"})
# Their wrappers step when they are told to, and clear nothing.
LIBRARIES = ("torch.", "torch_xla.", "horovod.", "apex.", "fairscale.")


class Bindings:
    """Answers about one program; all answers are computed once.

    Args:
        program: the lowered file.
    """

    def __init__(self, program: ir.Program) -> None:
        self.program = program

    def assigned(self, function: ir.Function | None) -> dict[str, list[ir.Bind]]:
        """All bindings of a function by place."""
        return function.binds() if function is not None else {}

    @memoized
    def aliases(self, function: ir.Function) -> dict[str, str]:
        """Places bound to one other path, wherever they are bound: `opt = self.optimizer`, `step = opt.step`, `for opt in opts`."""
        found: dict[str, str] = {}
        for place, binds in self.assigned(function).items():
            if "." in place or place in function.params:
                continue
            named = {_named(bind) for bind in binds}
            path = named.pop()
            if path is not None and not named:
                found[place] = path
        return found

    @memoized
    def visible(self, function: ir.Function) -> dict[str, str]:
        """The aliases that hold in a function: its own, and those of the functions around it whose names it does not hide."""
        around = self.visible(function.parent) if function.parent is not None else {}
        own = self.aliases(function)
        hidden = [name for name in around if name in function.params or name in function.assigned]
        return {name: path for name, path in around.items() if name not in hidden} | own if own or hidden else around

    def canonical(self, path: str, function: ir.Function) -> str:
        """The path with single-assignment aliases followed, in this function and the ones around it."""
        visible = self.visible(function)
        for _ in range(MAX_ALIASES if visible else 0):
            head = paths.root(path)
            target = visible.get(head)
            if target is None or paths.root(target) == head:
                break
            path = target + path[len(head) :]
        return path

    def binds(self, path: str, function: ir.Function) -> list[ir.Bind]:
        """Where a path is bound: in the function, the ones around it, its class, the module."""
        scope: ir.Function | None = function
        while scope is not None:
            found = scope.binds().get(path)
            if found:
                return found
            scope = scope.parent
        if path.startswith("self.") and (cls := class_around(function)):
            return [bind for method in self.methods(cls) for bind in self.assigned(method).get(path, ())]
        return list(self.assigned(self.program.module).get(path, ())) if paths.root(path) not in function.params else []

    @memoized
    def class_of(self, path: str, function: ir.Function) -> ir.Class | None:
        """The class of the object at a path, when that is in sight."""
        return class_around(function) if path == "self" else class_at(self, path, function)

    def class_named(self, path: str, file: ir.File) -> ir.Class | None:
        """The class that a name means in a file."""
        return self.program.classes.get(path) or self.program.classes.get(torchapi.resolve(path, file.imports))

    @memoized
    def lineage(self, cls: ir.Class) -> tuple[ir.Class, ...]:
        """The class and its bases that are in sight, nearest first."""
        found, seen = [cls], {cls}
        for current in found:
            bases = (self.program.classes.get(base) for base in current.bases)
            fresh = [base for base in bases if base is not None and base not in seen]
            found += fresh
            seen.update(fresh)
        return tuple(found)

    @cached_property
    def _derived(self) -> dict[ir.Class, list[ir.Class]]:
        """The classes in sight that derive from a class, in order."""
        found: dict[ir.Class, list[ir.Class]] = {}
        for cls in self.program.classes.values():
            for base in self.lineage(cls)[1:]:
                found.setdefault(base, []).append(cls)
        return found

    def methods(self, cls: ir.Class) -> list[ir.Function]:
        """The methods of a class and of its bases: they share `self`."""
        return [method for base in self.lineage(cls) for method in base.methods.values()]

    def relatives(self, function: ir.Function) -> list[ir.Function]:
        """The other methods that may work on the same object: of the class, its bases, and the classes in sight that derive from it."""
        cls = class_around(function)
        if cls is None:
            return []
        methods = [*self.methods(cls), *(method for other in self._derived.get(cls, ()) for method in other.methods.values())]
        return [method for method in dict.fromkeys(methods) if method is not function]

    def overriding(self, call: ir.Call, function: ir.Function) -> list[ir.Function]:
        """The methods of derived classes that a call on `self` may run."""
        if call.path is None or not call.path.startswith("self."):
            return []
        name = call.path[len("self.") :]
        cls = class_around(function) if "." not in name else None
        if cls is None:
            return []
        return [other.methods[name] for other in self._derived.get(cls, ()) if name in other.methods]

    def method(self, cls: ir.Class, name: str) -> ir.Function | None:
        """A method by name, looked up through the bases that are in sight."""
        return next((base.methods[name] for base in self.lineage(cls) if name in base.methods), None)

    def complete(self, cls: ir.Class) -> bool:
        """Whether all bases are in the file or known to have no training methods of their own."""
        return all(
            base in self.program.classes or base == "object" or torchapi.MODULE_BASE.search(base)
            for current in self.lineage(cls)
            for base in current.bases
        )

    def _only_class_with(self, name: str, base: str) -> ir.Class | None:
        """The one class of modules in the file that has this method, for something that is named as a model."""
        if not torchapi.MODULE_NAME.match(torchapi.last(base)) or name in ("forward", "train", "eval", "step", "zero_grad"):
            return None
        found = [cls for cls in self.program.classes.values() if name in cls.methods]
        modules = [cls for cls in found if any(torchapi.MODULE_BASE.search(parent) for parent in cls.bases)]
        return modules[0] if len(found) == len(modules) == 1 else None

    @memoized
    def callee(self, call: ir.Call, function: ir.Function) -> ir.Function | None:
        """The in-file function that a call runs, if that is certain."""
        path = path_of(call.func)
        return self.function_at(path, function) if path else None

    @memoized
    def function_at(self, path: str, function: ir.Function) -> ir.Function | None:
        """The in-file function that a path names, if that is certain."""
        path = self.canonical(path, function)
        imported = self._imported(path, function)
        if imported is not None:
            return imported
        base, _, name = path.rpartition(".")
        if base:
            return self._method_at(base, name, function) or self._called(path, function)
        scope: ir.Function | None = function
        while scope is not None:
            if name in scope.nested:
                return scope.nested[name]
            if name in scope.params:
                return None
            scope = scope.parent
        if name in self.program.functions:
            return self.program.functions[name]
        return self._called(path, function)

    def _method_at(self, base: str, name: str, function: ir.Function) -> ir.Function | None:
        """The method that a name means of the object at a path. Most names are of no method in sight, and their objects need no look."""
        if name not in self.method_names:
            return None
        cls = self.class_of(base, function) or self._only_class_with(name, base)
        return self.method(cls, name) if cls else None

    @cached_property
    def method_names(self) -> frozenset[str]:
        """Names of the methods of all classes in sight."""
        return frozenset(name for cls in self.program.classes.values() for name in cls.methods)

    def _called(self, path: str, function: ir.Function) -> ir.Function | None:
        """What runs when an object of a class in sight is called."""
        cls = self.class_of(path, function) if self.has_callables else None
        return self.method(cls, "__call__") or self.method(cls, "forward") if cls else None

    @cached_property
    def has_callables(self) -> bool:
        """Whether objects of any class in sight can be called."""
        return not self.method_names.isdisjoint(("__call__", "forward"))

    def _imported(self, path: str, function: ir.Function) -> ir.Function | None:
        """The linked function that a path means, where no variable hides the import."""
        full = torchapi.resolve(path, function.file.imports)
        scope: ir.Function | None = function if "." in full and full in self.program.functions else None
        if scope is None:
            return None
        while scope is not None:
            if paths.root(path) in scope.locals and scope.name != "<module>":
                return None
            scope = scope.parent
        return self.program.functions[full]

    @cached_property
    def links(self) -> dict[str, set[str]]:
        """Optimizer path to the module paths whose parameters it was built from."""
        found: dict[str, set[str]] = {}
        for function in self.program.all_functions():
            for place, binds in self.assigned(function).items():
                for bind in binds:
                    if isinstance(bind.value, ir.Call) and self.is_optimizer_factory(bind.value):
                        modules = _modules_of(bind.value)
                        found.setdefault(place, set()).update(modules, self._also_called(modules, function))
        return found

    def _also_called(self, modules: set[str], function: ir.Function) -> set[str]:
        """Other paths that the function gives the same modules: `self.model = model`."""
        binds = (bind for found in self.assigned(function).values() for bind in found)
        return {bind.place for bind in binds if isinstance(bind.value, ir.Name) and bind.value.path in modules}

    def is_optimizer_factory(self, call: ir.Call) -> bool:
        """Whether a call builds an optimizer."""
        path = torchapi.resolve(call.path or "", call.ctx.file.imports)
        if call.method == "optimizers":
            return False
        return bool(torchapi.OPTIMIZER_FACTORY.search(path)) and not torchapi.looks_like_scheduler(path)

    @memoized
    def is_wrapped(self, path: str, function: ir.Function) -> bool:
        """Whether an optimizer was handed to a class out of sight, whose `step` may count turns, or clear as well."""
        for bind in self.binds(self.canonical(path, function), function):
            call = bind.value if isinstance(bind.value, ir.Call) else None
            if call is None or not call.method[:1].isupper() or self.class_named(call.path or "", call.ctx.file) is not None:
                continue
            if torchapi.resolve(call.path or "", call.ctx.file.imports).startswith(LIBRARIES):
                continue
            given = (node for arg in call.operands for node in (arg.items if isinstance(arg, ir.Seq) else (arg,)))
            if any(self._is_instance(node, function) for node in given):
                return True
        return False

    def _is_instance(self, expr: ir.Expr, function: ir.Function) -> bool:
        """Whether an expression makes or names an optimizer."""
        if isinstance(expr, ir.Call):
            return self.is_optimizer_factory(expr)
        return isinstance(expr, ir.Name) and torchapi.looks_like_optimizer(expr.path) and "." not in expr.path.removeprefix("self.")

    @cached_property
    def zeroed(self) -> set[str]:
        """Last parts of all paths on which the file calls `zero_grad`."""
        events = (event for function in self.program.all_functions() for event in function.events())
        return {torchapi.last(event.owner) for event in events if isinstance(event, ir.Zero) and event.owner}

    @cached_property
    def handed(self) -> frozenset[tuple[str, str]]:
        """Last parts of callees, each with those of the names that they are given by position: `Engine(update)`."""
        calls = (event.call for function in self.program.all_functions() for event in function.calls())
        return frozenset((call.method, torchapi.last(arg.path)) for call in calls for arg in call.args if isinstance(arg, ir.Name))

    @cached_property
    def stepped(self) -> frozenset[str]:
        """Last parts of all paths that the file steps."""
        events = (event for function in self.program.all_functions() for event in function.events())
        return frozenset(torchapi.last(event.owner) for event in events if isinstance(event, ir.Step))

    @cached_property
    def engines(self) -> frozenset[str]:
        """Objects that back-propagate and step by themselves, and clear by themselves (DeepSpeed)."""
        events = (event for function in self.program.all_functions() for event in function.events())
        paths = {event.engine for event in events if isinstance(event, ir.Backward) and event.engine}
        return frozenset(path for path in paths - NOT_ENGINES if not torchapi.looks_like_optimizer(path))

    def is_optimizer(self, path: str, function: ir.Function) -> bool:
        """Whether what is stepped is an optimizer: by name, by how it was built, or because it is also cleared."""
        if path == ir.BY_HAND or torchapi.looks_like_optimizer(path):
            return True
        path = self.canonical(path, function)
        if torchapi.looks_like_optimizer(path):
            return True
        built = any(isinstance(bind.value, ir.Call) and self.is_optimizer_factory(bind.value) for bind in self.binds(path, function))
        return built or torchapi.last(path) in self.zeroed


def _named(bind: ir.Bind) -> str | None:
    """The path that a binding gives another name: the elements of what a loop goes over, or the right side."""
    value = bind.value
    if bind.kind == "target" and isinstance(value, ir.Item):
        value = _iterated(value.base)
        return f"{value.path}[*]" if isinstance(value, ir.Name) else bind.place
    return value.path if isinstance(value, ir.Name) and bind.kind == "assign" else None


def class_around(function: ir.Function) -> ir.Class | None:
    """The class whose `self` a function sees: its own, or that of the method it is nested in."""
    scope: ir.Function | None = function
    while scope is not None and scope.owner is None and "self" not in scope.params:
        scope = scope.parent
    return scope.owner if scope is not None else None


def _iterated(expr: ir.Expr) -> ir.Expr:
    """What a `for` really goes over: `enumerate(xs)`, `xs.values()`, `tqdm(xs)`."""
    while isinstance(expr, ir.Call):
        if expr.method in ("values", "items", "parameters", "copy") and expr.receiver is not None:
            expr = expr.receiver
        elif expr.method in torchapi.SAME_ELEMENTS and expr.args:
            expr = expr.args[0]
        else:
            break
    return expr


def _modules_of(call: ir.Call) -> set[str]:
    """Module paths in an optimizer's arguments: receivers of `parameters()`."""
    calls = (node for arg in call.operands for node in ir.walk(arg) if isinstance(node, ir.Call))
    receivers = (node.receiver for node in calls if node.method in ("parameters", "named_parameters"))
    return {receiver.path for receiver in receivers if isinstance(receiver, ir.Name)}
