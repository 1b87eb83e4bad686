"""What has to be built, and what a build's log says of its failure."""

from __future__ import annotations

import asyncio
import netrc
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import parse_tag

from teepi.building import Builder, Interpreter, Step, Task, decide, group
from teepi.errors import BadInput
from teepi.resolving import ServedIndex, cause, pip_environment, with_login
from teepi.wanted import Wanted

TAGS = parse_tag("cp311-cp311-linux_x86_64") | parse_tag("py3-none-any")
SDIST = Wanted("some-thing", "some_thing-1.0.tar.gz", None, "http://127.0.0.1/some_thing-1.0.tar.gz", "1.0")
WHEEL = Wanted("some-thing", "some_thing-1.0-py3-none-any.whl", None, "http://127.0.0.1/x", "1.0")
OWN = "Some_Thing-1.0.0-cp311-cp311-linux_x86_64.whl"


@pytest.mark.parametrize(
    ("wanted", "own", "expected"),
    [
        (SDIST, [], None),
        (SDIST, ["some_thing-1.0.tar.gz"], None),
        (SDIST, [OWN], Step.EXISTS),
        (SDIST, [OWN.replace("cp311", "cp312")], None),
        (SDIST, [OWN.replace("1.0.0", "1.1")], None),
        (SDIST, ["no wheel.whl"], None),
        (WHEEL, [], Step.READY),
        (WHEEL, [OWN], Step.EXISTS),
        (Wanted("here", "here", None, "file:///x/here", "1.0"), [], Step.LEFT_OUT),
        (Wanted("here", "here.git", None, "https://git.example/here.git", "1.0"), [], Step.LEFT_OUT),
    ],
)
def test_wheel_is_made_only_of_what_has_none_for_the_interpreter(
    wanted: Wanted, own: list[str], expected: Step | None
) -> None:
    """Neither another version's, nor another Python's, nor an sdist counts; equal versions are equal."""
    assert decide(wanted, TAGS, own) is expected


def test_tasks_of_one_project_stay_together_in_their_order() -> None:
    """So that the wheel of the first interpreter can serve the next."""
    one, two = (Interpreter(path, "3.11", TAGS) for path in "ab")
    other = Wanted("other", "other-1.tar.gz", None, "u", "1")
    tasks = [Task(one, SDIST), Task(one, other), Task(two, SDIST)]
    assert group(tasks) == [[tasks[0], tasks[2]], [tasks[1]]]


def test_interpreter_knows_its_version_and_tags() -> None:
    """Asked of the interpreter itself, with nothing installed there."""
    python = Interpreter.at(sys.executable)
    assert python.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert parse_tag("py3-none-any") <= python.tags
    with pytest.raises(BadInput, match="--python /bin/false is no Python"):
        Interpreter.at("/bin/false")


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            (
                "  ╰─> [2 lines of output]\n      File x\n      error: no gcc\n      [end of output]\n"
                "  ERROR: Failed building wheel for x\nERROR: Failed to build one or more wheels\n"
            ),
            "error: no gcc",
        ),
        ("Looking\nERROR: Could not find y\nhint: see above\n", "Could not find y"),
        ("killed\n\n", "killed"),
        ("", "no reason given"),
        ("[end of output]", "[end of output]"),
    ],
)
def test_cause_is_the_last_line_that_the_build_said(log: str, said: str) -> None:
    """Not pip's summary, which names the package alone."""
    assert cause(log) == said


class _Index:
    """Stands for an index without a file of its own."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def own_files(self, _index: str, _project: str) -> list[Any]:
        return []

    async def download(self, _url: str, path: Path) -> None:
        await asyncio.to_thread(path.touch)

    async def upload(self, _index: str, _fields: Any, _path: Path, filename: str) -> bool:
        self.sent.append(filename)
        return True


async def test_wheel_that_was_made_for_one_interpreter_serves_the_next(tmp_path: Path) -> None:
    """It is not made again."""
    index = _Index()
    source = ServedIndex("http://127.0.0.1:1/admin/dev/", None)
    builder = Builder(index, "admin/dev", source, tmp_path, (), takes_all=True, is_dry=False)  # type: ignore[arg-type]
    interpreters = [Interpreter(version, version, TAGS) for version in ("3.11", "3.12")]
    steps = [(await builder.do(Task(each, WHEEL))).step for each in interpreters]
    assert steps == [Step.COPIED, Step.EXISTS]
    assert index.sent == [WHEEL.filename]


def test_login_for_pip_is_a_file_of_ours_beside_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the password is made of; of a host that has one already ours counts; afterwards it is gone."""
    own = tmp_path / "own"
    own.write_text("machine files.example login a password b\nmachine index.example login c password d")
    monkeypatch.setenv("NETRC", str(own))
    there = ServedIndex("https://index.example:3141/admin/dev/", None)
    password = 'a "b\\c #d\\" é'  # noqa: S105 - of a test
    with with_login(there, "admin", password) as known:
        path = Path(pip_environment(known)["NETRC"])
        hosts = netrc.netrc(path).hosts
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert hosts == {"files.example": ("a", "", "b"), "index.example": ("admin", "", password)}
    assert not path.exists()
    own.write_text("machine files.example nonsense")
    with with_login(there, "admin", password) as known:
        assert list(netrc.netrc(pip_environment(known)["NETRC"]).hosts) == ["index.example"]
