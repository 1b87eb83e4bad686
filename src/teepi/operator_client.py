"""Reaches whoever may work on a cache or on accounts: the server that runs there, one at a URL, or this process itself.

Commands use this and print; what an operation does is in ``operations`` and ``account_operations``.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from teepi import operator_channel
from teepi.errors import InUse, StoreError, TeepiError
from teepi.operator_calls import DATA_DIR

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from aiohttp import ClientSession

    from teepi.config import Settings
    from teepi.operator_calls import Calls

    Call = Callable[[str, Mapping[str, Any]], AsyncGenerator[dict[str, Any]]]
    """Name and arguments of an operation, to its events."""

_LONGEST_LINE: Final = 1 << 30  # bytes; a list has every cached file on one line
_LOCK_WAIT_SECONDS: Final = 2.0  # of a command that has just ended


class OperationFailed(TeepiError):
    """The server refused an operation, or it ended early; the message is the server's."""


@asynccontextmanager
async def connect(settings: Settings, url: str | None = None) -> AsyncIterator[Call]:
    """Give what makes calls of ``operations``.

    Raises :class:`StoreError` when there is nobody to call, and the calls :class:`OperationFailed`.
    """
    async with AsyncExitStack() as stack:
        yield await _server(stack, settings, url) or await _direct(stack, settings)


@asynccontextmanager
async def connect_accounts(settings: Settings, url: str | None = None, *, begins: bool = False) -> AsyncIterator[Call]:
    """Give what makes calls of ``account_operations``, as :func:`connect` does.

    Where no server runs, ``begins`` lets a data directory be made that is not there.
    """
    async with AsyncExitStack() as stack:
        call = await _server(stack, settings, url)
        if call is None:
            yield await _direct_accounts(stack, settings, begins=begins)
        elif url is not None:  # it has let us in for the token of the data directory
            yield call
        else:
            yield lambda name, arguments: call(name, {**arguments, DATA_DIR: str(settings.data_dir)})


async def _server(stack: AsyncExitStack, settings: Settings, url: str | None) -> Call | None:
    """Return what asks the server at ``url``, or else the one on the cache directory; None when there is none."""
    if url is not None:
        token = await asyncio.to_thread(operator_channel.read_token, settings.data_dir)
        return await _remote(stack, url.rstrip("/"), {"Authorization": f"Bearer {token}"}, None)
    if await asyncio.to_thread(operator_channel.answers, settings.cache_dir):
        path = stack.enter_context(operator_channel.socket_path(settings.cache_dir))
        return await _remote(stack, "http://teepi", {}, path)
    return None


async def _remote(stack: AsyncExitStack, base: str, headers: dict[str, str], socket_path: str | None) -> Call:
    from aiohttp import ClientSession, ClientTimeout, UnixConnector  # noqa: PLC0415 - a command may not need it

    connector = None if socket_path is None else UnixConnector(socket_path)
    session = ClientSession(connector=connector, headers=headers, timeout=ClientTimeout(total=None, connect=10))
    await stack.enter_async_context(session)
    return lambda name, arguments: _events(session, base + operator_channel.PREFIX + name, arguments)


async def _events(session: ClientSession, url: str, arguments: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    from aiohttp import ClientError  # noqa: PLC0415

    is_whole = False
    try:
        async with session.post(url, json=dict(arguments), allow_redirects=False) as answer:
            if answer.content_type != "application/x-ndjson":
                text = (await answer.text())[:500].strip()
                raise OperationFailed(text or f"{url} answered {answer.status}; is it a teepi of this version?")
            while line := await answer.content.readline(max_line_length=_LONGEST_LINE):
                event: dict[str, Any] = json.loads(line)
                if "error" in event:
                    raise OperationFailed(event["error"])
                is_whole = "result" in event
                yield event
    except (ClientError, OSError, ValueError) as error:
        raise OperationFailed(
            f"The teepi at {url} did not answer to the end: {str(error) or type(error).__name__}."
        ) from None
    if not is_whole:
        raise OperationFailed(f"The teepi at {url} ended before the operation did.")


async def _direct(stack: AsyncExitStack, settings: Settings) -> Call:
    """Work on the cache in this process, alone."""
    from teepi.catalog import Catalog  # noqa: PLC0415 - not needed where a server runs
    from teepi.directory import ROOT  # noqa: PLC0415
    from teepi.eviction import Keeper  # noqa: PLC0415
    from teepi.limits import Limits  # noqa: PLC0415
    from teepi.live import Live  # noqa: PLC0415
    from teepi.maintenance import recover  # noqa: PLC0415
    from teepi.metrics import Metrics  # noqa: PLC0415
    from teepi.operations import Operations  # noqa: PLC0415
    from teepi.store import DocumentStores, Store  # noqa: PLC0415
    from teepi.tasks import TaskScope  # noqa: PLC0415

    if not await asyncio.to_thread(settings.cache_dir.is_dir):
        raise StoreError(f"There is no cache in {settings.cache_dir} yet; name another with --cache-dir.")
    store = await asyncio.to_thread(Store, settings.cache_dir)
    stack.callback(store.close)
    try:
        await asyncio.to_thread(store.lock, _LOCK_WAIT_SECONDS)
    except StoreError:
        raise StoreError(
            f"A teepi uses {settings.cache_dir}, but its socket there does not answer; run this as its user, "
            "or name its address with --url."
        ) from None
    catalog = await asyncio.to_thread(Catalog.open, store.catalog_path)
    stack.push_async_callback(catalog.close)
    scope = TaskScope()
    stack.push_async_callback(scope.aclose)
    stores = DocumentStores.of(store)
    keeper = Keeper(store, catalog, stores, scope, Metrics())
    await keeper.begin(settings.max_size_bytes, settings.min_free_bytes)
    live = Live(settings)
    # What clients have made stands in the data directory, which is not looked into here.
    await recover(
        *(store, stores.pages, catalog, Limits(), keeper),
        lambda index: "" if index.startswith(f"{ROOT}/") else live.bound_to(index),
    )
    return _own(Operations(store, catalog, keeper, stores))


async def _direct_accounts(stack: AsyncExitStack, settings: Settings, *, begins: bool) -> Call:
    """Work on the data directory in this process, alone."""
    from teepi.account_operations import AccountOperations  # noqa: PLC0415 - not needed where a server runs
    from teepi.accounts import Accounts  # noqa: PLC0415
    from teepi.credentials import Credentials  # noqa: PLC0415
    from teepi.data import Archive  # noqa: PLC0415
    from teepi.live import Live  # noqa: PLC0415
    from teepi.tasks import TaskScope  # noqa: PLC0415

    if not begins and not await asyncio.to_thread(settings.data_dir.is_dir):
        raise StoreError(f"There is no data directory {settings.data_dir} yet; name another with --data-dir.")
    archive = Archive(settings.data_dir)
    stack.push_async_callback(archive.close)
    try:
        await asyncio.to_thread(archive.open, _LOCK_WAIT_SECONDS)
    except InUse:
        raise InUse(
            f"A teepi uses the data directory {settings.data_dir}, but no socket answers in {settings.cache_dir}: name "
            "its cache directory with --cache-dir, run this as its user, or name its address with --url."
        ) from None
    if archive.missing is not None:
        raise StoreError(
            f"The data directory {settings.data_dir} cannot be used ({archive.missing}): let this user write there, or "
            "name another with --data-dir."
        )
    scope = TaskScope()
    credentials = Credentials(scope)
    stack.callback(credentials.close)
    stack.push_async_callback(scope.aclose)
    live = Live(settings)
    accounts = Accounts(archive, credentials, live, live.made)
    await accounts.load()
    return _own(AccountOperations(accounts, live))


def _own(calls: Calls) -> Call:
    """Return what calls in this process."""

    async def call(name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        async with aclosing(calls.call(name, arguments)) as events:
            async for event in events:
                yield event

    return call
