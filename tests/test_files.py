"""Writing files: what is replaced, what is written into, what is refused, who holds the lock."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gvcc import files
from gvcc.errors import ConfigError, GvccError

ROOT = os.geteuid() == 0  # only root makes devices


def grown(name: Path, data: bytes) -> None:
    with files.Growing(str(name), resume=False, overwrite=True) as file:
        file.write(data, "proof")


def replaced(name: Path, data: bytes) -> None:
    with files.replacing(name, seekable=True) as file:
        file.write(b"?" * len(data))
        file.seek(0)
        file.write(data)


WRITERS: list[Callable[[Path, bytes], None]] = [files.write, replaced, grown]
writers = pytest.mark.parametrize("write", WRITERS)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# -- regular files ----------------------------------------------------------------------------


@writers
def test_a_new_file_has_the_usual_mode_and_nothing_else_is_left(write: Any, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(tmp_path / "a", b"data")
    finally:
        os.umask(old)
    assert (tmp_path / "a").read_bytes() == b"data" and names(tmp_path) == ["a"]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@writers
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_replaced_file_keeps_its_mode(write: Any, mode: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"older and longer")
    (tmp_path / "a").chmod(mode)
    write(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
@writers
def test_a_replaced_file_keeps_its_owner(write: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    os.chown(tmp_path / "a", 1234, 2345)
    (tmp_path / "a").chmod(0o2750)
    write(tmp_path / "a", b"data")
    about = (tmp_path / "a").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (1234, 2345, 0o2750)


@writers
@pytest.mark.parametrize("kind", ["absolute", "relative", "chain", "dangling", "folder"])
def test_a_link_stays_and_what_it_names_is_replaced(write: Any, kind: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    link, file = here / "link", there / "file"
    if kind != "dangling":
        file.write_bytes(b"old")
    if kind == "chain":
        (there / "middle").symlink_to("file")
        link.symlink_to("../there/middle")
    elif kind == "folder":
        link = here / "folder" / "file"
        link.parent.symlink_to(there)
    else:
        link.symlink_to("../there/file" if kind == "relative" else file)
    write(link, b"data")
    assert file.read_bytes() == b"data" and not file.is_symlink()
    assert link.read_bytes() == b"data"
    assert (link.parent if kind == "folder" else link).is_symlink()
    assert names(there) == (["file", "middle"] if kind == "chain" else ["file"])
    assert len(names(here)) == 1


@writers
def test_a_failing_writer_leaves_the_old_file(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m, pytest.raises((OSError, GvccError), match="No space"):
        m.setattr(os, "replace", full)
        write(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"old"
    kept = ["a.part", "a.part.proofs"] if write is grown else []
    assert names(tmp_path) == ["a", *kept]


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    name = "x" * 255
    files.write(tmp_path / name, b"data")
    assert names(tmp_path) == [name]


# -- what is no regular file ------------------------------------------------------------------


@writers
def test_a_pipe_gets_the_bytes_and_stays(write: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe", b"data" * 50_000)
    reader.join()
    assert got == [b"data" * 50_000]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and names(tmp_path) == ["pipe"]


@writers
def test_a_character_device_gets_the_bytes_and_stays(write: Any, tmp_path: Path) -> None:
    ours, terminal = os.openpty()
    try:
        link = tmp_path / "device.mp4"
        link.symlink_to(os.ttyname(terminal))
        write(link, b"data")
        assert os.read(ours, 9) == b"data"
        assert link.is_symlink() and names(tmp_path) == ["device.mp4"]
    finally:
        os.close(ours), os.close(terminal)


@pytest.mark.skipif(not ROOT, reason="only root makes devices")
@writers
def test_a_device_of_ones_own(write: Any, tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    write(tmp_path / "null", b"data")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode) and names(tmp_path) == ["null"]


@writers
def test_an_open_descriptor_is_written_where_it_stands(write: Any, tmp_path: Path) -> None:
    """As a shell's >> has it: replacing the file behind it would lose what is there."""
    (tmp_path / "log").write_bytes(b"before ")
    with (tmp_path / "log").open("ab") as log:
        write(Path(f"/dev/fd/{log.fileno()}"), b"data")
        log.write(b" after")
    assert (tmp_path / "log").read_bytes() == b"before data after"


@writers
def test_a_socket_is_refused(write: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        with pytest.raises(GvccError, match="socket: is a socket; nothing is written"):
            write(tmp_path / "socket", b"data")
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


@pytest.mark.skipif(not ROOT, reason="only root makes devices")
@writers
def test_a_block_device_is_refused(write: Any, tmp_path: Path) -> None:
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    with pytest.raises(GvccError, match="is a block device"):
        write(tmp_path / "disk", b"data")
    assert stat.S_ISBLK((tmp_path / "disk").stat().st_mode)


def test_check_says_before_any_work_what_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="the folder of .* does not exist"):
        files.check(tmp_path / "none" / "a")
    (tmp_path / "a").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(GvccError, match="nothing can be made in the folder"):
        files.check(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == tmp_path)
    with pytest.raises(GvccError, match="it is read-only"):
        files.check(tmp_path / "a")


# -- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["new", "old", "link"])
def test_a_folder_takes_the_place_of_another(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    if kind != "new":
        place.mkdir(mode=0o750)
        (place / "old").write_bytes(b"")
    name = place
    if kind == "link":
        name = tmp_path / "link"
        name.symlink_to("pictures")
    with files.replacing_folder(name) as folder:
        (folder / "a").write_bytes(b"data")
    assert names(place) == ["a"]
    assert kind != "link" or name.is_symlink()
    assert kind == "new" or stat.S_IMODE(place.stat().st_mode) == 0o750
    assert names(tmp_path) == (["link"] if kind == "link" else []) + ["pictures"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "old").write_bytes(b"")
    with pytest.raises(KeyError), files.replacing_folder(tmp_path / "pictures") as folder:
        (folder / "a").write_bytes(b"data")
        raise KeyError
    assert names(tmp_path) == ["pictures"] and names(tmp_path / "pictures") == ["old"]


# -- files that grow --------------------------------------------------------------------------


def test_the_name_comes_before_the_lock_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another encode with -y could begin in between, and take the finished file for its own
    unfinished one."""
    real, held = os.replace, []

    def spy(source: Any, target: Any) -> None:
        with Path(source).open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(Path(source).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", spy)
    grown(tmp_path / "a", b"data")
    assert "a.part" in held


def test_a_file_that_was_finished_while_another_waited_for_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = files.Growing(str(tmp_path / "a"), False, True)
    first.write(b"the first one's")
    real, calls = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:  # the second has opened a.part, and now the first one finishes
            first.__exit__(None)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with files.Growing(str(tmp_path / "a"), False, True) as second:
        assert (tmp_path / "a").read_bytes() == b"the first one's"
        second.write(b"the second one's")
    assert len(calls) == 2 and (tmp_path / "a").read_bytes() == b"the second one's"
    assert names(tmp_path) == ["a"]


def test_what_came_to_be_meanwhile_is_not_replaced_without_leave(tmp_path: Path) -> None:
    with (
        pytest.raises(GvccError, match="it has come to be meanwhile; .*a.part is the whole file"),
        files.Growing(str(tmp_path / "a"), False, False) as file,
    ):
        file.write(b"data", "proof")
        (tmp_path / "a").write_bytes(b"somebody's")
    assert (tmp_path / "a").read_bytes() == b"somebody's"
    assert (tmp_path / "a.part").read_bytes() == b"data"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_part_that_is_no_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    part, other = tmp_path / "a.part", tmp_path / "other"
    other.write_bytes(b"somebody's")
    if kind == "link":
        part.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.mkdir()
    with pytest.raises(GvccError, match="a.part: (cannot open|is no regular file)"):
        files.Growing(str(tmp_path / "a"), False, True)
    assert other.read_bytes() == b"somebody's"


def test_proofs_follow_the_bytes(tmp_path: Path) -> None:
    name, proofs = str(tmp_path / "a"), tmp_path / "a.part.proofs"
    with pytest.raises(KeyError), files.Growing(name, False, False) as file:
        for n in range(3):
            file.write(b"%d" % n, f"proof {n}")
        file.write(b"sound")
        file.worth = True
        raise KeyError
    assert proofs.read_text() == "proof 0\nproof 1\nproof 2\n"
    proofs.write_text(proofs.read_text() + "proof 3, brok")
    with pytest.raises(KeyError), files.Growing(name, True, False) as file:
        assert (file.begun, file.proofs) == (b"012sound", ["proof 0", "proof 1", "proof 2"])
        file.write(b"0", "proof 0")
        file.write(b"x", "another")  # the second part was made anew
        raise KeyError
    assert proofs.read_text() == "proof 0\nanother\n"
    assert (tmp_path / "a.part").read_bytes() == b"0x2sound"
    with files.Growing(name, True, False) as file:
        file.write(b"all")
    assert (tmp_path / "a").read_bytes() == b"all" and names(tmp_path) == ["a"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume: there is no .*a.part"):
        files.Growing(str(tmp_path / "a"), True, False)
    with pytest.raises(ConfigError, match="is no regular file: there is nothing to resume"):
        files.Growing("/dev/null", True, False)
