"""A headless Chromium to try pages in, driven over a pipe by the DevTools protocol; nothing but the standard library is needed.

with Browser.start(folder) as browser:
    browser.open(page)
    browser.run("document.title")
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60


def find_browser() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a browser. ``complaints``: what its console and its exceptions have said since it was opened."""

    def __init__(self, process: subprocess.Popen, into: int, out: int):
        self.process, self.into, self.out = process, into, out
        self.buffer, self.number, self.session = b"", 0, None
        self.complaints, self.events = [], []

    @classmethod
    @contextmanager
    def start(cls, folder: Path):
        """A browser that keeps its profile in ``folder`` and reads NUL-terminated commands from descriptor 3, answers on 4."""
        ours, theirs = os.pipe(), os.pipe()
        # --no-sandbox: there are none for root, nor in containers
        flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
        flags += f" --remote-debugging-pipe --user-data-dir={folder} --hide-scrollbars --disable-extensions"
        command = [find_browser(), *flags.split(), "about:blank"]
        script = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", script, "browser", *command],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
        for descriptor in (ours[0], theirs[1]):
            os.close(descriptor)
        browser = cls(process, ours[1], theirs[0])
        try:
            target = browser.send("Target.createTarget", url="about:blank")["targetId"]
            browser.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                browser.send(f"{domain}.enable")
            browser.speak("en-US")
            yield browser
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for descriptor in (ours[1], theirs[0]):
                os.close(descriptor)

    def send(self, method: str, **parameters) -> dict:
        """The answer to a command; what happens meanwhile is noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.into, data) :]
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.note(answer)

    def receive(self) -> dict:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            assert select.select([self.out], [], [], max(0, end - time.monotonic()))[0], "the browser does not answer"
            piece = os.read(self.out, 2**20)
            assert piece, "the browser has gone"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def note(self, event: dict) -> None:
        self.events.append(event["method"])
        if event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(event["params"])

    def open(self, page: Path) -> None:
        self.events.clear()
        self.complaints.clear()
        self.send("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self.events:
            self.note(self.receive())

    def run(self, script: str):
        """The value of a script's last expression, which may be a promise of it."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def point_at(self, selector: str, click: bool = False) -> None:
        """Move the pointer to the middle of an element, as a hand does."""
        script = f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = node.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.run(script)
        kinds = ["mouseMoved", *(["mousePressed", "mouseReleased"] if click else [])]
        for kind in kinds:
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        extra = {"windowsVirtualKeyCode": codes[key], **({"text": "\r"} if key == "Enter" else {})}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **extra)

    def screen(self, width: int, height: int = 900, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def speak(self, language: str) -> None:
        """The language that pages are asked for from now on."""
        self.send("Emulation.setUserAgentOverride", userAgent="Chromium", acceptLanguage=language)

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def print(self, file: Path) -> None:
        found = self.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        file.write_bytes(base64.b64decode(found["data"]))
