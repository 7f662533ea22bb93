// Reads what report/arrays.py packs. A case's arrays are inflated when it is shown, and forgotten with it.

async function unpack(packed) {
  const text = Uint8Array.from(atob(packed.bytes), (letter) => letter.charCodeAt(0));
  const stream = new Blob([text]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  addUp(bytes, packed.shape, packed.steps + 1);
  return { ...packed, bytes };
}

// Undoes the differences: along every axis each byte is added to its neighbour's.
function addUp(bytes, shape, modulus) {
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const block = stride * shape[axis];
    for (let start = 0; start < bytes.length; start += block) {
      for (let i = start + stride; i < start + block; i++) bytes[i] = (bytes[i] + bytes[i - stride]) % modulus;
    }
    stride = block;
  }
}

function valueAt(array, index) {
  return array.low + ((array.high - array.low) * array.bytes[index]) / array.steps;
}

// Where the highest value is; told, for among the bytes many may share the highest step.
function peakOf(array) {
  return placeOf(array.peak, array.shape);
}

// Where an index into the bytes lies, and back; arrays are in C order.
function placeOf(index, shape) {
  const at = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    at[axis] = index % shape[axis];
    index = Math.floor(index / shape[axis]);
  }
  return at;
}

function indexOf(at, shape) {
  return at.reduce((index, position, axis) => index * shape[axis] + position, 0);
}

function isInside(mask, index) {
  return valueAt(mask, index) > 0.5;
}

// The voxel of a mask nearest to its centre of mass: a place in a lesion even where there are several.
function centreOf(mask) {
  const inside = [];
  for (let i = 0; i < mask.bytes.length; i++) if (isInside(mask, i)) inside.push(placeOf(i, mask.shape));
  const mean = mask.shape.map((_, axis) => inside.reduce((sum, at) => sum + at[axis], 0) / inside.length);
  const distance = (at) => at.reduce((sum, position, axis) => sum + (position - mean[axis]) ** 2, 0);
  return inside.reduce((best, at) => (distance(at) < distance(best) ? at : best));
}
