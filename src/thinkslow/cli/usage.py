"""Wrong usage of the command line."""


class Usage(ValueError):
    """A wrong flag or value: exit code 2."""
