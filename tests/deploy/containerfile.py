"""Builds the stages of a Containerfile into directories, without a container engine.

The steps are the file's own. What stands in for what cannot be had here: the base image is this
machine (its /usr and its Python), and uv is the one of `.venv`. Steps run in a mount namespace of
their own, on an overlay over this machine's root, so that they change nothing but their stage.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy/Containerfile"
AS_ROOT = ("unshare", "--mount")


@dataclass(frozen=True)
class Step:
    """One instruction: `options` are its `--name=value`."""

    word: str
    options: tuple[str, ...]
    rest: str

    @property
    def words(self) -> list[str]:
        """The arguments, whether written as JSON or with spaces."""
        if self.rest.startswith("["):
            found: list[str] = json.loads(self.rest)
            return found
        return shlex.split(self.rest)

    def option(self, name: str) -> str | None:
        """Return an option's value."""
        start = f"--{name}="
        return next((o.removeprefix(start) for o in self.options if o.startswith(start)), None)


def steps_of(path: Path = CONTAINERFILE) -> Iterator[Step]:
    """Yield the instructions of a Containerfile."""
    lines = [line for line in path.read_text().splitlines() if not re.match(r"\s*(#|$)", line)]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        options: list[str] = []
        while rest.startswith("--"):
            option, _, rest = rest.partition(" ")
            options.append(option)
            rest = rest.lstrip()
        yield Step(word.upper(), tuple(options), rest)


@dataclass
class Stage:
    """What one FROM has come to."""

    base: str
    folder: Path
    name: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """Return where a path of the stage lies on this machine."""
        return self.folder / os.path.normpath(os.path.join(self.workdir, path)).lstrip("/")


def build(into: Path, *, context: Path = ROOT, python: Path, uv: Path) -> Stage:
    """Build all stages into folders below `into`; return the last: the image."""
    stages: list[Stage] = []
    base_path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
    for step in steps_of():
        if step.word == "FROM":
            base, *name = step.words
            stage = Stage(base, into / str(len(stages)), name[1] if name else None)
            stage.environment["PATH"] = base_path
            stage.folder.mkdir()
            stages.append(stage)
            continue
        stage = stages[-1]
        match step.word:
            case "COPY":
                _copy(stage, step, {s.name: s for s in stages}, context=context, uv=uv)
            case "RUN":
                _run(stage, step, into)
            case "ENV":
                for pair in step.words:
                    key, _, value = pair.partition("=")
                    path = stage.environment["PATH"]
                    stage.environment[key] = value.replace("$PATH", path)
            case "USER":
                stage.user = step.rest
            case "WORKDIR":
                stage.workdir = step.rest
                stage.inside("").mkdir(parents=True, exist_ok=True)
            case "ENTRYPOINT":
                stage.entrypoint = step.words
            case "CMD":
                stage.command = step.words
            case "LABEL" | "EXPOSE":
                pass
            case _:
                raise NotImplementedError(f"{step.word} is not known here: add it")
    return stages[-1]


def _copy(
    stage: Stage, step: Step, stages: dict[str | None, Stage], *, context: Path, uv: Path
) -> None:
    *sources, target = step.words
    start = step.option("from")
    into = stage.inside(target)
    for source in sources:
        if start is None:
            _copy_tree(context / source, into / source if target == "./" else into, _ignored)
        elif start in stages:
            _copy_tree(stages[start].folder / source.lstrip("/"), into, lambda _: False)
        elif source == "/uv":
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(uv, into)
        else:
            raise NotImplementedError(f"what stands in for {start}?")


def _copy_tree(source: Path, target: Path, ignored: object) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__") if ignored is _ignored else None
        shutil.copytree(source, target, symlinks=True, ignore=ignore)
    else:
        if ignored is _ignored and _ignored(source.name):
            raise FileNotFoundError(f".dockerignore keeps {source} out of the context")
        shutil.copy2(source, target)


def _ignored(name: str) -> bool:
    """Tell whether .dockerignore leaves a top-level name out: the last match counts."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if fnmatch.fnmatch(name, line.lstrip("!")):
            out = not line.startswith("!")
    return out


def _run(stage: Stage, step: Step, into: Path) -> None:
    """Run a step on an overlay of its stage over this machine, which it cannot change."""
    work, merged = into / "work", into / "merged"
    for folder in (work, merged):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    layers = f"lowerdir=/,upperdir={stage.folder},workdir={work}"
    environment = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in stage.environment.items())
    script = (
        f"set -e\nmount -t overlay overlay -o {layers} {merged}\n"
        f"for each in dev proc; do mount --rbind /$each {merged}/$each; done\n"
        f"mount -t tmpfs tmpfs {merged}/tmp\n"
        f"exec chroot {merged} /bin/sh -c "
        + shlex.quote(f"{environment}cd {stage.workdir}\n{step.rest}")
    )
    subprocess.run([*AS_ROOT, "sh", "-c", script], check=True)
