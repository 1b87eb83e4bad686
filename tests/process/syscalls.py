"""Reads what ``strace -f -y`` wrote, and checks the order of calls that a power cut asks for.

No rename into the cache without an earlier sync of that file and a later sync of its directory; a new directory
is synced into the one above it. Calls of several threads interleave, so a call counts from its begin to its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

TRACED = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,linkat,mkdir,mkdirat"

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<more>.*)")
_BEGUN = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_DESCRIPTOR = re.compile(r"-?\d+<(?P<path>[^>]*)>")
_STRING = re.compile(r'"(?P<path>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One finished system call; ``began`` and ``ended`` count lines of the trace."""

    name: str
    arguments: str
    result: int | None
    """None: never returned."""
    began: int
    ended: int

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.result is not None and self.result >= 0

    @property
    def descriptor_path(self) -> str:
        """Path of the descriptor that is the first argument."""
        match = _DESCRIPTOR.match(self.arguments)
        return match["path"] if match else ""

    @property
    def paths(self) -> list[str]:
        """Paths among the arguments; those below a directory descriptor (``…at``) made whole."""
        found = []
        base = ""
        for part in re.finditer(rf"(?:AT_FDCWD|\d+)<([^>]*)>|{_STRING.pattern}", self.arguments):
            if part[1] is not None:
                base = part[1]
            else:
                found.append(str(PurePath(base or "/") / part["path"]))
        return found


def read(trace: str) -> list[Call]:
    """Return the calls of ``trace`` in the order of their ends; unfinished ones come last."""
    calls = []
    open_calls: dict[str, tuple[str, str, int]] = {}
    for number, text in enumerate(trace.splitlines()):
        line = _LINE.fullmatch(text)
        if line is None:
            continue
        thread, rest = line["thread"], line["rest"]
        began = number
        if begun := _BEGUN.fullmatch(rest):
            open_calls[thread] = begun["name"], begun["arguments"], number
            continue
        if resumed := _RESUMED.fullmatch(rest):
            name, arguments, began = open_calls.pop(thread)
            rest = f"{name}({arguments}{resumed['rest']}"
        if call := _CALL.fullmatch(rest):
            result = None if call["result"] == "?" else int(call["result"])
            calls.append(Call(call["name"], call["arguments"], result, began, number))
    return calls + [Call(name, arguments, None, began, began) for name, arguments, began in open_calls.values()]


def faults(calls: list[Call], root: str) -> list[str]:
    """Return what a power cut could spoil below ``root``, one sentence for each."""
    syncs = [(call.descriptor_path, call) for call in calls if call.name in {"fsync", "fdatasync"} and call.ok]
    writes = [(call.descriptor_path, call) for call in calls if call.name in {"write", "pwrite64"} and call.ok]
    found = []

    def synced_after(directory: str, call: Call) -> bool:
        return any(path == directory and sync.began > call.ended for path, sync in syncs)

    for call in calls:
        if not call.ok or not call.name.startswith(("rename", "link", "mkdir")):
            continue
        target = call.paths[-1]
        if not target.startswith(root + "/"):
            continue
        directory = str(PurePath(target).parent)
        if not synced_after(directory, call):
            found.append(f"{call.name} of {target} without a later sync of {directory}")
        if call.name.startswith("mkdir"):
            continue
        source = call.paths[0]
        written = max(
            (write.ended for path, write in writes if path == source and write.ended < call.began), default=-1
        )
        if not any(path == source and written < sync.began and sync.ended < call.began for path, sync in syncs):
            found.append(f"{call.name} to {target} without an earlier sync of {source}")
    return found
