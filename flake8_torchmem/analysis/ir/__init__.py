"""Events, blocks, functions: the small language that rules read.

A function is a control-flow graph of blocks. A block holds events in evaluation order; events hold expressions, small
trees without syntax. Identity is the node itself: two equal-looking calls are two calls.
"""

from __future__ import annotations

from flake8_torchmem.analysis.ir.events import (
    BY_HAND,
    Backward,
    Bind,
    Clear,
    Event,
    Invoke,
    Return,
    Step,
    Store,
    Zero,
    reads,
)
from flake8_torchmem.analysis.ir.expressions import (
    BOOLEAN,
    COMPARISONS,
    Attr,
    Call,
    Comp,
    Const,
    Context,
    Expr,
    Extent,
    File,
    Grad,
    Handler,
    Item,
    Loop,
    Mark,
    Name,
    Op,
    Opaque,
    Seq,
    Site,
    names,
    parts,
    text,
    walk,
)
from flake8_torchmem.analysis.ir.program import Block, Class, Edge, Function, Program

__all__ = [
    "BOOLEAN", "BY_HAND", "COMPARISONS", "Attr", "Backward", "Bind", "Block", "Call", "Class", "Clear", "Comp", "Const", "Context",
    "Edge", "Event", "Expr", "Extent", "File", "Function", "Grad", "Handler", "Invoke", "Item", "Loop", "Mark", "Name", "Op", "Opaque",
    "Program", "Return", "Seq", "Site", "Step", "Store", "Zero", "names", "parts", "reads", "text", "walk",
]  # fmt: skip
