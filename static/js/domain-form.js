// The form of a domain: unit sub-domains follow the name as it is typed, URI rows are added and removed.
// Without this script the names are shown after saving and one blank row at the end takes another URI.
(() => {
  "use strict";

  const start = () => {
    const form = document.querySelector("[data-domain-form]");
    if (!form) return;
    followName(form);
    offerRows(form);
  };

  const followName = (form) => {
    const name = form.querySelector("[data-domain-name]");
    const show = () => {
      const typed = name.value.trim().replace(/\.+$/, "").toLowerCase() || "…";
      for (const element of form.querySelectorAll("[data-subdomain]")) {
        element.textContent = `${element.dataset.subdomain}.${typed}`;
      }
    };
    name.addEventListener("input", show);
    show();
  };

  const offerRows = (form) => {
    const rows = form.querySelector("[data-rows]");
    const add = form.querySelector("[data-add-row]");
    const blank = form.querySelector("template[data-blank-row]");
    if (!rows || !add || !blank) return;
    let next = rows.children.length;
    const reveal = () => rows.querySelectorAll("[data-remove-row]").forEach((button) => { button.hidden = false; });

    add.hidden = false;
    reveal();
    add.addEventListener("click", () => {
      const row = blank.content.cloneNode(true).firstElementChild;
      for (const element of row.querySelectorAll("[name]")) {
        element.name = element.name.replace("uri-new-", `uri-${next}-`);
        element.id = element.id.replace("uri-new-", `uri-${next}-`);
      }
      next += 1;
      rows.append(row);
      reveal();
      row.querySelector("input").focus();
    });
    rows.addEventListener("click", (event) => {
      const button = event.target.closest("[data-remove-row]");
      if (!button) return;
      const row = button.closest("[data-row]");
      const neighbour = row.nextElementSibling || row.previousElementSibling;
      row.remove();
      (neighbour ? neighbour.querySelector("[data-remove-row]") : add).focus();
    });
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
