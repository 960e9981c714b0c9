"""Print what a test environment needs, one requirement per word: the build's requirements and the dev extra, all pinned.

Owns: nothing; pyproject.toml does. Never: an import beyond the standard library of Debian's Python, which has tomllib.
"""

from pathlib import Path

import tomllib

project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
print(*project["build-system"]["requires"], *project["project"]["optional-dependencies"]["dev"])
