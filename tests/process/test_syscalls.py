"""The program that checks the order of calls, on traces written by hand: it would see each fault."""

from __future__ import annotations

import pytest

from tests.process import syscalls

WRITE = '7 pwrite64(5</c/partial/x>, "abc"..., 3, 0) = 3'
SYNC = "7 fdatasync(5</c/partial/x>) = 0"
RENAME = '7 rename("/c/partial/x", "/c/files/x") = 0'
SYNC_DIRECTORY = "7 fsync(6</c/files>) = 0"
MAKE = '7 mkdir("/c/files/ab", 0777) = 0'


def faults(*lines: str) -> list[str]:
    """Check a trace below ``/c/files``."""
    return syscalls.faults(syscalls.read("\n".join(lines)), "/c/files")


def test_order_that_survives_has_no_faults() -> None:
    """Write, sync, rename, sync of the directory; also with calls of two threads interleaved."""
    assert faults(WRITE, SYNC, RENAME, SYNC_DIRECTORY) == []
    assert faults(MAKE, SYNC_DIRECTORY) == []
    unfinished = "7 fdatasync(5</c/partial/x> <unfinished ...>"
    assert faults(WRITE, unfinished, '8 write(1<pipe:[3]>, "x", 1) = 1', "7 <... fdatasync resumed>) = 0", RENAME,
                  SYNC_DIRECTORY) == []  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        (WRITE, RENAME, SYNC_DIRECTORY),
        (WRITE, SYNC, RENAME),
        (WRITE, SYNC, SYNC_DIRECTORY, RENAME),
        (SYNC, WRITE, RENAME, SYNC_DIRECTORY),
        (WRITE, RENAME, SYNC, SYNC_DIRECTORY),
        (WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), RENAME, SYNC_DIRECTORY),
        (WRITE, SYNC.replace("/x", "/other"), RENAME, SYNC_DIRECTORY),
        (MAKE,),
        (
            WRITE,
            "7 fdatasync(5</c/partial/x> <unfinished ...>",
            RENAME.replace("7 ", "8 "),
            "7 <... fdatasync resumed>) = 0",
            SYNC_DIRECTORY,
        ),
    ],
)
def test_order_that_a_power_cut_spoils_is_one_fault(lines: tuple[str, ...]) -> None:
    """A sync that is missing, early, late, failed, of another file, or not yet over."""
    assert len(faults(*lines)) == 1


def test_order_elsewhere_is_ignored() -> None:
    """Notes beside a partial are worthless after a power cut and need no sync."""
    assert faults('7 rename("/c/partial/.x", "/c/partial/x.json") = 0') == []


def test_paths_below_a_directory_descriptor_are_whole() -> None:
    """The ``…at`` calls name a directory and a path below it."""
    text = '7 renameat2(AT_FDCWD</c>, "partial/x", 4</c/files>, "ab/x", RENAME_NOREPLACE) = 0'
    [call] = syscalls.read(text)
    assert call.paths == ["/c/partial/x", "/c/files/ab/x"]
