"""Explore as far as you like: python -m tests.model PROCESSES CLAIMS FAULTS SERIES."""

from __future__ import annotations

import sys

from tests.model.explorer import explore
from tests.model.parts import Bounds, Rules


def main() -> int:
    processes, claims, faults, series = map(int, sys.argv[1:5])
    bounds = Bounds(processes=processes, claims=claims, faults=faults, series=series)
    found = explore(Rules(), bounds)
    print(f"{bounds}: {found.states:,} states, {found.steps:,} steps, broken: {found.broken}")
    print("\n".join(found.story), end="\n" if found.story else "")
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
