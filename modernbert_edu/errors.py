"""The exceptions that are no defects: a mistake the user can mend, and a pause."""


class InputError(ValueError):
    """Bad input from a person: a wrong path, an impossible configuration, a broken file.

    The message is one line that says what is wrong and how to mend it. The command line prints it
    without a traceback and exits with status 2; in a notebook it reads like any `ValueError`.
    """


class Paused(Exception):
    """A measurement stopped between two of its parts for lack of time, its state kept: the same call goes on."""
