"""Downloads: a file from a URL, whole or not at all, and archives that can't write outside their folder, nor fill the disk."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit

from utils.console.progress import track
from utils.errors import UserError, shown
from utils.files import replacing, require_file, safe_name

TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18  # bytes that are moved at a time
ROOM = 256 << 20  # bytes that are left free on the disk
# An archive may hold so many times its own size, and so many bytes in any case: pictures hardly shrink, labels tenfold.
MOST_GROWTH, LEAST_LIMIT = 200, 256 << 20
# bytes of a tar's own that are read at once: the headers beside a member's data
MOST_HEADER = 1 << 20


def is_url(text: str) -> bool:
    """Whether a text is a single http, https or file URL."""
    return re.fullmatch(r"(https?|file)://\S+", text) is not None


def without_login(url: object) -> str:
    """A URL as it may be shown and logged: without user and password."""
    return re.sub(r"//[^/]*@", "//", str(url))


def url_name(url: str) -> str:
    """The last name of a URL's path, as the name of a file; empty where there is none."""
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:
        return ""
    return safe_name(name) if name.strip(".") else ""


def download_file(url: str, dest: str | Path, otherwise: str | None = None) -> Path:
    """Download ``url`` to the file ``dest``, with a progress bar. A file that is there already is taken as it is.

    The data goes to a temporary file beside ``dest``, which gets its name once the announced length has arrived.

    Raises UserError if the server can't be reached, answers with an error or breaks off, or if the file can't be written.
    It ends with ``otherwise``: what else can be done; by default where to put the file by hand.
    """
    # Not torch.hub.download_url_to_file: it takes a connection that breaks off for the end of the file.
    dest = Path(dest)
    if os.path.exists(dest):
        return dest
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with _open_url(url) as (source, expected), replacing(dest) as temporary, open(temporary, "wb") as f:
            _require_room(dest.parent, expected or 0)
            with track(None, dest.name, total=expected, unit="B", unit_scale=True, unit_divisor=1024) as bar:
                # into a buffer: what is asked for by length is at the server's mercy where it announces its chunks
                buffer = bytearray(BLOCK)
                while count := source.readinto(buffer):
                    _require_room(dest.parent, count)
                    f.write(memoryview(buffer)[:count])
                    bar.update(count)
            if expected is not None and f.tell() != expected:
                raise URLError(f"the connection broke off after {f.tell()} of {expected} bytes")
    # URLError, HTTPError, timeouts and full disks are OSErrors; ValueError: an answer or a path that can't be
    except (OSError, HTTPException, ValueError, OverflowError) as e:
        reason = f"the server answers {e.code} {e.reason}" if isinstance(e, HTTPError) else getattr(e, "reason", e)
        otherwise = otherwise or f"get the file by other means and put it at {shown(str(dest))}"
        raise UserError(
            f"{shown(without_login(url))}: not downloaded: {shown(str(reason))}. Try again, or {otherwise}"
        ) from None
    return dest


@contextmanager
def _open_url(url: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """What is at a URL, and its length in bytes where that is known. Raises UserError for a URL that can't be one."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "file":
            address = request.url2pathname(parts.path)
            if parts.netloc not in ("", "localhost"):
                raise ValueError("a file URL has three slashes: file:///folder/file")
        else:
            address = _address(url)
    except ValueError as e:
        raise UserError(f"{shown(without_login(url))}: not a URL that can be asked for: {e}; correct it") from None
    if parts.scheme == "file":
        with open(require_file(address, "file"), "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
        return
    # no handlers of others: what a server redirects to may be another server, never a file of this machine
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    with opener.open(request.Request(address, headers={"User-Agent": "Python"}), timeout=TIMEOUT) as response:
        yield response, response.length


def _address(url: str) -> str:
    """An http or https URL as it is sent, in ASCII. Raises ValueError with the reason where it can't be."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it begins with http:// or https://")
    if len(url) > 8000:
        raise ValueError(f"it has {len(url)} characters")
    if parts.username is not None:
        raise ValueError("a user and password are not sent")
    host, port = parts.hostname, parts.port
    if not host or len(host) > 253:
        raise ValueError("its host can't be one")
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    place = host if port is None else f"{host}:{port}"
    # what is quoted already stays so
    path, query = (quote(part, safe="/%:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query))
    return f"{parts.scheme}://{place}{path}{'?' if query else ''}{query}"


def _require_room(folder: Path, more: int) -> None:
    """Raise OSError where ``more`` bytes would fill the disk that ``folder`` is on."""
    if shutil.disk_usage(folder).free < more + ROOM:
        raise OSError(f"no room for {more:,} bytes in {folder}")


def download_archive(url: str, folder: str | Path) -> None:
    """Download a zip or tar archive and unpack it so that ``folder`` holds its content.

    The archive lands beside ``folder``; an archive whose one top folder has that same name is unpacked there, any other
    inside ``folder``. It is deleted after unpacking, unless it was there before.

    Raises UserError like download_file and extract_archive.
    """
    folder = Path(os.path.abspath(folder))
    name = url_name(url)
    if not name:
        raise UserError(f"{shown(without_login(url))}: this URL names no file; give that of a zip or tar archive")
    file = folder.parent / name
    was_there = os.path.exists(file)
    place = shown(str(file if was_there else without_login(url)))
    print(f"{'unpacking' if was_there else 'downloading'} {place} to {shown(str(folder))}")
    download_file(url, file)
    try:
        with _open_archive(file) as members:
            tops = {PurePosixPath(member.name).parts[0] for member in members if PurePosixPath(member.name).parts}
        extract_archive(file, folder.parent if tops - {"__MACOSX"} == {folder.name} else folder)
    finally:
        if not was_there:
            file.unlink()  # or a bad one would be taken for good the next time


def extract_archive(file: str | Path, folder: str | Path) -> None:
    """Unpack a zip or tar archive (also .gz, .bz2, .xz) into ``folder``. Files that are there already stay as they are.

    Raises UserError, before anything is written, if a member has an absolute path, a path that leads out of the folder,
    or is a link or device: data sets need none, and a link can lead anywhere; and if all of them together are far larger
    than the archive, or than the disk. Also if the archive is damaged, or two members are one file; members before that
    may then be unpacked.
    """
    file, folder = Path(file), Path(folder)
    unpacked: dict[str, Path] = {}  # by names without upper and lower case, which not every disk tells apart
    with _open_archive(file) as members:
        folder.mkdir(parents=True, exist_ok=True)
        _require_room(folder, sum(member.size for member in members))
        for member in track(members, f"unpacking {file.name}", unit="file"):
            target = folder.joinpath(*PurePosixPath(member.name).parts)
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary, member.open() as source, open(temporary, "wb") as f:
                    shutil.copyfileobj(source, f, BLOCK)
            elif target.is_dir() or _is_one_of(target, unpacked):
                raise UserError(
                    f"{file}: {shown(member.name)!r} would take the place of another member; "
                    "the rest is not unpacked: get an archive without it"
                )
            unpacked[str(target).casefold()] = target


def _is_one_of(target: Path, unpacked: dict[str, Path]) -> bool:
    other = unpacked.get(str(target).casefold())
    return other is not None and target.samefile(other)


@dataclass
class _Member:
    name: str  # path in the archive, with /
    kind: str  # "file", "folder" or "link or device"
    size: int  # bytes, unpacked
    open: Callable[[], IO[bytes]]


@contextmanager
def _telling_what_failed(file: Path) -> Iterator[None]:
    """Raise UserError for all that the reading of an archive can raise: of a damaged or hostile one that is anything."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        if isinstance(e, OSError) and e.filename is not None:
            reason = f"{shown(str(e.filename))} can't be written ({e.strerror}); unpack it by hand"
        else:
            said = shown(str(e)) or type(e).__name__
            reason = f"not an archive that can be unpacked, or a damaged one ({said}); get it anew"
        raise UserError(f"{shown(str(file))}: {reason}") from None


@contextmanager
def _open_archive(file: Path) -> Iterator[list[_Member]]:
    """The members of a zip or tar archive, alike for both, where all of them may be unpacked. Raises UserError."""
    most = max(LEAST_LIMIT, MOST_GROWTH * require_file(file, "zip or tar archive").stat().st_size)
    with _telling_what_failed(file):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                yield _checked(file, most, (_zip_member(archive, info) for info in archive.infolist()))
        else:
            with _open_tar(file) as stream, tarfile.open(fileobj=_Bounded(stream, most), mode="r:") as archive:
                members = _checked(file, most, (_tar_member(archive, info) for info in archive))
                # the listing of tarfile takes a damaged header for the end
                stream.seek(archive.offset)
                if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("a damaged header")
                yield members


def _open_tar(file: Path) -> IO[bytes]:
    with open(file, "rb") as f:
        head = f.read(6)
    for signature, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if head.startswith(signature):
            return opener(file)
    return open(file, "rb")


class _Bounded:
    """The bytes of a tar for tarfile, which takes the word of a header for how much to read, and how far to go."""

    def __init__(self, stream: IO[bytes], most: int):
        self.stream, self.most = stream, most
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.stream.read(size)

    def seek(self, position: int) -> None:
        if not 0 <= position <= self.most:
            raise tarfile.ReadError(f"it goes on at byte {position}; of an archive of its size, {self.most} are read")
        self.stream.seek(position)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    file_type = info.external_attr >> 28  # the top bits of the Unix mode, 0 where the archive has none
    kind = "folder" if info.is_dir() else "file" if file_type in {0, 0o10} else "link or device"
    return _Member(info.filename, kind, info.file_size, lambda: archive.open(info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    info.pax_headers = {}  # of any length, and not needed
    kind = "folder" if info.isdir() else "file" if info.isreg() else "link or device"
    return _Member(info.name, kind, info.size, lambda: archive.extractfile(info))


def _checked(file: Path, most: int, members: Iterable[_Member]) -> list[_Member]:
    """The members, as long as all of them may be unpacked: by their names and kinds, and ``most`` bytes together."""
    checked, total = [], 0
    for member in members:
        name, said = member.name.replace("\\", "/"), shown(member.name)  # a path separator on Windows
        if member.kind == "link or device":
            raise UserError(
                f"{file}: holds a link or device, {said!r}; nothing is unpacked: do it by hand if you trust it"
            )
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
            raise UserError(
                f"{file}: {said!r} would land outside the folder; nothing is unpacked: don't trust this file"
            )
        if "\0" in name:
            raise UserError(f"{file}: {said!r} can't be the name of a file; nothing is unpacked: get it anew")
        total += member.size + tarfile.BLOCKSIZE
        if member.size < 0 or total > most:
            raise UserError(
                f"{file}: would grow to more than {most:,} bytes, {MOST_GROWTH} times its own size or more; "
                "nothing is unpacked: do it by hand if you trust it"
            )
        checked.append(member)
    return checked
