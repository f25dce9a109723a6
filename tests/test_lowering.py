"""Functions as the rules read them."""

from __future__ import annotations

import ast
import re

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import lower

EVERY_BRANCH = """
def train(loader, flag):
    if c01():
        c02()
        if flag:
            c03()
        else:
            c04()
        c05()
    elif c06():
        return c07()
    else:
        c08()
    for batch in c09(loader):
        if c10(batch):
            c11()
            continue
        try:
            c12()
            if flag:
                break
            c13()
        except ValueError:
            c14()
            raise
        except (KeyError, OSError) as error:
            c15(error)
        else:
            c16()
        finally:
            c17()
        while c18():
            with c19() as held:
                c20(held)
            c21([c22(x) for x in batch])
        c23()
    else:
        c24()
    match c25():
        case 1:
            c26()
        case _:
            c27()
    c28()
"""


def function(text: str) -> ir.Function:
    return lower(ast.parse(text).body, ir.File("case.py", {})).functions["train"]


def test_events_come_in_source_order() -> None:
    calls = [event.call.method for event in function(EVERY_BRANCH).events() if isinstance(event, ir.Invoke)]
    inner_first = re.sub(r"c21\(\[c22", "c22([c21", EVERY_BRANCH)
    assert calls == re.findall(r"c\d\d", inner_first)


def test_blocks_are_numbered_by_their_places() -> None:
    blocks = function(EVERY_BRANCH).blocks
    assert [block.index for block in blocks] == list(range(len(blocks)))
    assert {edge.target for block in blocks for edge in block.edges} <= set(blocks)


def test_a_handler_guards_its_try_alone() -> None:
    guarded = function(EVERY_BRANCH)
    clause = next(event.ctx.handler for event in guarded.events() if event.ctx.handler is not None)
    tried = [event for block in guarded.blocks[clause.first : clause.end] for event in block.events]
    assert [event.call.method for event in tried if isinstance(event, ir.Invoke)] == ["c12", "c13"]
