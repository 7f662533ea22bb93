// A plane through a case: picture, outline of the truth, marks. 2D cases have one, volumes three.

const SVG = "http://www.w3.org/2000/svg";

// Volumes lie as R-A-S: each plane has one axis to the right and one upwards, as in the project's other pictures.
function planesOf(shape, spacing) {
  if (shape.length === 2) return [{ name: "", normal: null, right: 1, up: 0, upwards: false }].map(sized);
  const names = ["sagittal", "coronal", "axial"];
  return names.map((name, normal) => {
    const [right, up] = [0, 1, 2].filter((axis) => axis !== normal);
    return { name, normal, right, up, upwards: true };
  }).map(sized);

  function sized(plane) {
    const { right, up } = plane;
    const width = shape[right], height = shape[up];
    return { ...plane, shape, width, height, widthMm: width * spacing[right], heightMm: height * spacing[up] };
  }
}

// Index into the bytes of the first pixel, and the steps to the next column and the next row.
function walk(plane, at) {
  const strides = plane.shape.map((_, axis) => plane.shape.slice(axis + 1).reduce((product, n) => product * n, 1));
  const base = plane.normal === null ? 0 : at[plane.normal] * strides[plane.normal];
  const first = plane.upwards ? base + (plane.height - 1) * strides[plane.up] : base;
  return { first, column: strides[plane.right], row: plane.upwards ? -strides[plane.up] : strides[plane.up] };
}

// The voxel under a pixel, and the pixel of a voxel.
function voxelOf(plane, at, column, row) {
  const voxel = [...at];
  voxel[plane.right] = column;
  voxel[plane.up] = plane.upwards ? plane.height - 1 - row : row;
  return voxel;
}

function pixelOf(plane, voxel) {
  const up = voxel[plane.up];
  return [voxel[plane.right], plane.upwards ? plane.height - 1 - up : up];
}

class Picture {
  constructor(plane) {
    this.plane = plane;
    this.element = document.createElement("div");
    this.element.className = "picture";
    this.element.style.aspectRatio = `${plane.widthMm} / ${plane.heightMm}`;
    this.canvas = document.createElement("canvas");
    this.canvas.width = plane.width;
    this.canvas.height = plane.height;
    this.marks = document.createElementNS(SVG, "svg");
    this.marks.setAttribute("viewBox", `0 0 ${plane.width} ${plane.height}`);
    this.marks.setAttribute("preserveAspectRatio", "none");
    this.marks.setAttribute("aria-hidden", "true");
    this.element.append(this.canvas, this.marks);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.pixels = this.context.createImageData(plane.width, plane.height);
  }

  // The image in grey; over it the map, whose table says colour and opacity of every byte; no table, no map.
  paint(at, image, map, table) {
    const { first, column, row } = walk(this.plane, at);
    const data = this.pixels.data.fill(255);
    const bright = 255 / image.steps;
    for (let y = 0, to = 0; y < this.plane.height; y++) {
      for (let x = 0, i = first + y * row; x < this.plane.width; x++, i += column, to += 4) {
        const grey = image.bytes[i] * bright;
        const entry = table ? 4 * map.bytes[i] : 0;
        const over = table ? table[entry + 3] : 0;
        data[to] = over ? grey + over * (table[entry] - grey) : grey;
        data[to + 1] = over ? grey + over * (table[entry + 1] - grey) : grey;
        data[to + 2] = over ? grey + over * (table[entry + 2] - grey) : grey;
      }
    }
    this.context.putImageData(this.pixels, 0, 0);
  }

  // Marks keep their width at any size of the picture. Dark under bright: seen on any background.
  mark({ at, mask, peak, cross }) {
    const paths = [];
    if (cross) {
      const [x, y] = pixelOf(this.plane, cross).map((n) => n + 0.5);
      paths.push(["cross", `M0 ${y}H${this.plane.width}M${x} 0V${this.plane.height}`]);
    }
    if (mask) {
      const outline = outlineOf(this.plane, at, mask);
      if (outline) paths.push(["edge", outline], ["truth", outline]);
    }
    if (peak && (this.plane.normal === null || peak[this.plane.normal] === at[this.plane.normal])) {
      const [x, y] = pixelOf(this.plane, peak).map((n) => n + 0.5);
      paths.push(["peak-edge", `M${x} ${y}h0`], ["peak", `M${x} ${y}h0`]);
    }
    this.marks.replaceChildren(...paths.map(([name, d]) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      path.setAttribute("d", d);
      return path;
    }));
  }
}

// The edges between a mask and what is not of it, as an SVG path in pixels; kept, for all pictures of the slice have it.
function outlineOf(plane, at, mask) {
  const key = `${plane.name} ${at[plane.normal]}`;
  mask.outlines ??= new Map();
  if (!mask.outlines.has(key)) mask.outlines.set(key, traced(plane, at, mask));
  return mask.outlines.get(key);
}

function traced(plane, at, mask) {
  const { first, column, row } = walk(plane, at);
  const inside = (x, y) =>
    x >= 0 && y >= 0 && x < plane.width && y < plane.height && isInside(mask, first + x * column + y * row);
  const path = [];
  for (let y = 0; y <= plane.height; y++) {
    for (let x = 0, start = -1; x <= plane.width; x++) {
      const edge = x < plane.width && inside(x, y) !== inside(x, y - 1);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) path.push(`M${start} ${y}H${x}`), start = -1;
    }
  }
  for (let x = 0; x <= plane.width; x++) {
    for (let y = 0, start = -1; y <= plane.height; y++) {
      const edge = y < plane.height && inside(x, y) !== inside(x - 1, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) path.push(`M${x} ${start}V${y}`), start = -1;
    }
  }
  return path.join("");
}
