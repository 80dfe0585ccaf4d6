"""Where the broker's program is on this machine."""

import os
import shutil

from hushfleet.errors import ConfigurationError


def find_mosquitto() -> str:
    """Path of the mosquitto program; Debian keeps it where the PATH of ordinary users does not look.

    Raises:
        ConfigurationError: it is not installed.
    """
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    program = shutil.which("mosquitto", path=places)
    if program is None:
        raise ConfigurationError("mosquitto is not installed; install it, for example: sudo apt-get install mosquitto")
    return program
