// A live page: when the server says that there is news, the content is fetched and put in place.
// Without this script the page shows the same, as of when it was loaded.
"use strict";

const label = document.getElementById("live-text");
const badge = document.getElementById("live");
let told = null;
let busy = false;
let again = false;

function mayReplace() {
  const active = document.activeElement;
  const isTyping = active && active.closest("main form");
  const isSelecting = String(document.getSelection()) !== "";
  return !isTyping && !isSelecting;
}

function keepOpen(old, fresh) {
  for (const box of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`#${CSS.escape(box.id)}`);
    if (same) same.open = true;
  }
}

async function refresh() {
  if (busy || !mayReplace()) {
    again = true;
    return;
  }
  busy = true;
  again = false;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = document.getElementById("main");
    const next = fresh.getElementById("main");
    if (next && mayReplace()) {
      keepOpen(main, next);
      main.replaceChildren(...next.childNodes);
      label.textContent = fresh.getElementById("live-text").textContent;
    }
  } catch {
    badge.classList.remove("on");
  } finally {
    busy = false;
  }
}

const source = new EventSource("/events");
source.onopen = () => badge.classList.add("on");
source.onerror = () => badge.classList.remove("on");
source.onmessage = (event) => {
  const isNews = told !== null && told !== event.data;
  told = event.data;
  if (isNews) refresh();
};
document.addEventListener("focusout", () => {
  if (again) setTimeout(refresh, 0);
});
