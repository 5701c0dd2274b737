"use strict";
// Charts are drawn when they come into view, again in the other colours when these change, and all for print.
// Expressions are interpreted, not compiled, and tooltips are set as text, so that the page needs
// neither eval nor markup from data.
(() => {
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const figures = [...document.querySelectorAll("figure.chart")];
  const drawn = new Map();
  const tip = document.getElementById("tooltip");

  function tooltip(_handler, event, _item, value) {
    if (value === null || value === undefined || value === "") {
      tip.hidden = true;
      return;
    }
    const rows = typeof value === "object" ? Object.entries(value) : [["", value]];
    tip.replaceChildren(
      ...rows.map(([name, words]) => {
        const row = document.createElement("p");
        const title = document.createElement("span");
        title.textContent = name;
        const text = document.createElement("bdi");
        text.textContent = typeof words === "object" ? JSON.stringify(words) : String(words);
        row.append(title, text);
        return row;
      }),
    );
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 14 + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? event.clientY + 14 : event.clientY - tip.offsetHeight - 10}px`;
  }

  const options = (dark) => ({
    mode: "vega-lite",
    ast: true,
    actions: false,
    defaultStyle: false,
    renderer: "svg",
    tooltip,
    config: dark ? themes.dark : themes.light,
  });

  async function draw(figure, dark) {
    const plot = figure.querySelector(".plot");
    const specification = JSON.parse(figure.querySelector(".specification").textContent);
    drawn.get(figure)?.finalize();
    drawn.set(figure, { finalize() {} });
    try {
      drawn.set(figure, await globalThis.vegaEmbed(plot, specification, options(dark)));
      figure.classList.add("drawn");
    } catch (error) {
      plot.textContent = `This chart could not be drawn: ${error.message}`;
    }
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        draw(entry.target, globalThis.preceptorPage.dark());
      }
    },
    { rootMargin: "300px" },
  );
  figures.forEach((figure) => near.observe(figure));
  document.addEventListener("theme", (event) => {
    for (const figure of drawn.keys()) draw(figure, event.detail);
  });
  addEventListener("beforeprint", () => {
    for (const figure of figures) {
      near.unobserve(figure);
      if (!drawn.has(figure) || globalThis.preceptorPage.dark()) draw(figure, false);
    }
  });
  addEventListener("afterprint", () => {
    if (globalThis.preceptorPage.dark()) figures.forEach((figure) => draw(figure, true));
  });

  async function save(figure, kind) {
    if (!drawn.get(figure)?.view) await draw(figure, globalThis.preceptorPage.dark());
    const link = document.createElement("a");
    link.href = await drawn.get(figure).view.toImageURL(kind, 2);
    link.download = `${figure.dataset.chart.replace(/[^A-Za-z0-9-]+/g, "-")}.${kind}`;
    link.click();
  }
  for (const figure of figures) {
    for (const button of figure.querySelectorAll("[data-save]")) {
      button.addEventListener("click", () => save(figure, button.dataset.save));
    }
  }
})();
