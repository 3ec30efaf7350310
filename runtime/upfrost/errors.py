"""The base of all errors that upfrost raises on purpose."""


class UpfrostError(Exception):
    """Something that a user can mend; the message is a line that says what and how."""


class UsageError(UpfrostError, ValueError):
    """A command or a call that asks for what cannot be."""
