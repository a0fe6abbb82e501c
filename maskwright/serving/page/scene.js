// The picture with what was found over it: draws, zooms, and says what lies where.
import { path } from "./shapes.js";

const GOLDEN = 137.508, HANDLE = 9, MIDDLE = 2200;
const RAMP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

export function colour(one, by, order, light = 55, alpha = 1) {
  const hue = (by === "class" ? 212 + one.label * GOLDEN : 30 + order * GOLDEN) % 360;
  return `hsl(${hue.toFixed(1)} 82% ${light}% / ${alpha})`;
}

export class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.view = { scale: 1, x: 0, y: 0 };
    this.objects = []; this.layer = null; this.photo = null;
    this.by = "class"; this.hover = null; this.selected = null; this.strength = 0.5;
    this.editing = false; this.sketch = null; this.bones = [];
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  async show(photo) {
    this.photo = photo;
    this.small = null;
    if (photo.width * photo.height > 6e6) {
      const share = MIDDLE / Math.max(photo.width, photo.height);
      this.small = await createImageBitmap(photo, { resizeWidth: Math.round(photo.width * share),
        resizeHeight: Math.round(photo.height * share), resizeQuality: "medium" });
    }
    this.layer = null; this.objects = []; this.hover = this.selected = null;
    this.fit();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = this.canvas;
    if (!w || !h) return;
    const fitted = !this.size || this.fitted;
    this.size = [w, h]; this.ratio = ratio;
    this.canvas.width = Math.round(w * ratio); this.canvas.height = Math.round(h * ratio);
    if (fitted) this.fit(); else this.draw();
  }

  fit() {
    if (!this.photo || !this.size) return;
    const [w, h] = this.size, { width, height } = this.photo, below = 62;
    const scale = Math.min((w - 32) / width, (h - 32 - below) / height, 16);
    this.view = { scale, x: (w - width * scale) / 2, y: (h - below - height * scale) / 2 };
    this.fitted = true;
    this.draw();
  }

  zoom(factor, x = this.size[0] / 2, y = this.size[1] / 2) {
    if (!this.photo) return;
    const { view } = this, scale = Math.min(Math.max(view.scale * factor, 0.01), 64), by = scale / view.scale;
    this.view = { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by };
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.view.x += dx; this.view.y += dy;
    this.fitted = false;
    this.draw();
  }

  // From pixels of the page, relative to the canvas, to pixels of the picture, and back.
  inside(x, y) { const { scale, x: a, y: b } = this.view; return [(x - a) / scale, (y - b) / scale]; }
  outside(x, y) { const { scale, x: a, y: b } = this.view; return [x * scale + a, y * scale + b]; }

  pathOf(one) { return (one.path ||= path(one)); }

  // The smallest object under a point of the picture.
  under(x, y) {
    let best = null, least = Infinity;
    this.pen.save();
    this.pen.setTransform(1, 0, 0, 1, 0, 0);
    const near = 4 / this.view.scale;
    for (const one of this.objects) {
      const [x1, y1, x2, y2] = one.box;
      if (x < x1 - near || y < y1 - near || x > x2 + near || y > y2 + near) continue;
      if (one.rings && !this.pen.isPointInPath(this.pathOf(one), x, y, "evenodd")) continue;
      const size = (x2 - x1) * (y2 - y1);
      if (size < least) { best = one; least = size; }
    }
    this.pen.restore();
    return best;
  }

  handles(one) {
    const [x1, y1, x2, y2] = one.box, x = (x1 + x2) / 2, y = (y1 + y2) / 2;
    return [["nw", x1, y1], ["n", x, y1], ["ne", x2, y1], ["e", x2, y], ["se", x2, y2], ["s", x, y2], ["sw", x1, y2], ["w", x1, y]];
  }

  handleAt(px, py, reach = HANDLE) {
    if (!this.editing || !this.selected) return null;
    for (const [name, x, y] of this.handles(this.selected)) {
      const [u, v] = this.outside(x, y);
      if (Math.abs(u - px) <= reach && Math.abs(v - py) <= reach) return name;
    }
    for (const [k, [x, y]] of (this.selected.points || []).entries()) {
      const [u, v] = this.outside(x, y);
      if (Math.hypot(u - px, v - py) <= reach) return k;
    }
    return null;
  }

  draw() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      if (!this.photo || !this.size) return;
      const { pen, ratio, view } = this;
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
      const scale = view.scale * ratio;
      pen.setTransform(scale, 0, 0, scale, view.x * ratio, view.y * ratio);
      this.paint(pen, 1 / view.scale, true);
    });
  }

  // Everything in pixels of the picture; `unit` is the width of a thin line.
  paint(pen, unit, live) {
    const { photo, small, view } = this, { width, height } = photo;
    pen.imageSmoothingEnabled = !live || view.scale < 3;
    pen.imageSmoothingQuality = "high";
    const source = live && small && view.scale * this.ratio < 1.5 * small.width / width ? small : photo;
    pen.drawImage(source, 0, 0, width, height);
    if (this.layer) {
      pen.globalAlpha = this.strength;
      pen.drawImage(this.layer, 0, 0, width, height);
      pen.globalAlpha = 1;
    }
    const focus = live ? this.hover || this.selected : null;
    this.objects.forEach((one) => {
      const strong = one === focus, dim = focus && !strong;
      const line = this.pathOf(one);
      if (one.rings && !this.layer) {
        pen.fillStyle = colour(one, this.by, one.id, 55, (strong ? 1.15 : dim ? 0.35 : 0.8) * this.strength * 0.9);
        pen.fill(line, "evenodd");
      }
      if (!one.bare || (this.editing && strong)) {
        pen.lineJoin = "round";
        pen.lineWidth = (strong ? 5 : 3.4) * unit;
        pen.strokeStyle = dim ? "#0003" : "#0007";
        if (!one.rings || strong) pen.stroke(line);
        pen.lineWidth = (strong ? 2.8 : one.rings ? 1.5 : 2) * unit;
        pen.strokeStyle = colour(one, this.by, one.id, strong ? 66 : 60, dim ? 0.5 : 1);
        pen.stroke(line);
      }
      if (one.points) this.joints(pen, one, unit, dim);
    });
    if (live) {
      if (focus) this.label(pen, focus, unit);
      else if (this.objects.length <= 8) this.objects.forEach((one) => this.label(pen, one, unit));
      if (this.editing && this.selected) this.grips(pen, unit);
      if (this.sketch) this.draft(pen, unit);
    } else if (this.objects.length <= 40) this.objects.forEach((one) => this.label(pen, one, unit));
  }

  joints(pen, one, unit, dim) {
    pen.lineWidth = 2.6 * unit;
    pen.strokeStyle = colour(one, this.by, one.id, 62, dim ? 0.4 : 0.95);
    pen.beginPath();
    for (const [a, b] of this.bones) {
      const p = one.points[a], q = one.points[b];
      if (p && q && p[2] > 0 && q[2] > 0) { pen.moveTo(p[0], p[1]); pen.lineTo(q[0], q[1]); }
    }
    pen.stroke();
    for (const [x, y, score] of one.points) {
      if (!(score > 0)) continue;
      pen.beginPath();
      pen.arc(x, y, 3.6 * unit, 0, 7);
      pen.fillStyle = "#fff"; pen.fill();
      pen.lineWidth = 2 * unit; pen.stroke();
    }
  }

  label(pen, one, unit) {
    if (one.bare && !one.name) return;
    const text = one.score == null || one.edited ? one.name : `${one.name} ${one.score.toFixed(2)}`;
    const high = 19 * unit, [x1, y1] = one.box;
    pen.font = `600 ${12.5 * unit}px system-ui, sans-serif`;
    const wide = pen.measureText(text).width + 12 * unit;
    const x = Math.max(Math.min(x1, this.photo.width - wide), 0), y = y1 - high - 2 * unit < 0 ? y1 + 2 * unit : y1 - high - 2 * unit;
    pen.fillStyle = colour(one, this.by, one.id, 30);
    pen.beginPath();
    pen.roundRect(x, y, wide, high, 5 * unit);
    pen.fill();
    pen.fillStyle = "#fff";
    pen.textBaseline = "middle";
    pen.fillText(text, x + 6 * unit, y + high / 2 + 0.5 * unit);
  }

  grips(pen, unit) {
    const [x1, y1, x2, y2] = this.selected.box;
    pen.setLineDash([4 * unit, 4 * unit]);
    pen.lineWidth = 1.4 * unit; pen.strokeStyle = "#fff";
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    pen.setLineDash([]);
    for (const [, x, y] of this.handles(this.selected)) {
      pen.beginPath();
      pen.roundRect(x - 4.5 * unit, y - 4.5 * unit, 9 * unit, 9 * unit, 2.5 * unit);
      pen.fillStyle = "#fff"; pen.fill();
      pen.lineWidth = 1.6 * unit; pen.strokeStyle = "#2a56c6"; pen.stroke();
    }
  }

  draft(pen, unit) {
    pen.beginPath();
    this.sketch.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.fillStyle = "#2a56c633"; pen.fill("evenodd");
    pen.lineWidth = 4 * unit; pen.strokeStyle = "#0008"; pen.stroke();
    pen.lineWidth = 2 * unit; pen.strokeStyle = "#fff"; pen.stroke();
  }
}

// A grey picture as a layer: each value its colour, and how much it hides.
export async function layerOf(text, colours) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const grey = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  canvas.width = grey.width; canvas.height = grey.height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(grey, 0, 0);
  const image = pen.getImageData(0, 0, canvas.width, canvas.height), { data } = image;
  for (let k = 0; k < data.length; k += 4) {
    const [r, g, b, a] = colours(data[k]);
    data[k] = r; data[k + 1] = g; data[k + 2] = b; data[k + 3] = a;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

export function heat(value) {
  const place = value / 255 * (RAMP.length - 1), k = Math.min(Math.floor(place), RAMP.length - 2), t = place - k;
  return [...RAMP[k].map((v, c) => Math.round(v + (RAMP[k + 1][c] - v) * t)), Math.min(255, 60 + value)];
}
