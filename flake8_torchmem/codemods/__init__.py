"""The fixes as libcst codemod commands: `python -m libcst.tool codemod -x flake8_torchmem.codemods.LossAccumulated PATHS`.

There is one command for each rule with a fix, by the rule's name, and `FixAll` for all that are on by default. They are made
from the catalogue, so that a rule that gets a fix has its command.
"""

from __future__ import annotations

from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.codemods.command import FixCommand
from flake8_torchmem.model import Safety
from flake8_torchmem.rules.base import Rule
from flake8_torchmem.settings import Settings


class FixAll(FixCommand):
    """Mends what the rules that are on by default find."""

    DESCRIPTION = "Mend what loses memory or corrupts gradients in PyTorch training code: all rules that are on by default."


def _command(rule: Rule) -> type[FixCommand]:
    name = "".join(word.capitalize() for word in rule.name.split("-"))
    members = {
        "__module__": __name__,
        "__doc__": f"Mends {rule.code} {rule.name}.",
        "DESCRIPTION": f"Mend {rule.code} {rule.name}: {rule.summary}. Its fix is {rule.safety.value}: {rule.safety_reason}",
        "SETTINGS": Settings(select=(rule.code,)),
    }
    return type(name, (FixCommand,), members)


COMMANDS: dict[str, type[FixCommand]] = {
    command.__name__: command for command in (_command(rule) for rule in catalogue().values() if rule.safety is not Safety.DISPLAY)
}
globals().update(COMMANDS)

__all__ = ["COMMANDS", "FixAll", *COMMANDS]  # noqa: PLE0604 - names of classes that are made above
