"""``teepi service`` and the units: what is written, what is run, and what is said where a machine lacks something."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from teepi import cli, units
from teepi.cli import service
from teepi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS = Path(__file__).parents[2] / "systemd"

TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >>"$TOOLS_LOG"
case "$*" in
*"$TOOLS_REFUSE"*) [ -z "$TOOLS_REFUSE" ] || { echo "$TOOLS_SAY" >&2; exit 1; } ;;
esac
case "$*" in
*show*) printf 'LoadState=%s\\nActiveState=%s\\nSubState=running\\nUnitFileState=enabled\\nStatusText=Serving.\\n' \
    "${TOOLS_LOAD:-loaded}" "${TOOLS_ACTIVE:-active}" ;;
esac
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty home; nothing is on PATH."""
    (tmp_path / "bin").mkdir()
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def ran(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Put a service manager on PATH, and give what it was told since the last time that one asked."""
    log = home / "log"
    log.touch()
    monkeypatch.setenv("TOOLS_LOG", str(log))
    monkeypatch.setenv("TOOLS_REFUSE", "")
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.defpath}")
    for name in ("systemctl", "loginctl"):
        (home / "bin" / name).write_text(TOOL)
        (home / "bin" / name).chmod(0o755)

    def read() -> list[str]:
        lines = log.read_text().splitlines()
        log.write_text("")
        return lines

    return read


def unit_of(home: Path, name: str = "teepi.service") -> Path:
    """Return where a user's unit lies."""
    return home / ".config" / "systemd" / "user" / name


def test_install_writes_the_unit_of_this_interpreter_and_starts_it_from_boot_on(
    home: Path, ran: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The unit is the shipped one but for the command; enabled, started, lingering; again changes nothing."""
    for _ in range(2):
        assert cli.main(["service", "install"]) == 0
        assert ran() == [
            "systemctl --user daemon-reload",
            "systemctl --user daemon-reload",
            "systemctl --user enable teepi.service",
            "systemctl --user restart teepi.service",
            "loginctl enable-linger",
        ]
    shipped = (UNITS / "teepi.service").read_text()
    assert unit_of(home).read_text() == re.sub(
        "^ExecStart=.*", f"ExecStart={sys.executable} -m teepi serve", shipped, flags=re.MULTILINE
    )
    assert [path.name for path in unit_of(home).parent.iterdir()] == ["teepi.service"]
    out, err = capsys.readouterr()
    assert "teepi service status" in out
    assert err == ""


def test_install_with_socket_listens_where_the_settings_say(home: Path, ran: Callable[[], list[str]]) -> None:
    """The service lets go of the address first; without --socket later, the socket goes again."""
    (home / "teepi.toml").write_text('listen = ["127.0.0.1:5000", "[::1]:5000"]\n')
    assert cli.main(["service", "install", "--socket", "--config", str(home / "teepi.toml")]) == 0
    assert ran()[2:] == [
        "systemctl --user stop teepi.service",
        "systemctl --user enable --now teepi.socket",
        "systemctl --user enable teepi.service",
        "systemctl --user restart teepi.service",
        "loginctl enable-linger",
    ]
    lines = unit_of(home, "teepi.socket").read_text().splitlines()
    assert [line for line in lines if line.startswith("ListenStream")] == [
        "ListenStream=127.0.0.1:5000",
        "ListenStream=[::1]:5000",
    ]
    assert f"-m teepi serve --config {home / 'teepi.toml'}\n" in unit_of(home).read_text()
    assert cli.main(["service", "install"]) == 0
    assert "systemctl --user disable --now teepi.socket" in ran()
    assert not unit_of(home, "teepi.socket").exists()


def test_install_keeps_a_unit_that_somebody_else_wrote(home: Path, ran: Callable[[], list[str]]) -> None:
    """It may be the container's. A later backup takes the place of none."""
    file = home / "teepi.toml"
    file.touch()
    unit_of(home).parent.mkdir(parents=True)
    unit_of(home).write_text("[Service]\nExecStart=/bin/true\n")
    assert cli.main(["service", "install"]) == 0
    assert cli.main(["service", "install", "--config", str(file)]) == 0
    assert unit_of(home, "teepi.service.bak").read_text() == "[Service]\nExecStart=/bin/true\n"
    assert "serve" in unit_of(home, "teepi.service.bak.2").read_text()
    assert ran()


def test_install_says_which_variables_the_service_does_not_see(
    ran: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was set in the shell holds for this shell."""
    monkeypatch.setenv("TEEPI_OFFLINE", "1")
    assert cli.main(["service", "install"]) == 0
    assert "The service does not see TEEPI_OFFLINE; " in capsys.readouterr().err
    assert ran()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("subcommand", ["install", "uninstall", "status"])
def test_service_without_systemd_is_refused_in_one_sentence(
    home: Path, subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written where nothing would read it."""
    assert cli.main(["service", subcommand]) == 2
    err = capsys.readouterr().err
    assert err.startswith("teepi: This machine has no systemctl, so systemd does not run it: ")
    assert err.count("\n") == 1
    assert not unit_of(home).exists()


def test_install_without_a_session_is_refused_and_leaves_nothing(
    home: Path,
    ran: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Su brings no user manager along: the complaint is passed on, with what to do."""
    monkeypatch.setenv("TOOLS_REFUSE", "daemon-reload")
    monkeypatch.setenv("TOOLS_SAY", "Failed to connect to bus: No medium found")
    assert cli.main(["service", "install"]) == 2
    assert capsys.readouterr().err == (
        "teepi: 'systemctl --user daemon-reload' failed: Failed to connect to bus: No medium found; log in as "
        "this user (ssh, machinectl shell), since su and sudo bring no service manager along.\n"
    )
    assert not unit_of(home).exists()
    assert ran() == ["systemctl --user daemon-reload"]


def test_install_that_cannot_linger_says_what_that_means(
    ran: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs, which is not all that was asked for: status 1."""
    monkeypatch.setenv("TOOLS_REFUSE", "enable-linger")
    monkeypatch.setenv("TOOLS_SAY", "Could not enable linger: Access denied")
    assert cli.main(["service", "install"]) == 1
    assert capsys.readouterr().err == (
        "teepi: The service runs while you are logged in, and not from boot on: "
        "'loginctl enable-linger' failed: Could not enable linger: Access denied.\n"
    )
    assert ran()


def test_install_that_does_not_start_names_the_journal(
    ran: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``systemctl`` itself tells no reason."""
    monkeypatch.setenv("TOOLS_REFUSE", "restart")
    monkeypatch.setenv("TOOLS_SAY", "Job for teepi.service failed.")
    assert cli.main(["service", "install"]) == 2
    assert capsys.readouterr().err.endswith(
        "failed: Job for teepi.service failed; 'journalctl --user -u teepi' says why.\n"
    )
    assert ran()


def test_install_with_a_wrong_configuration_does_nothing(
    home: Path, ran: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that could not start is not installed."""
    (home / ".config" / "teepi").mkdir(parents=True)
    (home / ".config" / "teepi" / "teepi.toml").write_text("page_tl = 3\n")
    assert cli.main(["service", "install"]) == 2
    assert "page_tl" in capsys.readouterr().err
    assert ran() == []


@pytest.mark.parametrize(
    ("address", "said"), [(("proxy.example", 3141), "'proxy.example' in 'listen' is a name"), (("::1", 0), "port 0")]
)
def test_socket_unit_refuses_what_systemd_cannot_listen_on(address: tuple[str, int], said: str) -> None:
    """Names are not resolved in units, and a socket unit has no way to tell a port of the kernel's choice."""
    with pytest.raises(ConfigError) as caught:
        units.listening_socket([address])
    assert said in caught.value.message


def test_install_for_the_system_writes_the_unit_with_a_user_of_its_own(
    home: Path,
    ran: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Root only, and from an interpreter that the service's user can read; no lingering needed."""
    monkeypatch.setattr(service, "SYSTEM_UNITS", home / "system")
    monkeypatch.setattr(sys, "executable", "/opt/teepi/bin/python")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["service", "install", "--system"]) == 2
    assert "run this with sudo" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["service", "install", "--system"]) == 0
    assert ran()[-2:] == ["systemctl enable teepi.service", "systemctl restart teepi.service"]
    text = (home / "system" / "teepi.service").read_text()
    assert "\nDynamicUser=yes\n" in text
    assert "\nExecStart=/opt/teepi/bin/python -m teepi serve\n" in text
    monkeypatch.setattr(sys, "executable", "/home/someone/venv/bin/python")
    assert cli.main(["service", "install", "--system"]) == 2
    assert "is below /home, which the service's own user cannot read" in capsys.readouterr().err


def test_uninstall_removes_units_and_says_what_stays(
    home: Path, ran: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Socket before service, or it would be started again; a second time there is nothing to remove."""
    assert cli.main(["service", "install", "--socket"]) == 0
    ran()
    assert cli.main(["service", "uninstall"]) == 0
    assert ran()[1:3] == [
        "systemctl --user disable --now teepi.socket",
        "systemctl --user disable --now teepi.service",
    ]
    assert list(unit_of(home).parent.iterdir()) == []
    assert "the cache and the configuration are left alone" in capsys.readouterr().out
    assert cli.main(["service", "uninstall"]) == 1
    assert "There is no teepi in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loaded", "active", "exit_status", "said"),
    [
        ("loaded", "active", 0, "teepi.service is active (running), enabled. Serving.\n"),
        ("loaded", "failed", 1, "'journalctl --user -u teepi' says more.\n"),
        ("not-found", "inactive", 1, "teepi is not installed as a service here"),
    ],
)
def test_status_tells_whether_it_runs(
    ran: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    loaded: str,
    active: str,
    exit_status: int,
    said: str,
) -> None:
    """For people in a sentence, for scripts as JSON and by the exit status."""
    monkeypatch.setenv("TOOLS_LOAD", loaded)
    monkeypatch.setenv("TOOLS_ACTIVE", active)
    assert cli.main(["service", "status"]) == exit_status
    assert said in "".join(capsys.readouterr())
    assert cli.main(["service", "status", "--json"]) == exit_status
    found = json.loads(capsys.readouterr().out)
    assert (found["installed"], found["active"]) == (loaded == "loaded", active == "active")
    assert ran()


@pytest.mark.usefixtures("home")
def test_print_shows_the_units_and_does_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also without systemd: for those who put units in place by other means."""
    assert cli.main(["service", "install", "--print", "--socket"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("# /")] == [
        f"# {unit_of(home)}",
        f"# {unit_of(home, 'teepi.socket')}",
    ]
    assert not unit_of(home).exists()


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("/opt/my teepi/python", '"/opt/my teepi/python"'), ("/100%/$a", "/100%%/$$a"), ('a"b', '"a\\"b"')],
)
def test_command_of_a_unit_is_quoted_as_systemd_has_it(word: str, quoted: str) -> None:
    """Spaces, specifiers and variables (systemd.service(5))."""
    assert f"\nExecStart={quoted}\n" in units.service([word], is_system=False)


def test_units_are_clean_to_systemd(tmp_path: Path) -> None:
    """``systemd-analyze verify`` has nothing to say of any shipped or rendered unit."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    command = [sys.executable, "-m", "teepi", "serve"]
    podman = shutil.which("podman") or "/bin/true"
    texts = {
        "user/teepi.service": units.service(command, is_system=False),
        "user/teepi.socket": units.listening_socket([("127.0.0.1", 3141), ("::1", 3141)]),
        "user/teepi-container.service": (UNITS / "teepi-container.service")
        .read_text()
        .replace("/usr/bin/podman", podman),
        "system/teepi.service": units.service(command, is_system=True),
        "system/teepi.socket": units.listening_socket([("127.0.0.1", 3141)]),
    }
    for scope in ("user", "system"):
        (tmp_path / scope).mkdir()
        paths = []
        for name, text in texts.items():
            if name.startswith(scope):
                (tmp_path / name).write_text(text)
                paths.append(str(tmp_path / name))
        done = subprocess.run(
            ["systemd-analyze", f"--{scope}", "verify", "--man=no", "--recursive-errors=no", *paths],
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_quadlet_is_clean_to_podman(tmp_path: Path) -> None:
    """Podman's generator takes ``teepi.container``."""
    generator = "/usr/libexec/podman/quadlet"
    if not Path(generator).exists():
        pytest.skip("podman's quadlet is not on this machine")
    shutil.copy(UNITS / "teepi.container", tmp_path)
    done = subprocess.run(
        [generator, "-user", "-dryrun"],
        capture_output=True,
        text=True,
        check=False,
        env={"QUADLET_UNIT_DIRS": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "ExecStart=" in done.stdout


def test_units_explain_every_odd_line() -> None:
    """Whoever reads one finds a head comment, and how to install it by hand or by command."""
    for name in ("teepi.service", "teepi-system.service", "teepi.socket", "teepi-container.service", "teepi.container"):
        head = (UNITS / name).read_text().partition("\n\n")[0]
        assert all(line.startswith("#") for line in head.splitlines()), name
        assert "teepi" in head
