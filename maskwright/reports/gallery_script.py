"""The script of the page of a prediction run: score, name, order, full size; no library.

Pictures with all finds are files. Above the lowest score outlines are drawn over the original
instead, because a finished picture cannot lose finds again. Finds without a place, of the image as
a whole, leave the picture as it is: the tags below it say which of them remain.
"""

SCRIPT = """const byId = (id) => document.getElementById(id);
const grid = document.querySelector(".grid"), body = document.querySelector("tbody");
const score = byId("score"), viewer = byId("viewer"), full = viewer.querySelector(".full");
const least = Math.round(1000 * score.min);
const state = { from: least, label: "all", originals: false, at: -1 };

const tagsOf = (place) => [...place.querySelectorAll(".tag")];
const items = DATA.map((found, i) => {
  const card = byId("i" + i), row = body.rows[i], img = card.querySelector("img");
  return { i, found, card, row, img, svg: card.querySelector("svg"), near: false, drawn: "",
    placed: found.some((value, k) => k % 6 === 2 && value !== null),
    overlay: img.getAttribute("src"), original: img.dataset.other, flipped: false, total: 0,
    flip: card.querySelector(".flip"), name: img.alt, tags: [...tagsOf(card), ...tagsOf(row)] };
});

const placed = items.some((item) => item.placed);

const amount = (finds) => `${finds} find${finds === 1 ? "" : "s"}`;

function count(item) {
  const counts = item.counts = new Map();
  item.total = 0;
  for (let k = 0; k < item.found.length; k += 6) if (item.found[k + 1] >= state.from) {
    counts.set(item.found[k], (counts.get(item.found[k]) || 0) + 1);
    item.total += 1;
  }
  for (const tag of item.tags) {
    const number = tag.dataset.l === undefined ? !item.total : counts.get(+tag.dataset.l) || 0;
    tag.hidden = !number;
    if (tag.firstChild && tag.dataset.l !== undefined) tag.firstChild.textContent = number;
  }
  item.row.cells[1].textContent = item.total;
  const shown = state.label === "all" || (state.label === "none" ? !item.total
    : counts.has(+state.label));
  item.card.hidden = item.row.hidden = !shown;
  return shown;
}

function outline(svg, item) {
  svg.setAttribute("viewBox", `0 0 ${item.img.getAttribute("width")} ${
    item.img.getAttribute("height")}`);
  let drawn = "";
  for (let k = 0; k < item.found.length; k += 6) if (item.found[k + 1] >= state.from &&
      item.found[k + 2] !== null) {
    const [label, , x, y, width, height] = item.found.slice(k, k + 6);
    drawn += `<rect x="${x}" y="${y}" width="${width}" height="${height}" stroke="hsl(${
      Math.round(7 + 222.5 * label) % 360} 90% 60%)" vector-effect="non-scaling-stroke"/>`;
  }
  svg.innerHTML = drawn;  // numbers alone
}

function paint(item, img, svg) {
  const plain = item.original && (state.originals !== item.flipped);
  const redrawn = item.original && !plain && item.placed && state.from > least;
  const src = plain || redrawn ? item.original : item.overlay;
  if (img.getAttribute("src") !== src) img.src = src;
  if (redrawn) outline(svg, item);
  else svg.replaceChildren();
  return plain;
}

function draw(item) {
  const key = `${state.from} ${state.originals} ${item.flipped}`;
  if (!item.near || item.drawn === key) return;
  item.drawn = key;
  const plain = paint(item, item.img, item.svg);
  if (item.flip) item.flip.setAttribute("aria-pressed", String(Boolean(plain)));
}

function update() {
  let images = 0, finds = 0;
  const holding = new Map();  // images by label
  for (const item of items) {
    if (count(item)) { images += 1; finds += item.total; }
    for (const label of item.total ? item.counts.keys() : ["none"])
      holding.set(String(label), (holding.get(String(label)) || 0) + 1);
    draw(item);
  }
  for (const chip of chips) {
    const number = holding.get(chip.dataset.l) || 0;
    if (chip.lastElementChild) chip.lastElementChild.textContent = `in ${number}`;
    if (chip.dataset.l === "none") chip.hidden = !number && state.label !== "none";
  }
  byId("from").textContent = (state.from / 1000).toFixed(2);
  byId("status").textContent = `${amount(finds)} in ${images} of ${items.length} images` +
    (state.from > least && placed ? ": redrawn" : "");
  if (viewer.open) view(state.at);
}

function sort() {
  const kind = byId("sort").value;
  const order = [...items].sort((a, b) => kind === "count" ? b.total - a.total || a.i - b.i
    : kind === "name" ? a.name.localeCompare(b.name, undefined, { numeric: true }) || a.i - b.i
    : a.i - b.i);
  grid.append(...order.map((item) => item.card));
  body.append(...order.map((item) => item.row));
}

const shown = () => [...grid.children].filter((card) => !card.hidden).map((c) => +c.id.slice(1));

function view(i) {
  const item = items[i];
  if (!item) return;
  state.at = i;
  const all = shown(), [name, facts, link] = viewer.querySelectorAll("b, span, a");
  name.textContent = name.title = item.name;
  facts.textContent = `${all.indexOf(i) + 1} of ${all.length}, ${amount(item.total)}`;
  link.href = item.overlay;
  const img = full.querySelector("img");
  img.alt = item.name;
  const plain = paint(item, img, full.querySelector("svg"));
  viewer.querySelector("[data-do=original]").setAttribute("aria-pressed", String(Boolean(plain)));
  if (!viewer.open) viewer.showModal();
  for (const step of [1, -1]) {
    const next = items[all[all.indexOf(i) + step]];
    if (next) new Image().src = next.overlay;
  }
}

const act = {
  go(step) {
    const all = shown();
    view(all[Math.min(Math.max(all.indexOf(state.at) + step, 0), all.length - 1)]);
  },
  back: () => act.go(-1), on: () => act.go(1), close: () => viewer.close(),
  original() {
    const item = items[state.at];
    item.flipped = !item.flipped;
    draw(item);
    view(item.i);
  },
};
viewer.onclick = (event) => act[event.target.dataset.do]?.();
viewer.onkeydown = (event) => {
  const key = { ArrowLeft: "back", ArrowRight: "on", o: "original", O: "original" }[event.key];
  if (!key || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act[key]();
};
viewer.onclose = () => {
  const card = items[state.at].card;
  card.scrollIntoView({ block: "nearest" });
  card.querySelector(".view").focus();
};

for (const item of items) {
  item.card.querySelector(".view").onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    view(item.i);
  };
  if (item.flip) item.flip.onclick = () => { item.flipped = !item.flipped; draw(item); };
}
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const item = items[+entry.target.id.slice(1)];
    item.near = entry.isIntersecting;
    draw(item);
  }
}, { rootMargin: "400px" });
for (const item of items) watch.observe(item.card);

const chips = [...document.querySelectorAll(".chip[data-l]")];
let waiting = 0;
score.oninput = () => {
  state.from = Math.round(1000 * score.value);
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(update);
};
score.onchange = () => { if (byId("sort").value === "count") { update(); sort(); } };
byId("sort").onchange = sort;
const all = byId("all");
all.onclick = () => {
  state.originals = !state.originals;
  for (const item of items) item.flipped = false;
  all.textContent = state.originals ? "show finds" : "show originals";
  all.setAttribute("aria-pressed", String(state.originals));
  update();
};
const more = byId("more");
if (more) more.onclick = () => {
  for (const chip of document.querySelectorAll(".chip[hidden]:not([data-l=none])"))
    chip.hidden = false;
  more.hidden = true;
};
for (const chip of chips) chip.onclick = () => {
  for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
  state.label = chip.dataset.l;
  update();
};

// A link can say what to show: #score=0.6&sort=count&view=3
function follow() {
  const wish = new URLSearchParams(location.hash.slice(1));
  if (wish.has("score")) {
    score.value = wish.get("score");
    state.from = Math.round(1000 * score.value);
  }
  if (wish.has("sort")) byId("sort").value = wish.get("sort");
  update();
  if (wish.has("sort")) sort();
  if (wish.has("view")) view(+wish.get("view"));
}
window.onhashchange = follow;
follow();
"""
