"""Everything that can be refused, in one hierarchy.

A message of one of these says what is wrong, where, and, when a person can do something about it, what to do.
None of them ever carries a key, a share, a mask or a row of data.
"""


class HushfleetError(Exception):
    """The root of all errors raised on purpose."""


class MalformedError(HushfleetError):
    """Bytes from outside that do not have the form the protocol gives them."""


class RefusedError(HushfleetError):
    """A well-formed message or request that breaks a rule; it is dropped, counted and logged."""


class ConfigurationError(HushfleetError):
    """A configuration, a data file or a command that cannot be used; the text names the place and the remedy."""


class StorageError(HushfleetError):
    """The disk or the file on it failed; nothing further may be acknowledged by this process."""


class LinkError(HushfleetError):
    """The broker cannot be reached or does not accept us; the text names the address and the remedy."""
