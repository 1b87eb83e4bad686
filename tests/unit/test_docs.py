"""The README says what is there, and nothing that no test keeps; tests name the promises that they keep."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from teepi import cli, config
from teepi.index_settings import BASES_KEYS, UPSTREAM_KEYS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


CARRIED = re.compile(r"(contract|fault)s? ((?:[0-9]+(?: to |, and | and |, )?)+)", re.IGNORECASE)


@cache
def facts() -> list[str]:
    """Return the docstrings of all tests."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py")]
    functions = [
        each for tree in trees for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [ast.get_docstring(each) or "" for each in functions if each.name.startswith("test_")]


def numbers_carried(kind: str) -> set[int]:
    """Return the lines of the wire contract, or the faults, that docstrings of tests name: ``Contract 8, 12``."""
    found = set()
    for named, numbers in [match for fact in facts() for match in CARRIED.findall(fact)]:
        for first, last in re.findall(r"([0-9]+)(?: to ([0-9]+))?", numbers):
            if named.lower() == kind:
                found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize(("kind", "expected"), [("contract", range(1, 42)), ("fault", [9, *range(13, 19)])])
def test_every_line_of_the_contract_is_carried_by_a_test(kind: str, expected: list[int]) -> None:
    """A promise to clients, or a fault to be survived, that no test names is kept by accident."""
    assert sorted(set(expected) - numbers_carried(kind)) == []


def test_readme_tells_users_what_clients_do_of_themselves() -> None:
    """Contract 41. Trusted hosts, frozen lock files, slashes and containers: what no server can put right."""
    for words in (
        "`PIP_TRUSTED_HOST`", "teepi configure pip", "not even for 127.0.0.1", "other than localhost or 127.x",
        "`uv sync --frozen`", "UV_DEFAULT_INDEX=", "PIPENV_PYPI_MIRROR=", "without a trailing slash",
        "POETRY_PYPI_MIRROR_URL=", "PDM_PYPI_URL=", "--network host", "bound to 127.0.0.1 only",
    ):  # fmt: skip
        assert words in README
    mirror = re.search(r"PIPENV_PYPI_MIRROR=(\S+?)`", README)
    assert mirror is not None
    assert not mirror[1].endswith("/")


def test_readme_names_every_setting_as_flag_variable_and_key() -> None:
    """A setting without documentation does not exist."""
    for option in config.OPTIONS:
        flag = "--" + option.name.replace("_", "-")
        assert f"`{flag}" in README
        assert f"`TEEPI_{option.name.upper()}`" in README
        assert f"`{option.name}`" in README


def test_settings_page_says_of_each_what_the_program_says() -> None:
    """Flag, variable, key, default, meaning, and whether it needs a restart; every key of an index, too."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for option in config.OPTIONS:
        meaning = option.help[:1].upper() + option.help[1:]
        names = f"| `{option.flag}` | `{option.variable}` | `{option.name}` |"
        assert f"{names} {option.default} | {meaning} | {'no' if option.reloads else 'yes'} |" in page
    for key in (*UPSTREAM_KEYS, *BASES_KEYS):
        assert f"`{key}`" in page


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


def test_page_for_devpi_users_names_commands_and_flags_that_there_are() -> None:
    """Every ``teepi …`` on it, in a table, a sentence or a block, is one that click knows."""
    page = (ROOT / "docs" / "coming-from-devpi.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("teepi ")]
    lines += re.findall(r"`(teepi [^`]+)`", page)
    named = set()
    for line in lines:
        words = line.replace("\n", " ").split()[1:]
        command: click.Command = cli.teepi
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            named.add(words[0])
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, line
            command = found
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= flags, line
    assert {"build", "import", "dir", "devpi", "serve", "service"} <= named


def test_containerfile_sets_only_settings_that_there_are() -> None:
    """A variable that teepi does not know keeps it from starting."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"\bTEEPI_\w+", text)) <= {option.variable for option in config.OPTIONS}
