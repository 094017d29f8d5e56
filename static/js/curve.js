// The curve of a cutover: sessions closed, remaining and reconnected over time. Drawn from stored samples, so that a page
// opened late shows the start, too.
"use strict";

window.msha = window.msha || {};

window.msha.Curve = class Curve {
  constructor(place) {
    this.place = place;
    this.plot = null;
    this.samples = [];
    new ResizeObserver(() => this.fit()).observe(place);
    // colours come from the stylesheet, which changes with the theme
    new MutationObserver(() => this.redraw()).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
    window.matchMedia("print").addEventListener("change", () => this.redraw());
  }

  colour(name) { return getComputedStyle(this.place).getPropertyValue(name).trim(); }

  data() {
    const first = this.samples[0];
    const rows = first.ms > 0 ? [{ ms: 0, closed: 0, reconnected: 0, remaining: first.remaining + first.closed }, ...this.samples] : this.samples;
    return [
      rows.map((row) => row.ms / 1000), rows.map((row) => row.closed),
      rows.map((row) => row.remaining), rows.map((row) => row.reconnected),
    ];
  }

  // Where nothing changes no sample is stored; the line goes on level to the moment of the last one.
  show(samples, nowMs = 0) {
    if (!samples.length) return;
    const last = samples[samples.length - 1];
    this.samples = nowMs > last.ms ? [...samples, { ...last, ms: nowMs }] : samples;
    if (!this.plot) this.make();
    else this.plot.setData(this.data());
  }

  make() {
    const words = this.place.dataset;
    const axis = { stroke: this.colour("--ink-3"), grid: { stroke: this.colour("--line"), width: 1 }, ticks: { stroke: this.colour("--line"), width: 1 }, font: "12px Inter, sans-serif" };
    const stepped = window.uPlot.paths.stepped({ align: 1 });
    const line = (label, stroke, more) => ({ label, stroke, width: 2, paths: stepped, points: { show: this.samples.length < 40, size: 5 }, ...more });
    this.place.replaceChildren();
    this.plot = new window.uPlot({
      width: this.place.clientWidth, height: 240,
      legend: { show: false }, // it stands above, in the page's own words
      cursor: { y: false },
      scales: { x: { time: false, range: (_u, _min, max) => [0, Math.max(1, max * 1.02)] }, y: { range: (_u, _min, max) => [0, Math.max(1, Math.ceil(max * 1.08))] } },
      axes: [
        { ...axis, values: (_u, ticks) => ticks.map((t) => `${t} s`) },
        { ...axis, size: 52, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000] },
      ],
      series: [
        { label: words.labelTime },
        line(words.labelClosed, this.colour("--unit-1")),
        line(words.labelRemaining, this.colour("--ink-3"), { dash: [4, 4], width: 1.5 }),
        line(words.labelReconnected, this.colour("--unit-0"), { fill: `color-mix(in srgb, ${this.colour("--unit-0")} 12%, transparent)` }),
      ],
    }, this.data(), this.place);
  }

  fit() {
    if (this.plot && this.place.clientWidth) this.plot.setSize({ width: this.place.clientWidth, height: 240 });
  }

  redraw() {
    if (!this.plot) return;
    this.plot.destroy();
    this.plot = null;
    this.make();
  }
};

document.addEventListener("DOMContentLoaded", () => {
  const place = document.querySelector("[data-curve]");
  const stored = document.getElementById("status");
  if (!place || !stored) return;
  window.msha.curve = new window.msha.Curve(place);
  window.msha.curve.show(JSON.parse(stored.textContent).samples);
});
