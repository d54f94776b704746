"""Files of torch.save: both formats, and archives and tensors that are not what they say."""

import io
import os
import zipfile
from collections import OrderedDict

import pytest
import torch

from utils.checkpoint import read_checkpoint
from utils.errors import UserError
from utils.saved import container
from utils.saved.container import open_saved

OLD = {"_use_new_zipfile_serialization": False}


def written(data, path, **more):
    torch.save(data, path, **more)
    return path


def everything(path):
    saved = open_saved(path)
    return saved.plain(saved.tree)


@pytest.mark.parametrize("format", [{}, OLD], ids=["archive", "before 1.6"])
def test_tensors_come_back_whatever_their_kind_and_view(format, tmp_path):
    whole = torch.arange(24.0).view(4, 6)
    data = {
        "views": [whole, whole[1:3, 2:], whole.t(), whole[:, 3], whole[4:], whole.view(2, 2, 6)[1]],
        "kinds": [
            torch.arange(3).to(kind)
            for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)
        ]
        + [torch.tensor([True, False]), torch.zeros((), dtype=torch.uint8), torch.tensor([1j]), torch.zeros(0, 3)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "named": OrderedDict(a=torch.ones(1)),
    }
    found = everything(written(data, tmp_path / "a.pt", **format))
    for key in ("views", "kinds"):
        for a, b in zip(found[key], data[key], strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)
    assert torch.equal(found["parameter"], torch.ones(2)) and found["named"]["a"].item() == 1


class False_:
    """Pickled as a tensor of this size, strides and offset over four numbers."""

    def __init__(self, *said):
        self.said = said

    def __reduce__(self):
        offset, size, strides = self.said
        storage = torch.arange(4.0).untyped_storage()
        typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
        return torch._utils._rebuild_tensor_v2, (typed, offset, size, strides, False, OrderedDict())


@pytest.mark.parametrize(
    "said",
    [
        (0, (10**6, 10**6), (0, 0)),
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (5, (0,), (1,)),
        (0, (2, 2), (1, 3)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (1,), (-1,)),
        (0, (0, 2**40), (1, 1)),
        (0, (2,), (1, 1)),
        (0, ("a",), (1,)),
        (0, (1,) * 40, (1,) * 40),
        (True, (1,), (1,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("format", [{}, OLD], ids=["archive", "before 1.6"])
def test_a_tensor_lies_within_its_numbers(said, format, tmp_path):
    with pytest.raises(UserError, match="a.pt: is damaged: it has a tensor of size"):
        everything(written([False_(*said)], tmp_path / "a.pt", **format))


def repacked(path, change, compression=zipfile.ZIP_STORED):
    """An archive with its members as ``change`` gives them."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in change(members):
            archive.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "compression", "words"),
    [
        (lambda m: m, zipfile.ZIP_DEFLATED, "compressed"),
        (lambda m: [*m, m[0]], zipfile.ZIP_STORED, "a member twice"),
        (lambda m: [(n, d) for n, d in m if "data/0" not in n], zipfile.ZIP_STORED, "lacks numbers"),
        (lambda m: [(n, d[:-1] if "data/0" in n else d) for n, d in m], zipfile.ZIP_STORED, "a tensor of size"),
        (lambda m: [(n, b"big" if "byteorder" in n else d) for n, d in m], zipfile.ZIP_STORED, "order of bytes"),
        (lambda m: [(n, d) for n, d in m if "pkl" not in n], zipfile.ZIP_STORED, "no training checkpoint"),
    ],
)
def test_archives_that_torch_does_not_write_are_named(change, compression, words, tmp_path):
    path = repacked(written([torch.arange(500.0)], tmp_path / "a.pt"), change, compression)
    with pytest.raises(UserError, match=f"a.pt: .*{words}"):
        everything(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """Each is as long as the file: together they would take very much more memory."""
    path = written([torch.arange(5000.0)], tmp_path / "a.pt")
    content = path.read_bytes()
    start = content.index(b"PK\1\2")
    last = content.rindex(b"PK\1\2")
    record = bytearray(content[start:])
    found = io.BytesIO(content)
    assert last > start and found.read(2) == b"PK"
    # the first member of the list, the pickle, is said to be as long as the rest
    at = start + 20
    changed = bytearray(content)
    changed[at : at + 8] = (len(content) - 100).to_bytes(4, "little") * 2
    path.write_bytes(changed)
    assert len(record) > 46
    with pytest.raises(UserError, match="larger than itself"):
        everything(path)


def test_a_list_of_very_many_members_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "MOST_LISTED", 50_000)
    path = repacked(written([1], tmp_path / "a.pt"), lambda m: [*m, *((f"a/{i}", b"") for i in range(2000))])
    with pytest.raises(UserError, match="far too many members"):
        everything(path)


def test_a_file_larger_than_half_the_free_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "available_memory", lambda: 1000)
    with pytest.raises(UserError, match="is not read"):
        read_checkpoint(written([torch.zeros(500)], tmp_path / "a.pt"))


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "device.pt").symlink_to("/dev/zero")
    (tmp_path / "folder.pt").mkdir()
    for name in ("pipe", "device", "folder"):
        with pytest.raises(UserError, match=f"{name}.pt: is a"):
            read_checkpoint(tmp_path / f"{name}.pt")
    for path in ("x\0.pt", "x" * 5000):
        with pytest.raises(UserError, match="no such checkpoint"):
            read_checkpoint(path)


def test_data_without_end_is_refused(tmp_path):
    itself: list = []
    itself.append(itself)
    deep: list = []
    for _ in range(200):
        deep = [deep]
    twice: list = [1]
    for _ in range(60):
        twice = [twice, twice]
    for data, words in ((itself, "deep"), (deep, "deep"), (twice, "more than")):
        with pytest.raises(UserError, match=words):
            everything(written(data, tmp_path / "a.pt"))
