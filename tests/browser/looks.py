"""What every page must be like, whoever opens it: looked at by one rule, for all pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import ConsoleMessage, Page, Request, Response

SCHEMES = ("light", "dark")
WIDTHS = WIDE, NARROW = 1440, 390
HEIGHT = 900
#: Of what axe finds, what must not be: https://github.com/dequelabs/axe-core/blob/develop/doc/
GRAVE = ("serious", "critical")
_COLOURS = ["color-contrast", "link-in-text-block"]
POLICY = "default-src 'self'"

#: What Django's own templates have, whose mending is Django's: the rule, and where it is let pass.
STOCK = {
    "label-title-only": "#searchbar",
    "link-in-text-block": ".breadcrumbs, #changelist-search, .delete-confirmation",
    "label": ".vDateField, .vTimeField",
}

# The admin's side bar is on every page, and Swagger UI (#reference) is not ours either.
# Colours that are still on their way from one scheme to the other would be measured half-way.
_AXE = """async ({options, stock}) => {
  document.getAnimations()
    .filter((each) => Number.isFinite(each.effect.getComputedTiming().endTime))
    .forEach((each) => each.finish());
  const page = {exclude: ["#nav-sidebar", "#reference"]};
  const found = await axe.run(page, {resultTypes: ["violations"], preload: false, ...options});
  return found.violations.map(({id, impact, help, nodes}) => ({id, impact, help, html: nodes
    .filter(({target}) => !(stock[id] && document.querySelector(target[0])?.matches(
      stock[id].split(",").map((each) => `${each}, ${each} *`).join(","))))
    .map((each) => each.html)}));
}"""
#: What reaches beyond the window, where the page itself does: the innermost first.
_OVERFLOW = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  const beyond = [...document.body.querySelectorAll("*")].filter((each) => {
    const {left, right} = each.getBoundingClientRect();
    return (right > room + 1 || left < -1) && !each.closest(".wh-scroll, .results, pre, textarea");
  });
  const names = beyond.reverse().slice(0, 3).map((each) => each.outerHTML.slice(0, 120));
  return [`${document.documentElement.scrollWidth} px in ${room}`, ...names];
}"""


class Watch:
    """Hears, from the first request on, everything that goes wrong on a page."""

    def __init__(self, page: Page, *, scripts: bool = True) -> None:
        """scripts: whether the page's own may run. axe is one of them."""
        self.page = page
        self.scripts = scripts
        self.findings: list[str] = []
        self._measures = False
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => console.error("
            "`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));"
        )
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._note(f"script error: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _note(self, finding: str) -> None:
        self.findings.append(f"{self.page.url}: {finding}")

    def _said(self, message: ConsoleMessage) -> None:
        # axe puts styles into the page to measure it, which the policy refuses.
        if self._measures or message.location["url"].endswith("/favicon.ico"):
            return
        if message.type in ("error", "warning"):
            self._note(f"console: {message.text}")

    def _failed(self, request: Request) -> None:
        # What is under way when somebody goes on to another page is given up: no failure.
        if request.failure != "net::ERR_ABORTED":
            self._note(f"failed: {request.url} {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._note(f"{response.status} {response.url}")
        elif response.request.is_navigation_request() and response.status == 200:
            policy = response.headers.get("content-security-policy", "")
            if POLICY not in policy:
                self._note(f"sent with the policy {policy!r}")

    def look(self, schemes: Iterable[str] = SCHEMES, widths: Iterable[int] = WIDTHS) -> None:
        """Look at the page as it stands, in each colour scheme and width."""
        for width in widths:
            self.page.set_viewport_size({"width": width, "height": HEIGHT})
            self.measure()
            for scheme in schemes if self.scripts else ():
                self.page.emulate_media(color_scheme=scheme)
                # A scheme changes colours alone.
                colours = {"runOnly": {"type": "rule", "values": _COLOURS}}
                self._axe(scheme, width, {} if scheme == SCHEMES[0] else colours)

    def _axe(self, scheme: str, width: int, options: dict[str, Any]) -> None:
        self.page.evaluate("() => 0")  # what was said until now is heard
        self._measures = True
        try:
            if self.page.evaluate("() => typeof axe") == "undefined":
                self.page.evaluate(AXE_SCRIPT)
            violations = self.page.evaluate(_AXE, {"options": options, "stock": STOCK})
            self.page.evaluate("() => 0")
        finally:
            self._measures = False
        for found in violations:
            if found["impact"] in GRAVE and found["html"]:
                self._note(f"axe, {scheme}, {width} px: {said(found)}")

    def measure(self) -> None:
        """Whether the page is as wide as the window, and no wider."""
        beyond = self.page.evaluate(_OVERFLOW)
        if beyond:
            self._note(f"wider than the window: {beyond}")


def said(found: dict[str, Any]) -> str:
    shown = [each[:160] for each in found["html"][:3]]
    return f"{found['id']} ({found['help']}) {len(found['html'])} times: {shown}"
