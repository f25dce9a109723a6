"""Small training programs that several tests share."""

# TM201 alone, on the last line of the loop.
LEAKY = """\
import torch


def train(model, loader, criterion, optimizer):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss
    return total
"""
LEAK_LINE = 11
LEAK_COLUMN = 9

# TM101 alone: nothing clears the gradients.
UNCLEARED = """\
import torch


def train(model, loader, criterion, optimizer):
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
"""

# TM101 and TM201 in one loop.
BOTH = LEAKY.replace("        optimizer.zero_grad()\n", "")

CLEAN = LEAKY.replace("total += loss", "total += loss.item()")

BROKEN = "import torch\n\n\ndef train(:\n    pass\n"
BROKEN_LINE = 4
