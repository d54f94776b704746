"""Files of torch.save as plain data and tensors; nothing in them is imported or called, and all is small before it is big.

open_saved(path)         the file's members and its pickle: an archive, or the format before PyTorch 1.6
    saved.plain(value)   the pickle's data, or a part of it, with tensors
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.device import available_memory
from utils.errors import UserError, shown
from utils.files import require_file
from utils.saved.pickled import CallsCode, Name, NotPlain, PickledObject, Storage, read_pickle
from utils.saved.tensors import KINDS, find_view, take_view

# bytes: of the pickle, and of the list of an archive's members
MOST_PICKLE, MOST_LISTED = 64 << 20, 16 << 20
# values within each other, and values all in all
MOST_DEEP, MOST_VALUES = 100, 500_000
# what the format before PyTorch 1.6 begins with
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def most_bytes() -> int | None:
    """The largest file that is read: half of the memory that is free; None where the system does not say."""
    free = available_memory()
    return None if free is None else free // 2


def open_saved(path: str | Path) -> "Saved":
    """What lies in a file of torch.save. Raises UserError for all that is none, is damaged, or whose pickle calls code."""
    path = require_file(path, "checkpoint", most_bytes())
    try:
        with open(path, "rb") as file:
            archive = file.read(4) == b"PK\3\4"
        return (_Archive if archive else _Stream)(path)
    except OSError as e:
        raise UserError(f"{shown(str(path))}: can't be read ({e.strerror})") from None
    except CallsCode as e:
        raise UserError(
            f"{shown(str(path))}: its pickle calls {e}, which is code and not weights; refused, and nothing was run"
        ) from None
    except NotPlain as e:
        raise UserError(
            f"{shown(str(path))}: is damaged or no checkpoint: it {e}; take another copy of the file"
        ) from None


class Saved:
    """An open file: ``tree`` is what its pickle describes, of which ``plain`` makes data."""

    def __init__(self, path: Path):
        self.path = path
        self.numbers: dict[str, torch.Tensor] = {}
        self.values = 0

    def bytes_of(self, key: str) -> torch.Tensor:
        """The bytes [n], uint8, of the storage under a key. Raises NotPlain where there is none, or it is damaged."""
        raise NotImplementedError

    def plain(self, value: Any, objects: bool = True) -> Any:
        """A copy of ``value`` and all that is in it, with tensors in place of what stands for them.

        Other ``objects`` are left as they are, or refused. Raises UserError for data that holds itself, is deeper than
        MOST_DEEP or larger than MOST_VALUES, and for tensors that do not lie within their numbers.
        """
        try:
            return self._plain(value, objects, 0)
        except NotPlain as e:
            raise UserError(f"{shown(str(self.path))}: is damaged: it {e}; take another copy of the file") from None

    def _plain(self, value: Any, objects: bool, depth: int) -> Any:
        self.values += 1
        if depth > MOST_DEEP:
            raise NotPlain(f"holds values nested more than {MOST_DEEP} deep")
        if self.values > MOST_VALUES:
            raise NotPlain(f"holds more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            return {key: self._plain(v, objects, depth + 1) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self._plain(v, objects, depth + 1) for v in value])
        if isinstance(value, set):
            return {self._plain(v, objects, depth + 1) for v in value}
        if isinstance(value, PickledObject) and (view := find_view(value)) is not None:
            return take_view(view, self._storage(view.storage.key))
        if not objects and isinstance(value, PickledObject | Name | Storage):
            raise NotPlain(f"holds an object ({shown(getattr(value, 'pickled_name', 'a class'), 60)}) among plain data")
        return value

    def _storage(self, key: str) -> torch.Tensor:
        """The bytes of a storage, read once."""
        if key not in self.numbers:
            self.numbers[key] = self.bytes_of(key)
        return self.numbers[key]


class _Archive(Saved):
    """The format since PyTorch 1.6: a zip archive, nothing in it compressed, of a pickle and the numbers of tensors."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            with open(path, "rb") as file:
                self.members = _members(file)
        # of zipfile: what is no archive, or says of itself what can't be
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, struct.error, IndexError) as e:
            raise NotPlain(f"is no sound archive ({shown(str(e), 60)})") from None
        pickles = [name for name in self.members if name.endswith("data.pkl")]
        if len(pickles) != 1 or any(name.endswith("constants.pkl") for name in self.members):
            raise UserError(f"{shown(str(path))}: is no training checkpoint (a TorchScript or other archive)")
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}byteorder" in self.members and bytes(self._read("byteorder").numpy()) != b"little":
            raise NotPlain("was written on a machine with another order of bytes")
        if self.members[pickles[0]].file_size > MOST_PICKLE:
            raise NotPlain(f"has a pickle of more than {MOST_PICKLE:,} bytes")
        self.tree = read_pickle(io.BytesIO(self._read("data.pkl").numpy()))

    def bytes_of(self, key: str) -> torch.Tensor:
        if f"{self.folder}data/{key}" not in self.members:
            raise NotPlain(f"lacks numbers of a tensor ({shown(key, 40)})")
        return self._read(f"data/{key}")

    def _read(self, name: str) -> torch.Tensor:
        """The bytes [n], uint8, of a member, held against its check sum."""
        info = self.members[self.folder + name]
        found = torch.empty(info.file_size, dtype=torch.uint8)
        try:
            with open(self.path, "rb") as file:
                file.seek(info.header_offset)
                signature, *lengths = struct.unpack("<4s22xHH", file.read(30))
                file.seek(sum(lengths), io.SEEK_CUR)
                whole = file.readinto(found.numpy()) == info.file_size
        except (OSError, ValueError, struct.error):
            whole = False
        if not whole or signature != b"PK\3\4" or zlib.crc32(found.numpy()) != info.CRC:
            raise NotPlain(f"is not as it was written ({shown(name, 40)})")
        return found


class _Listing:
    """A file as zipfile reads it to list the members, refusing a list too long to be kept."""

    def __init__(self, file: io.BufferedReader):
        self.file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > MOST_LISTED:
            raise zipfile.BadZipFile("far too many members")
        return self.file.read(count)


def _members(file: io.BufferedReader) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name: each once, none compressed, and together no larger than the file."""
    with zipfile.ZipFile(_Listing(file)) as archive:
        listed = archive.infolist()
    members = {info.filename: info for info in listed}
    if len(members) < len(listed):
        raise NotPlain("is an archive with a member twice")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in listed):
        raise NotPlain("is an archive with members compressed or encrypted, which those of PyTorch are not")
    if sum(info.file_size for info in listed) > file.seek(0, io.SEEK_END):
        raise NotPlain("is an archive whose members are larger than itself")
    return members


class _Stream(Saved):
    """The format before PyTorch 1.6: five pickles, of which the fourth is the data, and then the numbers of tensors."""

    def __init__(self, path: Path):
        super().__init__(path)
        data = path.read_bytes()
        stream = io.BytesIO(data)
        if (read_pickle(stream), read_pickle(stream)) != (MAGIC, PROTOCOL):
            raise NotPlain("is a bare pickle, not one of torch.save")
        system = read_pickle(stream)
        if isinstance(system, dict) and not system.get("little_endian", True):
            raise NotPlain("was written on a machine with another order of bytes")
        storages: dict[str, Storage] = {}
        self.tree = read_pickle(stream, storages)
        keys = read_pickle(stream)
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
            raise NotPlain("does not list its tensors")
        # the numbers of each after how many they are
        rest, start = np.frombuffer(data, np.uint8), stream.tell()
        for key in keys:
            if start + 8 > len(rest) or storages[key].kind not in KINDS:
                break
            size = struct.unpack_from("<q", data, start)[0] * KINDS[storages[key].kind].itemsize
            if not 0 <= size <= len(rest) - start - 8:
                break
            self.numbers[key] = torch.from_numpy(rest[start + 8 : start + 8 + size].copy())
            start += 8 + size

    def bytes_of(self, key: str) -> torch.Tensor:
        raise NotPlain(f"lacks numbers of a tensor ({shown(key, 40)})")
