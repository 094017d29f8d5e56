"""The log of an edge process: one JSON object per line on standard error, which is never waited for."""

import os
import select
import socket
import stat
import sys

import structlog

#: A pipe takes a piece of this size whole or not at all, and other processes write to the same one.
_PIECE_BYTES = select.PIPE_BUF


class StandardError:
    """Lines to standard error; what cannot be written at once is lost.

    A full disk or a reader that went away must not end a process that serves clients, and one that does not
    read must not stop it: a client can make an edge write lines.
    """

    def __init__(self) -> None:
        self._inode = (-1, -1)
        self._descriptor = 2
        self._sock: socket.socket | None = None
        # the end of a line of which the beginning is written
        self._rest = b""

    def msg(self, message: str) -> None:
        """The line is written, or lost."""
        try:
            self._find()
            if self._write(self._rest):
                self._rest = b""
                self._write(f"{message}\n".encode(errors="replace"))
        except OSError:
            self._rest = b""

    log = debug = info = warn = warning = error = critical = exception = fatal = msg

    def _find(self) -> None:
        """Standard error is what it is now: a description of our own where that can be had.

        Only such a one can be made not to wait without doing the same to whoever else has it, a shell for
        example. Of a socket, each call can say so.
        """
        about = os.fstat(2)
        inode = (about.st_dev, about.st_ino)
        if inode == self._inode:
            return
        self._inode, self._rest = inode, b""
        if self._descriptor != 2:
            os.close(self._descriptor)
        if self._sock is not None:
            self._sock.close()
        self._descriptor, self._sock = 2, None
        if stat.S_ISREG(about.st_mode):
            return  # it always has room, and its place in the file is shared with other processes
        if stat.S_ISSOCK(about.st_mode):
            self._sock = socket.socket(fileno=os.dup(2))
            return
        try:
            self._descriptor = os.open(
                "/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
        except OSError:
            self._descriptor = 2  # it is another user's: asking first whether there is room has to do

    def _write(self, line: bytes) -> bool:
        """Whether all of it is written. What is left of a line that has begun is written before the next."""
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        position = 0
        while position < len(line):
            piece = line[position : position + _PIECE_BYTES]
            try:
                if not room.poll(0):
                    break
                if self._sock is not None:
                    position += self._sock.send(piece, socket.MSG_DONTWAIT)
                else:
                    position += os.write(self._descriptor, piece)
            except BlockingIOError:
                break
        if position or line is self._rest:
            self._rest = line[position:]
        return position == len(line)


_standard_error = StandardError()


def log_to_stderr() -> None:
    """structlog writes to standard error from now on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=lambda *_: _standard_error,
    )


def complain(sentence: str) -> None:
    """The sentence stands on standard error by itself, for whoever started the process."""
    sys.stderr.flush()
    _standard_error.msg(sentence)
