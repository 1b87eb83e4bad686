"""The README says what is there, and nothing that no test keeps."""

from __future__ import annotations

import re
from pathlib import Path

from teepi import config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_names_every_setting_as_flag_variable_and_key() -> None:
    """A setting without documentation does not exist."""
    for option in config.OPTIONS:
        flag = "--" + option.name.replace("_", "-")
        assert f"`{flag}" in README
        assert f"`TEEPI_{option.name.upper()}`" in README
        assert f"`{option.name}`" in README


def test_readme_promises_are_kept_by_tests_that_exist() -> None:
    """Every promise names its test, and the test is there."""
    promised = set(re.findall(r"`(test_\w+)`", README))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert promised
    assert promised <= there


def test_readme_has_exactly_two_commands_to_begin_with() -> None:
    """One sets up and runs the proxy, one sets up and passes the tests."""
    assert len(re.findall(r"^python3 -m venv .*", README, re.MULTILINE)) == 2


def test_containerfile_sets_only_settings_that_there_are() -> None:
    """A variable that teepi does not know keeps it from starting."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"\bTEEPI_\w+", text)) <= {option.variable for option in config.OPTIONS}
