"""A real S3 server on this machine (rclone's): folders are buckets, and signatures are checked."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "AKIAOUTBOX", "bucket-secret/+5d20"
BUCKET = "files"
DEADLINE_S = 20.0


@dataclass(frozen=True)
class S3Server:
    """Where it is, and the folder that is the bucket."""

    port: int
    folder: Path

    def url(self, path: str = BUCKET, *, login: str = "AKIAOUTBOX:bucket-secret%2F%2B5d20") -> str:
        return f"s3+http://{login}@127.0.0.1:{self.port}/{path}"

    def put(self, key: str, content: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server over `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / BUCKET).mkdir(parents=True)
    rclone = Path(sys.executable).parent / "rclone"
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", ""]
    process = subprocess.Popen(
        [rclone, "serve", "s3", *options, "--dir-cache-time", "0s", folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port)
        yield S3Server(port, folder / BUCKET)
    finally:
        process.kill()
        process.wait()


def _wait(port: int) -> None:
    ends = time.monotonic() + DEADLINE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)
