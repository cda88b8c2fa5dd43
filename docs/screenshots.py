"""Makes the pictures of docs/dashboard.md: each page, light and dark. `python docs/screenshots.py [PAGE…]`

It takes Playwright for Python, and a chromium on this machine.
"""

import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from gearwsgi.dashboard import Dashboard  # noqa: E402
from gearwsgi.wire import packets  # noqa: E402
from gearwsgi.wire.connection import Connection  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.dashboards import beat, fill, middleware, open_store, served  # noqa: E402
from tests.support import JobServer  # noqa: E402

LIMITS = {
    "stripe:*": {"concurrency": 1, "rate": "100/minute"}, "report": {"concurrency": 2}, "mail:*": {"rate": "20/second"},
}  # fmt: skip
KEYS = {"stripe:42": 38, "report": 5, "stripe:7": 3, "mail:ada@example.org": 2}
SIZE = {"width": 1120, "height": 700}
LONGEST = 860


def shrink(picture: bytes) -> bytes:
    """A PNG of Chromium's (8 bits a channel, RGB) as one with a palette of 256 colours: a fifth of the bytes."""
    chunks, place = [], 8
    while place < len(picture):
        (length,) = struct.unpack_from(">I", picture, place)
        chunks.append((picture[place + 4 : place + 8], picture[place + 8 : place + 8 + length]))
        place += length + 12
    width, height, depth, kind = struct.unpack_from(">IIBB", dict(chunks)[b"IHDR"])
    assert (depth, kind) == (8, 2)
    lines = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    pixels = list(_pixels(lines, width, height))
    palette = [color for color, _ in Counter(color for row in pixels for color in row).most_common(256)]
    places = {color: number for number, color in enumerate(palette)}

    def find(color: bytes) -> int:
        if color not in places:
            places[color] = min(range(len(palette)), key=lambda at: _distance(palette[at], color))
        return places[color]

    rows = b"".join(b"\0" + bytes(map(find, row)) for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return picture[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def _pixels(lines: bytes, width: int, height: int) -> Iterator[list[bytes]]:
    """The colours of each line: what PNG's filters did is undone."""
    above = bytearray(3 * width)
    for number in range(height):
        start = number * (3 * width + 1)
        kind, row = lines[start], bytearray(lines[start + 1 : start + 1 + 3 * width])
        for at in range(3 * width):
            left, up, corner = (row[at - 3], above[at], above[at - 3]) if at >= 3 else (0, above[at], 0)
            row[at] = (row[at] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]) & 255
        above = row
        yield [bytes(row[at : at + 3]) for at in range(0, 3 * width, 3)]


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def main(wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="gearwsgi-") as name:
        folder = Path(name)
        server = JobServer("embedded", folder).start()
        shop = middleware(folder / "state", server.address, limits=LIMITS)
        running = Connection(shop.settings.servers[0], 5)
        try:
            ids = fill(shop.settings, tasks=6000)
            for queue in ("job", "job", "images"):
                shop.gearman.task("/search/index", queue=queue)
            for key, number in KEYS.items():
                for _ in range(number):
                    shop.gearman.task("/pay", limit=key)
            for key in ("stripe:42", "report", "report"):
                function = f"job#{key}".encode()
                running.send(packets.pack(packets.CAN_DO, function) + packets.pack(packets.GRAB_JOB), 5)
                running.expect(packets.JOB_ASSIGN, 5)
                running.send(packets.pack(packets.CANT_DO, function), 5)
            pages = {
                "overview": "/", "tasks": "/tasks", "task": f"/task?id={ids['dead']}", "dead": "/dead",
                "services": "/services", "queues": "/queues", "schedules": "/schedules",
                "limits": "/limits", "outbox": "/outbox", "ask": "/dead/ask?do=discard",
            }  # fmt: skip
            dashboard = Dashboard(shop, authorize=lambda environ: "ada")
            with served(dashboard) as url, sync_playwright() as playwright, chromium(playwright) as browser:
                made = {}
                for shown, scheme in product(wanted or pages, ("light", "dark")):
                    with open_store(shop.settings) as store:
                        beat(store, time.time())  # who is not heard of for a minute is not there
                    page = browser.new_page(viewport=SIZE, color_scheme=scheme, timezone_id="Europe/Berlin")
                    page.goto(url + pages[shown])
                    height = min(LONGEST, page.evaluate("document.documentElement.scrollHeight"))
                    clip = {"x": 0, "y": 0, "width": SIZE["width"], "height": height}
                    made[HERE / "images" / f"dashboard-{shown}-{scheme}.png"] = page.screenshot(
                        clip=clip, full_page=True
                    )
                    page.close()
            for path, picture in made.items():
                path.write_bytes(shrink(picture))
                print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size // 1024} KB")
        finally:
            running.close()
            shop.client.close()
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
