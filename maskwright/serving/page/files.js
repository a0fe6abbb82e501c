// What can be downloaded: the picture, the data, and labels for training and for labelling tools.
import { area } from "./shapes.js";

const round = (value) => Math.round(value * 100) / 100;
const stem = (name) => name.replace(/\.[^.]+$/, "") || "image";

export function plain(state) {
  const { answer, photo } = state;
  const { label_map, colors, heatmap, explained, bones, notes, ...data } = answer;
  if (!answer.objects) return data;
  return { ...data, name: photo.name, objects: state.shown().map((one) => {
    if (one.source && !one.edited) return one.source;
    const row = { name: one.name, label: one.label, score: one.score, box: one.box.map(round), corrected: true };
    if (one.rings) row.polygons = one.rings.map((ring) => ring.map((point) => point.map(round)));
    if (one.points) row.keypoints = one.points;
    return row;
  }) };
}

export function coco(state) {
  const names = [...state.names];
  for (const one of state.shown()) if (!names.includes(one.name)) names.push(one.name);
  const { name, width, height } = state.photo;
  const annotations = state.shown().map((one, k) => {
    const [x1, y1, x2, y2] = one.box;
    const row = { id: k + 1, image_id: 1, category_id: names.indexOf(one.name) + 1, iscrowd: 0,
      bbox: [x1, y1, x2 - x1, y2 - y1].map(round), area: round((x2 - x1) * (y2 - y1)) };
    if (one.score != null && !one.edited) row.score = one.score;
    if (one.rings) {
      row.area = round(Math.abs(one.rings.reduce((sum, ring) => sum + area(ring), 0)));
      // Polygons of COCO have no holes: an object as the model found it keeps its code.
      row.segmentation = one.source?.segmentation && !one.edited ? one.source.segmentation
        : one.rings.filter((ring) => area(ring) > 0 || one.rings.length === 1).map((ring) => ring.flat().map(round));
    }
    if (one.points) {
      row.keypoints = one.points.flatMap(([x, y, score]) => [round(x), round(y), score > 0 ? 2 : 0]);
      row.num_keypoints = one.points.filter((point) => point[2] > 0).length;
    }
    return row;
  });
  const joints = state.answer.keypoint_names ? { keypoints: state.answer.keypoint_names,
    skeleton: (state.answer.bones || []).map(([a, b]) => [a + 1, b + 1]) } : {};
  return { images: [{ id: 1, file_name: name, width, height }], annotations,
    categories: names.map((one, k) => ({ id: k + 1, name: one, ...joints })) };
}

export function labelme(state) {
  const shapes = [];
  state.shown().forEach((one, k) => {
    const base = { label: one.name, group_id: null, flags: {}, description: "" };
    const rings = (one.rings || []).filter((ring) => area(ring) > 0 || one.rings.length === 1);
    if (rings.length) {
      for (const ring of rings) {
        shapes.push({ ...base, group_id: rings.length > 1 ? k + 1 : null, shape_type: "polygon",
          points: ring.map((point) => point.map(round)) });
      }
    } else {
      const [x1, y1, x2, y2] = one.box.map(round);
      shapes.push({ ...base, shape_type: "rectangle", points: [[x1, y1], [x2, y2]] });
    }
    (one.points || []).forEach(([x, y, score], n) => {
      if (score > 0) shapes.push({ ...base, label: state.answer.keypoint_names?.[n] || String(n), group_id: k + 1,
        shape_type: "point", points: [[round(x), round(y)]] });
    });
  });
  const { name, width, height } = state.photo;
  return { version: "5.5.0", flags: {}, shapes, imagePath: name, imageData: null, imageHeight: height, imageWidth: width };
}

// What the service keeps: names and outlines, whatever was corrected, and what the model calls things.
export function labels(state) {
  const { keypoint_names, bones } = state.answer;
  return { names: state.names, keypoint_names, bones, objects: state.shown().map((one) => ({ name: one.name, box: one.box,
    rings: one.rings || [], points: one.points || [] })) };
}

export async function picture(scene) {
  const canvas = document.createElement("canvas"), { width, height } = scene.photo;
  canvas.width = width; canvas.height = height;
  scene.paint(canvas.getContext("2d"), Math.max(width, height) / 1100, false);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

export function keep(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export async function download(kind, state, scene) {
  const name = stem(state.photo.name);
  if (kind === "png") return keep(await picture(scene), `${name}-found.png`);
  const [data, file] = kind === "json" ? [plain(state), `${name}.json`]
    : kind === "coco" ? [coco(state), `${name}-coco.json`] : [labelme(state), `${name}.json`];
  keep(new Blob([JSON.stringify(data, null, 1)], { type: "application/json" }), file);
}
