"""The owners' signed documents as the desk writes them: one file a frame, exact bytes."""

from pathlib import Path

from coordinator.conductor import Signed
from hushfleet.errors import ConfigurationError
from hushfleet.wire.documents import OPTIONAL_DOCUMENTS

NAMES = ("committee", "roster", "policy", "model", "profile", "schema")
"""What the coordinator publishes, each if the manifest lists it."""


def read_documents(directory: Path) -> Signed:
    """Everything in the desk's `documents` directory.

    Raises:
        ConfigurationError: a file is missing or cannot be read; with the remedy.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"there is no directory {directory}; name the fleet's `documents` directory")
    roots = {int(path.suffix[1:]): _read(path) for path in directory.glob("root.*") if path.suffix[1:].isdigit()}
    if not roots:
        raise ConfigurationError(f"{directory} holds no root; make the fleet with hushfleet fleet init")
    certificates = {int(path.name): _read(path) for path in (directory / "cert").glob("*") if path.name.isdigit()}
    date = directory / "date"
    return Signed(
        roots,
        _read(directory / "manifest"),
        _read(date) if date.exists() else b"",
        {
            name: _read(directory / name)
            for name in NAMES
            if name not in OPTIONAL_DOCUMENTS or (directory / name).exists()
        },
        certificates,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is missing; sign the fleet's documents with hushfleet fleet sign") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
