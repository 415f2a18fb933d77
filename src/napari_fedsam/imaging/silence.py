"""Keeping ITK and pydicom from printing and logging: pydicom quotes values of the header."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator

import SimpleITK as sitk
from pydicom import config as pydicom_config


class SharedSilence:
    """Something global that is silenced while at least one block, in any thread, needs it.

    Parameters
    ----------
    silence : callable
        Silences it, and registers on the given stack how to restore it.
    """

    def __init__(self, silence: Callable[[contextlib.ExitStack], None]) -> None:
        self._silence = silence
        self._lock = threading.Lock()
        self._blocks = 0
        self._restore = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Silence it inside the block."""
        with self._lock:
            if self._blocks == 0:
                self._silence(self._restore)
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0:
                    self._restore.close()


def _silence_itk(restore: contextlib.ExitStack) -> None:
    switch = sitk.ProcessObject.SetGlobalWarningDisplay
    restore.callback(switch, sitk.ProcessObject.GetGlobalWarningDisplay())
    switch(False)


def _silence_pydicom(restore: contextlib.ExitStack) -> None:
    restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    restore.enter_context(pydicom_config.disable_value_validation())
    logger = logging.getLogger("pydicom")
    logger.addFilter(_drop)
    restore.callback(logger.removeFilter, _drop)


def _drop(record: logging.LogRecord) -> bool:  # noqa: ARG001 - logging's signature
    return False


silent_itk = SharedSilence(_silence_itk)
"""Keeps ITK's warnings off the terminal; what matters arrives as an exception."""

silent_pydicom = SharedSilence(_silence_pydicom)
"""Keeps pydicom's warnings and log records, which quote header values, from everybody."""
