"""Ctrl-C and a scheduler's SIGTERM, held back until the work has come to a place to stop at."""

import signal
import threading
from types import FrameType

from tqdm import tqdm


class Stopped(KeyboardInterrupt):
    """The user's interruption, after the state was saved; the message is one sentence.

    A `KeyboardInterrupt`, so that no `except Exception` takes it for a failure. IPython shows the
    sentence alone.
    """

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class StopRequest:
    """Context in which SIGINT and SIGTERM only set `asked`; see `obey`.

    A second signal of the same kind goes through at once. Handlers are those of the process, so
    outside of its main thread nothing is changed. On leaving, the handlers are as they were.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked == number:
            self._restore()
            signal.raise_signal(number)
            return
        self.asked = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def obey(self, sentence: str) -> None:
        """End the work, once its state is saved: raise `Stopped` with `sentence`.

        SIGTERM asks for the end of the process, so it is handed on to the handler that was there
        before: by default the process ends here.
        """
        self._restore()
        if self.asked == signal.SIGTERM:
            tqdm.write(sentence)
            signal.raise_signal(signal.SIGTERM)
        raise Stopped(sentence)
