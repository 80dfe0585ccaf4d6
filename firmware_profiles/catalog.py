"""The device classes that come with the package, and an owner's own: one TOML file each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from hushfleet.configuration import Key, Range, did_you_mean
from hushfleet.configuration import load as load_file
from hushfleet.errors import ConfigurationError

_SHELF = Path(__file__).parent
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Link:
    """How a device class talks to the broker (docs/protocol.md, section 11.5; the facts: docs/operations.md).

    Attributes:
        link_class: what carries the packets.
        chunk: bytes of one slice of an upload, 256 to 61,440.
        window: slices under way at once; `window · chunk` should reach rate · round trip.
        keepalive: seconds between pings on an idle connection; the broker takes at most 3,600.
    """

    link_class: Annotated[Literal["ethernet", "wifi", "lte-m", "2g", "nb-iot"], Key("class")]
    chunk: Annotated[int, Range(256, 61_440)]
    window: Annotated[int, Range(1, 64)]
    keepalive: Annotated[int, Range(5, 3_600)]


@dataclass(frozen=True, slots=True)
class FirmwareProfile:
    """A device class.

    Attributes:
        name: as certificates and the roster name it, ASCII, at most 64 characters.
        description: one line for people.
        memory: MiB of RAM.
        link: the connection to the broker.
    """

    name: str
    description: str
    memory: Annotated[int, Range(1)]
    link: Link

    def __post_init__(self) -> None:
        if not self.name.isascii() or not self.name.isprintable() or not 1 <= len(self.name) <= _LONGEST_NAME:
            raise ConfigurationError(f"name {self.name!r} is not 1 to {_LONGEST_NAME} plain ASCII characters")


def names() -> tuple[str, ...]:
    """The profiles that come with the package."""
    return tuple(sorted(file.stem for file in _SHELF.glob("*.toml")))


def load(name: str) -> FirmwareProfile:
    """The profile of that name, or of the file if `name` is a path: with a slash in it, or ending in `.toml`.

    Raises:
        ConfigurationError: the name is unknown, or the file cannot be used.
    """
    if "/" in name or name.endswith(".toml"):
        return load_file(Path(name), FirmwareProfile)
    if name not in names():
        raise ConfigurationError(
            f"there is no firmware profile {name!r}; {did_you_mean(name, names())} (a file of your own: give its path)"
        )
    return load_file(_SHELF / f"{name}.toml", FirmwareProfile)
