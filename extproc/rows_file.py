"""Rows of numbers in a file that is mapped into memory: one process adds and counts, others read, none waits.

The file is a sequence of chunks. A chunk is a sequence of rows, and then zeros. A row is a word with the length of its
key and the number of its values, its key, and its values, each from a multiple of 8 bytes on. The word is written last,
and before it the zeros of its values and of the next row's word, so that whenever a process ends there is no row by
half, and what it left of one is not taken for a row or a value. A row never moves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from mmap import mmap

_CHUNK = 1 << 16
_WORD = 8


class RowsFile:
    """A file of rows, new or with rows in it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._chunks = 0
        self._words = memoryview(b"").cast("Q")
        self._values = memoryview(b"").cast("d")
        self._bytes = memoryview(b"")
        self._next = 0  # a byte of the last chunk

    def news(self) -> Iterator[tuple[str, str, memoryview[float]]]:
        """Yield the rows that are new to this process: name, labels, values."""
        while True:
            # Asked first: what is not the last chunk now gets no more rows.
            chunks = os.fstat(self._file).st_size // _CHUNK
            while self._next < len(self._bytes) and (word := self._words[self._next // _WORD]):
                yield self._take(word >> 32, word & 0xFFFFFFFF)
            if self._chunks == chunks:
                return
            self._map()

    def add(self, name: str, labels: str, size: int) -> memoryview[float]:
        """Add a row of so many zeros. Only one process may do that, when there is nothing that is new to it.

        Raises:
            OSError, ValueError: there is no room for the file to grow. The rows that it has are not harmed.
        """
        key = f"{name} {labels}".encode()
        row = key.ljust(_padded(len(key)) + _WORD * (size + 1), b"\0")
        if self._next + _WORD + len(row) > len(self._bytes):
            # Written, not only made longer: where there is no room, that is an error here, and no SIGBUS later.
            os.pwrite(self._file, bytes(_CHUNK), self._chunks * _CHUNK)
            self._map()
        start = self._next + _WORD
        self._bytes[start : start + len(row)] = row
        self._words[self._next // _WORD] = len(key) << 32 | size
        return self._take(len(key), size)[2]

    def _map(self) -> None:
        self._bytes = memoryview(mmap(self._file, _CHUNK, offset=self._chunks * _CHUNK))
        self._words, self._values = self._bytes.cast("Q"), self._bytes.cast("d")
        self._chunks += 1
        self._next = 0

    def _take(self, length: int, size: int) -> tuple[str, str, memoryview[float]]:
        start = self._next + _WORD
        name, _, labels = str(self._bytes[start : start + length], "utf-8").partition(" ")
        first = (start + _padded(length)) // _WORD
        self._next = (first + size) * _WORD
        return name, labels, self._values[first : first + size]


def _padded(length: int) -> int:
    return -(-length // _WORD) * _WORD
