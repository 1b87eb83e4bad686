"""teepi that speaks TLS, as a real process: what it says, the commands that ask it, and a renewed certificate."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.process.test_health import health
from tests.support.certificates import Pair, make_pair
from tests.support.clients import TlsClient
from tests.support.teepi import DidNotStart, scrubbed_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeProcess


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Give a certificate for 127.0.0.1."""
    return make_pair(tmp_path / "tls")


def flags(pair: Pair) -> list[str]:
    """Return the flags that name it."""
    return ["--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]


async def test_renewed_certificate_is_read_on_sighup_and_a_bad_one_is_not(
    make_process: MakeProcess, pair: Pair
) -> None:
    """A connection that there is goes on."""
    teepi = await make_process(arguments=flags(pair))
    async with await TlsClient.connect_tls(teepi.address, pair.trust) as old:
        renewed = pair.renew()
        teepi.signal(signal.SIGHUP)
        await teepi.said("The settings were read again.")
        async with await TlsClient.connect_tls(teepi.address, pair.trust) as new:
            assert new.certificate == renewed
        assert (await old.get("/healthz")).status == 200
        pair.key.write_bytes(b"")
        teepi.signal(signal.SIGHUP)
        await teepi.said(f"The certificate stays as it was: tls_key: {pair.key} has no private key in PEM form;")
        async with await TlsClient.connect_tls(teepi.address, pair.trust) as new:
            assert new.certificate == renewed
    assert await teepi.terminate() == 0
    assert "Traceback" not in teepi.stderr


async def test_start_with_a_bad_pair_is_one_sentence(make_process: MakeProcess, pair: Pair) -> None:
    """It does not fall back to http."""
    pair.key.unlink()
    with pytest.raises(DidNotStart) as caught:
        await make_process(arguments=flags(pair))
    assert caught.value.exit_code == 2
    assert caught.value.stderr.count("\n") == 1
    assert f"tls_key: {pair.key} cannot be read (No such file or directory);" in caught.value.stderr


async def test_hello_health_and_doctor_say_https(make_process: MakeProcess, pair: Pair, tmp_path: Path) -> None:
    """The commands know the server by the certificate in the settings, which no authority of the system signed."""
    teepi = await make_process(arguments=flags(pair))
    port = teepi.address[1]
    base = f"https://127.0.0.1:{port}"
    assert f"listens on {base}\n" in teepi.stdout
    assert f"pip install --index-url {base}/root/pypi/+simple/ PROJECT" in teepi.stdout
    assert "http://127.0.0.1:" not in teepi.stdout.replace(teepi.stdout.partition(" mirrors ")[2].split("\n")[0], "")
    environment = {
        "TEEPI_LISTEN": f"0.0.0.0:{port}",
        "TEEPI_TLS_CERT": str(pair.cert),
        "TEEPI_TLS_KEY": str(pair.key),
    }
    status, out, err = await health(tmp_path, **environment)
    assert (status, err) == (0, "")
    assert out.startswith(f"{base} is healthy (")
    status, _, err = await health(tmp_path, base)  # as anybody else would ask
    assert status == 1
    assert err.startswith(f"teepi: {base} is not healthy: TLS failed, CERTIFICATE_VERIFY_FAILED")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "teepi", "doctor", "--offline"),
        stdout=asyncio.subprocess.PIPE,
        env=scrubbed_environment(tmp_path) | environment,
    )
    said = (await process.communicate())[0].decode()
    assert f" answers at {base}/ in " in said
    other = make_pair(tmp_path / "other")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "teepi", "doctor", "--offline", *flags(other)),
        stdout=asyncio.subprocess.PIPE,
        env=scrubbed_environment(tmp_path) | environment,
    )
    said = (await process.communicate())[0].decode()
    assert f"What answers at {base}/ does not show the certificate {other.cert}" in said
