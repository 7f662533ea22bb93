// From raw values to colours, and to words.

function readColours(hex) {
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

// Which of the 256 colours a value has: beyond the ends of the scale the last ones.
function colourOf(value, [low, high]) {
  return Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low))));
}

// A map holds few different bytes: colour and opacity of each are found once, not for every pixel.
function lookUp(array, kind, threshold, opacity, colours) {
  const table = new Float32Array(4 * 256);
  for (let byte = 0; byte <= array.steps; byte++) {
    const value = array.low + ((array.high - array.low) * byte) / array.steps;
    const colour = 3 * colourOf(value, kind.scale);
    table.set([colours[colour], colours[colour + 1], colours[colour + 2], value >= threshold ? opacity : 0], 4 * byte);
  }
  return table;
}

function written(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("-", "−").replace("e+", "e");
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 4).replace("-", "−");
}

function withUnit(value, kind) {
  return kind.unit ? `${written(value)} ${kind.unit}` : written(value);
}

// Round numbers for a scale, eight at most.
function ticksOf(low, high) {
  const rough = (high - low) / 8;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(n * step);
  return ticks;
}

function tickText(value) {
  return String(parseFloat(value.toPrecision(6))).replace("-", "−");
}
