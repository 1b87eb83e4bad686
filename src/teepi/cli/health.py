"""``teepi health``: one request, for a container's HEALTHCHECK. It imports no more than it needs to stay quick."""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

import click

from teepi import tls
from teepi.cli.console import complain, effective, settings_options

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - asked here, listened on there
_UNUSED: Final = "http://unused.invalid/"  # looking the default upstream up would cost half of the time


@click.command("health")
@click.argument("url", required=False)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=4.0, show_default=True, help="Seconds to wait.")
@settings_options("listen", "tls_cert", "tls_key")
def command(*, url: str | None, timeout: float, **arguments: str | None) -> int:
    """Ask whether teepi answers at URL; exit status 0 if it does, 1 if it does not.

    Without URL the address is the one that 'teepi serve' would listen on with the same settings, and with tls_cert
    the certificate has to be that one, whatever its names.
    """
    trust = None
    if url is None:
        settings = effective(arguments | {"upstream": _UNUSED}).settings
        host, port = settings.listen[0]
        host = _ANYWHERE.get(host, host)
        url = f"{settings.scheme}://[{host}]:{port}" if ":" in host else f"{settings.scheme}://{host}:{port}"
        trust = tls.trusting(settings.tls_cert) if settings.tls_cert is not None else None
    began = time.monotonic()
    problem = _problem(url, timeout, trust)
    if problem is not None:
        complain(f"{url} is not healthy: {problem}.")
        return 1
    print(f"{url} is healthy ({1000 * (time.monotonic() - began):.0f} ms).")
    return 0


def _problem(url: str, timeout: float, trust: ssl.SSLContext | None) -> str | None:
    """Return what is wrong with the server at ``url``, None when nothing is. Raises click.UsageError for a bad URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        msg = f"{url!r} is no URL of a server; write http://HOST:PORT"
        raise click.UsageError(msg)
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=timeout, context=trust)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", parts.path.rstrip("/") + "/healthz", headers={"User-Agent": "teepi health"})
        response = connection.getresponse()
        said = response.read(1000)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except ssl.SSLError as error:
        return f"TLS failed, {error.reason or error}"
    except OSError as error:
        return error.strerror or str(error)
    except http.client.HTTPException as error:
        return f"what answers is no HTTP server ({type(error).__name__})"
    finally:
        connection.close()
    if response.status != http.client.OK or said.strip() != b"ok":
        return f"/healthz is answered with {response.status} {response.reason}, and not by teepi's ok"
    return None
