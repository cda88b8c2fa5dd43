// Refreshes what is shown, and tells times in the reader's zone. Everything works without it.
"use strict";
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const pause = 1000 * Number(main.dataset.refresh);
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let skew = 0; // milliseconds that the server's clock is ahead of ours
  let timer = 0;

  function tell(milliseconds) {
    const seconds = (Date.now() + skew - milliseconds) / 1000;
    const size = Math.abs(seconds);
    if (size < 1) return "now";
    const [unit, length] = units.find((each) => size >= each[1]);
    const text = `${Math.floor(size / length)} ${unit}`;
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }

  function showTimes(root) {
    for (const time of root.querySelectorAll("time")) {
      const at = new Date(time.dateTime);
      const text = tell(at.getTime());
      const title = exact.format(at);
      if (time.textContent !== text) time.textContent = text;
      if (time.title !== title) time.title = title;
    }
  }

  // Makes `old` like `fresh`, and touches nothing that is so already: what is selected, open or in focus stays.
  function become(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
      old.replaceWith(document.importNode(fresh, true));
    } else if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
    } else {
      for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      }
      for (const { name } of [...old.attributes]) {
        const isTheirs = name === "open"; // what the reader has opened
        if (!fresh.hasAttribute(name) && !isTheirs) old.removeAttribute(name);
      }
      becomeChildren(old, fresh);
    }
  }

  function becomeChildren(old, fresh) {
    const known = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
    let place = old.firstChild;
    for (const child of fresh.childNodes) {
      const same = keyOf(child) ? known.get(keyOf(child)) : place && !keyOf(place) ? place : null;
      if (!same) {
        old.insertBefore(document.importNode(child, true), place);
        continue;
      }
      if (same !== place) {
        // Between the two there is only what is gone, or comes later.
        while (place && place !== same && !stays(place, fresh)) place = drop(place);
        if (same !== place) old.insertBefore(same, place);
      }
      place = same.nextSibling;
      become(same, child);
    }
    while (place) place = drop(place);
  }

  function stays(node, fresh) {
    const key = keyOf(node);
    return !key || [...fresh.childNodes].some((child) => keyOf(child) === key);
  }

  function drop(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  function keyOf(node) {
    // Not `node.id`: of a form that is its field of that name.
    return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.getAttribute("id") || "" : "";
  }

  async function refresh() {
    timer = 0;
    let again = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("main");
        noteClock(answer);
        showTimes(fresh);
        become(main, fresh);
        live.textContent = "";
        again = Number(fresh.dataset.refresh) > 0;
      } else {
        again = answer.status >= 500;
        live.textContent = again ? "trying again" : "load this page anew";
      }
    } catch {
      live.textContent = "no answer, trying again";
    }
    if (again) plan();
  }

  function noteClock(answer) {
    const there = Date.parse(answer.headers.get("Date") || "");
    if (Math.abs(there - Date.now()) > 5000) skew = there - Date.now();
  }

  function plan() {
    if (pause && !timer && !document.hidden) timer = setTimeout(refresh, pause);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    timer = 0;
    if (!document.hidden && pause) refresh();
  });

  // What was done is said once: not again when the page is refreshed, or its address sent on.
  const here = new URL(location.href);
  for (const name of ["did", "done", "failed", "left"]) here.searchParams.delete(name);
  history.replaceState(null, "", here);

  // On a narrow screen the links are in one line that scrolls.
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  showTimes(document);
  setInterval(() => document.hidden || showTimes(document), 1000);
  plan();
})();
