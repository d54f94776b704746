"""Downloads that break off, and archives that are damaged or reach out of their folder."""

import contextlib
import gzip
import io
import os
import socket
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import utils.download
from tests.helpers.sets import make_zip
from utils.download import download_archive, download_file, extract_archive, url_name
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


@pytest.mark.parametrize(
    "url",
    [
        "http://[/a.zip", "http://127.0.0.1:99999/a.zip",
        "http://127.0.0.1:x/a.zip", "http:///a.zip", f"http://{'a' * 300}/a.zip",
        f"http://{'é' * 200}/a.zip", "http://user:secret@127.0.0.1:1/a.zip", f"http://127.0.0.1:1/{'x' * 9000}/a.zip",
        "file://host/a.zip",
    ],
)  # fmt: skip
def test_urls_that_can_not_be(tmp_path, url):
    with pytest.raises(UserError, match="not a URL that can be asked for: ") as e:
        download_file(url, tmp_path / "a.zip")
    assert "secret" not in str(e.value) and len(str(e.value)) < 600
    assert list(tmp_path.iterdir()) == []


def test_file_urls_are_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    for path, words in (
        ("/dev/zero", "is a pipe"),
        (f"{tmp_path}/pipe.zip", "is a pipe"),
        ("/nowhere", "no such"),
        ("/", "folder"),
    ):
        with pytest.raises(UserError, match=words):
            download_file(f"file://{path}", tmp_path / "dest")
    (tmp_path / "ä b.txt").write_text("whole")
    assert download_file(f"file://{tmp_path}/%C3%A4%20b.txt", tmp_path / "dest").read_text() == "whole"


@pytest.fixture
def answering():
    """A function: bytes → the URL of a server that answers every request by them, and a list of the requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    here, requests = f"http://127.0.0.1:{listener.getsockname()[1]}", []

    def serve(answer: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                requests.append(connection.recv(65536))
                connection.sendall(answer)

    def answering(answer: bytes) -> tuple[str, list[bytes]]:
        threading.Thread(target=serve, args=(answer.replace(b"HERE", here.encode()),), daemon=True).start()
        return here, requests

    yield answering
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_urls_are_sent_in_ascii(tmp_path, answering):
    here, requests = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert download_file(f"{here}/图%20a.bin?ü=\x01", tmp_path / "a").read_bytes() == b"ok"
    assert requests[0].startswith(b"GET /%E5%9B%BE%20a.bin?%C3%BC=%01 HTTP")


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1:1/a", "http://[", "HERE/a", "http://127.0.0.1:99999/"]
)
def test_redirects_lead_to_other_servers_or_nowhere(tmp_path, answering, place):
    url, _ = answering(b"HTTP/1.1 302 Found\r\nLocation: " + place.encode() + b"\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(UserError, match="not downloaded: "):
        download_file(f"{url}/a.bin", tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", ["-5", "x", "1e9", ""])
def test_a_length_that_is_none_is_not_believed(tmp_path, answering, length):
    url, _ = answering(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nwhole".encode())
    assert download_file(f"{url}/a.bin", tmp_path / "a.bin").read_bytes() == b"whole"


def test_more_than_the_disk_holds_is_not_begun(tmp_path, answering):
    url, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999999\r\n\r\nx")
    with pytest.raises(UserError, match="no room for 999,999,999,999,999,999,999 bytes"):
        download_file(f"{url}/a.bin", tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_what_a_server_says_is_shown_harmlessly(tmp_path, answering):
    url, _ = answering(b"HTTP/1.1 404 \x1b[2J" + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(UserError) as e:
        download_file(f"{url}/a.bin", tmp_path / "a.bin")
    assert str(e.value).isprintable() and len(str(e.value)) < 600


@pytest.mark.parametrize(
    ("url", "name"), [("http://a/b/..", ""), ("http://a/%2e%2e", ""), ("http://a", ""), ("http://[", "")]
)
def test_urls_that_name_no_file(tmp_path, url, name):
    assert url_name(url) == name
    with pytest.raises(UserError, match="this URL names no file"):
        download_archive(url, tmp_path / "set")


def test_names_of_urls_are_names_of_files():
    assert url_name("http://a/x/b.zip?c#d") == "b.zip" and url_name("http://a/%E5%9B%BE.zip") == "图.zip"
    assert url_name("http://a/x%2Fy%00.zip") == "y_.zip" and len(url_name(f"http://a/{'x' * 900}")) == 200


def test_archives_that_grow_without_end_are_refused_before_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(utils.download, "LEAST_LIMIT", 1 << 20)
    info = tarfile.TarInfo("a.txt")
    # a negative size is refused by tarfile itself from Python 3.12 on
    for size, words in ((4 << 20, ""), (1 << 50, ""), (-1, "|not an archive .* .invalid offset.")):
        info.size = size
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20)))
        with pytest.raises(UserError, match=f"a.tar.gz: (would grow to more than{words})"):
            extract_archive(tmp_path / "a.tar.gz", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(4 << 20))
    with pytest.raises(UserError, match="a.zip: would grow to more than"):
        extract_archive(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "size"), [(b"L", 1 << 40), (b"x", 1 << 40), (b"L", -1000), (b"x", 2 << 20)])
def test_headers_of_a_tar_are_short(tmp_path, kind, size):
    """tarfile reads as much at once as a header says."""
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, size
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20)))
    with pytest.raises(UserError, match="a.tar.gz: not an archive that can be unpacked.*(header of|invalid offset)"):
        extract_archive(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_tar_that_is_damaged_in_the_middle_is_refused(tmp_path):
    file = make_tar(tmp_path / "a.tar", *((name, tarfile.REGTYPE, name) for name in "abc"))
    data = bytearray(file.read_bytes())
    data[1024 + 10] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(UserError, match="a.tar: not an archive .*a damaged header"):
        extract_archive(file, tmp_path / "out")
    file.write_bytes(gzip.compress(b"".join(tarfile.TarInfo("a").tobuf() for _ in range(1))[:500] + b"L" * 12))
    with pytest.raises(UserError, match="a.tar: not an archive"):
        extract_archive(file, tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_members_that_are_one_file_are_named(tmp_path, names):
    file = make_tar(tmp_path / "a.tar", *((name, tarfile.REGTYPE, "x") for name in names))
    with pytest.raises(UserError, match="would take the place of another member|can't be written"):
        extract_archive(file, tmp_path / "out")


def test_members_that_differ_by_case_are_two_where_the_disk_tells_them_apart(tmp_path):
    file = make_tar(tmp_path / "a.tar", ("A", tarfile.REGTYPE, "upper"), ("a", tarfile.REGTYPE, "lower"))
    for _ in range(2):
        extract_archive(file, tmp_path / "out")
        assert {p.name: p.read_text() for p in (tmp_path / "out").iterdir()} == {"A": "upper", "a": "lower"}


def test_encrypted_members_and_names_that_differ_within_a_zip(tmp_path):
    file = make_zip(tmp_path / "a.zip", **{"abc.txt": "text"})
    data = file.read_bytes()
    place = data.rfind(b"PK\1\2")
    for changed in (data[: place + 8] + b"\1" + data[place + 9 :], data.replace(b"abc.txt", b"abd.txt", 1)):
        file.write_bytes(changed)
        with pytest.raises(UserError, match="a.zip: not an archive that can be unpacked.*(encrypted|differ)"):
            extract_archive(file, tmp_path / "out")


def test_an_archive_that_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(UserError, match="a.zip: is a pipe"):
        download_archive("http://127.0.0.1:1/a.zip", tmp_path / "set")
