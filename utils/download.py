"""Downloads: a file from a URL, whole or not at all, and archives that can't write outside their folder."""

import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from utils.errors import UserError
from utils.files import replacing

TIMEOUT = 30  # seconds without a byte


def is_url(text: str) -> bool:
    """Whether a text is a single http, https or file URL."""
    return re.fullmatch(r"(https?|file)://\S+", text) is not None


def download_file(url: str, dest: str | Path, otherwise: str | None = None) -> Path:
    """Download ``url`` to the file ``dest``, with a progress bar. A file that is there already is taken as it is.

    The data goes to a temporary file beside ``dest``, which gets its name once the announced length has arrived.

    Raises UserError if the server can't be reached, answers with an error or breaks off, or if the file can't be written.
    It ends with ``otherwise``: what else can be done; by default where to put the file by hand.
    """
    # Not torch.hub.download_url_to_file: it takes a connection that breaks off for the end of the file.
    dest = Path(dest)
    if dest.exists():
        return dest
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        request = Request(url, headers={"User-Agent": "Python"})
        with urlopen(request, timeout=TIMEOUT) as response, replacing(dest) as temporary, open(temporary, "wb") as f:
            expected = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(desc=dest.name, total=expected, unit="B", unit_scale=True, unit_divisor=1024) as bar:
                while chunk := response.read(1 << 18):
                    f.write(chunk)
                    bar.update(len(chunk))
            if expected is not None and f.tell() != expected:
                raise URLError(f"the connection broke off after {f.tell()} of {expected} bytes")
    except (OSError, HTTPException) as e:  # URLError, HTTPError, timeouts and full disks are OSErrors
        reason = f"the server answers {e.code} {e.reason}" if isinstance(e, HTTPError) else getattr(e, "reason", e)
        otherwise = otherwise or f"get the file by other means and put it at {dest}"
        raise UserError(f"{url}: not downloaded: {reason}. Try again, or {otherwise}") from None
    return dest


def download_archive(url: str, folder: str | Path) -> None:
    """Download a zip or tar archive and unpack it so that ``folder`` holds its content.

    The archive lands beside ``folder``; an archive whose one top folder has that same name is unpacked there, any other
    inside ``folder``. It is deleted after unpacking, unless it was there before.

    Raises UserError like download_file and extract_archive.
    """
    folder = Path(os.path.abspath(folder))
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name:
        raise UserError(f"{url}: this URL names no file; give that of a zip or tar archive")
    file = folder.parent / name
    was_there = file.exists()
    print(f"{'unpacking' if was_there else 'downloading'} {file if was_there else url} to {folder}")
    download_file(url, file)
    try:
        with _open_archive(file) as members:
            tops = {PurePosixPath(member.name).parts[0] for member in members if PurePosixPath(member.name).parts}
        extract_archive(file, folder.parent if tops - {"__MACOSX"} == {folder.name} else folder)
    except UserError:
        if not was_there:
            file.unlink()  # or it would be taken for good the next time
        raise
    if not was_there:
        file.unlink()


def extract_archive(file: str | Path, folder: str | Path) -> None:
    """Unpack a zip or tar archive (also .gz, .bz2, .xz) into ``folder``. Files that are there already stay as they are.

    Raises UserError, before anything is written, if a member has an absolute path, a path that leads out of the folder,
    or is a link or device: data sets need none, and a link can lead anywhere. Also if the archive is damaged; members
    before the damage may then be unpacked.
    """
    file, folder = Path(file), Path(folder)
    with _open_archive(file) as members:
        for member in members:
            _check_member(file, member)
        for member in tqdm(members, desc=f"unpacking {file.name}", unit="file"):
            target = folder.joinpath(*PurePosixPath(member.name).parts)
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
            elif not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary, member.open() as source, open(temporary, "wb") as f:
                    shutil.copyfileobj(source, f, 1 << 18)


@dataclass
class _Member:
    name: str  # path in the archive, with /
    kind: str  # "file", "folder" or "link or device"
    open: Callable[[], IO[bytes]]


@contextmanager
def _open_archive(file: Path) -> Iterator[list[_Member]]:
    """The members of a zip or tar archive, alike for both."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                yield [_Member(i.filename, _zip_kind(i), lambda i=i: archive.open(i)) for i in archive.infolist()]
        else:
            with tarfile.open(file) as archive:
                yield [_Member(i.name, _tar_kind(i), lambda i=i: archive.extractfile(i)) for i in archive.getmembers()]
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as e:
        # RuntimeError is zipfile's word for encrypted members
        raise UserError(f"{file}: not an archive that can be unpacked, or a damaged one ({e}); get it anew") from None


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.is_dir():
        return "folder"
    file_type = info.external_attr >> 28  # the top bits of the Unix mode, 0 where the archive has none
    return "file" if file_type in {0, 0o10} else "link or device"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else "link or device"


def _check_member(file: Path, member: _Member) -> None:
    name = member.name.replace("\\", "/")  # a path separator on Windows
    if member.kind == "link or device":
        raise UserError(
            f"{file}: holds a link or device, {member.name!r}; nothing is unpacked: do it by hand if you trust it"
        )
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise UserError(
            f"{file}: {member.name!r} would land outside the folder; nothing is unpacked: don't trust this file"
        )
