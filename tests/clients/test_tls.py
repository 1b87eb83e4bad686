"""Installers that reach teepi over https."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.installers import CONFIGURED, Client, open_shop
from tests.support.certificates import make_pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess
    from tests.support.upstream import Upstream

pytestmark = pytest.mark.client


@pytest.mark.parametrize("name", ["pip", "uv"])
async def test_installer_installs_over_https_with_the_certificate_checked(
    make_process: MakeProcess, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """Set up by ``teepi configure``, no host trusted: without the authority's certificate it refuses."""
    client, shop = Client(name, tmp_path / "home"), open_shop(upstream, "json")
    pair = make_pair(tmp_path / "tls")
    teepi = await make_process(arguments=["--tls-cert", str(pair.cert), "--tls-key", str(pair.key)])
    client.fresh()
    await client.configure(teepi.url.replace("http:", "https:"))
    prefix = ["uv", "pip"] if name == "uv" else ["pip"]
    command = [*prefix, "install", "--target", str(client.target), "teetop"]
    code, said = await client.end(*command, **CONFIGURED, PIP_RETRIES="0", UV_HTTP_RETRIES="0")
    assert code != 0, said
    await client.run(*command, **CONFIGURED, PIP_CERT=str(pair.root), SSL_CERT_FILE=str(pair.root))
    assert await client.versions("teetop", "teebase", "teebuilt") == ["2.0", "1.5", "3.0"]
    shop.assert_fetched_once()
