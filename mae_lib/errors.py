"""The few errors a user meets: one line each, with the exit code of the `mae` command.

Exit codes: 0 done, 1 a result failed, 2 bad input, 3 busy, 4 corrupt, 143 interrupted.
"""

INTERRUPTED = 143


class MaeError(Exception):
    """Say in one line where, which field, what is wrong, what was got, and what to do."""

    exit_code = 1

    def __init__(self, message: str, *, exit_code: int | None = None):
        super().__init__(" ".join(message.split()))
        if exit_code is not None:
            self.exit_code = exit_code

    def _render_traceback_(self) -> list[str]:
        """Let Jupyter show the line alone: where in our code it was raised helps nobody."""
        return [f"{type(self).__name__}: {self}"]


class StudyError(MaeError):
    """A study, a cell or a parameter that cannot be run as written."""

    exit_code = 2


class StoreError(MaeError):
    """Images that are missing, cut, changed, or of another study."""

    exit_code = 4


class RecordError(MaeError):
    """A result file that is missing, cut or changed."""

    exit_code = 4


class BusyError(RecordError):
    """Another process computes this very thing."""

    exit_code = 3


class FitError(MaeError):
    """A table or a law that cannot be fitted as asked."""

    exit_code = 2


class KernelError(MaeError):
    """An operation called with shapes, dtypes or a device that it does not take."""


class Interrupted(MaeError):
    """A signal stopped the work after it was saved."""

    exit_code = INTERRUPTED
