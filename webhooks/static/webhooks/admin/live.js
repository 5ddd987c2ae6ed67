// Renews each part of a page that asks for it (.wh-live) every so many seconds, but not while the
// page is hidden or paused. An answer that is not ours (a log-in page, an error) changes nothing.
"use strict";

const FOCUSABLE = "a[href], button, summary, [tabindex]";

for (const live of document.querySelectorAll(".wh-live")) {
  const part = live.querySelector(".wh-live-part");
  const state = live.querySelector(".wh-live-state");
  const button = live.querySelector(".wh-live-pause");
  let paused = false;
  let timer = 0;

  function plan() {
    clearTimeout(timer);
    if (!paused && !document.hidden) {
      timer = setTimeout(renew, Number(live.dataset.seconds) * 1000);
    }
  }

  function pause(is) {
    paused = is;
    button.textContent = is ? live.dataset.resume : live.dataset.pause;
    button.setAttribute("aria-pressed", String(is));
  }

  // What is open stays open, and the focus where it was.
  function show(text) {
    const open = Array.from(part.querySelectorAll("details"), (each) => each.open);
    const focus = Array.from(part.querySelectorAll(FOCUSABLE)).indexOf(document.activeElement);
    part.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
    part.querySelectorAll("details").forEach((each, i) => { each.open = Boolean(open[i]); });
    if (focus >= 0) part.querySelectorAll(FOCUSABLE)[focus]?.focus({ preventScroll: true });
  }

  async function renew() {
    clearTimeout(timer);
    try {
      const answer = await fetch(live.dataset.url, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
      const text = await answer.text();
      if (!paused && !document.hidden) show(text);
      state.textContent = "";
    } catch {
      state.textContent = live.dataset.failed;
    }
    plan();
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    pause(!paused);
    if (paused) plan(); else renew();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) plan(); else if (!paused) renew();
  });
  plan();
}
