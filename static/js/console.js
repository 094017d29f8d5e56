// Behaviour that every page shares: times in the operator's zone, copy buttons, polls that pause while nobody looks,
// the banner of a lost connection. Every page works without it.
"use strict";

(() => {
  const two = (n) => String(n).padStart(2, "0");

  const clock = (d) => `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  const fraction = (d) => `.${String(d.getMilliseconds()).padStart(3, "0")}`;
  const day = (d) => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  const utcClock = (d) => `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;

  // Times come in UTC; the operator's own zone stands first, UTC beside it because logs and colleagues use it.
  function localTimes(root) {
    for (const time of root.querySelectorAll("time[data-when]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.valueOf()) || moment.getTimezoneOffset() === 0) continue;
      const own = time.dataset.when === "time" ? clock(moment) + fraction(moment) : `${day(moment)} ${clock(moment)}`;
      const utc = document.createElement("small");
      utc.textContent = ` ${utcClock(moment)} UTC`;
      time.replaceChildren(own, utc);
      time.removeAttribute("data-when");
    }
  }

  // for the rows that other scripts add
  window.msha = window.msha || {};
  window.msha.setTime = (time, iso) => {
    const moment = new Date(iso);
    time.dateTime = iso;
    time.textContent = `${utcClock(moment)}${fraction(moment)} UTC`;
    localTimes(time.parentElement);
  };

  function copyButtons(root) {
    for (const button of root.querySelectorAll("button[data-copy]")) {
      if (!navigator.clipboard) continue; // not offered over plain HTTP from another machine
      button.hidden = false;
    }
  }

  // The button of a dangerous act wakes up when the name is typed; the server checks it again.
  function typedNames(root) {
    for (const input of root.querySelectorAll("input[data-must-equal]")) {
      const button = input.form && input.form.querySelector("button[data-guarded]");
      if (!button) continue;
      const judge = () => {
        button.disabled = input.value.trim() !== input.dataset.mustEqual;
      };
      input.addEventListener("input", judge);
      judge();
    }
  }

  // Whoever types into the field of a choice means that choice.
  document.addEventListener("input", (event) => {
    const choice = event.target.dataset && event.target.dataset.chooses;
    if (choice) document.getElementById(choice).checked = true;
  });

  function prepare(root) {
    localTimes(root);
    copyButtons(root);
    typedNames(root);
  }

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("button[data-copy]");
    if (copy) {
      await navigator.clipboard.writeText(copy.dataset.copy);
      const label = copy.querySelector("span:last-child");
      const before = label.textContent;
      label.textContent = copy.dataset.copied;
      setTimeout(() => { label.textContent = before; }, 1600);
      return;
    }
    if (event.target.closest("[data-print]")) window.print();
  });

  // A form sent twice would ask twice for the same act; the second is refused, but the sentence would confuse.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post" || event.defaultPrevented) return;
    const button = event.submitter;
    if (button && button.classList.contains("button")) setTimeout(() => { button.disabled = true; }, 0);
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) for (const b of document.querySelectorAll("form button[disabled]")) b.disabled = false;
  });

  // -- polls -----------------------------------------------------------------------------------------------

  let failures = 0;

  function lost(isLost) {
    const banner = document.getElementById("lost-connection");
    if (banner) banner.hidden = !isLost;
    document.dispatchEvent(new CustomEvent(isLost ? "console:lost" : "console:back"));
  }

  function answered(ok) {
    failures = ok ? 0 : failures + 1;
    if (failures === 0 || failures >= 2) lost(failures >= 2);
  }

  const polls = (event) => event.target.closest && event.target.closest("[data-poll]");

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (polls(event) && document.hidden) event.preventDefault();
    // an operator who types a reason must not have the form swapped away under the keyboard
    const inside = polls(event);
    if (inside && inside.contains(document.activeElement) && /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
    }
  });

  // Whoever walks a page by keyboard keeps his place when the part he is in is replaced.
  let kept = null;
  function keepFocus(target) {
    const focused = document.activeElement;
    kept = target.contains(focused) && focused !== target ? { href: focused.getAttribute("href"), id: focused.id } : null;
  }
  function giveFocusBack(target) {
    if (!kept) return;
    const again = kept.id ? document.getElementById(kept.id)
      : [...target.querySelectorAll("a[href]")].find((link) => link.getAttribute("href") === kept.href);
    kept = null;
    if (again) again.focus({ preventScroll: true });
  }
  document.addEventListener("htmx:oobBeforeSwap", (event) => keepFocus(event.detail.target));
  document.addEventListener("htmx:oobAfterSwap", (event) => {
    giveFocusBack(event.detail.target);
    prepare(event.detail.target);
  });
  document.addEventListener("htmx:sendError", (event) => { if (polls(event)) answered(false); });
  document.addEventListener("htmx:timeout", (event) => { if (polls(event)) answered(false); });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!polls(event) || !event.detail.xhr) return;
    const { status } = event.detail.xhr;
    if (status === 401) document.getElementById("signed-out").hidden = false;
    if (status >= 200 && status < 500) answered(true);
    else if (status >= 500) answered(false);
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    // what was open stays open, what was typed stays typed
    const target = event.detail.target;
    if (!target || !polls(event)) return;
    keepFocus(target);
    target.openFolds = [...target.querySelectorAll("details[id][open]")].map((fold) => fold.id);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const target = event.detail.target;
    if (!target) return;
    for (const id of target.openFolds || []) {
      const fold = document.getElementById(id);
      if (fold) fold.open = true;
    }
    giveFocusBack(target);
    prepare(target);
  });

  // A fragment that says where to go: the checks are done, the cutover has started elsewhere.
  document.addEventListener("htmx:afterSwap", () => {
    const marker = document.querySelector("[data-go]");
    if (marker) window.location.assign(marker.dataset.go);
  });

  document.addEventListener("DOMContentLoaded", () => prepare(document));
})();
