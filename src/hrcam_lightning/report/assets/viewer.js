// Puts it together: which case is shown, its large picture, and the small ones beside it.

class Viewer {
  constructor(data) {
    this.data = data;
    this.colours = readColours(data.colours);
    this.byName = new Map(data.cases.map((one) => [one.case, one]));
    this.controls = new Controls(data, this.colours, () => this.draw());
    this.list = new CaseList(data, () => this.followList());
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("to-peak").addEventListener("click", () => this.goTo("peak"));
    byId("to-lesion").addEventListener("click", () => this.goTo("lesion"));
    addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("hashchange", () => this.followAddress());
    this.followAddress();
  }

  // The address says which case; so links, Back and bookmarks work.
  followAddress() {
    const asked = caseInAddress();
    const name = asked ?? this.list.neighbour(this.current?.case, 0);
    byId("problem").hidden = this.byName.has(name);
    byId("problem").textContent = asked === null ? "There is no case to show." : `There is no case “${name}” in this report.`;
    if (this.byName.has(name)) this.open(this.byName.get(name));
    if (asked !== null && !inView(byId("viewer"))) byId("viewer").scrollIntoView({ block: "start" });
  }

  // A case that is filtered out makes room for the first that is not.
  followList() {
    if (!this.current) return; // the list is there before any case
    const first = this.list.neighbour(this.current.case, 0);
    if (first !== null && first !== this.current.case) {
      history.replaceState(null, "", fragmentOf(first)); // not a step to go back to
      this.open(this.byName.get(first));
    }
    this.showPlace();
  }

  step(by) {
    const name = this.list.neighbour(this.current?.case, by);
    if (name !== null) location.hash = fragmentOf(name);
  }

  onKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const typing = event.target.closest?.("input:not([type=checkbox]), select, textarea");
    if (!by || typing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || !inView(byId("viewer"))) return;
    event.preventDefault();
    this.step(by);
  }

  async open(entry) {
    if (this.current?.case === entry.case) return;
    const one = (this.current = new Case(this.data, entry));
    this.controls.label = one.firstClass(this.data.classes);
    this.list.mark(one.case);
    this.showPlace();
    showFacts(one, this.data.classes);
    const image = await one.array(one.image);
    if (one !== this.current) return; // somebody was quicker
    this.ready = one; // its image is there: from now on it can be painted
    this.image = image;
    this.map = null;
    this.at = image.shape.map((n) => Math.floor(n / 2));
    this.buildPlanes();
    const mask = await one.mask(this.controls.label);
    await this.goTo(mask ? "lesion" : "peak");
  }

  showPlace() {
    const place = this.list.place(this.current.case), n = this.list.shown.length;
    byId("place").textContent = place < 0 ? "not in the list" : `${place + 1} of ${n}`;
    byId("previous").disabled = byId("next").disabled = n === 0;
  }

  // Large pictures and tiles are made once a case and then painted; the sliders only paint.
  buildPlanes() {
    const { shape } = this.image, { spacing, affine } = this.current.frame;
    this.planes = planesOf(shape, spacing);
    this.focus = this.planes.at(-1);
    byId("viewer").classList.toggle("volume", shape.length === 3);
    byId("jumps").hidden = shape.length < 3;
    this.large = this.planes.map((plane) => new Picture(plane));
    byId("planes").replaceChildren(...this.large.map((picture) => this.framed(picture, affine !== null)));
    const shown = this.data.kinds.filter((kind) => kind.name in (kind.level ? this.current.levels : this.current.maps));
    this.tiles = [null, ...shown].map((kind) => this.makeTile(kind));
    byId("maps").replaceChildren(...this.tiles.filter((tile) => !tile.kind?.level).map((tile) => tile.element));
    byId("levels").replaceChildren(...this.tiles.filter((tile) => tile.kind?.level).map((tile) => tile.element));
    byId("levels-strip").hidden = !this.tiles.some((tile) => tile.kind?.level);
  }

  framed(picture, sides) {
    const { plane } = picture, figure = document.createElement("figure");
    figure.className = "plane";
    figure.style.setProperty("--share", plane.widthMm);
    figure.append(picture.element);
    const pixel = (event) => {
      const box = picture.canvas.getBoundingClientRect();
      const part = (from, size, n) => Math.min(n - 1, Math.max(0, Math.floor((n * from) / size)));
      return voxelOf(plane, this.at, part(event.clientX - box.left, box.width, plane.width),
        part(event.clientY - box.top, box.height, plane.height));
    };
    picture.element.addEventListener("pointermove", (event) => this.tell(pixel(event)));
    picture.element.addEventListener("pointerleave", () => this.tell(null));
    picture.element.addEventListener("click", (event) => this.moveTo(pixel(event), plane));
    if (plane.normal === null) return figure;
    if (sides) for (const [side, letter] of Object.entries({ left: plane.normal ? "L" : "P", right: plane.normal ? "R" : "A" })) {
      picture.element.append(textIn("span", letter, `letter ${side}`));
    }
    const label = document.createElement("label"), slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: plane.shape[plane.normal] - 1, step: 1 });
    const words = document.createElement("span"); // an output would take the label for itself
    slider.addEventListener("input", () => this.moveTo(this.at.with(plane.normal, Number(slider.value)), plane));
    label.append(`${plane.name}, slice `, words, slider);
    figure.append(label);
    Object.assign(picture, { slider, words });
    return figure;
  }

  makeTile(kind) {
    const element = document.createElement(kind ? "button" : "div");
    element.className = "tile";
    if (kind) {
      element.type = "button";
      element.title = `Show ${titleOf(kind)} large`;
      element.addEventListener("click", () => ((this.controls.kind = kind), this.draw()));
    }
    const caption = document.createElement("span");
    return { kind, element, caption, picture: null };
  }

  moveTo(voxel, plane) {
    this.at = voxel;
    this.focus = plane;
    this.draw().then(() => this.tell(voxel));
  }

  async goTo(what) {
    const one = this.current, mask = await one.mask(this.controls.label);
    const { kind, label } = this.controls, map = kind ? await one.map(kind, label) : null;
    if (one !== this.current || one !== this.ready) return;
    if (what === "lesion" && mask) this.at = centreOf(mask);
    else if (map) this.at = peakOf(map);
    await this.draw();
  }

  async draw() {
    const one = this.current, { controls, image } = this, { kind, label } = controls;
    if (!one || one !== this.ready) return;
    const mask = await one.mask(label), map = kind ? await one.map(kind, label) : null;
    const maps = await Promise.all(this.tiles.map((tile) => tile.kind && one.map(tile.kind, label)));
    if (one !== this.current || kind !== controls.kind || label !== controls.label) return;
    this.map = map;
    const volume = image.shape.length === 3, truth = byId("outline").checked && mask;
    const highest = map && peakOf(map), peak = byId("peak").checked && highest;
    for (const picture of this.large) {
      this.paint(picture, map, kind);
      picture.mark({ at: this.at, mask: truth, peak, cross: volume && this.at });
      if (!picture.slider) continue;
      const { normal } = picture.plane;
      picture.slider.value = this.at[normal];
      picture.words.textContent = one.slice(normal, this.at, image.shape);
      picture.slider.setAttribute("aria-valuetext", `slice ${picture.words.textContent}`);
    }
    this.tiles.forEach((tile, n) => this.drawTile(tile, maps[n], truth));
    byId("to-lesion").disabled = !mask;
    byId("to-peak").disabled = !map;
    byId("viewer").dataset.case = one.case; // painted: says so to whoever waits for it
    this.tell(null);
  }

  // A slider changes few of the pictures: one that would look as before is left alone.
  paint(picture, map, kind) {
    const { opacity } = this.controls, threshold = map && this.controls.threshold(kind);
    const look = [this.at[picture.plane.normal], kind?.name, this.controls.label, map && opacity, threshold].join();
    if (picture.look === look) return;
    picture.look = look;
    picture.paint(this.at, this.image, map, map && opacity > 0 ? lookUp(map, kind, threshold, opacity, this.colours) : null);
  }

  drawTile(tile, map, truth) {
    if (tile.picture?.plane !== this.focus) {
      tile.picture = new Picture(this.focus);
      tile.element.replaceChildren(tile.picture.element, tile.caption);
    }
    this.paint(tile.picture, map, tile.kind);
    tile.picture.mark({ at: this.at, mask: truth });
    const peak = map ? `peak ${withUnit(map.high, tile.kind)}` : "no map of this class";
    tile.caption.replaceChildren(textIn("strong", tile.kind ? titleOf(tile.kind) : "image"), tile.kind ? textIn("small", peak) : "");
    if (tile.kind) tile.element.setAttribute("aria-pressed", String(tile.kind === this.controls.kind));
  }

  // The value under the pointer; without one, at the crosshair or at the map's peak, where there is either.
  tell(voxel) {
    const { image, map, ready } = this, volume = image.shape.length === 3;
    const at = voxel ?? (volume ? this.at : map && peakOf(map));
    if (!at) return void (byId("readout").textContent = "");
    const index = indexOf(at, image.shape);
    const value = map ? ` · ${this.controls.kind.name} ${withUnit(valueAt(map, index), this.controls.kind)}` : "";
    const where = voxel ? "" : volume ? "crosshair: " : "peak: ";
    byId("readout").textContent = `${where}${ready.describe(at, image.shape)}${value} · image ${written(valueAt(image, index))}`;
  }
}

function inView(element) {
  const box = element.getBoundingClientRect();
  return box.bottom > 80 && box.top < innerHeight - 80;
}

new Viewer(JSON.parse(byId("browser-data").textContent));
