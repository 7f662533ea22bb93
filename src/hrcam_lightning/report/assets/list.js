// The list of cases, what is asked of them, and their order.

const GLYPHS = { hit: "●", called: "◎", beside: "◐", missed: "○", "false alarm": "▲", "correct normal": "–" };

class CaseList {
  constructor(data, onChange) {
    this.cases = data.cases;
    this.onChange = onChange;
    this.hasTruth = data.cases.some((one) => one.truth !== null);
    this.links = new Map(data.cases.map((one) => [one.case, this.makeItem(one, data.classes)]));
    this.makeOutcomes(data.outcomes);
    const kinds = [["", "any or none"], ...(data.classes.length > 1 ? data.classes.map((name) => [`=${name}`, name]) : []),
      ["some", data.classes.length > 1 ? "any class" : data.classes[0]], ["none", "none"]];
    for (const id of ["truth", "called"]) fillSelect(id, kinds);
    this.hideUnless("truth-filter", this.hasTruth);
    this.hideUnless("size-filter", this.cases.some((one) => one.size_mm !== null));
    this.hideUnless("dprime-filter", this.cases.some((one) => one.dprime !== null));
    fillSelect("sort", [["", "as given"], ["name", "name"], ["high", "probability, highest first"],
      ["low", "probability, lowest first"], ...(this.cases.some((one) => one.size_mm !== null) ? [["size", "size, smallest first"]] : []),
      ...(this.cases.some((one) => one.dprime !== null) ? [["dprime", "d′, lowest first"]] : [])]);
    const panel = byId("filters");
    panel.open = matchMedia("(min-width: 60rem)").matches;
    panel.addEventListener("input", () => this.apply());
    byId("clear").addEventListener("click", () => this.clear());
    byId("list").addEventListener("keydown", (event) => this.moveFocus(event));
    this.apply();
  }

  hideUnless(id, wanted) {
    byId(id).hidden = !wanted;
  }

  // Names are put in as text, never as markup.
  makeItem(one, classes) {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = fragmentOf(one.case);
    const best = highest(one);
    const facts = [best ? (classes.length > 1 ? `${best[0]} ${best[1].toFixed(2)}` : `P ${best[1].toFixed(2)}`) : "",
      one.size_mm === null ? "" : `${written(one.size_mm)} mm`, one.dprime === null ? "" : `d′ ${one.dprime.toFixed(1)}`];
    link.append(outcomeChip(one.outcome, true), textIn("span", one.case, "name"), textIn("span", facts.filter(Boolean).join(" · "), "facts"));
    item.append(link);
    return item;
  }

  makeOutcomes(outcomes) {
    const counts = outcomes.map((name) => [name, this.cases.filter((one) => one.outcome === name).length]).filter(([, n]) => n);
    for (const [name, count] of counts) {
      const label = document.createElement("label"), box = document.createElement("input");
      Object.assign(box, { type: "checkbox", value: name });
      label.append(box, outcomeChip(name), ` ${name} `, textIn("span", count, "number"));
      byId("outcomes").append(label);
    }
    this.hideUnless("outcomes", counts.length > 0);
  }

  apply() {
    const outcomes = new Set([...byId("outcomes").querySelectorAll("input:checked")].map((box) => box.value));
    const text = byId("find").value.trim().toLowerCase();
    const truth = byId("truth").value, called = byId("called").value;
    this.shown = this.cases.filter((one) =>
      (!outcomes.size || outcomes.has(one.outcome)) && // none ticked: any
      one.case.toLowerCase().includes(text) && holds(one.truth ?? [], truth) && holds(one.called, called) &&
      between(one.size_mm, "size") && between(one.dprime, "dprime"));
    this.sort(byId("sort").value);
    byId("list").replaceChildren(...this.shown.map((one) => this.links.get(one.case)));
    byId("count").value = `${this.shown.length} of ${this.cases.length} cases`;
    byId("clear").hidden = this.shown.length === this.cases.length;
    this.onChange();
  }

  sort(by) {
    const chance = (one) => highest(one)?.[1] ?? -1;
    const last = (value) => value ?? Infinity; // cases without a lesion come last
    const orders = {
      name: (a, b) => a.case.localeCompare(b.case, undefined, { numeric: true }),
      high: (a, b) => chance(b) - chance(a),
      low: (a, b) => chance(a) - chance(b),
      size: (a, b) => order(last(a.size_mm), last(b.size_mm)),
      dprime: (a, b) => order(last(a.dprime), last(b.dprime)),
    };
    const order = (a, b) => (a === b ? 0 : a - b);
    if (orders[by]) this.shown.sort(orders[by]);
  }

  clear() {
    for (const field of byId("filters").querySelectorAll("input, select:not(#sort)")) {
      if (field.type === "checkbox") field.checked = false;
      else field.value = "";
    }
    this.apply();
  }

  // The case so many places further on, round at the ends; the first one if `name` is filtered out.
  neighbour(name, step) {
    const place = this.place(name), n = this.shown.length;
    if (!n) return null;
    return this.shown[place < 0 ? 0 : (place + step + n) % n].case;
  }

  place(name) {
    return this.shown.findIndex((one) => one.case === name);
  }

  mark(name) {
    for (const link of byId("list").querySelectorAll("[aria-current]")) link.removeAttribute("aria-current");
    const item = this.links.get(name);
    if (!item) return;
    item.firstChild.setAttribute("aria-current", "true");
    const list = byId("list"), top = item.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top + item.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = top - list.clientHeight / 2; // not scrollIntoView: the page itself stays where it is
    }
  }

  moveFocus(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const item = event.target.closest("li");
    if (!step || !item) return;
    event.preventDefault();
    const other = step > 0 ? item.nextElementSibling : item.previousElementSibling;
    if (other) other.firstChild.focus(), other.firstChild.click();
  }
}

function highest(one) {
  return Object.entries(one.probabilities).reduce((best, entry) => (best && best[1] >= entry[1] ? best : entry), null);
}

function holds(names, asked) {
  if (asked === "some") return names.length > 0;
  if (asked === "none") return names.length === 0;
  return !asked || names.includes(asked.slice(1));
}

function between(value, name) {
  const [low, high] = ["min", "max"].map((end) => byId(`${name}-${end}`).value);
  if (!low && !high) return true;
  return value !== null && (!low || value >= Number(low)) && (!high || value <= Number(high));
}

// A sign of its own for each outcome, beside its colour; read aloud where no word stands with it.
function outcomeChip(outcome, alone = false) {
  const chip = textIn("span", GLYPHS[outcome] ?? "·", "glyph");
  chip.dataset.outcome = outcome;
  chip.title = outcome;
  if (alone && outcome) chip.role = "img", (chip.ariaLabel = outcome);
  else chip.ariaHidden = "true";
  return chip;
}
