"""The command line: what it prints, and with which status it ends."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from teepi import __version__, cli, config
from teepi.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UPSTREAM = "https://index.example/simple/"


pytestmark = pytest.mark.usefixtures("xdg_home")


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | int], list[config.Settings]]:
    """Put a server in place that returns or raises what it is told, and give the settings it was started with."""

    def replace_server(outcome: BaseException | int) -> list[config.Settings]:
        started: list[config.Settings] = []

        def run(settings: config.Settings, reread: Callable[[], config.Settings]) -> int:
            assert reread() == settings
            started.append(settings)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        server = ModuleType("teepi.server")
        server.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "teepi.server", server)
        return started

    return replace_server


def test_serve_passes_flags_and_returns_the_servers_status(
    serving: Callable[[Exception | int], list[config.Settings]],
) -> None:
    """Flags become settings, and the server's exit status the process's."""
    started = serving(7)
    flags = "--listen a:1 --listen [::1]:2 --page-ttl 5 --offline --log-level debug --cache-dir /c --data-dir /d"
    assert cli.main(["serve", "--upstream", UPSTREAM, *flags.split()]) == 7
    [settings] = started
    assert settings.listen == (("a", 1), ("::1", 2))
    assert settings.indexes["root/pypi"].upstream == UPSTREAM
    assert (settings.page_ttl_seconds, settings.offline, settings.log_level) == (5.0, True, "debug")
    assert (str(settings.cache_dir), str(settings.data_dir)) == ("/c", "/d")


def test_serve_no_offline_goes_before_the_variable(
    serving: Callable[[Exception | int], list[config.Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch that the environment turns on can be turned off by flag."""
    monkeypatch.setenv("TEEPI_OFFLINE", "1")
    started = serving(0)
    for flags in ([], ["--no-offline"]):
        assert cli.main(["serve", "--upstream", UPSTREAM, *flags]) == 0
    assert [settings.offline for settings in started] == [True, False]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreError("The cache directory /c is in use\nby another process."), "The cache directory /c is in use by"),
        (OSError(errno.EADDRINUSE, "address already in use"), "address already in use"),
        (PermissionError(errno.EACCES, "Permission denied", "/c"), "/c: Permission denied"),
        (OSError("no number"), "no number"),
    ],
)
def test_serve_failing_says_one_sentence(
    serving: Callable[[Exception | int], list[config.Settings]],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    said: str,
) -> None:
    """What prevents serving is one line on stderr and status 2, never a traceback."""
    serving(error)
    assert cli.main(["serve", "--upstream", UPSTREAM]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"teepi: {said}")
    assert err.count("\n") == 1


def test_serve_interrupted_ends_quietly(
    serving: Callable[[BaseException | int], list[config.Settings]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C during the start is no error to report."""
    serving(KeyboardInterrupt())
    assert cli.main(["serve", "--upstream", UPSTREAM]) == 130
    assert capsys.readouterr() == ("", "\n")  # behind the ^C that the terminal shows


def test_serve_wrong_setting_says_one_sentence(
    serving: Callable[[Exception | int], list[config.Settings]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value stops the start before the server is even imported."""
    started = serving(0)
    assert cli.main(["serve", "--page-ttl", "soon"]) == 2
    assert capsys.readouterr().err.startswith("teepi: --page-ttl = 'soon' cannot be used: ")
    assert started == []


@pytest.mark.parametrize("argv", [["sreve"], ["serve", "--page-tt=soon"], ["serve", "--listen"], ["--verzion"]])
def test_main_wrong_flag_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Errors come without the usage; a flag is never completed."""
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("teepi: ")
    assert err.count("\n") == 1


def test_main_without_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    """A bare ``teepi`` shows what there is, and has done nothing."""
    assert cli.main([]) == 2
    assert "serve" in capsys.readouterr().err


def test_help_names_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The help is complete without reading the documentation."""
    assert cli.main(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in config.OPTIONS:
        assert option.flag in text
        assert option.default in text


def test_main_prints_on_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pipe that takes ASCII alone, a path that is no text: other signs, and never a traceback."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "ü\udcff"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith(("PIP_", "UV_", "PDM_", "POETRY_", "PIPENV_"))]:
        monkeypatch.delenv(variable)
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="ascii") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        assert cli.main(["configure", "uv"]) == 0
        assert cli.main(["configure"]) == 0
        stdout.flush()
        lines = written.getvalue().splitlines()
    assert b"??/uv/uv.toml" in lines[0]
    assert [line[:1] for line in lines[1:]] == [b"-", b"+", b"-", b"-", b"-"]


def test_python_m_teepi_version_imports_no_server() -> None:
    """``python -m teepi`` is the same program, and light as long as nothing is served."""
    code = """
import runpy, sys
try:
    runpy.run_module("teepi", run_name="__main__")
finally:
    assert "aiohttp" not in sys.modules
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    assert ended.stdout == f"teepi {__version__}\n"
