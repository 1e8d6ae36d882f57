"""Install the peers, one by one: those that fail to install are named, and the others still run.

``python -m benchmarks.install`` installs the group ``bench`` of pyproject.toml, at the versions of
``constraints.txt``, into the environment that runs it, and hyperdht beside this file if there is
npm. A NATS server has to come from the system (Debian: ``nats-server``).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def _succeeds(command: list[str], folder: Path = HERE) -> bool:
    return subprocess.run(command, cwd=folder, check=False).returncode == 0  # noqa: S603


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for name in ("constraints.txt", "benchmarks/constraints.txt"):
        pip += ["--constraint", str(HERE.parent / name)]
    peers = project["project"]["optional-dependencies"]["bench"]
    missing = [peer for peer in peers if not _succeeds([*pip, peer])]
    npm = shutil.which("npm")
    if npm is None or not _succeeds([npm, "install", "--silent", "--no-audit", "--no-fund"]):
        missing.append("hyperdht")
    if shutil.which("nats-server") is None:
        missing.append("nats-server")
    print(f"not installed: {', '.join(missing)}" if missing else "all peers are installed")


if __name__ == "__main__":
    main()
