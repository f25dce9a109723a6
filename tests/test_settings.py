"""Which codes a selection enables."""

from __future__ import annotations

import pytest

from flake8_torchmem import settings as module
from flake8_torchmem.settings import Settings, SettingsError

OWN = {"TM900", "TM901"}


@pytest.fixture(autouse=True)
def three_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rule_codes", lambda: frozenset({"TM101", "TM109", "TM201"}))
    monkeypatch.setattr(module, "DEFAULT_OFF", ("TM109",))
    monkeypatch.setattr(module, "_enabled_codes", module._enabled_codes.__wrapped__)  # without the cache


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), {"TM101", "TM201"} | OWN),
        (Settings(extend_select=("TM109",)), {"TM101", "TM109", "TM201"} | OWN),
        (Settings(select=("TM",)), {"TM101", "TM109", "TM201"} | OWN),
        (Settings(select=("TM1",)), {"TM101", "TM109"} | OWN),
        (Settings(select=("TM1",), ignore=("TM109",)), {"TM101"} | OWN),
        (Settings(select=("TM109",), ignore=("TM1",)), {"TM109"} | OWN),
        (Settings(select=("TM1",), ignore=("TM1",)), OWN),
        (Settings(ignore=("TM",)), set()),
        (Settings(ignore=("TM",), extend_select=("TM201",)), {"TM201"}),
        (Settings(ignore=("TM901",)), {"TM101", "TM201", "TM900"}),
    ],
)
def test_the_longest_prefix_wins(settings: Settings, expected: set[str]) -> None:
    assert settings.enabled_codes() == expected


@pytest.mark.parametrize("settings", [Settings(select=("",)), Settings(ignore=("E501",)), Settings(extend_select=("tm101",))])
def test_a_prefix_of_nothing_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="no rule has a code that starts with"):
        settings.enabled_codes()
