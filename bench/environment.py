"""Peers that do not install where we are: each in an environment of its own, made once under `bench/.work/`.

`peers/NAME.txt` pins everything that is in it; the folder's name changes with that file and with Python's version. Every
command is bounded in time, and what cannot be done is one line that says why.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import work
from bench.options import tell

HERE = Path(__file__).parent / "peers"
MOST_SECONDS = 20 * 60  # for any one command


class Unavailable(RuntimeError):
    """A peer could not be installed or run; the text says why."""


class Missing(Unavailable):
    """A peer could not be installed."""


@dataclass(frozen=True)
class Environment:
    """The environment of one peer. alone: its file names all it needs, and what its packages ask for besides is left out."""

    name: str
    alone: bool = False

    @property
    def requirements(self) -> Path:
        return HERE / f"{self.name}.txt"

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        wanted = work.digest([self.requirements.read_bytes(), platform.python_version().encode()])[:12]
        return work.FOLDER / self.name / wanted

    def pins(self) -> dict[str, str]:
        """The version of every package in it."""
        return dict(line.split("==") for line in self.requirements.read_text().split() if "==" in line)

    def run(
        self,
        command: list[str | Path],
        doing: str,
        given: str | None = None,
        cwd: Path | None = None,
        most: float | None = None,
        threads: int = 1,
    ) -> str:
        """What a command prints. `Unavailable` if it fails or takes more than `most` seconds."""
        quiet = {**os.environ, "OMP_NUM_THREADS": str(threads), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        quiet.pop("PYTHONPATH", None)
        try:
            ran = subprocess.run(
                command, input=given, cwd=cwd, env=quiet, capture_output=True, text=True, timeout=most or MOST_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{self.name}: {doing}: {error}") from None
        if ran.returncode:
            last = (ran.stderr.strip() or ran.stdout.strip() or f"exit status {ran.returncode}").splitlines()[-1]
            raise Unavailable(f"{self.name}: {doing}: {last}")
        return ran.stdout

    def interpreter(self) -> Path:
        """Python in it; made when it is not there yet."""
        return made(self)


@functools.cache
def made(environment: Environment) -> Path:
    """Python in an environment, which is there from now on."""
    folder, name = environment.folder, environment.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").exists():
        tell(f"installing {name} (minutes)")
        shutil.rmtree(folder, ignore_errors=True)
        kinds = ["--no-deps"] if environment.alone else []
        try:
            environment.run([sys.executable, "-m", "venv", folder], "making its environment")
            environment.run(
                [python, "-m", "pip", "install", "--quiet", *kinds, "-r", environment.requirements], "installing it"
            )
        except Unavailable as error:
            raise Missing(str(error)) from None
        (folder / "ready").touch()
    return python
