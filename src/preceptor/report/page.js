"use strict";
// What the page does by itself: dark and light, one ranking at a time, tables that sort and filter, copying.
// Without this script everything is there already; with it, things move. Texts that come from
// data are only ever set as text.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  function themeButton() {
    const button = document.querySelector(".theme");
    const name = () => {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-pressed", String(dark()));
      button.setAttribute("aria-label", dark() ? "Change to light colours" : "Change to dark colours");
      document.dispatchEvent(new CustomEvent("theme", { detail: dark() }));
    };
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      name();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
    name();
  }

  function tabs() {
    const links = [...document.querySelectorAll(".tabs a")];
    const sections = links.map((link) => document.getElementById(link.hash.slice(1)));
    if (!links.length) return;
    const show = (place) => {
      sections.forEach((section, k) => section.classList.toggle("away", k !== place));
      links.forEach((link, k) =>
        k === place ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"),
      );
    };
    const follow = () => {
      const target = document.getElementById(location.hash.slice(1));
      const place = sections.findIndex((section) => target && section.contains(target));
      if (place < 0) return;
      show(place);
      target.scrollIntoView();
    };
    show(0);
    addEventListener("hashchange", follow);
    follow();
  }

  const sorted = (cell, kind) => {
    if (cell.dataset.value === undefined) return cell.tagName === "TH" ? cell.textContent : null;
    return kind === "number" ? Number(cell.dataset.value) : cell.dataset.value;
  };

  function compare(one, other, kind, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    if (kind === "number") return sign * (one - other);
    return sign * String(one).localeCompare(String(other), undefined, { numeric: true });
  }

  function sortBy(table, heading) {
    const kind = heading.dataset.kind;
    const place = heading.cellIndex;
    const rises = heading.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("thead th").forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", rises ? "ascending" : "descending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [sorted(row.cells[place], kind), row]);
    keyed.sort((a, b) => compare(a[0], b[0], kind, rises ? 1 : -1));
    body.append(...keyed.map(([, row]) => row));
  }

  function board(part) {
    const table = part.querySelector("table");
    for (const heading of table.querySelectorAll("thead th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sortBy(table, heading));
      heading.append(button);
    }
    const name = part.querySelector("[data-filter=name]");
    const family = part.querySelector("[data-filter=family]");
    const filter = () => {
      const wanted = name.value.trim().toLowerCase();
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) {
        const named = row.querySelector("th").textContent.toLowerCase().includes(wanted);
        row.hidden = !named || Boolean(family && family.value && row.dataset.family !== family.value);
      }
      const left = rows.filter((row) => !row.hidden).length;
      part.querySelector("[data-count]").textContent = `${left} of ${rows.length} teachers`;
    };
    name.addEventListener("input", filter);
    if (family) family.addEventListener("change", filter);
  }

  function copy(button) {
    const text = button.parentElement.querySelector("pre");
    const report = (words) => {
      button.textContent = words;
      setTimeout(() => (button.textContent = "Copy"), 2000);
    };
    const chosen = () => {
      getSelection().selectAllChildren(text);
      report(document.execCommand("copy") ? "Copied" : "Press Ctrl+C");
    };
    button.addEventListener("click", () => {
      if (!navigator.clipboard) return chosen();
      navigator.clipboard.writeText(text.textContent).then(() => report("Copied"), chosen);
    });
  }

  function printing() {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      closed.forEach((details) => (details.open = true));
      root.classList.add("printing");
    });
    addEventListener("afterprint", () => {
      closed.forEach((details) => (details.open = false));
      root.classList.remove("printing");
    });
  }

  themeButton();
  tabs();
  document.querySelectorAll("[data-board]").forEach(board);
  document.querySelectorAll("[data-copy]").forEach(copy);
  printing();
  globalThis.preceptorPage = { dark };
})();
