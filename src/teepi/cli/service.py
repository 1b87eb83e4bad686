"""``teepi service``: run teepi from boot on, by systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from teepi import config, units
from teepi.cli.console import complain, print_json
from teepi.clients.user_file import set_aside
from teepi.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SYSTEM_UNITS: Final = Path("/etc/systemd/system")
_HOMES: Final = ("/home", "/root", "/run/user")  # what ProtectHome= hides
_SHOWN: Final = ("LoadState", "ActiveState", "SubState", "UnitFileState", "StatusText")


class Manager:
    """The user's service manager, or the machine's."""

    def __init__(self, *, is_system: bool) -> None:
        """Raise :class:`ServiceError` where there is no systemd."""
        self.is_system = is_system
        self.systemctl = ["systemctl"] if is_system else ["systemctl", "--user"]
        self.journal = "journalctl -u teepi" if is_system else "journalctl --user -u teepi"
        if shutil.which("systemctl") is None:
            msg = (
                "This machine has no systemctl, so systemd does not run it: start 'teepi serve' by what does, "
                "or see the units by 'teepi service install --print'."
            )
            raise ServiceError(msg)

    @property
    def directory(self) -> Path:
        """Where its units lie."""
        return unit_directory(is_system=self.is_system)

    def reload(self) -> None:
        """Have it read its units again. Raises :class:`ServiceError`."""
        self.run("daemon-reload", advice="" if self.is_system else _NO_SESSION)

    def run(self, *arguments: str, advice: str = "") -> str:
        """Return what ``systemctl arguments`` prints. Raises :class:`ServiceError` with what it complains of."""
        return _run([*self.systemctl, *arguments], advice)


@click.group("service")
def command() -> None:
    """Run teepi from boot on, by systemd.

    As a service of yours, or with --system as one of the machine with a user of its own.
    """


def _system_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--system", "is_system", is_flag=True, help="The machine's service instead of yours.")(function)


@command.command("install")
@_system_option
@click.option(
    "--socket", "with_socket", is_flag=True, help="Let systemd hold the address, so that restarts refuse nobody."
)
@click.option("--config", "file", metavar="FILE", help="Configuration file that the service reads.")
@click.option("--print", "is_printed", is_flag=True, help="Print the units and do nothing.")
def install(*, is_system: bool, with_socket: bool, file: str | None, is_printed: bool) -> int:
    """Write the unit, start it now, and have it started at boot."""
    settings = config.trace({"config": file}, _environment(is_system=is_system)).settings
    arguments = ["--config", str(Path(file).expanduser().absolute())] if file else []
    texts = {units.SERVICE: units.service([sys.executable, "-m", "teepi", "serve", *arguments], is_system=is_system)}
    if with_socket:
        texts[units.SOCKET] = units.listening_socket(settings.listen)
    if is_printed:
        for name, text in texts.items():
            print(f"# {unit_directory(is_system=is_system) / name}\n{text}")
        return 0
    manager = Manager(is_system=is_system)
    if is_system:
        _check_system(Path(sys.executable))
    if variables := sorted(name for name in os.environ if name.startswith(config.PREFIX)):
        complain(f"The service does not see {', '.join(variables)}; 'teepi config init' makes a file that both read.")
    manager.reload()  # before anything is written: it tells whether the manager can be reached
    for name, text in texts.items():
        _write(manager.directory / name, text)
    manager.reload()
    if with_socket:
        manager.run("stop", units.SERVICE)  # it holds the address that the socket needs
        manager.run("enable", "--now", units.SOCKET)
    else:
        _remove(manager, units.SOCKET)
    manager.run("enable", units.SERVICE)
    manager.run("restart", units.SERVICE, advice=f"'{manager.journal}' says why")
    print(f"teepi runs ({manager.directory / units.SERVICE}); 'teepi service status' shows how it is.")
    return 0 if is_system else _linger()


@command.command("uninstall")
@_system_option
def uninstall(*, is_system: bool) -> int:
    """Stop the service and remove its units.

    The cache and the configuration stay.
    """
    manager = Manager(is_system=is_system)
    manager.reload()
    found = [name for name in (units.SOCKET, units.SERVICE) if _remove(manager, name)]
    if not found:
        complain(f"There is no teepi in {manager.directory}.")
        return 1
    manager.reload()
    print(f"{' and '.join(found)} removed from {manager.directory}; the cache and the configuration are left alone.")
    return 0


@command.command("status")
@_system_option
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def status(*, is_system: bool, is_json: bool) -> int:
    """Show whether the service runs.

    Exit status 0 if it does, 1 if it does not.
    """
    manager = Manager(is_system=is_system)
    found = _properties(manager.run("show", units.SERVICE, f"--property={','.join(_SHOWN)}"))
    is_active = found.get("ActiveState") in {"active", "reloading"}
    has_socket = (manager.directory / units.SOCKET).exists()
    if is_json:
        print_json(
            {
                "installed": found.get("LoadState") == "loaded",
                "active": is_active,
                "state": found.get("SubState", ""),
                "enabled": found.get("UnitFileState") == "enabled",
                "socket": has_socket,
                "status": found.get("StatusText", ""),
            }
        )
    elif found.get("LoadState") != "loaded":
        complain("teepi is not installed as a service here; 'teepi service install' does that.")
    else:
        state = f"{found.get('ActiveState')} ({found.get('SubState')}), {found.get('UnitFileState')}"
        print(
            f"teepi.service is {state}{', with a socket' if has_socket else ''}. {found.get('StatusText', '')}".rstrip()
        )
        if not is_active:
            print(f"'{manager.journal}' says more.")
    return 0 if is_active else 1


_NO_SESSION: Final = "log in as this user (ssh, machinectl shell), since su and sudo bring no service manager along"


def unit_directory(*, is_system: bool) -> Path:
    """Return where units lie. Raises :class:`ConfigError` without a home."""
    if is_system:
        return SYSTEM_UNITS
    file = config.usual_config_file(os.environ)
    if file is None:
        msg = "HOME is not set, so there is no place for a unit of yours; set it, or use --system."
        raise ConfigError(msg)
    return file.parents[1] / "systemd" / "user"


def _environment(*, is_system: bool) -> Mapping[str, str]:
    """Return the variables from which the service will read its settings."""
    if is_system:
        return {"XDG_CONFIG_HOME": "/etc", "XDG_CACHE_HOME": "/var/cache", "XDG_DATA_HOME": "/var/lib"}
    return {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}


def _check_system(interpreter: Path) -> None:
    if os.geteuid() != 0:
        msg = f"Only root writes to {SYSTEM_UNITS}; run this with sudo, or leave --system out."
        raise ServiceError(msg)
    home = next((home for home in _HOMES if interpreter.is_relative_to(home)), None)
    if home is not None:
        msg = (
            f"{interpreter} is below {home}, which the service's own user cannot read; install teepi elsewhere "
            "(python3 -m venv /opt/teepi) and run this command from there."
        )
        raise ServiceError(msg)


def _write(path: Path, text: str) -> None:
    """Write a unit; one that said something else is kept beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        print(f"The unit that was there is {set_aside(path, '.bak')} now.")
    path.write_text(text, encoding="utf-8")


def _remove(manager: Manager, name: str) -> bool:
    """Stop, disable and delete a unit; return whether there was one."""
    path = manager.directory / name
    if not path.exists():
        return False
    manager.run("disable", "--now", name)
    path.unlink()
    return True


def _linger() -> int:
    """Have the user's services started at boot, not at login."""
    try:
        _run(["loginctl", "enable-linger"], "")
    except ServiceError as error:
        complain(f"The service runs while you are logged in, and not from boot on: {error.message}")
        return 1
    return 0


def _properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _run(arguments: list[str], advice: str) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    except FileNotFoundError:
        msg = f"This machine has no {arguments[0]}."
        raise ServiceError(msg) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        msg = f"'{' '.join(arguments)}' failed: {lines[0].rstrip('.')}{f'; {advice}' if advice else ''}."
        raise ServiceError(msg)
    return done.stdout
