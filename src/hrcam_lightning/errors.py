"""The one exception that a user is meant to read."""


class InputError(Exception):
    """What was given cannot be used: one sentence with what, where and how to mend it.

    The command line prints the sentence and exits with code 2. It is no `ValueError`: jsonargparse would take
    that for a value of the wrong type.
    """
