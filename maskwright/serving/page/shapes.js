// Shapes of objects: COCO's run-length codes become outlines, outlines are moved and measured.

// The runs of COCO's compressed text: numbers of 5 bits a character, each the difference to the one
// two before, from the third on.
export function runs(text) {
  const found = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    if (found.length > 2) value += found[found.length - 2];
    found.push(value);
  }
  return found;
}

// A code as the pixels of its tight frame: runs go down the columns, the first is outside.
export function decode({ size: [height], counts }) {
  const list = typeof counts === "string" ? runs(counts) : counts;
  let left = Infinity, top = Infinity, right = 0, bottom = 0;
  const pieces = [];
  let place = 0;
  list.forEach((count, number) => {
    if (number % 2 && count) {
      for (let from = place, end = place + count; from < end;) {
        const x = Math.floor(from / height), y = from % height;
        const length = Math.min(height - y, end - from);
        pieces.push([x, y, length]);
        left = Math.min(left, x); right = Math.max(right, x + 1);
        top = Math.min(top, y); bottom = Math.max(bottom, y + length);
        from += length;
      }
    }
    place += count;
  });
  if (!pieces.length) return null;
  const width = right - left, data = new Uint8Array(width * (bottom - top));
  for (const [x, y, length] of pieces) {
    for (let k = 0; k < length; k++) data[(y - top + k) * width + x - left] = 1;
  }
  return { left, top, width, height: bottom - top, data };
}

// The borders of pixels as closed rings of corners, outlines and holes; the inside is on the right.
export function trace({ left, top, width, height, data }) {
  const wide = width + 1, out = new Uint8Array(wide * (height + 1));
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!data[y * width + x]) continue;
      if (!at(x, y - 1)) out[y * wide + x] |= 1;
      if (!at(x + 1, y)) out[y * wide + x + 1] |= 2;
      if (!at(x, y + 1)) out[(y + 1) * wide + x + 1] |= 4;
      if (!at(x - 1, y)) out[(y + 1) * wide + x] |= 8;
    }
  }
  const steps = [1, wide, -1, -wide], rings = [];
  for (let start = 0; start < out.length; start++) {
    while (out[start]) {
      const ring = [];
      let here = start, before = -1, way = Math.log2(out[start] & -out[start]);
      do {
        if (before !== way) ring.push([left + here % wide, top + Math.floor(here / wide)]);
        out[here] &= ~(1 << way);
        before = way;
        here += steps[way];
        if (here === start) break;
        for (const turn of [1, 0, 3]) {
          const next = (way + turn) % 4;
          if (out[here] & (1 << next)) { way = next; break; }
        }
      } while (true);
      if (ring.length > 3) rings.push(ring);
    }
  }
  return rings;
}

export function area(ring) {
  let sum = 0;
  ring.forEach(([x, y], k) => {
    const [u, v] = ring[(k + 1) % ring.length];
    sum += x * v - u * y;
  });
  return sum / 2;
}

export function frame(rings) {
  let x1 = Infinity, y1 = Infinity, x2 = -Infinity, y2 = -Infinity;
  for (const ring of rings) for (const [x, y] of ring) {
    x1 = Math.min(x1, x); y1 = Math.min(y1, y); x2 = Math.max(x2, x); y2 = Math.max(y2, y);
  }
  return [x1, y1, x2, y2];
}

// An object with its shape carried from one frame to another.
export function carried(one, box) {
  const [a, b, c, d] = one.box, [e, f, g, h] = box;
  const wide = (g - e) / Math.max(c - a, 1e-6), high = (h - f) / Math.max(d - b, 1e-6);
  const put = ([x, y, ...rest]) => [e + (x - a) * wide, f + (y - b) * high, ...rest];
  return { ...one, box, rings: one.rings && one.rings.map((ring) => ring.map(put)),
    points: one.points && one.points.map(put), edited: true };
}

// A line drawn by hand without the points that it does not need (Douglas and Peucker 1973).
export function simple(points, tolerance) {
  if (points.length < 3) return points;
  const keep = new Uint8Array(points.length);
  keep[0] = keep[points.length - 1] = 1;
  const todo = [[0, points.length - 1]];
  while (todo.length) {
    const [from, to] = todo.pop(), [x, y] = points[from], [u, v] = points[to];
    const length = Math.hypot(u - x, v - y) || 1e-9;
    let most = tolerance, place = 0;
    for (let k = from + 1; k < to; k++) {
      const [p, q] = points[k];
      const away = length < 1e-6 ? Math.hypot(p - x, q - y) : Math.abs((u - x) * (y - q) - (x - p) * (v - y)) / length;
      if (away > most) { most = away; place = k; }
    }
    if (place) { keep[place] = 1; todo.push([from, place], [place, to]); }
  }
  return points.filter((_, k) => keep[k]);
}

// A ring without the steps of its pixels, to be looked at.
function smooth(ring) {
  return ring.length < 9 ? ring : simple([...ring, ring[0]], 0.75).slice(0, -1);
}

export function path(one) {
  const line = new Path2D();
  if (one.rings && one.rings.length) {
    for (const ring of one.rings.map(smooth)) {
      ring.forEach(([x, y], k) => (k ? line.lineTo(x, y) : line.moveTo(x, y)));
      line.closePath();
    }
  } else if (one.box) {
    const [x1, y1, x2, y2] = one.box;
    line.rect(x1, y1, x2 - x1, y2 - y1);
  }
  return line;
}

// The objects of an answer in one form, whatever the task: name, score, box, rings, points.
export function objectsOf(answer) {
  const named = (points) => Object.values(points).map(([x, y]) => [x, y, 1]);
  if (answer.objects) {
    return answer.objects.map((one, id) => {
      const mask = one.segmentation && decode(one.segmentation);
      return { id, name: one.name, label: one.label, score: one.score, box: one.box,
        rings: mask ? trace(mask) : null, points: one.keypoints || null, source: one };
    });
  }
  if (answer.box || (answer.keypoints && !Array.isArray(answer.keypoints))) {
    const points = answer.keypoints ? named(answer.keypoints) : null;
    return [{ id: 0, name: answer.class || "", label: answer.label || 0, score: answer.score ?? 1,
      box: answer.box || frame([points]), bare: !answer.box, rings: null, points, source: null }];
  }
  return [];
}
