"""One exception for everything that the user can mend, shown as one sentence."""


class StudyError(Exception):
    """Bad input or an unmet condition; the message is one sentence that names the thing.

    IPython shows it without a traceback, so that a notebook (and papermill's copy of it) ends in
    the sentence alone.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
