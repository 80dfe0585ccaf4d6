"""Recordings that come inside a published package: found where they are, else fetched once, known by their hash.

They are read out of the package; nothing of it is installed or run.
"""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hushfleet.errors import ConfigurationError


class Source(Protocol):
    """Where a package comes from."""

    @property
    def package(self) -> str:
        """What it is called there."""

    @property
    def command(self) -> tuple[str, ...]:
        """Downloads the package into the working directory."""

    @property
    def spoken(self) -> str:
        """The command as a person types it."""

    @property
    def index(self) -> str:
        """What to look at if the wrong file came."""

    def installed(self, path: str) -> Path | None:
        """Where a file of the package stands on this machine, if the package is installed."""

    def unpack(self, folder: Path, path: str) -> bytes:
        """A file of the package that was downloaded into a folder; OSError or LookupError if there is none."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of Python's package index, by name and version as pip takes them."""

    package: str

    @property
    def command(self) -> tuple[str, ...]:
        """See `Source`."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2")
        return (*pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", self.package)

    @property
    def spoken(self) -> str:
        """See `Source`."""
        return f"{Path(sys.executable).name} -m pip download --no-deps {self.package}"

    @property
    def index(self) -> str:
        """See `Source`."""
        return "the package index that pip uses"

    def installed(self, path: str) -> Path | None:
        """See `Source`."""
        # find_spec locates the package without importing it: its own dependencies need not be there
        spec = importlib.util.find_spec(path.partition("/")[0])
        return Path(spec.origin).parent.parent / path if spec is not None and spec.origin is not None else None

    def unpack(self, folder: Path, path: str) -> bytes:
        """See `Source`."""
        try:
            with zipfile.ZipFile(next(folder.glob("*.whl"), "nothing")) as wheel:
                return wheel.read(path)
        except zipfile.BadZipFile as problem:
            raise LookupError("no wheel") from problem


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A package of Debian or Ubuntu, by name; its files are named from the root on."""

    package: str

    @property
    def command(self) -> tuple[str, ...]:
        """See `Source`."""
        return ("apt-get", "download", "-q", self.package)

    @property
    def spoken(self) -> str:
        """See `Source`."""
        return f"apt-get download {self.package}"

    @property
    def index(self) -> str:
        """See `Source`."""
        return "the version of the package"

    def installed(self, path: str) -> Path | None:
        """See `Source`."""
        return Path(path)

    def unpack(self, folder: Path, path: str) -> bytes:
        """See `Source`."""
        command = ("dpkg-deb", "--fsys-tarfile", str(next(folder.glob("*.deb"), "nothing")))
        packed = subprocess.run(command, capture_output=True, check=False).stdout
        try:
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                file = archive.extractfile(f".{path}")
                if file is not None:
                    return file.read()
        except tarfile.TarError as problem:
            raise LookupError("no package") from problem
        raise LookupError("no file")


@dataclass(frozen=True, slots=True)
class Packaged:
    """One file of one package.

    Attributes:
        what: the recordings, in a message to a person.
        source: the package.
        path: of the file inside the package.
        sha256: of the file, in hex.
    """

    what: str
    source: Source
    path: str
    sha256: str

    def read(self) -> bytes:
        """The file: from an installed package, else from our cache, else fetched into it.

        Raises:
            ConfigurationError: it can be neither found nor fetched, or what was fetched is another file.
        """
        for place in (self.source.installed(self.path), self.cached):
            if place is not None and (found := self._read_genuine(place)) is not None:
                return found
        return self._fetch(self.cached)

    @property
    def cached(self) -> Path:
        """Where it is kept once it was fetched."""
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(cache) / "hushfleet" / Path(self.path).name

    def _read_genuine(self, path: Path) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        return content if self._is_genuine(content) else None

    def _is_genuine(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256

    def _fetch(self, destination: Path) -> bytes:
        """Download the package, keep the one file of it at `destination`, and return its bytes."""
        remedy = (
            f"Go online once, or run `{self.source.spoken}` elsewhere and unpack {self.path} from the package to "
            f"{destination}"
        )
        with tempfile.TemporaryDirectory(prefix="hushfleet-") as folder:
            self._download(folder, remedy)
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

    def _download(self, folder: str, remedy: str) -> None:
        try:
            finished = subprocess.run(
                self.source.command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        except OSError as problem:
            said = f"there is no {self.source.command[0]} here"
            raise ConfigurationError(f"{self.what} could not be fetched ({said}). {remedy}") from problem
        if finished.returncode != 0:
            said = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigurationError(f"{self.what} could not be fetched ({said}). {remedy}")

    def _unpack(self, folder: Path, remedy: str) -> bytes:
        try:
            content = self.source.unpack(folder, self.path)
        except (LookupError, OSError) as problem:
            raise ConfigurationError(
                f"the fetched package {self.source.package} holds no {self.path}. {remedy}"
            ) from problem
        if not self._is_genuine(content):
            raise ConfigurationError(
                f"{self.path} in the fetched package is not the file we know (sha256 {self.sha256}); it was not "
                f"loaded. Check {self.source.index}. {remedy}"
            )
        return content
