"""The certificate files: what is wrong with them is said in one sentence, and nobody is asked for a password."""

from __future__ import annotations

import os
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from teepi import tls
from teepi.cli import main
from teepi.errors import ConfigError
from tests.support.certificates import Pair, make_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Give a certificate and its key."""
    return make_pair(tmp_path / "tls")


def encrypt(pair: Pair) -> None:
    """Put a password on the key."""
    command = ["openssl", "pkey", "-in", str(pair.key), "-aes256", "-passout", "pass:secret"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    pair.key.write_bytes(done.stdout)


def take_another_key(pair: Pair) -> None:
    """Renew both and keep the former certificate."""
    cert = pair.cert.read_bytes()
    pair.renew()
    pair.cert.write_bytes(cert)


def put_a_directory(pair: Pair) -> None:
    """In the place of the key."""
    pair.key.unlink()
    pair.key.mkdir()


WRONG: dict[str, tuple[Callable[[Pair], object], str]] = {
    "no certificate": (lambda pair: pair.cert.unlink(), "tls_cert: {cert} cannot be read (No such file or directory)"),
    "no key": (lambda pair: pair.key.unlink(), "tls_key: {key} cannot be read (No such file or directory)"),
    "a directory": (put_a_directory, "tls_key: {key} cannot be read (Is a directory)"),
    "swapped": (
        lambda pair: pair.cert.write_bytes(pair.key.read_bytes()),
        "tls_cert: {cert} has no certificate in PEM form",
    ),
    "key is a certificate": (
        lambda pair: pair.key.write_bytes(pair.cert.read_bytes()),
        "tls_key: {key} has no private key in PEM form",
    ),
    "mismatch": (take_another_key, "tls_key: {key} is not the key of the first certificate in {cert}"),
    "encrypted": (encrypt, "tls_key: {key} is encrypted"),
    "broken": (
        lambda pair: pair.cert.write_bytes(pair.cert.read_bytes()[:200] + b"\n-----END CERTIFICATE-----\n"),
        "tls_cert {cert} and tls_key {key} cannot be used (",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_pair_that_cannot_be_used_is_one_sentence_also_in_config_check(
    pair: Pair, xdg_home: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """What is wrong with which file, and what to do; exit status 2."""
    assert main(["config", "check", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]) == 0
    capsys.readouterr()
    spoil, said = WRONG[case]
    spoil(pair)
    with pytest.raises(ConfigError) as caught:
        tls.Certificate(pair.cert, pair.key)
    assert caught.value.message.startswith(said.format(cert=pair.cert, key=pair.key))
    assert caught.value.message.endswith(".")
    assert "; " in caught.value.message
    assert main(["config", "check", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]) == 2
    assert capsys.readouterr().err == f"teepi: {caught.value.message}\n"
    assert xdg_home.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_key_of_somebody_else_is_one_sentence(pair: Pair) -> None:
    """The usual case: root has it, and teepi is not root."""
    pair.key.chmod(0)
    with pytest.raises(ConfigError, match=r"tls_key: .* cannot be read \(Permission denied\); name a PEM file that"):
        tls.Certificate(pair.cert, pair.key)


@pytest.mark.parametrize(("one", "other"), [("cert", "key"), ("key", "cert")])
def test_one_file_without_the_other_is_refused(
    pair: Pair, xdg_home: Path, capsys: pytest.CaptureFixture[str], one: str, other: str
) -> None:
    """It names where the one was set."""
    file = xdg_home / "some.toml"
    file.write_text(f'\ntls_{one} = "{pair.cert}"\n')
    assert main(["config", "check", "--config", str(file)]) == 2
    said = f"teepi: tls_{one} is set ({file}, line 2) and tls_{other} is not: name both PEM files for https, none for "
    assert capsys.readouterr().err == f"{said}http.\n"


def test_paths_in_the_file_are_relative_to_it(pair: Pair, xdg_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As every path is."""
    file = pair.directory / "some.toml"
    file.write_text('tls_cert = "fullchain.pem"\ntls_key = "privkey.pem"\n')
    assert main(["config", "show", "--json", "--config", str(file)]) == 0
    assert f'"value": "{pair.cert}"' in capsys.readouterr().out
    assert xdg_home.is_dir()


def test_context_takes_nothing_older_than_tls_1_2(pair: Pair) -> None:
    """1.0 and 1.1 are deprecated (RFC 8996)."""
    assert tls.Certificate(pair.cert, pair.key).context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_configure_says_https_and_has_pip_trust_nothing(
    pair: Pair, xdg_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``trusted-host`` would switch the check of the certificate off."""
    line = ["configure", "pip", "uv", "--print", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert said.count("https://127.0.0.1:3141/root/pypi/+simple/") == 2
    assert "http://" not in said
    assert "trusted-host" not in said
    assert xdg_home.is_dir()
