"""Where options stand in an INI file, by the rules of ``configparser``, which pip reads its files with."""

from __future__ import annotations

import configparser
import io
from dataclasses import dataclass, field

from teepi.clients.marks import Edit, lines_of
from teepi.origins import hide_user_info_in


class _Parser(configparser.RawConfigParser):
    """As pip has it: ``index_url`` and ``--index-url`` are one option."""

    def optionxform(self, optionstr: str) -> str:
        return _normal(optionstr)


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").removeprefix("--")


def read(text: str) -> dict[str, dict[str, str]]:
    """Return the options by section. Raises ValueError with the reason and the line."""
    parser = _Parser()
    try:
        parser.read_file(io.StringIO(text, newline=None))
        return {name: dict(parser.items(name)) for name in parser.sections()}
    except (configparser.Error, AttributeError) as error:  # a value of an option without "=" goes on: a flaw of 3.11
        reason = " ".join(str(error).replace("'<???>', ", "").replace("<???>", "it").split())
        raise ValueError(hide_user_info_in(reason)) from None  # it quotes lines


@dataclass(slots=True)
class _Section:
    header: int
    options: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First line and the one behind the last."""


def set_options(text: str, section: str, options: dict[str, str]) -> list[Edit]:
    """Return the edits after which ``section`` has ``options``; none for those that are so already."""
    now = read(text).get(section, {})
    missing = {name: value for name, value in options.items() if now.get(name) != value}
    found = _sections(text).get(section)
    if found is None:
        end = len(lines_of(text))
        lines = [f"[{section}]", *_written(missing)]
        return [Edit(end, end, tuple(lines))] if missing else []
    edits = [
        Edit(*found.options[name], tuple(_written({name: value})))
        for name, value in missing.items()
        if name in found.options
    ]
    added = _written({name: value for name, value in missing.items() if name not in found.options})
    if added:
        edits.append(Edit(found.header + 1, found.header + 1, tuple(added)))
    return edits


def _written(options: dict[str, str]) -> list[str]:
    return [f"{name} = {value}" for name, value in options.items()]


def _sections(text: str) -> dict[str, _Section]:
    """Find sections and options as ``configparser`` does: more indented lines go on with a value."""
    sections: dict[str, _Section] = {}
    section: _Section | None = None
    option: str | None = None
    indent = 0
    for number, line in enumerate(lines_of(text)):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        deeper = len(line) - len(line.lstrip())
        if section is not None and option is not None and deeper > indent:
            section.options[option] = (section.options[option][0], number + 1)
            continue
        indent = deeper
        header = configparser.RawConfigParser.SECTCRE.match(content)
        if header is not None:
            section, option = sections.setdefault(header["header"], _Section(number)), None
        elif section is not None:
            option = _normal(content.replace(":", "=").partition("=")[0])
            section.options[option] = (number, number + 1)
    return sections
