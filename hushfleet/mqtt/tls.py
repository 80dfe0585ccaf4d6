"""TLS 1.3 towards the broker: resumption, byte counts, and why a connection ended. The link is its only user."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from hushfleet.errors import ConfigurationError
from hushfleet.mqtt.events import LinkSettings
from hushfleet.mqtt.traffic import Lane

CONNACK = 0x20
"""First byte of everything that a broker ever says first."""
RECORD = 16_384
"""Bytes that a record of TLS carries, at most."""
TOGETHER = 1_300
"""Bytes of packets that share a record, at most: with it they fit into one TCP segment of a radio link."""
RECORD_HEADER = 0x100
"""What OpenSSL calls the five bytes before each record, of which the last two are its length (SSL3_RT_HEADER)."""


class NotMqttError(ConnectionError):
    """The peer speaks TLS, but not MQTT."""


class TlsContext(ssl.SSLContext):
    """A client's context that resumes the last session (saves 2.0 KB of a 4.1 KB reconnect) and watches its socket.

    Attributes:
        sent, received: what the sockets carried, over all connections, handshakes included.
        waiting: what the client library has written on the current connection and no record carries yet.
        session: the session to resume next, set by the link once the broker has accepted it.
        greeted: whether anything was received on the current connection.
        closed: whether the broker has closed the current connection properly, which nobody on the way can forge.
        error: what broke the current connection, if anything did.
    """

    sslsocket_class: type[ssl.SSLSocket]

    def __init__(self, *_: object) -> None:
        self.sslsocket_class = _Socket
        self.sent = Lane()
        self.received = Lane()
        # The only place where Python tells how long a record is; it names no field but this one for it.
        self._msg_callback = self._count_record
        self.session: ssl.SSLSession | None = None
        self._forget_connection()

    def _count_record(self, _: object, direction: str, __: object, content_type: int, ___: object, data: bytes) -> None:
        if content_type == RECORD_HEADER:
            lane = self.sent if direction == "write" else self.received
            lane.line += len(data) + int.from_bytes(data[3:5], "big")

    def _forget_connection(self) -> None:
        self.sent.begin()
        self.received.begin()
        self.waiting = bytearray()
        self.greeted = False
        self.closed = False
        self.error: OSError | None = None

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """As the base class, but resuming the last session and telling a cut connection from one properly closed."""
        self._forget_connection()
        return super().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session or self.session
        )


class _Socket(ssl.SSLSocket):
    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        context = self._watched
        try:
            self._check_cut()
            data = super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            context.error = error
            raise
        context.received.take(data)
        context.closed = not data
        if data and not context.greeted:
            context.greeted = True
            if data[0] != CONNACK:
                context.error = NotMqttError("the first byte is not that of a CONNACK packet")
                raise context.error
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """Take a packet of the library's; small ones leave together in one record (22 bytes, and 40 of TCP and IP).

        A large one leaves alone: nothing of a record can be read, and nothing be acknowledged, before all of it is
        there, and on a slow link a window of chunks in one record would wait for its own end.
        """
        waiting = self._watched.waiting
        if len(waiting) + len(data) > TOGETHER:
            self.flush()
            if waiting:
                raise ssl.SSLWantWriteError
        waiting += data
        return len(data)

    def flush(self) -> None:
        """Have what waits leave, as much as the kernel takes."""
        context = self._watched
        while context.waiting:
            data = bytes(context.waiting[:RECORD])
            try:
                sent = super().send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                context.error = error
                raise
            context.sent.take(data[:sent])
            del context.waiting[:sent]

    def close(self) -> None:
        """The library closes as soon as it has written its farewell."""
        if self._watched.error is None:
            with suppress(OSError):
                self.flush()
        super().close()

    def _check_cut(self) -> None:
        """Raise before OpenSSL sees that the line was cut: from 3.5 on it never resumes a session that ended so."""
        if self.pending():
            return
        try:
            waiting = socket.socket.recv(self, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if not waiting:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection was cut")

    @property
    def _watched(self) -> TlsContext:
        context = self.context
        assert isinstance(context, TlsContext)
        return context


def flush(connection: ssl.SSLSocket) -> None:
    """Have everything that the library has written on this connection leave in as few records as there can be."""
    assert isinstance(connection, _Socket)
    connection.flush()


def load_context(settings: LinkSettings) -> TlsContext:
    """The context for these settings, their three files read.

    Raises:
        ConfigurationError: a file is missing, unreadable or not what it should be, or the key is another certificate's.
    """
    _check_readable(settings.ca, "transport authority's certificate")
    _check_readable(settings.certificate, "transport certificate")
    _check_readable(settings.key, "transport key")
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The hybrid exchange that OpenSSL 3.5 begins with costs 2.4 kB a connection, and TLS guards no update here.
    context.set_ecdh_curve("X25519")
    try:
        context.load_verify_locations(cafile=settings.ca)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{settings.ca} holds no certificate in PEM form; "
            "copy the fleet's transport authority certificate there again"
        ) from error
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigurationError(_explain_pair(error, settings)) from error
    return context


def _check_readable(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"the {what} {path} does not exist; correct its path or copy it from the fleet's owner"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"the {what} {path} cannot be read: {error.strerror}; give the user that runs this the right to read it"
        ) from error


def _no_password() -> str:
    raise ConfigurationError("the transport key is protected by a password; a service needs one without")


def _explain_pair(error: ssl.SSLError, settings: LinkSettings) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"the transport key {settings.key} does not belong to the certificate {settings.certificate}; "
            "copy both again from one `hushfleet fleet` output"
        )
    return (
        f"{settings.certificate} and {settings.key} are not a certificate and a private key in PEM form; "
        "copy both again from one `hushfleet fleet` output"
    )
