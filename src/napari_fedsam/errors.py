"""The one error that a person is meant to read."""


class FedSamError(Exception):
    """A failure told to the user as one clear sentence.

    The message says what happened, where (a file or a site), and what to do. The command line
    prints it and exits with a non-zero status; the widget shows it as a napari notification.
    Layers subclass it, so that a caller can tell failures apart.
    """
