// Threshold, opacity and what else is set by hand; kept from case to case.

class Controls {
  constructor(data, colours, onChange) {
    this.kinds = new Map(data.kinds.map((kind) => [kind.name, kind]));
    this.colours = colours;
    this.thresholds = new Map(); // by map and class, once the slider was moved
    fillSelect("map", data.kinds.map((kind) => [kind.name, titleOf(kind)]));
    fillSelect("class", data.classes.map((name) => [name, name]));
    byId("class-label").hidden = data.classes.length < 2;
    byId("outline-label").hidden = data.cases.every((one) => one.truth === null);
    byId("threshold").addEventListener("input", () => {
      this.thresholds.set(this.key(this.kind), Number(byId("threshold").value));
      this.show(), onChange();
    });
    byId("fitted").addEventListener("click", () => {
      this.thresholds.delete(this.key(this.kind));
      this.show(), onChange();
    });
    for (const id of ["opacity", "outline", "peak"]) byId(id).addEventListener("input", () => (this.show(), onChange()));
    for (const id of ["map", "class"]) byId(id).addEventListener("input", () => (this.show(), onChange()));
    const parts = document.querySelectorAll(".settings .slider, #map-label, #peak-label");
    for (const one of parts) one.hidden = !data.kinds.length; // images can be looked at without any map
    this.show();
  }

  get kind() {
    return this.kinds.get(byId("map").value);
  }

  set kind(kind) {
    byId("map").value = kind.name;
    this.show();
  }

  get label() {
    return byId("class").value;
  }

  set label(name) {
    byId("class").value = name;
    this.show();
  }

  get opacity() {
    return Number(byId("opacity").value);
  }

  key(kind) {
    return JSON.stringify([kind.name, this.label]);
  }

  // Where the slider starts: at the fitted value, and where there is none, so that all of the map is seen.
  start(kind) {
    return kind.thresholds[this.label] ?? kind.range[0];
  }

  threshold(kind) {
    return this.thresholds.get(this.key(kind)) ?? this.start(kind);
  }

  show() {
    const { kind } = this;
    if (!kind) return;
    const slider = byId("threshold"), value = this.threshold(kind);
    [slider.min, slider.max] = kind.range;
    slider.value = value;
    slider.setAttribute("aria-valuetext", withUnit(value, kind));
    byId("threshold-value").value = withUnit(value, kind);
    byId("opacity-value").value = this.opacity.toFixed(2);
    const fitted = kind.thresholds[this.label];
    byId("fitted").textContent = fitted === undefined ? "Show all" : `Fitted: ${written(fitted)}`;
    byId("fitted").disabled = value === this.start(kind);
    const what = fitted === undefined ? "No threshold was fitted for this map" : "Starts at the threshold fitted on validation cases";
    byId("bar-note").textContent = `${what}; what lies below is transparent. One scale for all cases.`;
    this.drawBar(kind, value);
  }

  // The colour bar is the slider's own track: colours stop at the ends of the scale, values go on.
  drawBar(kind, threshold) {
    const [low, high] = kind.range, canvas = byId("bar").querySelector("canvas");
    const context = canvas.getContext("2d"), pixels = context.createImageData(256, 1);
    for (let x = 0; x < 256; x++) {
      const value = low + ((high - low) * (x + 0.5)) / 256, from = 3 * colourOf(value, kind.scale);
      pixels.data.set([...this.colours.slice(from, from + 3), value >= threshold ? 255 : 60], 4 * x);
    }
    context.putImageData(pixels, 0, 0);
    byId("ticks").replaceChildren(...ticksOf(low, high).map((value) => {
      const tick = textIn("span", tickText(value));
      tick.style.left = `${(100 * (value - low)) / (high - low)}%`;
      return tick;
    }));
  }
}

function titleOf(kind) {
  return kind.floor ? `${kind.name} (floor)` : kind.name;
}
