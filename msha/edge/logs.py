"""The log of an edge process: one JSON object per line on standard error."""

import os
import sys
from typing import Any

import structlog


class StandardError:
    """Lines to standard error; what cannot be written is lost.

    A full disk or a reader that went away must not end a process that serves clients.
    """

    def msg(self, message: str) -> None:
        """The line is written, or lost."""
        try:
            os.write(2, f"{message}\n".encode(errors="replace"))
        except OSError:
            pass

    log = debug = info = warn = warning = error = critical = exception = fatal = msg


def log_to_stderr() -> None:
    """structlog writes to standard error from now on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=_standard_error,
    )


def complain(sentence: str) -> None:
    """The sentence stands on standard error by itself, for whoever started the process."""
    sys.stderr.flush()
    StandardError().msg(sentence)


def _standard_error(*_: Any) -> StandardError:
    return StandardError()
