// The live page of a cutover. The server sends the whole status at every change; what is shown follows it. While the
// WebSocket is down the same status is fetched, and the page says so.
"use strict";

(() => {
  const ORDER = ["prepare", "freeze", "activate", "release", "done"];
  const ICONS = {
    drafted: "edit_note", previewed: "preview", checks: "fact_check", skipped: "skip_next", started: "play_arrow",
    acked: "done", drained: "done_all", exited: "power_settings_new", parked: "pause_circle", alarm: "warning",
    alarm_cleared: "notifications_off", prepare: "campaign", freeze: "ac_unit", activate: "bolt", release: "lock_open",
    abort: "undo", done: "check_circle", aborted: "cancel", paused: "pause", resumed: "play_arrow", held: "hourglass_top",
    hook: "webhook", adjusted: "edit_note", pacing: "speed", mode: "emergency_home", declared_dead: "dangerous",
    overridden: "gavel", approval_requested: "how_to_reg", approved: "verified", approval_withdrawn: "person_off",
    approval_lapsed: "person_off",
  };
  const BATCHES = {
    waiting: ["schedule", ""], moving: ["sync_alt", "info"], moved: ["check", "good"],
    going_back: ["undo", "warn"], back: ["undo", "warn"], left: ["block", ""],
  };
  const COLOURS = { mode: "bad", declared_dead: "bad", overridden: "warn", approved: "good", paused: "warn", held: "warn", skipped: "warn", exited: "warn", parked: "warn", abort: "warn", alarm: "bad", aborted: "bad", alarm_cleared: "good", done: "good" };

  class Progress {
    constructor(root) {
      this.root = root;
      this.known = 0;
      this.wait = 500;
      this.over = false;
      this.onReport = !root.dataset.report;
      this.timeline = root.querySelector("[data-timeline]");
      this.template = document.getElementById("event-row");
      this.counting = 0;
      this.holding = 0;
      this.phase = "";
      this.show(JSON.parse(document.getElementById("status").textContent));
      this.connect();
    }

    // -- the line ----------------------------------------------------------------------------------------

    connect() {
      const scheme = window.location.protocol === "https:" ? "wss" : "ws";
      const socket = new WebSocket(`${scheme}://${window.location.host}${this.root.dataset.socket}`);
      socket.addEventListener("open", () => { this.wait = 500; this.linked(true); });
      socket.addEventListener("message", (event) => {
        // something comes every 5 s at least; a line that is silent for longer is dead, whatever TCP thinks
        clearTimeout(this.silence);
        this.silence = setTimeout(() => socket.close(), 15000);
        const said = JSON.parse(event.data);
        this.show(said.status || said);
      });
      socket.addEventListener("close", () => {
        clearTimeout(this.silence);
        if (this.over) return;
        this.linked(false);
        setTimeout(() => this.connect(), this.wait);
        this.wait = Math.min(this.wait * 2, 8000);
        this.fetch();
      });
    }

    linked(up) {
      const mark = this.root.querySelector("[data-link-state]");
      if (mark) {
        mark.hidden = this.over;
        mark.classList.toggle("good", up);
        mark.classList.toggle("bad", !up);
      }
      if (up) document.getElementById("lost-connection").hidden = true;
    }

    async fetch() {
      try {
        const answer = await fetch(this.root.dataset.status, { headers: { Accept: "application/json" } });
        if (answer.ok) {
          this.show(await answer.json());
          return;
        }
      } catch { /* said below */ }
      document.getElementById("lost-connection").hidden = false;
    }

    // -- what is shown ------------------------------------------------------------------------------------

    show(status) {
      if (typeof status.phase !== "string") return;
      // the banners say in which step a cutover is; their own poll would be seconds late
      const banners = document.getElementById("banners");
      if (this.phase && this.phase !== status.phase && banners) banners.dispatchEvent(new CustomEvent("stale"));
      this.phase = status.phase;
      for (const place of this.root.querySelectorAll("[data-text]")) {
        const value = status[place.dataset.text];
        const text = value === null || value === undefined ? (place.dataset.text === "sessions_remaining" ? "–" : "") : String(value);
        if (place.textContent !== text) place.textContent = text;
      }
      this.showFrozen(status);
      this.showState(status);
      this.toggle("[data-alarm]", status.alarm);
      this.toggle("[data-outcome]", status.outcome);
      this.toggle("[data-emergency]", status.mode === "emergency");
      this.showHeld(status);
      this.toggle("[data-when-back]", status.direction === "backward");
      this.showPhases(status);
      this.showActs(status);
      this.showBatches(status);
      this.showHooks(status);
      this.showNodes(status);
      this.showEvents(status.events || []);
      const ended = ["done", "aborted"].includes(status.phase);
      const nowMs = !ended && status.started_at ? new Date(status.now) - new Date(status.started_at) : 0;
      if (window.msha.curve) window.msha.curve.show(status.samples || [], nowMs);
      this.toggle("[data-to-report]", ended);
      if (ended && status.settled) this.finish();
    }

    finish() {
      if (this.over) return;
      this.over = true;
      this.linked(true);
    }

    // the longest freeze; one that runs counts up from what the server said, whose clock began it
    showFrozen(status) {
      clearInterval(this.counting);
      const place = this.root.querySelector("[data-frozen]");
      if (!place) return;
      const runs = typeof status.frozen_now_ms === "number";
      const heard = performance.now();
      const draw = () => {
        const now = runs ? Math.round(status.frozen_now_ms + performance.now() - heard) : null;
        const longest = Math.max(status.frozen_ms ?? -1, now ?? -1);
        place.textContent = longest < 0 ? "–" : String(longest);
      };
      draw();
      if (runs) this.counting = setInterval(draw, 100);
    }

    // what keeps the next batch back; a wait whose end is known counts down from what the server said
    showHeld(status) {
      clearInterval(this.holding);
      this.toggle("[data-held]", status.held);
      const of = this.root.querySelector("[data-batch-of]");
      if (of) {
        of.hidden = status.batches < 2;
        of.textContent = of.dataset.words.replace("%number%", status.batch + 1).replace("%all%", status.batches);
      }
      const left = this.root.querySelector("[data-left]");
      if (!left) return;
      const until = status.hold && status.hold.until;
      const heard = performance.now();
      const draw = () => {
        const seconds = Math.ceil((new Date(until) - new Date(status.now) - (performance.now() - heard)) / 1000);
        left.textContent = seconds > 0 ? left.dataset.words.replace("%seconds%", seconds) : "";
      };
      left.textContent = "";
      if (!until) return;
      draw();
      this.holding = setInterval(draw, 500);
    }

    toggle(selector, shown) {
      const place = this.root.querySelector(selector);
      if (place) place.hidden = !shown;
    }

    showState(status) {
      const badge = document.querySelector("[data-state] .badge");
      if (!badge || badge.textContent === status.phase_title) return;
      badge.textContent = status.phase_title;
      const css = { done: "good", aborted: "bad", aborting: "bad" }[status.phase] || "info";
      badge.className = `badge ${css}`;
    }

    // the same line as cutover/pages/shown.py draws
    showPhases(status) {
      const list = this.root.querySelector("[data-phases]");
      if (!list) return;
      const reached = Math.max(-1, ...status.events.map((event) => ORDER.indexOf(event.kind)));
      const at = ORDER.indexOf(status.phase);
      const undone = ["aborting", "aborted"].includes(status.phase);
      [...list.children].forEach((item, index) => {
        let state = "";
        if (status.phase === "done") state = "done";
        else if (undone) state = index < reached ? "done" : index === reached ? "failed" : "";
        else if (at >= 0) state = index < at ? "done" : index === at ? "now" : "";
        item.className = state;
        if (state === "now") item.setAttribute("aria-current", "step");
        else item.removeAttribute("aria-current");
        item.querySelector(".icon").textContent = { done: "check", now: "more_horiz", failed: "close" }[state] || "";
      });
    }

    // An act that somebody has opened stays where it is: he must not press another one that took its place.
    showActs(status) {
      const acts = this.root.querySelector("[data-acts]");
      if (!acts) return;
      let any = false;
      for (const act of acts.querySelectorAll("[data-act]")) {
        const possible = Boolean(status.actions[act.dataset.act]);
        act.hidden = !possible && !act.open;
        any = any || !act.hidden;
        const told = act.querySelector("[data-consequence]");
        const text = possible ? status.consequences[act.dataset.act] : acts.dataset.gone;
        if (told.textContent !== text) told.textContent = text;
        const button = act.querySelector("button[name=act]");
        if (button) button.hidden = !possible;
      }
      for (const link of acts.querySelectorAll("[data-link-act]")) {
        const silent = (status.losing || []).some((unit) => unit.unit === link.dataset.unit && unit.silent.length);
        link.hidden = !silent;
        any = any || silent;
      }
      acts.hidden = !any;
    }

    // The same rows as cutover/pages/shown.py draws; a page opened before the start has none yet.
    showBatches(status) {
      const card = this.root.querySelector("[data-batches-card]");
      const template = document.getElementById("batch-row");
      if (!card || !template) return;
      const batches = status.batch_list || [];
      card.hidden = batches.length < 2;
      const body = card.querySelector("[data-batches]");
      batches.forEach((batch, index) => {
        let row = body.children[index];
        if (!row) {
          row = template.content.firstElementChild.cloneNode(true);
          body.append(row);
        }
        const [icon, css] = BATCHES[batch.state] || ["schedule", ""];
        row.classList.toggle("current", !status.ended_at && batch.number === status.batch + 1);
        const put = (name, text) => {
          const cell = row.querySelector(`[data-batch-${name}]`);
          if (cell.textContent !== text) cell.textContent = text;
        };
        put("number", String(batch.number));
        put("ids", String(batch.ids));
        put("text", batch.text);
        put("frozen", batch.frozen_ms === null ? "–" : `${batch.frozen_ms} ms`);
        put("icon", icon);
        put("title", batch.state_title);
        row.querySelector("[data-batch-state]").className = `badge ${css}`;
        const began = row.querySelector("[data-batch-began]");
        if (batch.began && began.dataset.batchBegan !== batch.began) {
          began.dataset.batchBegan = batch.began;
          const time = document.createElement("time");
          time.dataset.when = "time";
          began.replaceChildren(time);
          window.msha.setTime(time, batch.began);
        }
      });
    }

    // A row whose skip is open keeps its form while the hook is still waited for.
    showHooks(status) {
      const card = this.root.querySelector("[data-hooks-card]");
      const template = document.getElementById("hook-row");
      if (!card || !template) return;
      const body = card.querySelector("[data-hooks]");
      card.hidden = !(status.hooks || []).length;
      for (const call of status.hooks || []) {
        let row = [...body.children].find((one) => one.dataset.hook === String(call.id));
        if (!row) {
          row = template.content.firstElementChild.cloneNode(true);
          row.dataset.hook = String(call.id);
          body.append(row);
        }
        const put = (name, text) => {
          const place = row.querySelector(`[data-hook-${name}]`);
          if (place && place.textContent !== text) place.textContent = text;
        };
        put("name", call.name);
        put("moment", call.moment_title);
        put("batch", String(call.batch));
        put("state", call.state_title);
        put("calls", String(call.calls));
        put("sentence", call.sentence);
        row.querySelector("[data-hook-may]").hidden = call.must_succeed;
        row.querySelector("[data-hook-back]").hidden = !call.backward;
        const css = call.stuck ? "bad" : { succeeded: "good", failed: "bad", skipped: "warn", cancelled: "" }[call.state] ?? "info";
        row.querySelector("[data-hook-state]").className = `badge ${css}`;
        const skip = row.querySelector("[data-hook-skip]");
        if (!skip) continue;
        skip.hidden = !call.skippable;
        if (call.skippable) {
          put("means", call.skip_means);
          skip.querySelector("input[name=hook]").value = call.name;
        }
      }
    }

    showNodes(status) {
      // drained is said of the FREEZE; it stays true in the steps that follow
      const drained = new Set();
      for (const event of status.events) {
        if (event.kind === "freeze") drained.clear();
        if (event.kind === "drained") drained.add(event.data.node);
      }
      for (const node of status.nodes || []) {
        const row = [...this.root.querySelectorAll("[data-node]")].find((one) => one.dataset.node === node.name);
        if (!row) continue;
        row.classList.toggle("current", (status.missing || []).includes(node.name));
        const dead = row.querySelector("[data-node-dead]");
        if (dead) dead.hidden = !(status.missing || []).includes(node.name);
        const live = row.querySelector("[data-node-live]");
        live.textContent = node.live ? live.dataset.live : live.dataset.lost;
        live.className = `badge ${node.live ? "good" : "bad"}`;
        for (const [what, yes] of [["acked", node.acked], ["drained", drained.has(node.name)]]) {
          const icon = row.querySelector(`[data-node-${what}]`);
          if (!icon) continue;
          icon.textContent = yes ? "check" : "more_horiz";
          icon.setAttribute("aria-label", yes ? icon.dataset.yes : icon.dataset.no);
        }
        row.querySelector("[data-node-closed]").textContent = node.closed;
        row.querySelector("[data-node-reconnected]").textContent = node.reconnected;
      }
    }

    showEvents(events) {
      if (!this.timeline) return;
      if (!this.known) this.known = this.timeline.children.length;
      for (const event of events.slice(this.known)) {
        const row = this.template.content.firstElementChild.cloneNode(true);
        window.msha.setTime(row.querySelector("time"), event.at);
        row.className = COLOURS[event.kind] || "";
        row.querySelector(".icon").textContent = ICONS[event.kind] || "circle";
        row.querySelector("span:last-child").textContent = event.sentence;
        this.timeline.append(row);
      }
      if (events.length > this.known || !this.followed) this.timeline.scrollTop = this.timeline.scrollHeight;
      this.followed = true;
      this.known = Math.max(this.known, events.length);
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("progress");
    if (root && root.dataset.socket) new Progress(root);
  });
})();
