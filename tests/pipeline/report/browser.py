"""A real browser, driven over two pipes (the DevTools protocol): what it laid out, asked for and complained of."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_ON_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
_SECONDS = 60.0


def find_browser() -> str | None:
    """The program, if one is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A headless browser without network, until `close`."""

    def __init__(self, program: str, profile: Path) -> None:
        # The browser reads from 3 and writes to 4; high numbers cannot be either of them.
        ends = [*os.pipe(), *os.pipe()]
        there_read, self._write, self._read, there_write = (_high(end) for end in ends)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-dev-shm-usage"]
        command = [sys.executable, "-c", _ON_PIPES, str(there_read), str(there_write), program, *flags]
        self._process = subprocess.Popen(
            command, pass_fds=(there_read, there_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(there_read)
        os.close(there_write)
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.send(f"{domain}.enable")

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Load a page at this size and open all that is folded; `events` are those of this page."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.events = []
        self.send("Page.navigate", {"url": page.as_uri()})
        self._until(lambda message: message.get("method") == "Page.loadEventFired")
        self.ask("document.querySelectorAll('details').forEach(each => each.open = true)")

    def ask(self, expression: str) -> Any:
        """The value of an expression on the page; our own questions are not subject to its content policy."""
        return self.send("Runtime.evaluate", {"expression": expression, "returnByValue": True})["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """All of the page as an image."""
        shot = self.send("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """All addresses that the page has asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def complaints(self) -> list[Any]:
        """What stands on the console or was reported as an issue: blocked by policy, errors, warnings."""
        names = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded")
        return [event["params"] for event in self.events if event.get("method") in names]

    def send(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        """A command to the page."""
        return self._call(method, parameters, self._session)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters or {}}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        answer = self._until(lambda found: found.get("id") == number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _until(self, wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + _SECONDS
        while True:
            while b"\0" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\0")
                message: dict[str, Any] = json.loads(line)
                self.events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            content = os.read(self._read, 1 << 20) if ready else b""
            assert content, "the browser does not answer"
            self._buffer += content


def _high(end: int) -> int:
    import fcntl

    found = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(end)
    return found
