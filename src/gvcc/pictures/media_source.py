"""Where the bytes of a video come from: a path, a file object, or a pipe, which is copied first."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO, cast

import av
import av.logging

from gvcc.errors import MediaError
from gvcc.pictures.media_out import MUXERS


class FileView:
    """A seekable file from `start` on, with a position of its own: passes may overlap."""

    def __init__(self, file: BinaryIO, start: int, name: str) -> None:
        self._file, self._start, self.name = file, start, name
        self._place = 0

    @classmethod
    def over(cls, file: BinaryIO) -> FileView:
        """`file` from where it stands, or if it cannot seek a temporary copy of what is left."""
        name = str(getattr(file, "name", "<none>"))  # its suffix helps ffmpeg to tell the format
        if hasattr(file, "seekable") and file.seekable():
            return cls(file, file.tell(), name)
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        window = cls(copy, 0, name)
        weakref.finalize(window, copy.close)
        try:
            shutil.copyfileobj(file, copy)
            copy.flush()
        except OSError as error:
            with suppress(OSError):  # else it would try once more to write what it holds
                copy.close()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise MediaError(
                f"{tempfile.gettempdir()} is full: what cannot seek is copied there first; "
                "TMPDIR names another folder"
            ) from error
        return window

    def again(self) -> FileView:
        """The same, at its start. The first window must stay alive for as long."""
        return FileView(self._file, self._start, self.name)

    def read(self, size: int) -> bytes:
        self._file.seek(self._start + self._place)
        data = self._file.read(size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            self._place = self._file.seek(offset, os.SEEK_END) - self._start
        else:
            self._place = offset + (self._place if whence == os.SEEK_CUR else 0)
        return self._place

    def tell(self) -> int:
        return self._place


@dataclass(frozen=True, eq=False)
class Source:
    """What can be opened again and again: a path or a window, and the format if it is given."""

    place: str | FileView
    form: str | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str] | BinaryIO) -> Source:
        """The source that `media.open_clip` takes; a pipe is read here."""
        if not isinstance(path, str | os.PathLike):
            return cls(FileView.over(path))
        if (name := os.fspath(path)) == "-":
            return cls(FileView.over(sys.stdin.buffer), MUXERS[".y4m"])
        if Path(name).is_fifo():
            with Path(name).open("rb") as pipe:
                return cls(FileView.over(pipe))
        return cls(name)

    def container(self) -> Any:
        """A new `av` container, from the start."""
        # The prefix keeps ffmpeg from taking "a:b.mp4" for a protocol.
        file = f"file:{self.place}" if isinstance(self.place, str) else self.place.again()
        return av.open(file, format=self.form, metadata_errors="replace")

    @contextmanager
    def file(self) -> Iterator[BinaryIO]:
        """The bytes themselves, from the start."""
        if isinstance(self.place, str):
            with open(self.place, "rb") as file:
                yield file
        else:
            yield cast(BinaryIO, self.place.again())


_LOG = RLock()


@contextmanager
def listening() -> Iterator[list[tuple[int, str, str]]]:
    """A list of what ffmpeg's errors say, by level, component and text, as they come.

    Some decoders (GIF, FFV1, Motion JPEG) show what they make of damaged data without any other
    sign than this.
    """
    with _LOG:
        level, folded = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture(local=False) as heard:  # decoders have threads of their own
                yield heard
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(folded)


def complaint(heard: list[tuple[int, str, str]], codec: Any) -> str:
    """The first thing that `listening` heard of the pictures of an `av.Codec`; "" for none.

    Of codecs with pictures out of order nothing counts: their decoders call pictures damaged, and
    also say such things of a whole stream that starts in the middle.
    """
    intra_only, lossless, reordering = 1, 4, 8  # AV_CODEC_PROP_...
    if codec.properties & reordering or not codec.properties & (intra_only | lossless):
        return ""
    said = (text.strip() for level, name, text in heard if name == codec.name)
    return next(said, "")


def described(box: Any, stream: Any) -> str:
    """What ffmpeg says of a stream in words: the only place where PyAV shows its side data."""
    with _LOG:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            text: str = box.dumps_format()
        finally:
            av.logging.set_level(level)
    parts = text.replace("Stream group #", "Stream #").split("Stream #")
    return next((part for part in parts if part.startswith(f"0:{stream.index}")
                 and not part[len(f"0:{stream.index}"):][:1].isdigit()), "")  # fmt: skip
