"""The one place that writes files: a name never shows half of its content, and nothing that is no
regular file is replaced.

A regular file, or a name that is free, gets its content under a temporary name in the same folder
and then its own; a symbolic link keeps its place, and what it names is replaced. The file keeps the
mode (and, for who may give it away, the owner) of the one that it replaces. Devices for characters,
pipes, open descriptors (/dev/stdout) and "-", which is standard output, are written straight into.
Block devices and sockets are refused.

Every error of the file system is an OSError with the name in it; a refusal is a `GvccError`.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gvcc.errors import ConfigError, GvccError

PART = ".part"  # suffix of a file that grows
PROOFS = ".proofs"  # and, behind that, of what proves where it comes from

_DESCRIPTOR = re.compile(r"/proc/([0-9]+)(?:/task/[0-9]+)?/fd/([0-9]+)")


def cache() -> Path:
    """The folder for what can be fetched or made again."""
    if own := os.environ.get("GVCC_CACHE"):
        return Path(own)
    import platformdirs  # not there where PyTorch is all there is (training/gpu.py)

    return platformdirs.user_cache_path("gvcc", appauthor=False)


class Target(NamedTuple):
    """Where an output goes: the `path` behind all links, and whether bytes go `straight` into it,
    for it is no regular file; `descriptor` is the number of an open one of this process."""

    path: Path
    straight: bool
    descriptor: int | None = None

    @property
    def is_stdout(self) -> bool:
        return self.straight and (str(self.path) == "-" or self.descriptor == 1)


def target(name: str | os.PathLike[str]) -> Target:
    """Where writing to `name` would go. GvccError for what must not be written to."""
    if name == "-":
        return Target(Path(name), True)
    at = os.path.abspath(os.fspath(name))
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(os.path.dirname(at))
        at = os.path.join(folder, os.path.basename(at))
        if found := _DESCRIPTOR.fullmatch(at):
            own = int(found[1]) == os.getpid()
            return Target(Path(at), True, int(found[2]) if own else None)
        if not os.path.islink(at):
            break
        at = os.path.abspath(os.path.join(folder, os.readlink(at)))
    path = Path(os.path.realpath(at))
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Target(path, False)
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "a block device" if stat.S_ISBLK(mode) else "a socket"
        raise GvccError(f"{name}: is {kind}; nothing is written to that")
    return Target(path, not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)))


def check(name: str | os.PathLike[str]) -> Target:
    """As `target`; GvccError, before any work is done, if it cannot be written, and ConfigError if
    there is no such folder."""
    at = target(name)
    folder = at.path.parent
    if not at.straight and not folder.is_dir():
        raise ConfigError(f"the folder of {name} does not exist")
    why = ""
    if name == "-" or at.descriptor is not None:
        return at
    if at.path.exists() and not os.access(at.path, os.W_OK):
        why = "it is read-only"
    elif not at.straight and not os.access(folder, os.W_OK | os.X_OK):
        why = f"nothing can be made in the folder {folder}"
    if why:
        raise GvccError(f"{name}: cannot write: {why}")
    return at


def write(name: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, and make the folders above it that are not there."""
    Path(name).absolute().parent.mkdir(parents=True, exist_ok=True)
    with replacing(name) as file:
        file.write(data)


@contextmanager
def replacing(name: str | os.PathLike[str], *, seekable: bool = False) -> Iterator[BinaryIO]:
    """A file open for writing that becomes `name` at the end of the block, and is gone if the block
    raises. With `seekable` even what goes into a pipe may be written out of order: it gets it at
    the end."""
    at = target(name)
    if at.straight:
        file = _straight(at)
        try:
            if not seekable:
                yield file
                return
            with tempfile.TemporaryFile() as spool:
                yield spool
                spool.seek(0)
                shutil.copyfileobj(spool, file)
        finally:
            _leave(file)
        return
    with aside(at.path) as scratch, scratch.open("xb") as made:
        yield made


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A free name beside a regular file, for what takes a name; what is there at the end of the
    block becomes the file, and is gone if the block raises."""
    scratch = _scratch(path)
    try:
        yield scratch
        _take_place(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(name: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that becomes `name` at the end of the block, in the place of a folder that may
    be there; it is gone if the block raises."""
    at = target(name)
    scratch = _scratch(at.path)
    scratch.mkdir()
    try:
        yield scratch
        if not at.path.exists():
            scratch.rename(at.path)
            return
        _take_after(scratch, at.path)
        old = _scratch(at.path)
        at.path.rename(old)
        try:
            scratch.rename(at.path)
        except BaseException:
            old.rename(at.path)
            raise
        shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _scratch(path: Path) -> Path:
    """A free name beside `path`, however long its own is."""
    return path.with_name(f".gvcc-{secrets.token_hex(8)}")


def _straight(at: Target) -> BinaryIO:
    """What is no regular file, open; to be left by `_leave`."""
    if str(at.path) == "-":
        return sys.stdout.buffer
    # Without O_CREAT: what is not there any more must not become a regular file.
    own = at.descriptor
    return os.fdopen(os.open(at.path, os.O_WRONLY) if own is None else os.dup(own), "wb")


def _leave(file: BinaryIO) -> None:
    if file is sys.stdout.buffer:
        file.flush()
    else:
        file.close()


def _take_after(scratch: Path, path: Path) -> None:
    """Give `scratch` mode and owner of `path`, if that is there."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    new = scratch.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(PermissionError):
            os.chown(scratch, old.st_uid, old.st_gid)
    scratch.chmod(stat.S_IMODE(old.st_mode))


def _take_place(scratch: Path, path: Path) -> None:
    _take_after(scratch, path)
    os.replace(scratch, path)


class Growing:
    """A stream on its way to a file: `write` appends, and the file gets its name once it is whole.

    Until then it is the file's name + ".part", which a decoder may follow and `resume` goes on
    with; a second file, ".part.proofs", has a line for each proof that came with the bytes. Both
    stay if the work breaks off after `worth` was set. One that is there is
    replaced only with `overwrite`, and one that another process is writing never is; nor is a
    finished file of that name, unless with `overwrite`.

    What is no regular file is written straight into.
    """

    def __init__(self, name: str, resume: bool, overwrite: bool) -> None:
        self.name, self.worth = name, False
        self.begun, self.proofs = b"", list[str]()
        self._resume, self._overwrite = resume, overwrite
        self._at, self._count = target(name), 0
        if self._at.straight:
            if resume:
                raise ConfigError(f"{name} is no regular file: there is nothing to resume")
            self._file = _straight(self._at)
            return
        self._part = Path(f"{self._at.path}{PART}")
        self._proof_file = Path(f"{self._part}{PROOFS}")
        if resume and not self._part.exists():
            raise ConfigError(f"nothing to resume: there is no {self._part}")
        self._file = self._locked()
        self.begun = self._file.read()
        if self.begun and not (resume or overwrite):
            self._file.close()
            raise ConfigError(
                f"{self._part} exists, as of an encode that broke off; --resume goes on, -y "
                "starts anew"
            )
        self._file.seek(0)
        if resume:
            self.proofs = self._read_proofs()
        else:
            self.begun = b""
            self._file.truncate()
        self._bare = not self._proof_file.exists()
        self._known = self._open(self._proof_file)
        self._known.truncate(len(_lines(self.proofs)))
        self._known.seek(0, os.SEEK_END)

    @property
    def part(self) -> Path | None:
        """The unfinished file, if there is one."""
        return None if self._at.straight else self._part

    def _locked(self) -> BinaryIO:
        """The .part file, ours alone."""
        while True:
            file = self._open(self._part)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise GvccError(f"{self._part}: another process is writing it") from None
            # Between the opening and the lock its writer may have finished, and then what is open
            # here is the finished file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._part.stat()):
                    return file
            file.close()

    @staticmethod
    def _open(path: Path) -> BinaryIO:
        """A file to read and write, made if it is not there; no link, no pipe."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            number = os.open(path, flags, 0o666)
        except OSError as e:
            raise GvccError(f"{path}: cannot open: {e.strerror}") from None
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise GvccError(f"{path}: is no regular file")
        return os.fdopen(number, "r+b")

    def _read_proofs(self) -> list[str]:
        try:
            text = self._proof_file.read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return []
        return text.split("\n")[:-1]  # of a line that breaks off nothing is known

    def write(self, data: bytes, proof: str | None = None) -> None:
        """Append `data`, and once they are there their `proof`, a line."""
        try:
            self._file.write(data)
            self._file.flush()
            if proof is None or self._at.straight:
                return
            if self.proofs[self._count : self._count + 1] != [proof]:
                if self._count < len(self.proofs):  # of bytes that were not whole
                    del self.proofs[self._count :]
                    self._known.truncate(len(_lines(self.proofs)))
                    self._known.seek(0, os.SEEK_END)
                self.proofs.append(proof)
                self._known.write(_lines([proof]))
                self._known.flush()
            self._count += 1
        except OSError as e:
            raise GvccError(f"{self.name}: cannot write: {e.strerror}") from None

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._at.straight:
            try:
                _leave(self._file)
            except OSError as e:
                if kind is None:
                    raise GvccError(f"{self.name}: cannot write: {e.strerror}") from None
            return
        # The lock goes with the file, and not before it has its name.
        with self._file, self._known:
            if kind is None:
                self._finish()
            elif not self._resume and not self.worth:
                self._part.unlink()
            if not self._part.exists() or (self._bare and not self.proofs):
                self._proof_file.unlink(missing_ok=True)

    def _finish(self) -> None:
        try:
            self._file.truncate()
            if not self._overwrite and self._at.path.exists():
                raise FileExistsError(0, "it has come to be meanwhile")
            _take_place(self._part, self._at.path)
        except OSError as e:
            raise GvccError(
                f"{self.name}: cannot write: {e.strerror}; {self._part} is the whole file"
            ) from None


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{t}\n" for t in texts).encode()
