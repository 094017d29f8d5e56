// An editable range bar: N-1 handles for N ranges. The number inputs of the form are the truth; the bar draws them and
// writes into them, so that a page without this script still works. Registered after DOMContentLoaded, because the
// inputs stand behind the bar in the page.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  class RangeBar extends HTMLElement {
    connectedCallback() {
      if (!this.dataset.form || this.classList.contains("editable")) return;
      this.form = document.getElementById(this.dataset.form);
      this.min = Number(this.dataset.min);
      this.max = Number(this.dataset.max);
      const { before, units } = JSON.parse(this.dataset.bar);
      this.before = before;
      this.looks = units;
      this.words = this.dataset;
      this.picture = this.querySelector("svg");
      this.lasts = [...this.form.querySelectorAll("input[name='last']")];
      this.codes = [...this.form.querySelectorAll("input[name='unit']")].map((input) => input.value);
      this.handles = this.lasts.slice(0, -1).map((input, index) => this.makeHandle(input, index));
      this.classList.add("editable");
      this.exacts = [...this.form.querySelectorAll("input[name^='exact-']")];
      for (const input of [...this.lasts, ...this.exacts]) input.addEventListener("input", () => this.draw());
      this.draw();
    }

    get size() { return this.max - this.min + 1; }

    share(id) { return ((id - this.min) / this.size) * 100; }

    // The last id of each range as typed; an unusable number counts as its neighbour's, so that the bar stays whole.
    values() {
      let floor = this.min - 1;
      return this.lasts.map((input, index) => {
        const typed = index === this.lasts.length - 1 ? this.max : Number.parseInt(input.value, 10);
        const room = this.max - (this.lasts.length - 1 - index);
        floor = Math.min(Math.max(Number.isNaN(typed) ? floor + 1 : typed, floor + 1), room);
        return floor;
      });
    }

    name(code) { return (this.looks[code] || [code, "unit-6"])[0]; }

    makeHandle(input, index) {
      const handle = document.createElement("div");
      handle.className = "handle";
      handle.tabIndex = 0;
      handle.setAttribute("role", "slider");
      handle.setAttribute("aria-orientation", "horizontal");
      handle.setAttribute("aria-label", this.words.handle
        .replace("%left%", this.name(this.codes[index])).replace("%right%", this.name(this.codes[index + 1])));
      handle.append(document.createElement("output"));
      this.append(handle);
      handle.addEventListener("focus", () => { handle.origin = this.values()[index]; });
      handle.addEventListener("keydown", (event) => this.key(event, handle, index));
      handle.addEventListener("pointerdown", (event) => this.grab(event, handle, index));
      return handle;
    }

    bounds(index) {
      const values = this.values();
      return [index === 0 ? this.min : values[index - 1] + 1, values[index + 1] - 1];
    }

    move(index, last) {
      const [low, high] = this.bounds(index);
      this.lasts[index].value = Math.min(Math.max(Math.round(last), low), high);
      this.lasts[index].dispatchEvent(new Event("input", { bubbles: true }));
    }

    key(event, handle, index) {
      const now = this.values()[index];
      const page = Math.max(1, Math.round(this.size / 100));
      const [low, high] = this.bounds(index);
      const steps = {
        ArrowLeft: now - (event.shiftKey ? 10 : 1), ArrowDown: now - (event.shiftKey ? 10 : 1),
        ArrowRight: now + (event.shiftKey ? 10 : 1), ArrowUp: now + (event.shiftKey ? 10 : 1),
        PageDown: now - page, PageUp: now + page, Home: low, End: high, Escape: handle.origin,
      };
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      if (handle.dragging && event.key === "Escape") handle.dragging = false;
      this.move(index, steps[event.key]);
    }

    grab(event, handle, index) {
      if (event.button !== 0) return;
      event.preventDefault();
      handle.focus();
      handle.origin = this.values()[index];
      handle.dragging = true;
      handle.setPointerCapture(event.pointerId);
      const box = this.picture.getBoundingClientRect();
      const start = event.clientX;
      const from = handle.origin;
      const follow = (move) => {
        // relative to where it was taken hold of: a click alone must not shift the boundary
        if (handle.dragging) this.move(index, from + ((move.clientX - start) / box.width) * this.size);
      };
      const release = () => {
        handle.dragging = false;
        handle.removeEventListener("pointermove", follow);
      };
      handle.addEventListener("pointermove", follow);
      handle.addEventListener("pointerup", release, { once: true });
      handle.addEventListener("pointercancel", release, { once: true });
    }

    // -- drawing -------------------------------------------------------------------------------------------

    segments() {
      let first = this.min;
      return this.values().map((last, index) => {
        const segment = [first, last, this.codes[index]];
        first = last + 1;
        return segment;
      });
    }

    // Single ids that override the ranges, as typed: [[id, code], ...], ascending.
    exact() {
      const found = new Map();
      for (const input of this.exacts) {
        for (const word of input.value.split(/[\s,，]+/)) {
          const id = Number.parseInt(word, 10);
          if (String(id) === word && id >= this.min && id <= this.max) found.set(id, input.name.slice("exact-".length));
        }
      }
      return [...found].sort((one, other) => one[0] - other[0]);
    }

    // The ranges with the exact ids cut out of them.
    overlaid(segments) {
      const exact = this.exact();
      if (!exact.length) return segments;
      const found = [];
      for (const [start, last, code] of segments) {
        let first = start;
        for (const [id, owner] of exact.filter(([single]) => single >= start && single <= last)) {
          if (first < id) found.push([first, id - 1, code]);
          found.push([id, id, owner]);
          first = id + 1;
        }
        if (first <= last) found.push([first, last, code]);
      }
      return found;
    }

    // Ranges whose owner differs from the rule in effect: [first, last, losing, gaining].
    moved(segments) {
      const found = [];
      for (const [first, last, gaining] of this.overlaid(segments)) {
        for (const [oldFirst, oldLast, losing] of this.before) {
          const from = Math.max(first, oldFirst);
          const to = Math.min(last, oldLast);
          if (from > to || losing === gaining) continue;
          const previous = found[found.length - 1];
          if (previous && previous[1] === from - 1 && previous[2] === losing && previous[3] === gaining) previous[1] = to;
          else found.push([from, to, losing, gaining]);
        }
      }
      return found;
    }

    draw() {
      const segments = this.segments();
      const moved = this.moved(segments);
      this.drawPicture(segments, moved);
      let shownAt = -100;
      segments.slice(0, -1).forEach(([first, last], index) => {
        const handle = this.handles[index];
        const [low, high] = this.bounds(index);
        const place = this.share(last + 1);
        const room = ((place - shownAt) / 100) * this.picture.getBoundingClientRect().width;
        handle.classList.toggle("crowded", room < 92); // two numbers on top of each other say nothing
        if (room >= 92) shownAt = place;
        handle.style.left = `${place}%`;
        handle.setAttribute("aria-valuemin", low);
        handle.setAttribute("aria-valuemax", high);
        handle.setAttribute("aria-valuenow", last);
        handle.setAttribute("aria-valuetext", `${this.name(this.codes[index])} ${first}~${last}`);
        handle.querySelector("output").textContent = `${last} | ${last + 1}`;
      });
      this.dispatchEvent(new CustomEvent("ranges", { bubbles: true, detail: { segments, moved, size: this.size } }));
    }

    drawPicture(segments, moved) {
      for (const old of this.picture.querySelectorAll(".segment, .moved, .gap")) old.remove();
      const exact = this.picture.querySelector(".exact");
      const put = (element) => this.picture.insertBefore(element, exact);
      const make = (name, attributes) => {
        const element = document.createElementNS(SVG, name);
        for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
        return element;
      };
      const width = this.picture.getBoundingClientRect().width || 1000;
      for (const [first, last, code] of segments) {
        const share = this.share(last + 1) - this.share(first);
        const [label, css] = this.looks[code] || [code, "unit-6"];
        const box = make("svg", { class: `segment ${css}`, x: `${this.share(first)}%`, width: `${share}%`, height: "100%", overflow: "hidden" });
        box.append(make("rect", { width: "100%", height: "100%" }));
        const text = make("text", { x: "50%", y: "50%" });
        const full = `${label} ${first}~${last}`;
        const room = (share / 100) * width;
        text.textContent = full.length * 9 < room ? full : label.length * 10 < room ? label : "";
        box.append(text);
        put(box);
      }
      for (const [first, last] of moved) {
        put(make("rect", { class: "moved", x: `${this.share(first)}%`, width: `${this.share(last + 1) - this.share(first)}%`, height: "100%" }));
      }
      for (const [first] of segments.slice(1)) {
        put(make("rect", { class: "gap", x: `${this.share(first)}%`, width: 2, height: "100%", transform: "translate(-1)" }));
      }
      this.picture.setAttribute("aria-label", segments.map(([f, l, c]) => `${this.name(c)} ${f}~${l}`).join("; "));
    }
  }

  // -- the table round it: first ids, counts, shares and the sentence follow the bar -----------------------------

  function follow(event) {
    const { segments, moved, size } = event.detail;
    const form = document.getElementById(event.target.dataset.form);
    form.querySelectorAll("[data-range-row]").forEach((row, index) => {
      const [first, last] = segments[index];
      row.querySelector("[data-first]").textContent = first;
      row.querySelector("[data-count]").textContent = last - first + 1;
      row.querySelector("[data-share]").textContent = `${(((last - first + 1) / size) * 100).toFixed(2)} %`;
      const input = row.querySelector("input[name='last']");
      const typed = Number.parseInt(input.value, 10);
      input.setAttribute("aria-invalid", String(typed !== last));
    });
    const sentence = document.querySelector("[data-moved-sentence]");
    if (!sentence) return;
    const words = sentence.dataset;
    const name = (code) => event.target.name(code);
    const count = moved.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    sentence.classList.toggle("none", count === 0);
    sentence.querySelector("p").textContent = count === 0 ? words.none : words.some
      .replace("%count%", count).replace("%size%", size)
      .replace("%moves%", moved.map(([first, last, losing, gaining]) => words.each
        .replace("%range%", first === last ? first : `${first}~${last}`)
        .replace("%losing%", name(losing)).replace("%gaining%", name(gaining))).join(words.join));
  }

  document.addEventListener("ranges", follow);
  document.addEventListener("DOMContentLoaded", () => customElements.define("range-bar", RangeBar));
})();
