"""What a UPS says by Network UPS Tools: whether it is on battery, and its charge (the protocol of upsd, RFC 9271)."""

import re
import socket
from contextlib import closing

from hushfleet.errors import ConfigurationError, LinkError

PORT = 3493
PATIENCE = 2.0
"""Seconds for an answer from a machine that is usually this one."""
LONGEST = 4_096
"""Bytes of the answers, at most."""
_ADDRESS = re.compile(r"([\w.-]+)@([\w.-]+)(?::([0-9]{1,5}))?")
_VARIABLE = re.compile(r'VAR \S+ (\S+) "(.*)"')


def address(text: str) -> tuple[str, str, int]:
    """UPS, host and port of "ups@host" or "ups@host:port"; ConfigurationError if it is neither."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3] or PORT) < 65_536:
        raise ConfigurationError(f'nut under [power] is {text!r}: name the UPS like "ups@localhost" or "ups@host:3493"')
    return found[1], found[2], int(found[3] or PORT)


def charge_on_battery(text: str) -> float | None:
    """Charge of a UPS, 0 to 1, while it runs on battery; None while it does not.

    Args:
        text: its address.

    Raises:
        LinkError: nobody answers there, or not what was asked.
    """
    ups, host, port = address(text)
    asked = f"GET VAR {ups} ups.status\nGET VAR {ups} battery.charge\nLOGOUT\n"
    answer = b""
    try:
        with closing(socket.create_connection((host, port), PATIENCE)) as line:
            line.sendall(asked.encode())
            while (more := line.recv(LONGEST)) and len(answer) < LONGEST:
                answer += more
    except OSError as error:
        raise LinkError(f"the UPS {text} does not answer: {error.strerror or error}; is upsd running there?") from None
    said = dict(_VARIABLE.findall(answer.decode("utf-8", "replace")))
    if "ups.status" not in said:
        first = answer.decode("utf-8", "replace").partition("\n")[0][:80]
        raise LinkError(f"the UPS {text} does not say whether it is on battery: {first}")
    if "OB" not in said["ups.status"].split():
        return None
    try:
        return float(said["battery.charge"]) / 100
    except (KeyError, ValueError):
        # On battery, for nobody knows how long.
        return 0.0
