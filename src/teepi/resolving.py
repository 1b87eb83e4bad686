"""Requirements, resolved by pip itself through an index of a teepi: what commands share that take them.

Nothing here runs beside an event loop that serves anybody.
"""

from __future__ import annotations

import codecs
import contextlib
import netrc
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from teepi import tls
from teepi.errors import BadInput
from teepi.origins import hide_user_info_in

if TYPE_CHECKING:
    import ssl
    from collections.abc import Container, Iterator, Sequence

    from teepi.wanted import Wanted

_OUTPUT_ENDS: Final = "[end of output]"  # below what a build said, in what pip says
_PACKAGE: Final = re.compile(r"^╰─> (\S+)$", re.MULTILINE)  # whose metadata could not be had
_LONGEST_REASON: Final = 300  # characters
_LOOK_SECONDS: Final = 30.0  # for whether there is such an index, which takes a moment
_CODING: Final = re.compile(rb"(?:.*\n)?\s*#.*coding[:=]")  # PEP 263, as pip reads it
_KEPT: Final = {"PIP_CERT", "PIP_CLIENT_CERT", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"}
_BOMS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """An index of a teepi."""

    base: str
    """Its URL, ``/`` at its end."""
    certificate: Path | None
    """The teepi's own, where it is known."""
    netrc: Path | None = None
    """A file with the login that pip needs there, see :func:`with_login`."""

    @property
    def is_trusted(self) -> bool:
        """Whether pip need not look at the certificate: there is none, or it was looked at before."""
        return self.certificate is not None or self.base.startswith("http://")

    @property
    def host(self) -> str:
        """Host and port, without user info."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    def trust(self) -> ssl.SSLContext | bool:
        """Return what aiohttp trusts there."""
        return True if self.certificate is None else tls.trusting(self.certificate)


def requirements_in(names: Sequence[str]) -> list[str]:
    """Return the requirements that were typed, none of which is a flag for pip. Raises :class:`BadInput`."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - --help need not wait
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    from teepi.wanted import project_of_wheel  # noqa: PLC0415

    requirements = []
    for name in names:
        said = repr(hide_user_info_in(name))
        try:
            requirement = Requirement(name)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            msg = f"{said} is no requirement ({reason}); write it as pip takes it, or give a file with -r."
            raise BadInput(msg) from None
        project = project_of_wheel(requirement.url or "")
        if project not in {None, canonicalize_name(requirement.name)}:
            msg = f"{said} is a wheel of another project; write {project!r} before the @."
            raise BadInput(msg)
        requirements.append(str(requirement))
    return requirements


def check_text(path: Path) -> None:
    """Raise :class:`BadInput` for a file of requirements in an encoding that pip cannot know of."""
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if _CODING.match(data) is None and not data.startswith(_BOMS):
            line = data.count(b"\n", 0, error.start) + 1
            msg = f"{path}, line {line} is not UTF-8; save the file in that encoding."
            raise BadInput(msg) from None


async def check_index(there: ServedIndex) -> None:
    """Raise :class:`BadInput` when no teepi or no such index is there: pip would say that it has no file."""
    import aiohttp  # noqa: PLC0415

    from teepi.response import nobody_answers  # noqa: PLC0415

    base = there.base
    server = base.removesuffix("/").rpartition("/")[0].rpartition("/")[0] + "/"
    timeout = aiohttp.ClientTimeout(total=_LOOK_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{base}+simple/-/", ssl=there.trust()) as answer,
        ):
            said = (await answer.read())[:2000].decode(errors="replace").strip()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BadInput(nobody_answers(server, error)) from None
    if said.startswith("There is no index"):
        msg = f"{said.rstrip('.')}; name one of them with --index."
        raise BadInput(msg)
    if "is not the name of a project" not in said:  # which "-" is not
        msg = f"Something else than teepi answers at {server}; name teepi's address with --url."
        raise BadInput(msg)


def pip_environment(there: ServedIndex, secrets: Container[str] = ()) -> dict[str, str]:
    """Return the environment for pip and for whatever a build of it runs.

    The index is asked past any proxy, as all commands ask a teepi. Neither a variable nor a file of pip's, the
    machine's included, puts another index beside it. The variables in ``secrets`` are left out: a build runs what its
    authors like.
    """
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in secrets and (not name.startswith("PIP_") or name in _KEPT)
    }
    host = urlsplit(there.base).hostname or ""
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    trusted = {"PIP_TRUSTED_HOST": there.host} if there.is_trusted else {}
    return {
        **environ,
        **trusted,
        "no_proxy": others if others.strip() == "*" else f"{others},{host}".strip(","),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{there.base}+simple/",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_NO_CACHE_DIR": "1",
        **({} if there.netrc is None else {"NETRC": str(there.netrc)}),
    }


@contextlib.contextmanager
def with_login(there: ServedIndex, user: str, password: str) -> Iterator[ServedIndex]:
    """Give the index with a login for pip: in a file that only we may read, as long as this lasts.

    In a URL pip would show it in the arguments of what it starts. A build can read the file, as it can ``~/.netrc``.
    """
    with tempfile.TemporaryDirectory(prefix="teepi-login-") as directory:
        path = Path(directory, "netrc")
        path.touch(mode=0o600)
        said = (urlsplit(there.base).hostname or "", user, password)
        host, user, password = ('"{}"'.format(re.sub(r'(["\\])', r"\\\1", each)) for each in said)
        others = _own_netrc()  # the last one of a host counts
        path.write_text(f"{others}\n\nmachine {host} login {user} password {password}\n", encoding="utf-8")
        yield replace(there, netrc=path)


def _own_netrc() -> str:
    """Return the user's own netrc file; nothing of one that cannot be read."""
    named = os.environ.get("NETRC")
    path = Path(named) if named else Path(os.path.expanduser("~/.netrc"))  # noqa: PTH111 - without a home no error
    try:
        netrc.netrc(path)
        return path.read_text(encoding="utf-8")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return ""


def pip_line(interpreter: str | None, *words: str) -> list[str]:
    """Return the command line of our pip, working for ``interpreter`` (a path) where that is another Python."""
    other = [] if interpreter is None or interpreter == sys.executable else ["--python", interpreter]
    return [sys.executable, "-m", "pip", *other, *words]


def cause(log: str) -> str:
    """Return the line in what pip said of a build that tells most: the last one that the build itself said."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    ends = [place for place, line in enumerate(lines) if line == _OUTPUT_ENDS]
    if ends and ends[0] > 0:
        said = lines[ends[0] - 1]  # the first one is the innermost
    else:
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason given")
    return said.removeprefix("ERROR: ")[:_LONGEST_REASON]


def resolve(
    there: ServedIndex,
    requirements: Sequence[str],
    flags: Sequence[str] = (),
    *,
    interpreter: str | None = None,
    secrets: Container[str] = (),
) -> list[Wanted]:
    """Let pip resolve through teepi. Raises :class:`BadInput` with pip's own last words.

    ``flags`` choose files for another Python or platform, which needs wheels alone.
    """
    from teepi.wanted import read_report  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.json")
        line = pip_line(interpreter, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report))
        line += ["--only-binary=:all:", "--target", directory, *flags] if flags else []
        line += requirements
        environ = pip_environment(there, secrets)
        ended = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False, env=environ)  # noqa: S603 - a list of ours
        if ended.returncode != 0 or not report.exists():
            words = [text for text in ended.stderr.splitlines() if text.strip()]
            said = next((text for text in words if text.startswith("ERROR")), words[-1] if words else "no reason given")
            if _OUTPUT_ENDS in ended.stderr:
                package = _PACKAGE.search(ended.stderr)
                said = f"the metadata of {package[1] if package else 'a package'} cannot be made: {cause(ended.stderr)}"
            if "No module named pip" in ended.stderr:
                said = f"{sys.executable} has no pip; install it there"
            if said.startswith("ERROR: Exception"):  # and a traceback, at the end of which stands what it was
                said = f"pip gave up ({words[-1].strip()})"
            said = hide_user_info_in(said.removeprefix("ERROR: ").rstrip("."))
            raise BadInput(f"The requirements cannot be resolved: {said}.")
        return read_report(report.read_text(encoding="utf-8"))
