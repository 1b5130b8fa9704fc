"""What a person sees of a sweep in Ray's dashboard; run inside the head's namespace, prints JSON.

python browse.py CHROMIUM FOLDER    (the token in RAY_AUTH_TOKEN)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_URL = "http://127.0.0.1:8265"


def main() -> None:
    chromium, folder = sys.argv[1], Path(sys.argv[2])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.goto(_URL)
        field = (
            page.get_by_role("dialog").get_by_role("textbox").or_(page.locator("input[type=password]")).first
        )
        field.wait_for(timeout=30_000)
        refused = page.inner_text("body")
        field.fill(os.environ["RAY_AUTH_TOKEN"])
        field.press("Enter")
        page.wait_for_timeout(3000)
        page.goto(f"{_URL}/#/actors")
        page.get_by_text("lfreeze worker").first.wait_for(timeout=30_000)
        page.wait_for_timeout(1000)
        actors = page.inner_text("body")
        page.screenshot(path=str(folder / "dashboard.png"))
        page.locator("a[href*='actors/']").first.click()
        logs = ""
        for _ in range(30):
            page.wait_for_timeout(1000)
            logs = page.inner_text("body")
            if ": begins" in logs:
                break
        page.mouse.move(700, 700)
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(500)
        page.screenshot(path=str(folder / "dashboard-logs.png"))
        browser.close()
    print(json.dumps({"refused": refused, "actors": actors, "logs": logs}))


if __name__ == "__main__":
    main()
