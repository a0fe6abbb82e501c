// The page: takes a picture, asks the service, shows what was found, and lets people correct it.
import { carried, frame, objectsOf, simple } from "./shapes.js";
import { Scene, colour, heat, layerOf } from "./scene.js";
import { download, labels } from "./files.js";

const SIDE = 1600; // of the network's input, where a picture is too large to be seen as it is
const WEAK = 0.05, MOST = 300; // asked of the service, so that the slider can act at once
const $ = (id) => document.getElementById(id);
const scene = new Scene($("scene"));
const state = { models: [], saves: false, photo: null, answer: null, objects: [], names: [], least: 0.5,
  off: new Set(), tool: "move", past: [], explain: false, kept: [],
  // The one object of a localizer has no slider.
  shown: () => (state.answer?.objects ? state.objects.filter((one) =>
    (one.edited || one.score >= state.least) && !state.off.has(one.name)) : state.objects) };
const model = () => state.models.find((one) => one.name === $("model").value) || state.models[0];
const make = (tag, props = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...inside);
  return node;
};

// Asking the service.

async function ask(address, options = {}) {
  const headers = { ...options.headers }, token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  let reply;
  try {
    reply = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the service does not answer: is it still running?");
  }
  if (reply.status === 401) {
    $("token").value = "";
    $("ask").showModal();
    await new Promise((done) => $("ask").addEventListener("close", done, { once: true }));
    if ($("ask").returnValue !== "ok") throw new Error("without its token the service says nothing");
    sessionStorage.setItem("token", $("token").value.trim());
    $("ask").returnValue = "";
    return ask(address, options);
  }
  if (!reply.ok) {
    const told = await reply.json().catch(() => null);
    throw Object.assign(new Error(told?.error || `the service answers ${reply.status}`), { status: reply.status });
  }
  return reply;
}

let hiding = 0;
function say(text, bad = false) {
  const [on, off] = bad ? [$("alert"), $("toast")] : [$("toast"), $("alert")];
  off.hidden = true;
  on.textContent = /^\S*\./.test(text) ? text : text[0].toUpperCase() + text.slice(1); // not of a file's name
  on.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (on.hidden = true), bad ? 9000 : 4500);
}
const failed = (error) => { if (error.name !== "AbortError") say(error.message, true); };

async function begin() {
  const told = await (await ask("models")).json();
  state.models = told.models;
  state.saves = told.saves;
  $("models").hidden = told.models.length < 2;
  for (const one of told.models) $("model").append(make("option", { textContent: one.name }));
  const { samples } = await (await ask("samples")).json();
  for (const name of samples) {
    const blob = await (await ask(`samples/${encodeURIComponent(name)}`)).blob();
    const image = make("img", { src: URL.createObjectURL(blob), alt: name.replace(/\.[^.]+$/, "") });
    $("samples").lastElementChild.append(make("button", { onclick: () => take(blob, name) }, image));
  }
  $("samples").hidden = !samples.length;
}

// Whether something was corrected that lies nowhere yet.
const unsaved = () => Boolean(state.answer?.objects) && state.objects !== state.kept;
const leaves = () => !unsaved() || confirm("What you have corrected is neither saved nor downloaded. Leave it?");
addEventListener("beforeunload", (event) => { if (unsaved()) event.preventDefault(); });

let going = null;
async function take(blob, name = "image") {
  if (!blob || !leaves()) return;
  going?.abort();
  const stop = going = new AbortController();
  $("busy").hidden = false;
  $("toast").hidden = $("alert").hidden = true;
  try {
    const bitmap = await decoded(blob, name, stop.signal);
    if (stop.signal.aborted) return;
    Object.assign(state, { photo: { blob, name, width: bitmap.width, height: bitmap.height }, past: [],
      answer: null, objects: [], kept: [], off: new Set(), explain: false });
    // What was found in the last one is not in this one, and none of it may be saved with it.
    $("welcome").hidden = $("found").hidden = $("get").hidden = $("saving").hidden = true;
    $("scene").hidden = $("tools").hidden = false;
    await scene.show(bitmap);
    await look(stop.signal);
  } catch (error) {
    failed(error);
    $("nothing").hidden = Boolean(state.answer);
  } finally {
    if (going === stop) $("busy").hidden = true;
  }
}

function formOf(blob, name) {
  const form = new FormData();
  form.append("file", blob, name);
  return form;
}

// What a browser does not read (TIFF, 16 bits, ...), the service shows as the model sees it.
async function decoded(blob, name, signal) {
  try {
    return await createImageBitmap(blob);
  } catch {
    const reply = await ask("predict?format=image&model=" + encodeURIComponent(model().name),
      { method: "POST", body: formOf(blob, name), signal });
    return createImageBitmap(await reply.blob());
  }
}

async function look(signal, imgsz = null, weak = true) {
  const one = model(), has = (name) => one.options.includes(name);
  const query = new URLSearchParams({ model: one.name, format: "page" });
  if (weak && has("max_det")) { // of what finds objects
    query.set("conf", WEAK);
    query.set("max_det", MOST);
  }
  if (state.explain) query.set("explain", "gradcam");
  const { blob, name } = state.photo;
  if (imgsz) query.set("imgsz", imgsz);
  let reply;
  try {
    reply = await ask(`predict?${query}`, { method: "POST", body: formOf(blob, name), signal });
  } catch (error) {
    if (weak && error.status === 422 && /was exported/.test(error.message)) return look(signal, imgsz, false);
    if (imgsz || error.status !== 413 || !/network/.test(error.message)) throw error;
    return look(signal, SIDE, weak);
  }
  const answer = await reply.json();
  if (imgsz) answer.notes = [...(answer.notes || []), `the picture is large: it was looked at with ${imgsz} pixels of its long side`];
  if (signal?.aborted) return;
  if (!(state.answer && unsaved())) { // evidence that is asked for later takes no correction away
    state.objects = state.kept = objectsOf(answer);
    state.past = [];
  }
  state.answer = answer;
  state.names = one.names;
  state.model = one.name;
  scene.bones = answer.bones || [];
  scene.layer = answer.heatmap ? await layerOf(answer.heatmap, heat)
    : answer.label_map ? await layerOf(answer.label_map, (value) =>
      [...(answer.colors[value] || [0, 0, 0]), named(answer, value) === "background" ? 0 : 255]) : null;
  scene.selected = scene.hover = null;
  present();
}
const named = (answer, value) => answer.classes.find((one) => one.label === value)?.class;

// Showing what was found.

function present() {
  const { answer, photo } = state, listed = Boolean(answer.objects);
  document.body.classList.remove("empty");
  const kinds = new Set(state.objects.map((one) => one.name));
  if (!state.painted && listed) paint(kinds.size > 1 ? "class" : "object"); // of one class all would look alike
  $("nothing").hidden = true;
  $("found").hidden = $("get").hidden = false;
  for (const node of document.querySelectorAll(".objects")) node.hidden = !listed;
  $("colours").hidden = !listed;
  $("strengths").hidden = !(answer.label_map || answer.heatmap || state.objects.some((one) => one.rings));
  $("why").hidden = !model().explains;
  $("explain").setAttribute("aria-pressed", state.explain);
  $("saving").hidden = !(listed && state.saves);
  const ms = Object.values(answer.speed).reduce((sum, value) => sum + value, 0);
  $("facts").textContent = `${photo.name} · ${answer.width} × ${answer.height} · ${Math.round(ms)} ms`;
  $("notes").textContent = (answer.notes || []).map((text) => text[0].toUpperCase() + text.slice(1)).join(". ");
  $("more").hidden = !answer.notes;
  $("names").replaceChildren(...state.names.map((name) => make("option", { value: name })));
  refresh();
}

function refresh() {
  const shown = state.shown(), { answer } = state;
  scene.objects = [...shown].sort((a, b) => size(b) - size(a)); // small ones on top
  if (scene.selected && !shown.includes(scene.selected)) scene.selected = null;
  if (scene.hover && !shown.includes(scene.hover)) scene.hover = null;
  $("from").textContent = state.least.toFixed(2);
  const weaker = shown.length ? 0 : state.objects.filter((one) => !one.edited && one.score < state.least).length;
  $("list").replaceChildren(...(answer.objects ? rows(shown) : bars(answer)));
  if (answer.objects && weaker) $("list").append(make("li", { className: "quiet", textContent: `${weaker} with lower scores: move the slider to the left` }));
  if (answer.objects) {
    $("title").textContent = count(shown);
    chips();
  } else {
    $("chips").replaceChildren();
    $("title").textContent = answer.top ? headline(answer) : answer.classes ? answer.classes[0]?.class || "nothing" : answer.class || "Keypoints";
  }
  const what = $("title").textContent;
  $("live").textContent = what;
  $("scene").setAttribute("aria-label", `${state.photo.name}: ${what}. Arrows move it, plus and minus zoom.`);
  mark();
}
const size = (one) => (one.box[2] - one.box[0]) * (one.box[3] - one.box[1]);
const count = (list) => {
  const kinds = new Set(list.map((one) => one.name));
  if (!list.length) return "Nothing found";
  return kinds.size === 1 ? `${list.length} × ${[...kinds][0]}` : `${list.length} objects`;
};
const headline = (answer) => answer.classes ? answer.classes.join(", ") || "no class" : answer.class;

function rows(shown) {
  return [...shown].sort((a, b) => (b.edited ? 2 : b.score) - (a.edited ? 2 : a.score)).map((one) => {
    const swatch = make("i");
    swatch.style.background = colour(one, scene.by, one.id);
    const side = one.edited ? make("span", { className: "number", textContent: "corrected" })
      : make("span", { className: "number", textContent: one.score.toFixed(2) });
    const button = make("button", { onclick: () => select(one, true), onmouseenter: () => hover(one),
      onmouseleave: () => hover(null), onfocus: () => hover(one), onblur: () => hover(null) },
    swatch, make("span", { className: "name", textContent: one.name }));
    if (!one.edited) button.append(Object.assign(make("meter", { min: 0, max: 1, value: one.score }), { ariaHidden: "true" }));
    button.append(side);
    one.row = button;
    return make("li", {}, button);
  });
}

function bars(answer) {
  const scored = answer.top || answer.named || answer.classes || [];
  return scored.map((one) => {
    const share = one.score ?? one.share ?? 0, item = make("li", { className: "bars" });
    const name = make("span", { className: "name", textContent: one.class });
    if (answer.colors && one.label != null) {
      const swatch = make("i");
      swatch.style.background = `rgb(${answer.colors[one.label]})`;
      swatch.className = "dot";
      name.prepend(swatch);
    }
    const text = one.share != null ? `${(100 * share).toFixed(1)}%` : share.toFixed(3);
    item.append(name, make("span", { className: "number", textContent: text }),
      Object.assign(make("progress", { max: 1, value: share }), { ariaLabel: one.class }));
    return item;
  });
}

function chips() {
  const counts = new Map();
  for (const one of state.objects) if (one.edited || one.score >= state.least) counts.set(one.name, (counts.get(one.name) || 0) + 1);
  const kinds = [...counts].sort((a, b) => b[1] - a[1]);
  const focused = document.activeElement?.dataset?.kind;
  $("chips").replaceChildren(...(kinds.length < 2 && !state.off.size ? [] : kinds).map(([name, number]) => {
    const swatch = make("i"), first = state.objects.find((one) => one.name === name);
    swatch.style.background = colour(first, "class", 0);
    const button = make("button", { onclick: () => { state.off[state.off.has(name) ? "delete" : "add"](name); refresh(); } },
      swatch, make("span", { textContent: name }), make("small", { textContent: number }));
    button.dataset.kind = name;
    button.setAttribute("aria-pressed", !state.off.has(name));
    return button;
  }));
  if (focused) [...$("chips").children].find((one) => one.dataset.kind === focused)?.focus();
}

function mark() {
  for (const one of state.shown()) {
    one.row?.classList.toggle("on", one === scene.hover);
    one.row?.setAttribute("aria-pressed", one === scene.selected);
  }
  const one = scene.selected;
  $("selected").hidden = !(one && scene.editing);
  if (one && document.activeElement !== $("rename")) $("rename").value = one.name;
  document.querySelector("[data-do=undo]").disabled = !state.past.length;
  scene.draw();
}

function hover(one) {
  if (scene.hover === one) return;
  scene.hover = one;
  mark();
}

function select(one, fromList = false) {
  scene.selected = scene.selected === one && fromList ? null : one;
  scene.editing = Boolean(state.answer?.objects);
  if (scene.selected && !fromList) one.row?.scrollIntoView({ block: "nearest" });
  mark();
}

// Correcting.

function change(next, old = null) {
  state.past.push(state.objects);
  state.objects = old ? state.objects.map((one) => (one === old ? next : one)) : next ? [...state.objects, next] : state.objects;
  if (next) { next.path = null; scene.selected = next; }
  scene.hover = null;
  scene.editing = true;
  refresh();
}
function undo() {
  if (!state.past.length) return;
  state.objects = state.past.pop();
  scene.selected = scene.hover = null;
  refresh();
}
function remove() {
  const one = scene.selected;
  if (!one) return;
  state.past.push(state.objects);
  state.objects = state.objects.filter((other) => other !== one);
  scene.selected = scene.hover = null;
  refresh();
  $("scene").focus();
}
function rename(name) {
  const one = scene.selected;
  if (!one || !name.trim() || name.trim() === one.name) return;
  change({ ...one, name: name.trim(), label: labelOf(name.trim()), edited: true }, one);
}
function labelOf(name) {
  const known = state.names.indexOf(name);
  return known >= 0 ? known : state.names.length + [...name].reduce((sum, char) => sum + char.charCodeAt(0), 0) % 97;
}
function added(box, rings) {
  const { width, height } = state.photo, cut = (v, most) => Math.min(Math.max(v, 0), most);
  rings = rings && rings.map((ring) => ring.map(([x, y]) => [cut(x, width), cut(y, height)]));
  box = rings ? frame(rings) : [cut(box[0], width), cut(box[1], height), cut(box[2], width), cut(box[3], height)];
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return;
  const one = scene.selected;
  if (one && rings) return change({ ...one, box, rings, edited: true }, one); // drawn anew
  const name = one?.name || state.objects[0]?.name || state.names[0];
  change({ id: 1 + Math.max(-1, ...state.objects.map((other) => other.id)), name, label: labelOf(name), score: 1, box,
    rings: rings || null, points: null, edited: true });
}
function tool(name) {
  state.tool = name;
  for (const one of document.querySelectorAll(".edit [aria-pressed]")) one.setAttribute("aria-pressed", one.dataset.do === name);
  $("scene").classList.toggle("drawing", name !== "move");
  if (name === "rect") select(null);
}

// The picture under mouse, fingers and pen.

const canvas = $("scene"), fingers = new Map();
let drag = null;
const place = (event) => { const { left, top } = canvas.getBoundingClientRect(); return [event.clientX - left, event.clientY - top]; };

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 1) return;
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = place(event), spot = scene.inside(x, y);
  fingers.set(event.pointerId, [x, y]);
  if (fingers.size === 2) { drag = { kind: "pinch" }; scene.sketch = null; return; }
  const listed = Boolean(state.answer?.objects), touch = event.pointerType === "touch";
  const grip = listed && state.tool === "move" ? scene.handleAt(x, y, touch ? 22 : 9) : null;
  if (listed && event.button === 0 && state.tool !== "move") {
    drag = { kind: state.tool, from: spot, points: [spot] };
  } else if (grip !== null) drag = { kind: "grip", grip, one: scene.selected, from: spot };
  else if (listed && scene.selected && scene.editing && scene.under(...spot) === scene.selected) {
    drag = { kind: "carry", one: scene.selected, from: spot };
  } else drag = { kind: "pan", x, y, start: [x, y] };
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = place(event), spot = scene.inside(x, y);
  if (!drag) {
    if (event.pointerType === "touch" || !state.answer) return;
    const one = scene.under(...spot);
    canvas.classList.toggle("pointing", Boolean(one) && state.tool === "move");
    if (state.tool === "move") { hover(one); if (one) one.row?.scrollIntoView({ block: "nearest" }); }
    return;
  }
  const before = fingers.get(event.pointerId);
  fingers.set(event.pointerId, [x, y]);
  if (drag.kind === "pinch") {
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (!other || !before) return;
    const was = Math.hypot(before[0] - other[0], before[1] - other[1]), is = Math.hypot(x - other[0], y - other[1]);
    scene.pan((x - before[0]) / 2, (y - before[1]) / 2);
    scene.zoom(is / Math.max(was, 1), (x + other[0]) / 2, (y + other[1]) / 2);
  } else if (drag.kind === "pan") {
    if (!drag.moved && Math.hypot(x - drag.start[0], y - drag.start[1]) < 4) return;
    drag.moved = true;
    canvas.classList.add("dragging");
    scene.pan(x - drag.x, y - drag.y);
    [drag.x, drag.y] = [x, y];
  } else if (drag.kind === "rect") {
    const [a, b] = drag.from, [c, d] = spot;
    scene.sketch = [[a, b], [c, b], [c, d], [a, d]];
    scene.draw();
  } else if (drag.kind === "free") {
    drag.points.push(spot);
    scene.sketch = drag.points;
    scene.draw();
  } else {
    drag.next = drag.kind === "carry" ? moved(drag.one, spot[0] - drag.from[0], spot[1] - drag.from[1]) : pulled(drag, spot);
    scene.objects = scene.objects.map((one) => (one === drag.one || one === drag.shown ? drag.next : one));
    drag.shown = scene.selected = drag.next;
    scene.hover = null;
    scene.draw();
  }
});

function moved(one, dx, dy) {
  const [x1, y1, x2, y2] = one.box, { width, height } = state.photo;
  dx = Math.min(Math.max(dx, -x1), width - x2); dy = Math.min(Math.max(dy, -y1), height - y2);
  return { ...carried(one, [x1 + dx, y1 + dy, x2 + dx, y2 + dy]), path: null };
}
function pulled({ one, grip }, [x, y]) {
  const { width, height } = state.photo;
  x = Math.min(Math.max(x, 0), width); y = Math.min(Math.max(y, 0), height);
  if (typeof grip === "number") {
    const points = one.points.map((point, k) => (k === grip ? [x, y, 1] : point));
    return { ...one, points, edited: true, path: null };
  }
  let [x1, y1, x2, y2] = one.box;
  if (grip.includes("w")) x1 = Math.min(x, x2 - 1);
  if (grip.includes("e")) x2 = Math.max(x, x1 + 1);
  if (grip.includes("n")) y1 = Math.min(y, y2 - 1);
  if (grip.includes("s")) y2 = Math.max(y, y1 + 1);
  return { ...carried(one, [x1, y1, x2, y2]), path: null };
}

function dropped(event) {
  const was = drag, [x, y] = place(event);
  fingers.delete(event.pointerId);
  canvas.classList.remove("dragging");
  if (was?.kind === "pinch" && fingers.size) return;
  drag = null;
  scene.sketch = null;
  if (!was || event.type === "pointercancel") { if (state.answer) refresh(); return; }
  if (was.kind === "pan" && !was.moved && state.answer?.objects) select(scene.under(...scene.inside(x, y)));
  else if (was.kind === "rect") {
    const [a, b] = was.from, [c, d] = scene.inside(x, y);
    added([Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)], null);
    tool("move");
  } else if (was.kind === "free") {
    const ring = simple(was.points, 1.2 / scene.view.scale);
    if (ring.length > 2) added(null, [ring]);
    tool("move");
  } else if (was.next) { scene.selected = was.one; change(was.next, was.one); }
  scene.draw();
}
canvas.addEventListener("pointerup", dropped);
canvas.addEventListener("pointercancel", dropped);
canvas.addEventListener("pointerleave", () => { if (!drag) hover(null); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  scene.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), ...place(event));
}, { passive: false });
canvas.addEventListener("dblclick", (event) => { if (state.tool === "move") scene.zoom(2, ...place(event)); });

const acts = { in: () => scene.zoom(1.4), out: () => scene.zoom(1 / 1.4), fit: () => scene.fit(), undo,
  move: () => tool("move"), rect: () => tool("rect"), free: () => tool("free") };
for (const one of document.querySelectorAll("[data-do]")) one.onclick = acts[one.dataset.do];

document.addEventListener("keydown", (event) => {
  const writing = event.target.matches("input:not([type=range]), select, textarea") || document.querySelector("dialog[open]");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !writing) { event.preventDefault(); undo(); return; }
  if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key, onPicture = event.target === canvas, listed = Boolean(state.answer?.objects);
  const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (key === "Escape") { $("get").open = false; scene.sketch = null; drag = null; if (state.answer) { tool("move"); select(null); } }
  else if (onPicture && key in arrows) {
    event.preventDefault();
    const [dx, dy] = arrows[key], one = scene.selected;
    if (one && scene.editing && event.shiftKey) change(moved(one, -dx, -dy), one);
    else scene.pan(48 * dx, 48 * dy);
  } else if (key === "+" || key === "=") acts.in();
  else if (key === "-") acts.out();
  else if (key === "0") acts.fit();
  else if ((key === "Delete" || key === "Backspace") && scene.selected && scene.editing) remove();
  else if (key.toLowerCase() === "o") $("file").click();
  else if (listed && key.toLowerCase() === "v") acts.move();
  else if (listed && key.toLowerCase() === "b") acts.rect();
  else if (listed && key.toLowerCase() === "l") acts.free();
});
$("list").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = [...$("list").querySelectorAll("button")], here = all.indexOf(document.activeElement);
  all[Math.min(Math.max(here + step, 0), all.length - 1)]?.focus();
});

// Controls.

$("score").oninput = () => { state.least = Number($("score").value); refresh(); };
$("strength").oninput = () => { scene.strength = Number($("strength").value); scene.draw(); };
function paint(by) {
  scene.by = by;
  for (const one of document.querySelectorAll("[data-colour]")) one.setAttribute("aria-pressed", one.dataset.colour === by);
}
for (const one of document.querySelectorAll("[data-colour]")) one.onclick = () => {
  state.painted = true;
  paint(one.dataset.colour);
  refresh();
};
$("explain").onclick = async () => {
  going?.abort(); // a picture that comes next does the same to this
  const stop = going = new AbortController(), was = state.explain;
  state.explain = !was;
  $("busy").hidden = false;
  try {
    await look(stop.signal);
  } catch (error) {
    if (!stop.signal.aborted) state.explain = was;
    failed(error);
  } finally {
    if (going === stop) $("busy").hidden = true;
  }
};
$("rename").onchange = () => rename($("rename").value);
$("remove").onclick = remove;
$("model").onchange = () => {
  if (!leaves()) { $("model").value = state.model; return; }
  state.kept = state.objects; // it has been asked
  if (state.photo) take(state.photo.blob, state.photo.name);
};
for (const one of document.querySelectorAll("[data-get]")) one.onclick = () => {
  $("get").open = false;
  const { objects } = state;
  download(one.dataset.get, state, scene).then(() => { if (one.dataset.get !== "png" && objects === state.objects) state.kept = objects; }).catch(failed);
};
document.addEventListener("click", (event) => { if (!event.target.closest("#get")) $("get").open = false; });
$("save").onclick = async () => {
  const form = formOf(state.photo.blob, state.photo.name);
  form.append("labels", JSON.stringify(labels(state)));
  const { objects } = state;
  $("save").disabled = true;
  try {
    const told = await (await ask("save", { method: "POST", body: form })).json();
    if (objects === state.objects) state.kept = objects;
    say(`${told.file} with ${told.objects} ${told.objects === 1 ? "object" : "objects"} is in ${told.folder}`);
  } catch (error) { failed(error); } finally { $("save").disabled = false; }
};

// Where pictures come from.

$("open").onclick = $("choose").onclick = () => $("file").click();
$("file").onchange = () => { const [file] = $("file").files; $("file").value = ""; take(file, file?.name); };
let entered = 0;
addEventListener("dragenter", (event) => { if (event.dataTransfer?.types.includes("Files")) { entered++; $("stage").classList.add("dropping"); } });
addEventListener("dragleave", () => { entered = Math.max(entered - 1, 0); if (!entered) $("stage").classList.remove("dropping"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  entered = 0;
  $("stage").classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) take(file, file.name); else say("that is no file: save the picture first, or copy and paste it", true);
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) { event.preventDefault(); take(file, file.name || "pasted.png"); }
});

let stream = null;
$("camera").onclick = async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch {
    return say("no camera may be used here: allow it, and open this page by localhost or https", true);
  }
  $("video").srcObject = stream;
  $("shutter").showModal();
  await $("video").play();
};
$("shutter").onclose = () => { stream?.getTracks().forEach((track) => track.stop()); $("video").srcObject = null; };
document.querySelector("[data-close]").onclick = () => $("shutter").close();
$("shoot").onclick = () => {
  const { videoWidth: width, videoHeight: height } = $("video");
  if (!width) return;
  const shot = make("canvas", { width, height });
  shot.getContext("2d").drawImage($("video"), 0, 0);
  shot.toBlob((blob) => { $("shutter").close(); take(blob, "camera.jpg"); }, "image/jpeg", 0.92);
};

begin().catch(failed);
