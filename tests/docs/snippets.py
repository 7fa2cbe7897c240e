"""The code in the documents, as one shell script a document that runs it from top to bottom.

A block of `sh`, `python`, `sql` or `js` is run, unless the line before it says why not:

    <!-- not run: it needs a cluster -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"```(?P<language>sh|python|sql|js)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
_RUN_BY = {
    "python": "python3 -",
    "sql": 'psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 "$ADMIN_URL"',
    "js": "node --input-type=module -",
}


@dataclass(frozen=True)
class Snippet:
    """One block. `reason`: why it is not run."""

    path: Path
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} ({self.language})"


def snippets_of(path: Path) -> list[Snippet]:
    """Return a document's blocks of code, in their order."""
    text = path.read_text(encoding="utf-8")
    return [
        Snippet(
            path,
            text.count("\n", 0, found.start("code")),
            found["language"],
            found["code"],
            found["reason"],
        )
        for found in _BLOCK.finditer(text)
    ]


def script_of(snippets: list[Snippet]) -> str:
    """Return a bash script that runs them; what a shell exports, the next blocks see."""
    return "\n".join(["set -euo pipefail", *_lines(snippets)])


def _lines(snippets: list[Snippet]) -> Iterator[str]:
    for snippet in snippets:
        if snippet.reason is not None:
            continue
        yield f"echo '== {snippet}' >&2"
        if snippet.language == "sh":
            yield snippet.code
        else:
            yield f"{_RUN_BY[snippet.language]} <<'END_OF_SNIPPET'\n{snippet.code}END_OF_SNIPPET"
