"""Downloads that break off, and archives that are damaged or reach out of their folder."""

import io
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helpers.sets import make_zip
from utils.download import download_archive, download_file, extract_archive
from utils.errors import UserError


@pytest.fixture
def server():
    """A web server with one whole file, one that breaks off, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in {"/whole.bin", "/short.bin"}:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", "3000")
            self.end_headers()
            self.wfile.write(b"x" * (3000 if self.path == "/whole.bin" else 1000))

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_download_file(tmp_path, server):
    dest = tmp_path / "new/folder/a.bin"
    assert download_file(f"{server}/whole.bin", dest) == dest
    assert dest.read_bytes() == b"x" * 3000
    dest.write_text("mine")
    download_file(f"{server}/whole.bin", dest)
    assert dest.read_text() == "mine"  # what is there is taken as it is


@pytest.mark.parametrize(
    ("name", "words"), [("gone.bin", "the server answers 404"), ("short.bin", "broke off after 1000 of 3000 bytes")]
)
def test_failed_downloads_leave_nothing(tmp_path, server, name, words):
    with pytest.raises(UserError) as e:
        download_file(f"{server}/{name}", tmp_path / name)
    assert f"{server}/{name}" in str(e.value) and words in str(e.value)
    assert str(e.value).endswith(f"put it at {tmp_path / name}")
    assert list(tmp_path.iterdir()) == []


def test_offline(tmp_path, server):
    with pytest.raises(UserError, match="http://127.0.0.1:1/a.zip: not downloaded: .*refused.* put it at .*/a.zip"):
        download_archive("http://127.0.0.1:1/a.zip", tmp_path / "set")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not downloaded: .*put it at"):
        download_file(f"{server}/whole.bin", tmp_path / "file/a.bin")


def test_archive_put_there_by_hand_is_used_and_kept(tmp_path):
    archive = make_zip(tmp_path / "a.zip", **{"x.txt": "X"})
    download_archive("http://127.0.0.1:1/a.zip", tmp_path / "set")
    assert (tmp_path / "set/x.txt").read_text() == "X" and archive.exists()


def test_damaged_archives(tmp_path, server):
    with pytest.raises(UserError, match="whole.bin: not an archive that can be unpacked"):
        download_archive(f"{server}/whole.bin", tmp_path / "set")
    assert list(tmp_path.iterdir()) == []  # not left to be found the next time
    archive = make_zip(tmp_path / "a.zip", **{"x.txt": "some text"})
    archive.write_bytes(archive.read_bytes().replace(b"some text", b"some tent"))
    with pytest.raises(UserError, match="a.zip: not an archive that can be unpacked.*CRC"):
        extract_archive(archive, tmp_path / "set")
    assert list((tmp_path / "set").iterdir()) == []


def make_tar(file: Path, *members: tuple[str, bytes | str, str], mode: str = "w") -> Path:
    """A tar with members (name, type, content or link target)."""
    with tarfile.open(file, mode) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = content if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
            archive.addfile(info, io.BytesIO(content.encode()) if info.size else None)
    return file


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz"])
def test_archives_are_unpacked(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        make_zip(file, **{"set/": "", "set/images/é.txt": "E", "./b..c.txt": "B"})
    else:
        entries = [("set", tarfile.DIRTYPE, ""), ("set/images/é.txt", tarfile.REGTYPE, "E")]
        make_tar(file, *entries, ("./b..c.txt", tarfile.REGTYPE, "B"), mode=f"w:{suffix[4:]}")
    folder = tmp_path / "out"
    (folder / "set/images").mkdir(parents=True)
    extract_archive(file, folder)
    assert (folder / "set/images/é.txt").read_text() == "E"
    assert (folder / "b..c.txt").read_text() == "B"
    (folder / "b..c.txt").write_text("mine")
    (folder / "set/images/é.txt").unlink()
    extract_archive(file, folder)
    assert (folder / "b..c.txt").read_text() == "mine"  # what is there stays
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "b..c.txt",
        "set/images/é.txt",
    ]


OUTSIDE = ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:/evil.txt"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_outside_the_folder_are_refused(tmp_path, kind, name):
    (tmp_path / "in").mkdir()
    if kind == "zip":
        file = make_zip(tmp_path / "a.zip", **{"good.txt": "good", name: "evil"})
    else:
        file = make_tar(tmp_path / "a.tar", ("good.txt", tarfile.REGTYPE, "good"), (name, tarfile.REGTYPE, "evil"))
    with pytest.raises(UserError, match=f"a.{kind}: .*evil.txt' would land outside the folder"):
        extract_archive(file, tmp_path / "in/out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == [file.name, "in"]  # not even the good one
    assert not Path("/evil.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_a_tar_are_refused(tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    file = make_tar(tmp_path / "a.tar", ("link", kind, "../outside"), ("link/evil.txt", tarfile.REGTYPE, "evil"))
    with pytest.raises(UserError, match="a.tar: holds a link or device, 'link'"):
        extract_archive(file, tmp_path / "out")
    assert list(outside.iterdir()) == [] and not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc")
        archive.writestr("link/evil.txt", "evil")
    with pytest.raises(UserError, match="a.zip: holds a link or device, 'link'"):
        extract_archive(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()
