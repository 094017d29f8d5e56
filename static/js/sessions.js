// Sessions per unit over time, as far as this browser has seen them: the figures come with every poll of the overview, and
// what was seen is kept for the tab, so that a look at another page leaves no hole wider than the look.
"use strict";

(() => {
  const KEEP_S = 1800;
  const GAP_S = 30;

  class Sessions {
    constructor(card) {
      this.card = card;
      this.place = card.querySelector("[data-sessions-curve]");
      this.key = `sessions ${card.dataset.namespace}`;
      this.rows = this.stored();
      this.note();
      document.addEventListener("htmx:oobAfterSwap", (event) => {
        if (event.detail.target.id === "overview-figures") this.note();
      });
      new ResizeObserver(() => { if (this.plot && this.place.clientWidth) this.plot.setSize(this.size()); }).observe(this.place);
      new MutationObserver(() => this.make()).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
    }

    stored() {
      try {
        const rows = JSON.parse(sessionStorage.getItem(this.key) || "[]");
        return Array.isArray(rows) ? rows : [];
      } catch {
        return [];
      }
    }

    units() { return [...document.querySelectorAll("#overview-figures [data-sessions]")].map((card) => card.dataset); }

    note() {
      const units = this.units();
      if (!units.length) return;
      const now = Math.round(Date.now() / 1000);
      const counts = Object.fromEntries(units.map((unit) => [unit.unit, Number(unit.sessions)]));
      const last = this.rows[this.rows.length - 1];
      if (last && now - last[0] > GAP_S) this.rows.push([last[0] + 1, {}]); // nobody looked: no line across
      if (!last || now > last[0]) this.rows.push([now, counts]);
      this.rows = this.rows.filter((row) => now - row[0] <= KEEP_S);
      sessionStorage.setItem(this.key, JSON.stringify(this.rows));
      if (this.rows.length < 3) return;
      this.card.hidden = false;
      const shape = units.map((unit) => unit.unit + unit.label).join();
      if (!this.plot || shape !== this.shape) { this.shape = shape; this.make(); } else this.plot.setData(this.data());
    }

    data() {
      return [this.rows.map((row) => row[0]), ...this.units().map((unit) => this.rows.map((row) => row[1][unit.unit] ?? null))];
    }

    size() { return { width: this.place.clientWidth, height: 180 }; }

    colour(name) { return getComputedStyle(this.place).getPropertyValue(name).trim(); }

    make() {
      if (this.card.hidden) return;
      if (this.plot) this.plot.destroy();
      const axis = { stroke: this.colour("--ink-3"), grid: { stroke: this.colour("--line"), width: 1 }, ticks: { stroke: this.colour("--line"), width: 1 }, font: "12px Inter, sans-serif" };
      const units = this.units();
      this.place.replaceChildren();
      this.plot = new window.uPlot({
        ...this.size(), legend: { show: false }, cursor: { y: false },
        scales: { y: { range: (_u, _min, max) => [0, Math.max(1, Math.ceil((max || 0) * 1.1))] } },
        axes: [{ ...axis, values: "{HH}:{mm}:{ss}", space: 100, incrs: [1, 2, 5, 10, 30, 60, 120, 300, 600] }, { ...axis, size: 52, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000] }],
        series: [{}, ...units.map((unit) => ({ label: unit.label, stroke: this.colour(`--${unit.css}`), width: 2, points: { show: false }, fill: `color-mix(in srgb, ${this.colour(`--${unit.css}`)} 8%, transparent)` }))],
      }, this.data(), this.place);
      this.card.querySelector("[data-legend]").replaceChildren(...units.map((unit) => {
        const entry = document.createElement("span");
        const mark = document.createElement("i");
        mark.className = `mark ${unit.css}`;
        entry.append(mark, unit.label);
        return entry;
      }));
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const card = document.getElementById("sessions-card");
    if (card) new Sessions(card);
  });
})();
