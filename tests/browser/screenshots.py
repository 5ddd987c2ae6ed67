"""``python -m tests.browser.screenshots``: the pictures of docs/images, made anew.

It runs the example project with its clusters, lets a campaign's events be delivered to receivers of
which one fails, and photographs the pages, light and dark. Needs Chromium, the extra ``test`` and,
to make the files small, Pillow.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import django
from PIL import Image

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.browser import chromium  # noqa: E402
from tests.browser.looks import NARROW, SCHEMES, WIDE, Watch  # noqa: E402
from tests.browser.site import CLUSTERS, Site  # noqa: E402
from tests.world import ROOT  # noqa: E402

#: Pixels of a picture, at most; but the campaign's page is seen whole.
HEIGHT = 1150
IMAGES = ROOT / "docs" / "images"
#: Colours of a picture: enough for flat pages, and a quarter of the bytes.
COLOURS = 256
#: Bytes of all of them together, at most.
MOST = 3_000_000


def pages(made: dict[str, str]) -> dict[str, str]:
    """The name of each picture, and the page that is on it."""

    def page(model: str, name: str, rest: str = "change/") -> str:
        return f"/admin/{model}/{made[name].replace('_', '_5F')}/{rest}"

    return {
        "health": "/admin/webhooks/webhookhealth/",
        "campaign": page("campaigns/campaign", "campaign"),
        "campaigns": "/admin/campaigns/campaign/",
        "subscription": page("webhooks/subscription", "warehouse"),
        "replay": page("webhooks/subscription", "crm", "replay/"),
        "event": page("webhooks/event", "event"),
        "delivery": page("webhooks/delivery", "delivery"),
        "dead-letters": "/admin/webhooks/deadletter/",
        "failure-reasons": "/admin/webhooks/deliveryattempt/reasons/",
        "workers": "/admin/webhooks/workersandschedules/",
    }


def shoot(site: Site, made: dict[str, str]) -> int:
    """Photograph all of them; how many bytes they are. SystemExit where a page is unsound."""
    total = 0
    with chromium.running() as browser:
        context = browser.new_context(base_url=site.origin)
        context.add_cookies(site.cookies())
        # The admin's list of all models takes room, and tells nothing of these pages.
        context.add_init_script("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
        watch = Watch(context.new_page())
        for name, path in pages(made).items():
            widths = (WIDE, NARROW) if name == "health" else (WIDE,)
            watch.page.goto(path)
            for width in widths:
                watch.page.set_viewport_size({"width": width, "height": HEIGHT})
                bottom = watch.page.locator("#content").evaluate(
                    "(each) => Math.ceil(each.getBoundingClientRect().bottom)"
                )
                height = min(HEIGHT, bottom)
                watch.page.set_viewport_size({"width": width, "height": height})
                for scheme in SCHEMES:
                    watch.page.emulate_media(color_scheme=scheme)
                    watch.page.evaluate("document.getAnimations().forEach((each) => each.finish())")
                    taken = watch.page.screenshot(full_page=name == "campaign")
                    suffix = "-narrow" if width == NARROW else ""
                    total += save(taken, IMAGES / f"{name}{suffix}-{scheme}.png")
        if watch.findings:
            raise SystemExit("\n".join(watch.findings))
    return total


def save(taken: bytes, path: Path) -> int:
    """With as many colours as a flat page needs; how many bytes that is."""
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    # Those that are rare are kept, too: a line of a chart has but a few pixels.
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{size / 1000:6.0f} kB  {path.relative_to(ROOT)}")
    return size


def main() -> None:
    if lacking := chromium.lacking():
        raise SystemExit(f"This {lacking}.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        site = Site(Path(place) / "site", clusters=CLUSTERS)
        with site:
            made = site.python(
                f"said = population.show({site.good.url!r}, {site.failing.url!r})", seconds=300
            )
            total = shoot(site, made)
    if total > MOST:
        raise SystemExit(f"They are {total / 1e6:.1f} MB, which is too much for a repository.")


if __name__ == "__main__":
    main()
