"""A small server between teepi and a real index that fetches for it and counts every file.

It rewrites the file links of the pages to itself, since they point to another host, and passes files through. Run
it as teepi's upstream (``teepi serve --upstream http://127.0.0.1:PORT/simple/``); SIGINT or SIGTERM ends it with
a summary. ``--summary --log FILE`` prints the summary of an earlier run.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urljoin, urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from yarl import URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from aiohttp.typedefs import Handler

_JSON = "application/vnd.pypi.simple.v1+json"
_HREF = re.compile(r"""(<a\b[^>]*?\bhref\s*=\s*)(["'])(.*?)\2""", re.IGNORECASE | re.DOTALL)
_ASKED = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
_ANSWERED = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
    "Retry-After",
)


@dataclass(frozen=True)
class Line:
    """One request, as a line of the log."""

    method: str
    path: str
    range: str
    """The Range header, ``-`` for none."""
    status: int
    sent: int
    """Bytes of the body."""

    def __str__(self) -> str:
        """Return the line, fields between tabs."""
        return "\t".join((self.method, self.path, self.range, str(self.status), str(self.sent)))

    @staticmethod
    def parse(line: str) -> Line:
        """Return what ``str(line)`` was made of."""
        method, path, asked, status, sent = line.rstrip("\n").split("\t")
        return Line(method, path, asked, int(status), int(sent))


def summary(lines: Iterable[Line]) -> str:
    """Say how often each file was fetched: whole, in ranges, and by HEAD."""
    files = [line for line in lines if line.path.startswith("/relay/")]
    fetched = [line for line in files if line.method == "GET" and line.status < 400]
    whole = Counter(line.path for line in fetched if line.range == "-")
    said = [
        f"files: {len({line.path for line in fetched})}",
        f"whole fetches: {whole.total()}, max fetches of one file: {max(whole.values(), default=0)}",
        f"ranged fetches: {sum(line.range != '-' for line in fetched)}",
        f"HEADs: {sum(line.method == 'HEAD' for line in files)}",
        f"not found or failed: {sum(line.status >= 400 for line in files)}",
        f"bytes: {sum(line.sent for line in files)}",
    ]
    said += [f"fetched {count} times: {path}" for path, count in whole.most_common() if count > 1]
    return "\n".join(said)


class Relay:
    """Pages and files of one index, by way of this server."""

    def __init__(self, upstream: str, base: str, session: ClientSession, log: TextIO) -> None:
        """``upstream`` is the index's simple URL, ``base`` our own URL, ``log`` where lines go."""
        self._upstream = upstream.rstrip("/") + "/"
        self._base = base
        self._session = session
        self._log = log
        self._origins: set[tuple[str, str]] = set()
        self.lines: list[Line] = []

    def routes(self) -> list[web.RouteDef]:
        """Return the two kinds of URL."""
        return [
            web.get("/simple/{project:[^/]*}{slash:/?}", self.page),
            web.get("/relay/{scheme:https?}/{authority:[^/]+}/{path:.*}", self.file),
        ]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Answer a page in the form that was asked for, with its links rewritten."""
        project = request.match_info["project"]
        headers = {"Accept": request.headers.get("Accept", "*/*")}
        async with self._session.get(self._upstream + (project + "/" if project else ""), headers=headers) as answer:
            body = await answer.read()
            kind = answer.headers.get("Content-Type", "text/html")
            if answer.status == 200 and project:
                text = body.decode(answer.charset or "utf-8", errors="replace")
                rewrite = self._rewritten_json if "json" in kind else self._rewritten_html
                body = rewrite(text, str(answer.url)).encode()
            self._write(request, answer.status, len(body))
            return web.Response(status=answer.status, body=body, headers={"Content-Type": kind})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Stream a file, a part of it, or its head; only from hosts that a page linked to."""
        scheme, authority, path = request.raw_path.removeprefix("/relay/").split("/", 2)
        if (scheme, authority) not in self._origins:
            self._write(request, 404, 0)
            raise web.HTTPNotFound(text="No page has linked to that host.\n")
        url = URL(f"{scheme}://{authority}/{path}", encoded=True)
        headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
        status, sent = 502, 0
        try:
            # Identity: what is measured is the file itself.
            asked = self._session.request(request.method, url, headers=headers | {"Accept-Encoding": "identity"})
            async with asked as answer:
                passed = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=passed)
                status = answer.status
                await response.prepare(request)
                if request.method != "HEAD":
                    async for data in answer.content.iter_any():
                        await response.write(data)
                        sent += len(data)
                await response.write_eof()
                return response
        finally:
            self._write(request, status, sent)

    def _rewritten_json(self, text: str, url: str) -> str:
        page = json.loads(text)
        for file in page["files"]:
            file["url"] = self._relayed(urljoin(url, file["url"]))
        return json.dumps(page)

    def _rewritten_html(self, text: str, url: str) -> str:
        def replaced(found: re.Match[str]) -> str:
            link = urljoin(url, html.unescape(found[3]))
            return f"{found[1]}{found[2]}{html.escape(self._relayed(link))}{found[2]}"

        return _HREF.sub(replaced, text)

    def _relayed(self, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            return url
        self._origins.add((parts.scheme, parts.netloc))
        query = f"?{parts.query}" if parts.query else ""
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return f"{self._base}/relay/{parts.scheme}/{parts.netloc}{parts.path}{query}{fragment}"

    def _write(self, request: web.Request, status: int, sent: int) -> None:
        line = Line(request.method, request.raw_path, request.headers.get("Range", "-"), status, sent)
        self.lines.append(line)
        print(line, file=self._log, flush=True)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--listen", default="127.0.0.1:3142", metavar="HOST:PORT")
    parser.add_argument("--upstream", help="the index's simple URL (default: the one that teepi has)")
    parser.add_argument("--log", type=Path, help="one line per request: method, path, range, status, bytes")
    parser.add_argument("--summary", action="store_true", help="print the summary of the --log of an earlier run")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then print the summary."""
    if arguments.summary:
        if arguments.log is None:
            print("--summary needs --log FILE.", file=sys.stderr)
            return 2
        with arguments.log.open(encoding="utf-8") as log:
            print(summary(map(Line.parse, log)))
        return 0
    upstream = arguments.upstream or _default_upstream()
    if arguments.log is None:
        return asyncio.run(_serve(arguments.listen, upstream, sys.stderr))
    with arguments.log.open("w", encoding="utf-8") as log:
        return asyncio.run(_serve(arguments.listen, upstream, log))


async def _serve(listen: str, upstream: str, log: TextIO) -> int:
    host, _, port = listen.rpartition(":")
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    timeout = ClientTimeout(total=None, sock_connect=30, sock_read=60)
    async with ClientSession(timeout=timeout, trust_env=True, auto_decompress=True) as session:
        app = web.Application(middlewares=[_upstream_fails])
        relay = Relay(upstream, f"http://{listen}", session, log)
        app.add_routes(relay.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        with suppress(asyncio.CancelledError):
            await web.TCPSite(runner, host, int(port), backlog=1024).start()
            print(f"relay listens on http://{listen}/simple/", flush=True)
            await over.wait()
        await runner.cleanup()
    print(summary(relay.lines), flush=True)
    return 0


@web.middleware
async def _upstream_fails(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (ClientError, TimeoutError) as error:
        if request.transport is not None and request.writer.output_size:
            request.transport.abort()  # in mid-body there is no honest end
        return web.Response(status=502, text=f"{error}\n")


def _default_upstream() -> str:
    """Return the upstream that teepi has when none is given: see docs on the text of this project."""
    from distlib.index import DEFAULT_INDEX  # noqa: PLC0415 - slow to import and seldom needed

    parts = urlsplit(DEFAULT_INDEX)
    return f"{parts.scheme}://{parts.netloc}/simple/"
