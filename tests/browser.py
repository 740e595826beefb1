"""A headless Chromium for tests of pages, driven over a pipe: no port, no driver, no package.

It speaks the DevTools protocol: JSON messages that end in a zero byte, commands on the browser's
file 3, answers and events on its file 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = "/usr/bin/chromium"
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars --mute-audio --remote-debugging-pipe"
).split()
_KEYS = {" ": ("Space", 32), "Tab": ("Tab", 9), "Enter": ("Enter", 13), "Escape": ("Escape", 27),
         "ArrowLeft": ("ArrowLeft", 37), "ArrowUp": ("ArrowUp", 38),
         "ArrowRight": ("ArrowRight", 39), "ArrowDown": ("ArrowDown", 40),
         "Home": ("Home", 36), "End": ("End", 35)}  # fmt: skip


class Chromium:
    """The process, and the messages of all its pages."""

    def __init__(self, profile: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # The shell gives the pipes the numbers that Chromium expects; its own 3 and 4 may be taken.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$@" 3</dev/fd/$IN 4>/dev/fd/$OUT', "sh", CHROMIUM, *_FLAGS,
             f"--user-data-dir={profile}", "about:blank"],
            env=os.environ | {"IN": str(to_read), "OUT": str(to_write)},
            pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def close(self) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)


class Page:
    """One tab. `errors` are the browser's errors, exceptions and whatever the page logs; `requests`
    the URLs asked for."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._target = chromium.call("Target.createTarget", url="about:blank")["targetId"]
        attached = chromium.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(1280, 900)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._chromium.call(method, self._session, **params)

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.call("Runtime.evaluate", expression="0")  # whatever was under way has arrived
        return [
            e["params"] for e in self._chromium.events
            if e.get("sessionId") == self._session and e["method"] == method
        ]  # fmt: skip

    @property
    def errors(self) -> list[str]:
        entries = [e["entry"] for e in self._events("Log.entryAdded")]
        logged = [e["text"] for e in entries if e["level"] == "error"]
        thrown = [str(e["exceptionDetails"]) for e in self._events("Runtime.exceptionThrown")]
        said = [str(e["args"]) for e in self._events("Runtime.consoleAPICalled")]
        return logged + thrown + said

    @property
    def requests(self) -> list[str]:
        return [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]

    def open(self, path: Path) -> None:
        self.js("window.left = true")  # the page that is left may have the same address
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("!window.left && document.readyState === 'complete'")

    def close(self) -> None:
        self._chromium.call("Target.closeTarget", targetId=self._target)

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                           returnByValue=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """Wait until an expression is true; returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.03)
        return value

    def text(self, selector: str) -> str:
        return str(self.js(f"document.querySelector({json.dumps(selector)}).textContent"))

    def choose(self, selector: str, value: str | float) -> None:
        """Pick an option of a <select>, as its user would."""
        self.js(f"{{ const s = document.querySelector({json.dumps(selector)}); "
                f"s.value = {json.dumps(str(value))}; "
                "s.dispatchEvent(new Event('change', {bubbles: true})); }")  # fmt: skip

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """The point of an element at the given share of its width and height, scrolled to and come
        to rest: a smooth scroll may still be under way, or something above it be growing."""
        place = (
            f"(async () => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "await new Promise((r) => setTimeout(r, 25)); "
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        before, now = None, self.js(place)
        while before != now:
            before, now = now, self.js(place)
        left, top, width, height = now
        return left + x * width, top + y * height

    def mouse(self, kind: str, x: float, y: float, down: bool = False) -> None:
        """kind: Pressed, Moved or Released."""
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, clickCount=1,
                  button="none" if kind == "Moved" and not down else "left",
                  buttons=int(down))  # fmt: skip

    def click(self, selector: str) -> None:
        x, y = self.place(selector)
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y, down=True)
        self.mouse("Released", x, y)

    def key(self, key: str) -> None:
        code, number = _KEYS.get(key, (key, ord(key[0].upper())))
        fields = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **fields, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=mobile)  # fmt: skip

    def media(self, **features: str) -> None:
        """Media features: media(prefers_color_scheme="dark")."""
        found = [{"name": n.replace("_", "-"), "value": v} for n, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=found)

    def downloads(self, folder: Path) -> None:
        """Downloads go to a folder."""
        self._chromium.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder)
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A browser; a test fails where there is none, and is skipped where GVCC_NO_BROWSER=1."""
    if os.environ.get("GVCC_NO_BROWSER") == "1":
        pytest.skip("GVCC_NO_BROWSER=1")
    if not Path(CHROMIUM).exists():
        pytest.fail(
            f"{CHROMIUM} is missing: apt-get install -y --no-install-recommends chromium "
            "(or GVCC_NO_BROWSER=1 to skip the tests of the pages)"
        )
    found = Chromium(profile)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(profile, ignore_errors=True)
