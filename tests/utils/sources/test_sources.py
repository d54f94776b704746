"""Live sources and URLs: cameras, network streams that break off and come back, the screen, downloads."""

import os
import sys
import threading
import time
import types
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

import detect
import utils.sources.capture
import utils.sources.streams
from tests.helpers.models import detect_options as options
from tests.helpers.models import make_weights
from utils.errors import UserError
from utils.sources.capture import frame_rate
from utils.sources.sources import Sources, fetch, live_sources
from utils.sources.streams import Stream, display_name, file_stems, is_live


@pytest.fixture
def weights(tmp_path):
    return make_weights(tmp_path / "tiny.pt", seed=0)


class Camera:
    """A camera in the network: MJPEG over HTTP, 25 grey pictures a second whose brightness counts up by 10.

    The first connection gives ``first`` pictures and the others ``later`` (None: as many as are wanted); then it breaks
    off, and with ``dies`` the camera is off the network for good, as after ``die()``. ``damaged``: pictures that are
    no JPEG, by their brightness.
    """

    def __init__(self, first=None, later=None, dies=False, damaged=()):
        camera = self
        self.connections = 0
        self.dead = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if not self.path.startswith("/live"):
                    return self.send_error(404)
                camera.connections += 1
                left = first if camera.connections == 1 else later
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                shade = 0
                while left != 0 and not camera.dead.is_set():
                    data = cv2.imencode(".jpg", np.full((64, 96, 3), shade % 250, np.uint8))[1].tobytes()
                    data = b"x" * len(data) if shade in damaged else data
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + data + b"\r\n")
                    except OSError:
                        return None
                    left = left and left - 1
                    shade += 10
                    time.sleep(0.04)
                if dies:
                    threading.Thread(target=camera.die).start()
                return None

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/live"

    def die(self):
        if not self.dead.is_set():
            self.dead.set()
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture
def camera():
    """``camera(first=5)``: a Camera, taken down after the test."""
    cameras = []

    def make(**settings):
        cameras.append(Camera(**settings))
        return cameras[-1]

    yield make
    for one in cameras:
        one.die()


@pytest.fixture
def short_waits(monkeypatch):
    monkeypatch.setattr(utils.sources.streams, "RETRY_WAITS", (0.05, 0.1))


def test_what_is_live_and_what_is_not():
    for source in (
        "0",
        "12",
        "rtsp://cam/h264",
        "http://10.0.0.7:8080/video",
        "https://a/live.m3u8",
        "screen",
        "screen 1",
    ):
        assert is_live(source), source
    for source in (
        "a.jpg",
        "./0",
        "http://a/b.jpg",
        "https://a/b.MP4?x=1",
        "screen.png",
        "file:///a.jpg",
        "list.txt",
        "²",
    ):
        assert not is_live(source), source


def test_three_streams_go_on_when_one_dies(camera, short_waits, tmp_path, capsys):
    """The second is gone for good after five pictures; the others have no end."""
    steady, dying, other = camera(), camera(first=5, dies=True), camera()
    (tmp_path / "three.streams").write_text(f"# cameras\n{steady.url}\n{dying.url}\n\n{other.url}\n")
    sources = Sources(tmp_path / "three.streams")
    before, after = Counter(), Counter()
    for frame in sources:
        (after if sources.faults else before)[frame.place[:10]] += 1
        if min(after["stream 1/3"], after["stream 3/3"]) >= 10:
            break
    assert before["stream 2/3"] >= 1 and after["stream 2/3"] <= 1  # at most the one that lay ready
    assert sources.faults == [f"{dying.url}: no answer, or not a video stream; given up after 2 attempts"]
    said = capsys.readouterr().out
    assert f"warning: {dying.url}: broke off; trying again in 0.05 s" in said
    assert f"warning: {dying.url}: {sources.faults[0].removeprefix(dying.url + ': ')}" in said


def test_detecting_in_three_streams_writes_a_video_of_each(weights, camera, short_waits, tmp_path, capsys):
    urls = [camera(first=40, later=0).url, camera(first=5, dies=True).url, camera(first=40, later=0).url]
    (tmp_path / "three.txt").write_text("\n".join(urls))
    folder = detect.run(**options(weights, tmp_path / "three.txt", tmp_path))
    said = capsys.readouterr().out
    assert ", 3 streams" in said and "3 files or frames skipped or cut short" in said  # all three in the end
    for place, name, count in zip(("1/3", "2/3", "3/3"), file_stems(urls), (40, 5, 40), strict=True):
        assert f"stream {place} (" in said
        video = cv2.VideoCapture(str(folder / f"{name}.mp4"))
        # as long as the stream was, however few of its pictures were looked at
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == count


def test_a_stream_that_comes_back_is_taken_up_again(weights, camera, short_waits, tmp_path, capsys):
    back = camera(first=5, later=5)
    counted = []
    for frame in Sources(back.url):
        counted.append(frame.number)
        if back.connections >= 4:
            break
    assert counted == sorted(counted) and counted[-1] > 10  # one count over all connections
    said = capsys.readouterr().out
    assert said.count("trying again in 0.05 s") >= 3 and "0.1 s" not in said  # each success begins the waits anew


def test_a_damaged_picture_does_not_end_the_stream(camera, short_waits):
    one = camera(first=20, later=0, damaged=(50, 60))
    frames = list(Sources(one.url))
    shades = {round(float(f.image.mean()), -1) for f in frames}
    assert max(shades) >= 150 and shades & {70, 80, 90, 100}  # of the first connection, behind the damage


def test_waits_grow_until_a_stream_is_given_up(camera, short_waits, capsys):
    gone = camera(first=3, later=0)
    sources = Sources(gone.url)
    frames = list(sources)
    assert frames[0].path.suffix == "" and frames[0].live and frames[0].image.shape == (64, 96, 3)
    said = capsys.readouterr().out
    assert said.index("0.05 s") < said.index("0.1 s") < said.index("given up after 2 attempts")
    assert len(sources.faults) == 1
    assert list(utils.sources.streams.RETRY_WAITS) == sorted(utils.sources.streams.RETRY_WAITS)


def test_the_newest_frame_wins(camera):
    """A detector that takes 0.4 s sees one picture in ten or so, each the newest there is."""
    numbers, lasted = [], []
    frames = iter(Sources(camera().url))
    for frame in frames:
        numbers.append(frame.number)
        lasted.append(frame.lasts)
        time.sleep(0.4)
        if len(numbers) == 4:
            break
    frames.close()
    assert min(np.diff(numbers)) >= 3
    assert lasted == np.diff([0, *numbers]).tolist()


def test_vid_stride_of_a_stream(camera, short_waits):
    frames = list(Sources(camera(first=12, later=0).url, vid_stride=4))
    assert {f.number for f in frames} <= {1, 5, 9} and frames[0].fps == pytest.approx(25 / 4)


def test_threads_end_with_the_loop(camera):
    for _ in Sources(camera().url):
        break
    time.sleep(0.3)
    assert not [t for t in threading.enumerate() if isinstance(t, Stream) and t.is_alive()]


def test_lists_of_streams(tmp_path):
    listed = tmp_path / "cams.txt"
    listed.write_text("rtsp://a/1\n0\n")
    assert live_sources(str(listed)) == ["rtsp://a/1", "0"]
    listed.write_text("a.jpg\nb.jpg\n")
    assert live_sources(str(listed)) == []  # images
    listed.write_text("rtsp://a/1\nb.jpg\n")
    with pytest.raises(UserError, match="cams.txt line 2: 'b.jpg' is no stream"):
        live_sources(str(listed))
    streams = tmp_path / "cams.streams"
    streams.write_text("https://a/live.mp4\n")
    assert live_sources(str(streams)) == ["https://a/live.mp4"]
    streams.write_text("# none\n")
    with pytest.raises(UserError, match="cams.streams: lists no streams"):
        live_sources(str(streams))


def test_names_of_results_are_safe_and_hide_passwords():
    assert display_name("rtsp://admin:secret@10.0.0.7/h264") == "rtsp://10.0.0.7/h264"
    stems = file_stems(["rtsp://admin:secret@10.0.0.7/h264", "rtsp://10.0.0.7/h264", "0", "screen 1", "http://a/?ch=2"])
    assert stems == ["rtsp_10_0_0_7_h264", "rtsp_10_0_0_7_h264-2", "0", "screen_1", "http_a_ch_2"]
    assert file_stems(["http://a", "http://a-3", "http://a"]) == ["http_a", "http_a-3", "http_a-2"]


def test_a_camera_that_is_not_there(weights, tmp_path):
    with pytest.raises(UserError, match="87: nothing could be read .*no such camera"):
        detect.run(**options(weights, "87", tmp_path) | {"source": 87})  # from Python a number is one, too


def test_a_camera_is_read_by_its_number_like_any_stream(monkeypatch, short_waits):
    """There is no camera to test with: this stands for what the driver would open under number 3."""
    opened = []

    class Device:
        def __init__(self, number, *rest):
            opened.append((number, *rest))
            self.left = 4

        def isOpened(self):
            return len(opened) == 1

        def get(self, prop):
            return {cv2.CAP_PROP_FPS: 30.0}.get(prop, -1.0)

        def grab(self):
            self.left -= 1
            time.sleep(0.05)
            return self.left >= 0

        def retrieve(self):
            return True, np.full((48, 64, 3), (250, 0, 0), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Device)
    frames = list(Sources("3"))
    assert opened[0] == (3,) and len(opened) == 3  # and two attempts after it was pulled out
    assert frames[-1].number == 4 and frames[0].image[0, 0].tolist() == [0, 0, 250]  # BGR of the driver, RGB here
    assert frames[0].path.name == "3"


def test_unknown_hosts_and_wrong_pages_are_named(weights, camera, tmp_path):
    with pytest.raises(UserError, match="//127.0.0.1:1/live: nothing could be read .*no answer") as e:
        detect.run(**options(weights, "http://me:secret@127.0.0.1:1/live", tmp_path))
    assert "secret" not in str(e.value)
    page = camera().url.replace("/live", "/other")
    with pytest.raises(UserError, match="nothing could be read .*not a video stream"):
        detect.run(**options(weights, page, tmp_path))


# --- the screen --------------------------------------------------------------------


def test_the_screen_needs_a_package(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(UserError, match="--source screen needs a package that is not installed: pip install 'mss>="):
        detect.run(**options(weights, "screen", tmp_path))
    with pytest.raises(UserError, match="write «screen», «screen 1»"):
        Sources("screen 1 2")


def test_the_screen_without_a_display(monkeypatch):
    pytest.importorskip("mss")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    if sys.platform != "linux":
        pytest.skip("only Linux runs without a screen")
    sources = Sources("screen")
    assert list(sources) == []
    assert "the screen can't be read" in sources.faults[0]


def test_a_part_of_the_screen(monkeypatch, short_waits):
    """With a played screen, as mss gives it: BGRA, monitor 0 all of them together."""

    class Screen:
        monitors = (
            {"left": 0, "top": 0, "width": 300, "height": 100},
            {"left": 100, "top": 0, "width": 200, "height": 100},
        )

        def grab(self, area):
            return np.full((area["height"], area["width"], 4), (area["left"], area["top"], 7, 255), np.uint8)

        def close(self):
            pass

    monkeypatch.setitem(sys.modules, "mss", types.SimpleNamespace(MSS=Screen))
    for source, shape, pixel in (
        ("screen", (100, 300, 3), [7, 0, 0]),
        ("screen 1", (100, 200, 3), [7, 0, 100]),
        ("screen 1 10 20 64 48", (48, 64, 3), [7, 20, 110]),
    ):
        frame = next(iter(Sources(source)))
        assert frame.image.shape == shape and frame.image[0, 0].tolist() == pixel

    def refuse(self, area):
        raise RuntimeError("Region has zero\nor negative size")

    monkeypatch.setattr(Screen, "grab", refuse)
    sources = Sources("screen 1 900 900 0 0")
    assert list(sources) == []
    assert "the screen can't be read: Region has zero or negative size" in sources.faults[0]
    sources = Sources("screen 5")
    assert list(sources) == [] and "no monitor 5; there are 1" in sources.faults[0]


# --- URLs of files -----------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """The URL of a web server of a folder with a picture and a short video."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "a b.jpg").write_bytes(cv2.imencode(".jpg", np.full((64, 96, 3), 90, np.uint8))[1].tobytes())
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 12, (96, 64))
    for i in range(4):
        writer.write(np.full((64, 96, 3), 30 * i, np.uint8))
    writer.release()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            file = folder / self.path.split("?")[0].lstrip("/").replace("%20", " ")
            if not file.is_file():
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            self.wfile.write(file.read_bytes())
            return None

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pictures_and_videos_by_url(weights, files, tmp_path, capsys):
    folder = detect.run(**options(weights, f"{files}/a%20b.jpg?size=big", tmp_path))
    assert [p.name for p in folder.iterdir()] == ["a b.jpg"]
    folder = detect.run(**options(weights, f"{files}/clip.mp4", tmp_path))
    assert cv2.VideoCapture(str(folder / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    with pytest.raises(UserError, match="gone.jpg: not downloaded: the server answers 404.* name the file instead"):
        detect.run(**options(weights, f"{files}/gone.jpg", tmp_path))


def test_a_url_can_not_name_a_file_outside_the_folder(files, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    for path in ("/x/%2e%2e%2f%2e%2e%2fevil.jpg", "/..%5cevil.jpg", "/%2e%2e"):
        with pytest.raises(UserError, match="404"):
            fetch(files + path, inside)
    file = fetch((tmp_path / "web" / "a b.jpg").as_uri(), inside)
    assert file.parent == inside and file.name == "a b.jpg"


def test_sources_that_are_no_regular_files_are_named_and_never_read(tmp_path, capsys):
    for name in ("pipe.mp4", "pipe.jpg"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "folder.avi").mkdir()
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    sources = Sources(tmp_path)
    assert list(sources) == [] and len(sources.faults) == 4
    assert sum("is a pipe, device or socket" in fault for fault in sources.faults) == 3
    assert any("folder.avi: is a folder" in fault for fault in sources.faults)
    for name in ("pipe", "pipe.txt", "pipe.streams"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: is a pipe"):
            Sources(tmp_path / name)


def test_a_video_whose_name_is_no_text_is_named(tmp_path, capsys):
    (tmp_path / os.fsdecode(b"\xff.mp4")).write_bytes(b"no video")
    sources = Sources(tmp_path)
    assert list(sources) == []
    assert sources.faults == [f"{tmp_path}/\\udcff.mp4: its path is not UTF-8 text; rename it"]


def test_a_file_that_never_begins_does_not_hold_up_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(utils.sources.capture, "TIMEOUT", 1)
    with open(tmp_path / "a.gif", "wb") as file:
        file.truncate(1 << 40)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((20, 20, 3), np.uint8))
    sources = Sources(tmp_path)
    assert [frame.path.name for frame in sources] == ["b.png"]
    assert "a.gif: not a video that can be read" in sources.faults[0]


def test_a_video_of_huge_frames_is_not_decoded(tmp_path, monkeypatch):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "3000")
    sources = Sources(tmp_path / "a.avi")
    assert list(sources) == [] and "frames of 64x48 pixels: more than 3,000 are not decoded" in sources.faults[0]


@pytest.mark.parametrize("source", ["9" * 30, "http://[", "http://127.0.0.1:99999/live"])
def test_streams_that_can_not_be_are_named(source, capsys):
    streams = Sources(source)
    assert list(streams) == []
    assert len(streams.faults) == 1 and source in streams.faults[0]


def test_rates_that_can_not_be_true_are_not_believed():
    for said, taken in ((0, 30), (-5, 30), (float("nan"), 30), (1e9, 30), (0.5, 0.5), (960, 960)):
        assert frame_rate(types.SimpleNamespace(get=lambda _, said=said: said)) == taken
