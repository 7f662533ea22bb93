// One case: its arrays, and what is told of it in words.

class Case {
  constructor(data, entry) {
    Object.assign(this, entry);
    this.arrays = data.arrays;
    this.unpacked = new Map();
  }

  // Inflated when first asked for; a promise, so that two askers share one.
  array(place) {
    if (place === undefined) return null;
    if (!this.unpacked.has(place)) this.unpacked.set(place, unpack(this.arrays[place]));
    return this.unpacked.get(place);
  }

  map(kind, label) {
    return this.array((kind.level ? this.levels : this.maps)[kind.name]?.[label]);
  }

  mask(label) {
    return this.array(this.masks[label]);
  }

  // The class to begin with: one that is there, else one that is called, else the likeliest.
  firstClass(classes) {
    return [...(this.truth ?? []), ...this.called, highest(this)?.[0]].find((name) => classes.includes(name)) ?? classes[0];
  }

  // Voxel and millimetres as in the file, whichever way the picture was turned; a picture has pixels alone.
  describe(at, shape) {
    const { affine } = this.frame, voxel = this.stored(at, shape);
    if (!affine) return at.length === 2 ? `row ${at[0]}, column ${at[1]}` : `voxel (${at.join(", ")})`;
    const mm = affine.map((row) => voxel.reduce((sum, n, axis) => sum + row[axis] * n, row[3]));
    const words = mm.map((value, axis) => `${"xyz"[axis]} ${value.toFixed(1).replace("-", "−")}`).join(", ");
    return `voxel (${voxel.join(", ")}), ${words} mm`;
  }

  stored(at, shape) {
    const { axes, flips } = this.frame, voxel = [];
    axes.forEach((axis, n) => (voxel[axis] = flips[n] ? shape[n] - 1 - at[n] : at[n]));
    return voxel;
  }

  // The number that the file gives to the slice that is shown.
  slice(axis, at, shape) {
    return this.stored(at, shape)[this.frame.axes[axis]];
  }
}

function showFacts(one, classes) {
  byId("case-name").textContent = one.case;
  byId("case-outcome").hidden = !one.outcome;
  byId("case-outcome").replaceChildren(outcomeChip(one.outcome), ` ${one.outcome}`);
  const withTruth = one.truth !== null;
  byId("probabilities").querySelector(".truth-column").hidden = !withTruth;
  byId("probabilities").tBodies[0].replaceChildren(...classes.map((name) => {
    const row = document.createElement("tr"), head = textIn("th", name), chance = one.probabilities[name];
    head.scope = "row";
    row.append(head, textIn("td", chance === undefined ? "" : chance.toFixed(3)), textIn("td", yes(one.called.includes(name))));
    if (withTruth) row.append(textIn("td", yes(one.truth.includes(name))));
    return row;
  }));
  const facts = [["Size", one.size_mm === null ? "" : `${written(one.size_mm)} mm`],
    ["d′", one.dprime === null ? "" : one.dprime.toFixed(2)],
    ...Object.entries(one.facts).map(([name, value]) => [name, typeof value === "number" ? written(value) : value])];
  byId("facts").replaceChildren(...facts.filter(([, value]) => value !== "").flatMap(([name, value]) =>
    [textIn("dt", name), textIn("dd", value)]));
}

function yes(there) {
  return there ? "yes" : "no";
}
