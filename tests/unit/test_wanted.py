"""What lock files and pip's report ask for, for a Python and a platform."""

from __future__ import annotations

import json

import pytest

from teepi.errors import BadInput
from teepi.wanted import Target, Wanted, read_lock, read_report

A, B, C = "a" * 64, "b" * 64, "c" * 64
LINUX = Target.of("3.12", ["manylinux_2_28_x86_64"])
MAC = Target.of("3.12", ["macosx_11_0_arm64"])

UV_LOCK = f"""
version = 1
requires-python = ">=3.11"
[[package]]
name = "mine"
version = "0.1"
source = {{ editable = "." }}
[[package]]
name = "Some.Thing"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ url = "https://files.example/some_thing-1.0.tar.gz", hash = "sha256:{C}", size = 3 }}
wheels = [
    {{ url = "https://files.example/some_thing-1.0-py3-none-any.whl", hash = "sha256:{A}" }},
    {{ url = "https://files.example/some_thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", hash = "sha256:{B}" }},
]
[[package]]
name = "old"
version = "2"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ url = "https://files.example/old-2.tar.gz", hash = "md5:123" }}
[[package]]
name = "windows-only"
version = "2"
source = {{ registry = "https://index.example/simple" }}
wheels = [{{ url = "https://files.example/windows_only-2-cp312-cp312-win_amd64.whl", hash = "sha256:{A}" }}]
"""

PYLOCK = f"""
lock-version = "1.0"
created-by = "test"
[[packages]]
name = "some-thing"
version = "1.0"
[[packages.wheels]]
url = "https://files.example/some_thing-1.0-py3-none-any.whl"
hashes = {{ sha256 = "{A}" }}
[[packages]]
name = "mac-only"
version = "1.0"
marker = "sys_platform == 'darwin'"
[packages.sdist]
name = "mac_only-1.0.tar.gz"
url = "https://files.example/x"
hashes = {{ sha256 = "{B}" }}
[[packages]]
name = "here"
[packages.directory]
path = "."
"""


def test_uv_lock_gives_the_best_wheel_for_the_target_else_the_sdist() -> None:
    """Of a lock for all platforms, what one of them needs; the project itself comes from no index."""
    assert read_lock(UV_LOCK, "uv.lock", LINUX) == [
        Wanted("some-thing", "some_thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", B),
        Wanted("old", "old-2.tar.gz", None),
    ]
    assert read_lock(UV_LOCK, "uv.lock", MAC)[0] == Wanted("some-thing", "some_thing-1.0-py3-none-any.whl", A)


def test_pylock_is_selected_by_markers_of_the_target() -> None:
    """PEP 751 says which packages a platform needs."""
    wheel = Wanted("some-thing", "some_thing-1.0-py3-none-any.whl", A)
    assert read_lock(PYLOCK, "pylock.toml", LINUX) == [wheel]
    assert read_lock(PYLOCK, "pylock.toml", MAC) == [wheel, Wanted("mac-only", "mac_only-1.0.tar.gz", B)]


def test_target_without_wishes_is_this_machine() -> None:
    """What runs the command is what files are chosen for."""
    assert read_lock(UV_LOCK, "uv.lock", Target.of())[0].project == "some-thing"


@pytest.mark.parametrize("python", ["3", "three", "3.x", "3.12.1.1", "٣.12"])
def test_target_of_no_python_is_refused(python: str) -> None:
    """A wrong version is one sentence."""
    with pytest.raises(BadInput, match="--python"):
        Target.of(python)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "not TOML"),
        ("", "neither a pylock.toml"),
        ('lock-version = "9.0"\ncreated-by = "x"\npackages = []', "cannot be used"),
        ('lock-version = "1.0"', "cannot be used"),
        ("version = 1\n[[package]]\nname = 1\nsource = {registry = 'x'}\nsdist = {hash = 'x'}", "no uv.lock"),
        ("version = 1\npackage = 3", "no uv.lock"),
        ("version = 1\npackage = [3]", "no uv.lock"),
        (
            "version = 1\n[[package]]\nname = 'x'\nsource = {registry = 'x'}\nsdist = {url = 'http://[::1/x'}",
            "Invalid IPv6 URL",
        ),
        (
            (
                'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "x"\nversion = "1"\n'
                '[packages.archive]\nurl = "http://[::1/x.zip"\nhashes = {sha256 = "00"}'
            ),
            "Invalid IPv6 URL",
        ),
    ],
)
def test_lock_file_that_cannot_be_read_is_named_with_the_reason(text: str, said: str) -> None:
    """No traceback, whatever the file holds."""
    with pytest.raises(BadInput, match=said) as caught:
        read_lock(text, "some.lock", LINUX)
    assert "some.lock" in caught.value.message


def test_report_of_pip_gives_names_digests_and_urls() -> None:
    """What pip has resolved is fetched as it stands."""
    url = "http://127.0.0.1:3141/root/pypi/+files/files.example/six-1.17.0+x%2By.whl"
    item = {
        "metadata": {"name": "Six"},
        "download_info": {"url": url, "archive_info": {"hashes": {"sha256": A}}},
    }
    assert read_report(json.dumps({"install": [item]})) == [Wanted("six", "six-1.17.0+x+y.whl", A, url)]
    for wrong in ("", "[]", '{"install": [1]}', '{"install": [{}]}'):
        with pytest.raises(BadInput, match="report"):
            read_report(wrong)
