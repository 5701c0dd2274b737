"use strict";
// One instruction at a time with all teachers' responses to it, chosen from the JSON that the page carries.
// Only what is looked at is in the document, and everything that a model or a person wrote is
// put there as text.
(() => {
  const LEVELS = [10, 20, 40, 70]; // tenths of nats, as in the legend
  const texts = JSON.parse(document.getElementById("texts")?.textContent || "[]");

  function made(name, className, text) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const number = (value) =>
    value === null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: 4 });
  const level = (tenths) => LEVELS.filter((bound) => tenths >= bound).length;
  const ROLES = { // class and words of what a token counts as
    answer: ["counted", ""],
    reasoning: ["trace", "reasoning"],
    context: ["context", "context, not counted"],
    cut: ["cut", "cut at the maximum length, not counted"],
  };
  const described = (span) =>
    [
      span.dataset.role,
      span.dataset.rank && `rank ${span.dataset.rank}`,
      span.dataset.nats ? `${span.dataset.nats} nats` : "not measured",
    ].filter(Boolean).join(", ");

  // Fills the block with the context and one span for each token; it is one stop of the keyboard.
  function shade(block, answer, readout) {
    const text = texts[answer.read];
    const roles = answer.roles.flatMap(([role, count]) => Array(count).fill(role));
    block.append(made("i", "context", texts[answer.context]));
    let from = 0;
    answer.lengths.forEach((length, place) => {
      const tenths = answer.nll[place];
      const [look, words] = ROLES[roles[place]];
      const span = made("span", `s${tenths === null ? 0 : level(tenths)}`, text.slice(from, from + length));
      span.classList.add(look);
      span.dataset.role = words;
      if (tenths !== null) span.dataset.nats = (tenths / 10).toFixed(1);
      if (answer.ranks[place] !== null) span.dataset.rank = answer.ranks[place];
      block.append(span);
      from += length;
    });
    let current = null;
    const point = (span) => {
      current?.classList.remove("current");
      current = span;
      span.classList.add("current");
      span.title = described(span);
      readout.textContent = `“${span.textContent}”: ${described(span)}`;
    };
    block.addEventListener("pointerover", (event) => {
      if (event.target.parentElement === block && event.target.localName === "span") point(event.target);
    });
    block.addEventListener("keydown", (event) => {
      const back = event.key === "ArrowLeft";
      if (!back && event.key !== "ArrowRight") return;
      event.preventDefault();
      const beside = current && (back ? current.previousElementSibling : current.nextElementSibling);
      const next = beside?.localName === "span" ? beside : null;
      const span = next || current || block.querySelector("span");
      point(span);
      span.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  function response(answer, teacher) {
    const block = made("div", "text");
    block.dir = "auto";
    block.tabIndex = 0;
    block.setAttribute("role", "group");
    block.setAttribute("aria-label", `Response of ${teacher}`);
    if (!answer.lengths) {
      const text = texts[answer.text];
      if (answer.trace) block.append(made("span", "trace", text.slice(0, answer.trace)));
      block.append(text.slice(answer.trace || 0));
      return [block];
    }
    const readout = made("p", "readout");
    readout.setAttribute("aria-live", "polite");
    shade(block, answer, readout);
    return [block, readout];
  }

  function card(answer, teacher, place, measures) {
    const part = made("article", "response");
    const title = made("h5");
    title.append(made("span", "place", `${place + 1}`), " ", made("bdi", "name", teacher));
    const scores = made("dl", "scores");
    measures.forEach((measure, k) => {
      const pair = made("div");
      pair.append(made("dt", "", measure), made("dd", "", number(answer.scores[k])));
      scores.append(pair);
    });
    part.append(title, scores);
    if (answer.text === null) part.append(made("p", "muted", `No response: ${(answer.note || "no reason given").replace(/\.$/, "")}.`));
    else {
      part.append(...response(answer, teacher));
      if (answer.note) part.append(made("p", "muted", answer.note));
    }
    if (answer.left_out) {
      const count = answer.left_out.toLocaleString("en");
      part.append(made("p", "muted", `${count} more characters are left out here.`));
    }
    return part;
  }

  class Explorer {
    constructor(part) {
      this.part = part;
      this.data = JSON.parse(part.querySelector(".examples").textContent);
      this.chosen = new Set(this.data.teachers.keys());
      this.found = [...this.data.examples.keys()];
      this.place = 0;
      this.controls();
      const shaded = this.data.examples.some((one) => one.answers.some((answer) => answer.lengths));
      for (const key of part.querySelectorAll("[data-legend], [data-tokens]")) key.hidden = !shaded;
      this.show();
    }

    find(name) {
      return this.part.querySelector(`[data-find=${name}]`);
    }

    controls() {
      let waiting = 0;
      this.find("text").addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.filter(), 120);
      });
      this.find("category")?.addEventListener("change", () => this.filter());
      for (const button of this.part.querySelectorAll("[data-step]")) {
        button.addEventListener("click", () => this.step(Number(button.dataset.step)));
      }
      this.part.addEventListener("keydown", (event) => {
        if (event.target.closest("input, select") || event.ctrlKey || event.altKey || event.metaKey) return;
        if (event.key === "n" || event.key === "p") this.step(event.key === "n" ? 1 : -1);
      });
      this.choices();
    }

    choices() {
      const box = this.part.querySelector("[data-teachers]");
      this.data.teachers.forEach((teacher, k) => {
        const label = made("label");
        const tick = made("input");
        tick.type = "checkbox";
        tick.checked = true;
        tick.addEventListener("change", () => {
          tick.checked ? this.chosen.add(k) : this.chosen.delete(k);
          this.show();
        });
        label.append(tick, " ", made("bdi", "name", teacher));
        box.append(label);
      });
    }

    filter() {
      const wanted = this.find("text").value.toLowerCase();
      const category = this.find("category")?.value;
      const holds = (place) => place !== null && texts[place].toLowerCase().includes(wanted);
      this.found = [...this.data.examples.keys()].filter((k) => {
        const one = this.data.examples[k];
        if (category && one.category !== category) return false;
        return !wanted || holds(one.instruction) || one.answers.some((answer) => holds(answer.text));
      });
      this.place = 0;
      this.show();
    }

    step(by) {
      const last = this.found.length - 1;
      this.place = Math.max(0, Math.min(last, this.place + by));
      this.show();
    }

    show() {
      const count = this.found.length;
      this.part.querySelector("[data-position]").textContent = count ? `${this.place + 1} of ${count}` : "none found";
      for (const button of this.part.querySelectorAll("[data-step]")) {
        const end = Number(button.dataset.step) < 0 ? this.place === 0 : this.place >= count - 1;
        button.setAttribute("aria-disabled", String(end));
      }
      const shown = this.part.querySelector("[data-example]");
      shown.replaceChildren(...(count ? this.parts(this.data.examples[this.found[this.place]]) : []));
    }

    parts(one) {
      const about = made("p", "muted");
      const difference = one.disagreement === null ? "" : `disagreement ${number(one.disagreement)}`;
      const cut = one.left_out ? `${one.left_out.toLocaleString("en")} more characters are left out here` : "";
      about.textContent = [one.category, difference, cut].filter(Boolean).join(" · ");
      const asked = made("blockquote", "asked", texts[one.instruction]);
      asked.dir = "auto";
      asked.tabIndex = 0;
      const grid = made("div", "responses");
      for (const answer of one.answers) {
        if (!this.chosen.has(answer.teacher)) continue;
        const name = this.data.teachers[answer.teacher];
        grid.append(card(answer, name, answer.teacher, this.data.measures));
      }
      return [made("h4", "", "Instruction"), about, asked, grid];
    }
  }

  const opened = new Set();
  function make(part) {
    near.unobserve(part);
    if (opened.has(part)) return;
    opened.add(part);
    new Explorer(part);
  }

  // An explorer is made when it comes near, so that opening the page reads no examples.
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) make(entry.target);
      }
    },
    { rootMargin: "600px" },
  );
  const parts = [...document.querySelectorAll("[data-explorer]")];
  parts.forEach((part) => near.observe(part));
  addEventListener("beforeprint", () => {
    for (const part of parts) make(part);
  });
})();
