"""Expressions that are written anew, and arguments of calls that come and go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

import libcst as cst

from flake8_torchmem.fixes.syntax import Refused, Syntax, children
from flake8_torchmem.model import Edit, Span
from flake8_torchmem.remedies import Role

ENDS = re.compile(r"\s*(?:#.*)?$")
ATOMS = (
    cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.List, cst.Dict, cst.Set, cst.ListComp, cst.DictComp, cst.SetComp,
    cst.SimpleString,
)  # fmt: skip
BINDING = (cst.Assign, cst.AnnAssign)
KEY = re.compile(r"\[([^][]+)\]")
MOVES = frozenset({"cpu", "to", "cuda", "numpy", "tolist"})


def rewrite(syntax: Syntax, place: Span, role: Role, template: str, path: str) -> Iterator[Edit]:
    """An expression is written anew.

    Args:
        syntax: the file.
        place: the call or statement.
        role: which expression there is meant.
        template: `{}` stands for what was there.
        path: only this access path in it, or this entry of the display that it is.
    """
    value = role_of(syntax, place, role)
    for node in [_part(value, path)] if path.startswith("[") or not path else _reads(syntax, value, path):
        written = _written(syntax, node, template)
        parent = syntax.parents[node]
        operand = isinstance(parent, (cst.Attribute, cst.Subscript)) and parent.value is node
        yield Edit(_with_parentheses(syntax, node), f"({written})" if operand and not template.startswith("{}.") else written)


def role_of(syntax: Syntax, place: Span, role: Role) -> cst.BaseExpression:
    """The expression that a role means at a place.

    Raises:
        Refused: there is none.
    """
    if role is Role.VALUE:
        return _value(syntax, place)
    if role is Role.WHOLE:
        return syntax.expression(place)
    if role is Role.TEST:
        return _value(syntax, place) if syntax.has(place, *BINDING) else syntax.expression(place)
    if role is Role.DIVISOR:
        binds = syntax.has(place, *BINDING, cst.AugAssign)
        return _divisor(syntax, syntax.find(place, *BINDING, cst.AugAssign) if binds else syntax.expression(place))
    call = syntax.find(place, cst.Call)
    if role is Role.LOSS:
        return _loss(call)
    positional = [arg.value for arg in call.args if arg.keyword is None and not arg.star]
    if not positional:
        raise Refused("the call has no such argument")
    return positional[-1]


def set_argument(syntax: Syntax, place: Span, name: str, value: str) -> Iterator[Edit]:
    """A call gets a keyword argument, or another value for it."""
    call = syntax.find(place, cst.Call)
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == name:
            yield Edit(_with_parentheses(syntax, arg.value), value)
            return
    yield _appended(syntax, call, f"{name}={value}")


def drop_argument(syntax: Syntax, place: Span, name: str, position: int | None) -> Iterator[Edit]:
    """A call loses the argument of a name, or else the one at a position."""
    call = syntax.find(place, cst.Call)
    named = [index for index, arg in enumerate(call.args) if arg.keyword is not None and arg.keyword.value == name]
    index = named[0] if named else position
    if index is None or index >= len(call.args):
        raise Refused(f"the call has no argument `{name}`")
    yield _without(syntax, call, index)


def _without(syntax: Syntax, call: cst.Call, index: int) -> Edit:
    """An argument goes, and what was only there for it: on lines of its own these, with a comment at their end. Other comments stay."""
    span, comma = syntax.span(call.args[index]), call.args[index].comma
    end = syntax.span(comma) if isinstance(comma, cst.Comma) else span
    itself = Span(span.line, span.column, *_end(end))
    before, after = syntax.lines[span.line - 1][: span.column - 1], syntax.lines[end.end_line - 1][end.end_column - 1 :]
    own = Span(span.line, 1, end.end_line + 1, 1) if not before.strip() and ENDS.match(after) else None
    if len(call.args) == 1:
        opened, closed = _end(_with_parentheses(syntax, call.func)), _end(syntax.span(call))
        gone = own or itself
        around = syntax.between(Span(*opened, gone.line, gone.column)) + syntax.between(Span(*_end(gone), *closed))
        return Edit(gone, "") if "#" in around else Edit(Span(*opened, *closed), "()")
    if own is not None:
        return Edit(own, "")
    if index + 1 < len(call.args):
        following = syntax.span(call.args[index + 1])
        until = Span(*_end(itself), following.line, following.column)
        return Edit(itself if "#" in syntax.between(until) else Span(span.line, span.column, *_end(until)), "")
    since = _end(syntax.span(call.args[index - 1]))
    between = syntax.between(Span(*since, span.line, span.column))
    return Edit(itself if "#" in between else Span(*since, *_end(end)), "")


def _end(span: Span) -> tuple[int, int]:
    return span.end_line, span.end_column


def make_there(syntax: Syntax, transfer: Span, factory: Span) -> Iterator[Edit]:
    """`torch.zeros(3).float().to(device)` becomes `torch.zeros(3, device=device).float()`."""
    outer, inner = syntax.find(transfer, cst.Call), syntax.find(factory, cst.Call)
    told = [arg for arg in outer.args if arg.keyword is None or arg.keyword.value != "non_blocking"]
    if not isinstance(outer.func, cst.Attribute) or len(told) > 1 or any(arg.star for arg in told):
        raise Refused("the transfer has further arguments")
    device = syntax.source(told[0].value) if told else '"cuda"'
    if any(arg.keyword is not None and arg.keyword.value == "device" for arg in inner.args):
        raise Refused("the factory function is given a device already")
    yield _appended(syntax, inner, f"device={device}")
    kept, end = _with_parentheses(syntax, outer.func.value), syntax.span(outer)
    yield Edit(Span(kept.end_line, kept.end_column, end.end_line, end.end_column), "")


def _appended(syntax: Syntax, call: cst.Call, text: str) -> Edit:
    """One more argument, before any `**kwargs`; in calls that are written line by line, on a line of its own."""
    spread = next((arg for arg in call.args if arg.star == "**"), None)
    if spread is not None:
        span = syntax.span(spread)
        return Edit(Span(span.line, span.column, span.line, span.column), f"{text}, ")
    if not call.args:
        end = syntax.span(call)
        return Edit(Span(end.end_line, end.end_column - 1, end.end_line, end.end_column - 1), text)
    last = call.args[-1]
    if isinstance(last.value, cst.GeneratorExp) and not last.value.lpar and len(call.args) == 1:
        raise Refused("the only argument is a generator without parentheses")
    first, begin = syntax.span(call.args[0]), syntax.span(last)
    own_lines = begin.line > first.line and syntax.lines[begin.line - 1][: begin.column - 1].strip() == ""
    separator = f",\n{syntax.indent(begin.line)}" if own_lines else ", "
    return Edit(Span(begin.end_line, begin.end_column, begin.end_line, begin.end_column), f"{separator}{text}")


def _value(syntax: Syntax, place: Span) -> cst.BaseExpression:
    """What a statement assigns, adds or returns; of `total = total + loss` the part that is not `total`."""
    node = syntax.find(place, cst.Assign, cst.AnnAssign, cst.AugAssign, cst.Return)
    value: cst.BaseExpression | None = node.value  # type: ignore[attr-defined]
    if value is None:
        raise Refused("the statement has no value")
    if isinstance(node, cst.Assign) and len(node.targets) == 1:
        target = _normal(syntax.source(node.targets[0].target))
        if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Add):
            sides = [side for side in (value.left, value.right) if _normal(syntax.source(side)) != target]
            return sides[0] if len(sides) == 1 else value
    return value


def _divisor(syntax: Syntax, node: cst.CSTNode) -> cst.BaseExpression:
    """The right side of the only division in a statement or an expression."""
    found: list[cst.BaseExpression] = []
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, cst.BinaryOperation) and isinstance(current.operator, cst.Divide):
            found.append(current.right)
        elif isinstance(current, cst.AugAssign) and isinstance(current.operator, cst.DivideAssign):
            found.append(current.value)
        pending.extend(children(current))
    if len(found) != 1:
        raise Refused("it is not clear which division is meant")
    return found[0]


def _loss(call: cst.Call) -> cst.BaseExpression:
    """`loss` of `loss.backward()`, `scaler.scale(loss).backward()` and `accelerator.backward(loss)`."""
    positional = [arg.value for arg in call.args if arg.keyword is None and not arg.star]
    if positional:
        return positional[0]
    if not isinstance(call.func, cst.Attribute):
        raise Refused("the loss was not found in the call")
    value = call.func.value
    scaled = isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute) and value.func.attr.value == "scale"
    return value.args[0].value if scaled and len(value.args) == 1 else value  # type: ignore[attr-defined]


def _written(syntax: Syntax, node: cst.BaseExpression, template: str) -> str:
    """The template with the expression in it; `.detach()` goes before a move to the host, not behind it."""
    whole = syntax.between(_with_parentheses(syntax, node))
    if not template.startswith("{}."):
        return template.replace("{}", _operand(syntax, node, whole))
    suffix = template.removeprefix("{}")
    if suffix == ".detach()" and isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in MOVES:
        receiver = node.func.value
        begin, end = _with_parentheses(syntax, receiver), syntax.span(node)
        tail = syntax.between(Span(begin.end_line, begin.end_column, end.end_line, end.end_column))
        return _written(syntax, receiver, template) + tail
    return (whole if isinstance(node, ATOMS) or node.lpar else f"({whole})") + suffix


def _operand(syntax: Syntax, node: cst.BaseExpression, whole: str) -> str:
    """An expression that can stand beside any operator."""
    return whole if isinstance(node, ATOMS) or node.lpar else f"({whole})"


def _reads(syntax: Syntax, value: cst.BaseExpression, path: str) -> Sequence[cst.BaseExpression]:
    """The outermost parts of an expression that are spelled so, white space and quotes aside."""
    path = _normal(path)
    found: list[cst.BaseExpression] = []
    pending: list[cst.CSTNode] = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, cst.BaseExpression) and _normal(syntax.source(node)) == path:
            found.append(node)
        elif isinstance(node, (cst.Attribute, cst.Arg)):
            pending.append(node.value)
        else:
            pending.extend(children(node))
    if not found:
        raise Refused(f"`{path}` was not found again in the expression")
    return found


def _part(value: cst.BaseExpression, path: str) -> cst.BaseExpression:
    """The entry of a display that a path such as `['loss'][0]` leads to, the display itself for an empty one."""
    for written in KEY.findall(path):
        key = ast.literal_eval(written)
        if isinstance(value, (cst.Tuple, cst.List)) and not any(isinstance(element, cst.StarredElement) for element in value.elements):
            value = value.elements[key].value
        elif isinstance(value, cst.Dict):
            value = next((e.value for e in value.elements if isinstance(e, cst.DictElement) and _is_key(e.key, key)), value)
        else:
            raise Refused("the part was not found again in what is stored")
    return value


def _is_key(node: cst.BaseExpression, key: object) -> bool:
    return isinstance(node, (cst.SimpleString, cst.Integer)) and ast.literal_eval(node.value) == key


def _with_parentheses(syntax: Syntax, node: cst.BaseExpression) -> Span:
    """The span of an expression, its own parentheses counted in."""
    span = syntax.span(node)
    if node.lpar:
        begin, end = syntax.span(node.lpar[0]), syntax.span(node.rpar[-1])
        span = Span(begin.line, begin.column, end.end_line, end.end_column)
    return span


def _normal(source: str) -> str:
    """One spelling for all of white space and quotes."""
    try:
        return ast.unparse(ast.parse(f"({source.strip()})", mode="eval"))
    except SyntaxError:
        return source
