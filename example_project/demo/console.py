"""What the demo prints: a line of figures that stays in place on a terminal, and columns."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TextIO

#: Seconds between two lines of figures where the output is no terminal.
EVERY = 5.0


class Console:
    """Writes to one stream. Whatever is printed ends a line of figures first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_place = stream.isatty()
        self._open = False
        self._last = 0.0

    def say(self, text: str = "") -> None:
        """Print a line, or several."""
        self.close()
        print(text, file=self._stream, flush=True)

    def columns(self, rows: Sequence[Sequence[str]], *, indent: str = "  ") -> None:
        """Print rows whose cells, but for the last one, are padded to the width of their column."""
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        for row in rows:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.say((indent + "  ".join(padded)).rstrip())

    def figures(self, text: str) -> None:
        """Show the figures of this moment: over the last ones on a terminal, else now and then."""
        if self._in_place:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", file=self._stream, flush=True)
            self._open = True
        elif time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End the line of figures, if there is one."""
        if self._open:
            print(file=self._stream, flush=True)
            self._open = False
