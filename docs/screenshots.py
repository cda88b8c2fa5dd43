"""Makes the pictures of docs/dashboard.md: each page, light and dark. `python docs/screenshots.py [PAGE…]`

It takes Playwright for Python, and a chromium on this machine.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from gearwsgi.dashboard import Dashboard  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.dashboards import fill, middleware, served  # noqa: E402
from tests.support import JobServer  # noqa: E402

SIZE = {"width": 1120, "height": 700}
LONGEST = 1000


def main(wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="gearwsgi-") as name:
        folder = Path(name)
        server = JobServer("embedded", folder).start()
        shop = middleware(folder / "state", server.address)
        try:
            ids = fill(shop.settings, tasks=6000)
            for queue in ("job", "job", "images"):
                shop.gearman.task("/search/index", queue=queue)
            pages = {
                "overview": "/", "tasks": "/tasks", "task": f"/task?id={ids['dead']}", "dead": "/dead",
                "services": "/services", "queues": "/queues", "outbox": "/outbox", "ask": "/dead/ask?do=discard",
            }  # fmt: skip
            dashboard = Dashboard(shop, authorize=lambda environ: "ada")
            with served(dashboard) as url, sync_playwright() as playwright, chromium(playwright) as browser:
                for scheme in ("light", "dark"):
                    context = browser.new_context(viewport=SIZE, color_scheme=scheme, timezone_id="Europe/Berlin")
                    page = context.new_page()
                    for shown in wanted or pages:
                        page.goto(url + pages[shown])
                        height = min(LONGEST, page.evaluate("document.documentElement.scrollHeight"))
                        path = HERE / "images" / f"dashboard-{shown}-{scheme}.png"
                        clip = {"x": 0, "y": 0, "width": SIZE["width"], "height": height}
                        page.screenshot(path=path, clip=clip, full_page=True)
                        print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size // 1024} KB")
        finally:
            shop.client.close()
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
