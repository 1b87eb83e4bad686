"""``teepi prefetch``: fetch what a list of requirements or a lock file needs, so that builds find it cached.

It works as any client does, by URL, so it can fill a teepi on another machine. Requirements are resolved by pip, which
knows them best; lock files need no resolving.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import click

from teepi.cli.console import print_json
from teepi.cli.remote import server_of, server_options
from teepi.clients.address import index_url
from teepi.errors import BadInput, TeepiError
from teepi.resolving import ServedIndex, check_index, check_text, requirements_in, resolve
from teepi.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from rich.progress import Progress

    from teepi.wanted import Wanted

_CHUNK: Final = 256 << 10
_JSON: Final = "application/vnd.pypi.simple.v1+json"
_SILENCE_SECONDS: Final = 120.0  # teepi itself gives up earlier; this is for what lies between


@click.command("prefetch")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("-r", "files", multiple=True, metavar="FILE", help="requirements.txt, uv.lock or pylock.toml.")
@click.option("--python", metavar="VERSION", help="Python to choose files for. (default: the one that runs teepi)")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="TAG",
    help="Platform tag, manylinux_2_28_x86_64. (default: this machine's)",
)
@click.option("--index", default="root/pypi", metavar="USER/NAME", help="Index to fetch through. (default: root/pypi)")
@click.option("--jobs", type=click.IntRange(1, 64), default=8, metavar="N", help="Files at a time. (default: 8)")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch nothing.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
@server_options
def command(
    names: Sequence[str],
    files: Sequence[str],
    python: str | None,
    platforms: Sequence[str],
    index: str,
    url: str | None,
    jobs: int,
    *,
    dry_run: bool,
    is_json: bool,
    **arguments: Any,  # noqa: ANN401 - one for each setting
) -> int:
    """Fetch into the cache what requirements or lock files need, core metadata and index pages included.

    NAME is a requirement as pip takes it (torch, "django>=5"). Exit status 1 when something could not be fetched.
    """
    if not names and not files:
        raise click.UsageError("Nothing to fetch: give names, or files with -r.")
    server = server_of(url, arguments)
    there = ServedIndex(index_url(server.url, index).removesuffix("+simple/"), server.certificate)
    wanted = _wanted(there, names, files, python, platforms)
    if dry_run:
        _say_what(wanted, is_json=is_json)
        return 0
    result = asyncio.run(_fetch_all(there, wanted, jobs, is_quiet=is_json))
    result.report(is_json=is_json)
    return 1 if result.failures else 0


# What to fetch --------------------------------------------------------------------------------------


def _wanted(
    there: ServedIndex, names: Sequence[str], files: Sequence[str], python: str | None, platforms: Sequence[str]
) -> list[Wanted]:
    from teepi.wanted import Target, read_lock  # noqa: PLC0415 - only who fetches needs it

    target = Target.of(python, platforms)
    wanted: dict[tuple[str, str | None], Wanted] = {}
    requirements: list[str] = []
    for name in files:
        path = Path(name)
        if path.suffix in {".toml", ".lock"}:
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                msg = f"{path} is no lock file: it is not UTF-8."
                raise BadInput(msg) from None
            wanted |= {(each.filename, each.sha256): each for each in read_lock(text, name, target)}
        elif path.is_file():
            check_text(path)
            requirements += ["-r", name]
        else:
            msg = f"{path} is not there; -r takes requirements.txt, uv.lock or pylock.toml."
            raise BadInput(msg)
    requirements += requirements_in(names)
    if requirements:
        asyncio.run(check_index(there))
        flags = ["--python-version", python] if python is not None else []
        flags += [word for platform in platforms for word in ("--platform", platform)]
        found = resolve(there, requirements, flags)
        wanted |= {(each.filename, each.sha256): each for each in found}
    return list(wanted.values())


def _say_what(wanted: Sequence[Wanted], *, is_json: bool) -> None:
    if is_json:
        print_json({"files": [each.filename for each in wanted]})
        return
    for each in wanted:
        print(each.filename)
    print(f"{counted(len(wanted), 'file')} would be fetched.")


# Fetching -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Result:
    """What came of it."""

    fetched: int = 0
    cached: int = 0
    """Files that were there already."""
    size_bytes: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by file name."""

    def report(self, *, is_json: bool) -> None:
        if is_json:
            numbers = {"fetched": self.fetched, "cached": self.cached, "bytes": self.size_bytes}
            print_json({**numbers, "failures": self.failures})
            return
        for filename, reason in self.failures.items():
            print(f"{filename}: {reason}", file=sys.stderr)
        failed = f", {len(self.failures)} failed" if self.failures else ""
        print(
            f"{counted(self.fetched, 'file')} fetched, {self.cached} cached before{failed}; "
            f"{self.size_bytes / 1e6:.1f} MB in all."
        )


async def _fetch_all(there: ServedIndex, wanted: Sequence[Wanted], jobs: int, *, is_quiet: bool) -> _Result:
    import aiohttp  # noqa: PLC0415 - a third of a second that --help need not wait
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    result = _Result()
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=Console(stderr=True), disable=is_quiet,
    )  # fmt: skip
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE_SECONDS)
    # auto_decompress stays on for pages; files are never encoded
    connector = aiohttp.TCPConnector(limit=jobs, ssl=there.trust())
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        with progress:
            whole = progress.add_task(f"{len(wanted)} files", total=None)
            one = _Fetching(session, there.base, result, progress, whole)
            waiting = iter(wanted)

            async def work() -> None:
                for each in waiting:
                    await one.fetch(each)

            await asyncio.gather(*(work() for _ in range(min(jobs, len(wanted)))))
            progress.update(whole, total=result.size_bytes, completed=result.size_bytes)
    return result


class _Fetching:
    """Fetches one file after another over a session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: str,
        result: _Result,
        progress: Progress,
        whole: Any,  # noqa: ANN401
    ) -> None:
        self._session = session
        self._base = base
        self._result = result
        self._progress = progress
        self._whole = whole
        self._pages: dict[str, asyncio.Future[list[dict[str, Any]]]] = {}

    async def fetch(self, wanted: Wanted) -> None:
        """Fetch a file and its core metadata; what goes wrong is noted."""
        import aiohttp  # noqa: PLC0415

        task = self._progress.add_task(wanted.filename, total=None)
        try:
            file = await self._find(wanted)
            await self._download(file["url"], wanted, task)
            if file.get("core-metadata"):
                async with self._session.get(file["url"] + ".metadata") as answer:
                    await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._result.failures[wanted.filename] = f"teepi at {self._base} broke off ({str(error) or 'time-out'})."
        except TeepiError as error:
            self._result.failures[wanted.filename] = error.message
        finally:
            self._progress.remove_task(task)

    async def _find(self, wanted: Wanted) -> dict[str, Any]:
        """Return the entry of the file on its project's page, which is cached by that."""
        if wanted.project not in self._pages:
            self._pages[wanted.project] = asyncio.ensure_future(self._page(wanted.project))
        for file in await self._pages[wanted.project]:
            sha256 = file["sha256"]
            if file["filename"] == wanted.filename and (wanted.sha256 in {None, sha256} or sha256 is None):
                return file
        msg = f"the index has no such file of {wanted.project}" + (" with that sha256." if wanted.sha256 else ".")
        raise BadInput(msg)

    async def _page(self, project: str) -> list[dict[str, Any]]:
        url = f"{self._base}+simple/{project}/"
        async with self._session.get(url, headers={"Accept": _JSON}) as answer:
            if answer.status != 200:  # noqa: PLR2004
                raise BadInput((await answer.text()).strip()[:300])
            try:
                page = await answer.json(content_type=None)
                files = [
                    {**file, "url": urljoin(url, file["url"]), "sha256": dict(file["hashes"]).get("sha256")}
                    for file in page["files"]
                    if isinstance(file["filename"], str)
                ]
            except (ValueError, LookupError, TypeError):
                msg = f"{url} is no page of a teepi; name its address with --url."
                raise BadInput(msg) from None
            return files

    async def _download(self, url: str, wanted: Wanted, task: Any) -> None:  # noqa: ANN401 - rich's TaskID
        digest = hashlib.sha256()
        size = 0
        async with self._session.get(url, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status != 200:  # noqa: PLR2004
                raise BadInput((await answer.text()).strip()[:300])
            self._progress.update(task, total=answer.content_length)
            async for chunk in answer.content.iter_chunked(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                self._progress.advance(task, len(chunk))
                self._progress.advance(self._whole, len(chunk))
            is_hit = answer.headers.get("Cache-Status", "").rpartition("teepi; ")[2].startswith("hit")
        if wanted.sha256 is not None and digest.hexdigest() != wanted.sha256:
            raise BadInput("what came has another sha256 than the list says.")
        self._result.size_bytes += size
        if is_hit:
            self._result.cached += 1
        else:
            self._result.fetched += 1
