"""The one exception for a mistake the user can mend."""


class InputError(ValueError):
    """Bad input from a person: a wrong path, an impossible configuration, a broken file.

    The message is one line that says what is wrong and how to mend it. The command line prints it
    without a traceback and exits with status 2; in a notebook it reads like any `ValueError`.
    """
