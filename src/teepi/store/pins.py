"""What is never evicted: a small file of its own, which a lost catalogue does not lose.

Methods block; callers run them in a thread.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from teepi.disk import replace_file

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Pins:
    """Projects (normalised) and files (sha256 to file name)."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; a damaged one is said and begun anew."""
        self.projects: frozenset[str] = frozenset()
        self.files: dict[str, str] = {}
        self._path = path
        try:
            content = json.loads(path.read_bytes())
            self.projects = frozenset(map(str, content["projects"]))
            self.files = {str(sha256): str(name) for sha256, name in content["files"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("The pins in %s cannot be read (%r); nothing is pinned.", path, error)

    def set(self, projects: frozenset[str], files: dict[str, str]) -> None:
        """Replace all pins. Raises OSError, leaving them as they were."""
        content = {"projects": sorted(projects), "files": files}
        replace_file(self._path, json.dumps(content, indent=1).encode())
        self.projects, self.files = projects, files
