// One map of one target of one photo is chosen. choose() changes that, show() brings the page in line with it.
const photos = JSON.parse($("data").textContent);
const stage = $("stage"), opacity = $("opacity"), reading = $("reading");
const chosen = { photo: 0, target: 0, map: 0 };
const photo = () => photos[chosen.photo];
const target = () => photo().targets[chosen.target];
const map = () => target().maps[chosen.map];
const whole = (i, count) => ((i % count) + count) % count;
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function put(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

// --- Choosing: photo, target, method --------------------------------------------------------------------------------

// A target and a method stay chosen, as far as the new photo and target have them; else the first target, the last map.
function choose(photoIndex, targetIndex = chosen.target, key = map().key) {
  const moved = photoIndex !== chosen.photo;
  chosen.photo = photos[photoIndex] ? photoIndex : 0;
  chosen.target = photo().targets[targetIndex] ? targetIndex : 0;
  const found = target().maps.findIndex((m) => m.key === key);
  chosen.map = found < 0 ? target().maps.length - 1 : found;
  keep({ photo: chosen.photo, target: chosen.target, method: map().key });
  show();
  if (moved) fit();
}

const nextPhoto = (by) => choose(whole(chosen.photo + by, photos.length));
const nextTarget = (by) => choose(chosen.photo, whole(chosen.target + by, photo().targets.length));
const nextMap = (by) => chooseMap(whole(chosen.map + by, target().maps.length));
const chooseMap = (i) => target().maps[i] && choose(chosen.photo, chosen.target, target().maps[i].key);

function show() {
  const { id, name, shape, low, high, legend } = map();
  const [x0, y0, x1, y1] = photo().box;
  const { width, height } = photo();
  for (const [use, href] of [["photo", `photo-${chosen.photo}`], ["layer", `map-${id}`], ["bar", `bar-${id}`]]) {
    $(use).setAttribute("href", `#${href}`);
  }
  for (const rect of ["ground", "box"]) put($(rect), { x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
  const [left, top, right, bottom] = [Math.max(x0, 0), Math.max(y0, 0), Math.min(x1, width), Math.min(y1, height)];
  $("outside").setAttribute("d", `M0 0H${width}V${height}H0ZM${left} ${top}H${right}V${bottom}H${left}Z`);
  $("box").toggleAttribute("hidden", x0 === 0 && y0 === 0 && x1 === width && y1 === height);
  put(stage, { "aria-label": `${photo().name} under ${name} for ${target().title}` });
  $("scale").hidden = low === high;
  $("ends").replaceChildren(...(low < 0 ? [low, 0, high] : [low, high]).map((end) => make("span", short(end))));
  $("legend").textContent = legend;
  $("download").textContent = `Download .npy, ${shape.join(" × ")} float32`;
  $("caption").textContent = `${name}: ${target().title}`;
  showChoices($("targets"), photo().targets.map((t) => t.title), chosen.target, (i) => choose(chosen.photo, i));
  showChoices($("methods"), target().maps.map((m) => m.name), chosen.map, chooseMap);
  press("[data-photo]", (button) => Number(button.dataset.photo) === chosen.photo);
  press("[data-map]", (button) => button.dataset.map === id);
  document.querySelectorAll(".sheet").forEach((sheet, i) => { sheet.hidden = i !== chosen.photo; });
  draw();
}

// Buttons are made again only if their names change: the one that has the focus keeps it.
function showChoices(group, names, pressed, pick) {
  if (group.dataset.names !== JSON.stringify(names)) {
    group.dataset.names = JSON.stringify(names);
    group.replaceChildren(...names.map((name, i) => {
      const button = make("button", name);
      button.type = "button";
      button.append(make("small", group.id === "methods" && i < 9 ? i + 1 : ""));
      button.addEventListener("click", () => pick(i));
      return button;
    }));
  }
  [...group.children].forEach((button, i) => button.setAttribute("aria-pressed", i === pressed));
}

function press(selector, isPressed) {
  document.querySelectorAll(selector).forEach((button) => button.setAttribute("aria-pressed", isPressed(button)));
}

function make(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

// --- The view: what part of the photo the stage shows ---------------------------------------------------------------

const view = { x: 0, y: 0, zoom: 1 }; // the photo's point in the middle, and how much larger than at first

// The photo and what the network saw of it, which reaches beyond the photo if it was padded.
function extent() {
  const [x0, y0, x1, y1] = photo().box;
  const left = Math.min(x0, 0), top = Math.min(y0, 0);
  return { left, top, width: Math.max(x1, photo().width) - left, height: Math.max(y1, photo().height) - top };
}

// Pixels of the photo for each pixel of the screen.
function scale() {
  const { width, height } = stage.getBoundingClientRect();
  return Math.max(extent().width / width, extent().height / height) / view.zoom;
}

function fit() {
  stage.style.aspectRatio = extent().width / extent().height;
  view.zoom = 1;
  draw();
}

// An axis that is shown whole is centred; else the view stays inside.
const inside = (middle, start, length, shown) =>
  shown >= length ? start + length / 2 : clamp(middle, start + shown / 2, start + length - shown / 2);

function draw() {
  const { left, top, width, height } = extent();
  const frame = stage.getBoundingClientRect(), wide = frame.width * scale(), tall = frame.height * scale();
  view.x = inside(view.x, left, width, wide);
  view.y = inside(view.y, top, height, tall);
  put(stage, { viewBox: `${view.x - wide / 2} ${view.y - tall / 2} ${wide} ${tall}` });
  stage.classList.toggle("zoomed", view.zoom > 1);
  // a pixel that takes six or more on the screen is drawn crisp; a coarse map, whose cells are no pixels, never
  $("photo").classList.toggle("crisp", photo().pixel / scale() >= 6);
  $("layer").classList.toggle("crisp", map().shape.length === 3 && cellSize()[0] / scale() >= 6);
  read();
}

// Where in the photo a pointer is.
function place({ clientX, clientY }) {
  const { left, top, width, height } = stage.getBoundingClientRect();
  return { x: view.x + (clientX - left - width / 2) * scale(), y: view.y + (clientY - top - height / 2) * scale() };
}

// What is under the pointer stays there.
function zoom(factor, pointer) {
  const { x, y } = pointer ? place(pointer) : view;
  const zoomed = clamp(view.zoom * factor, 1, 64), closer = view.zoom / zoomed;
  Object.assign(view, { x: x + (view.x - x) * closer, y: y + (view.y - y) * closer, zoom: zoomed });
  draw();
}

const pointers = new Map(); // those that are down

function pointerMoved(event) {
  const before = pointers.get(event.pointerId);
  if (before) pointers.set(event.pointerId, event);
  if (before && pointers.size === 2) {
    const [other] = [...pointers.values()].filter((pointer) => pointer !== event);
    const apart = ({ clientX, clientY }) => Math.hypot(clientX - other.clientX, clientY - other.clientY);
    zoom(apart(event) / Math.max(apart(before), 1), { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
  } else if (before && stage.classList.contains("zoomed")) {
    view.x += (before.clientX - event.clientX) * scale();
    view.y += (before.clientY - event.clientY) * scale();
    stage.classList.add("dragged");
    draw();
  } else pinAt(event);
}

function pinAt(event) {
  pin = place(event);
  put(reading, { "aria-live": "off" }); // a moving pointer is no news; a step by keyboard is
  read();
}

function pointerGone(event) {
  pointers.delete(event.pointerId);
  stage.classList.remove("dragged");
}

stage.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, event);
  stage.setPointerCapture(event.pointerId);
  pinAt(event);
});
stage.addEventListener("pointermove", pointerMoved);
stage.addEventListener("pointerup", pointerGone);
stage.addEventListener("pointercancel", pointerGone);
stage.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") { pin = null; read(); }
});
stage.addEventListener("dblclick", (event) => zoom(2, event));
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
  event.preventDefault();
  zoom(2 ** (-event.deltaY / 240), event);
}, { passive: false });
new ResizeObserver(draw).observe(stage);

// --- Raw values -----------------------------------------------------------------------------------------------------

let pin = null; // the photo's point that is read
const files = new Map();

// The .npy file of a map: unpacked when first asked for.
function npy(id) {
  if (!files.has(id)) {
    const packed = Uint8Array.from(atob($(`npy-${id}`).textContent), (character) => character.charCodeAt(0));
    files.set(id, new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  }
  return files.get(id);
}

// Its numbers come after a header, whose length is in the file's bytes 8 and 9.
async function numbers(id) {
  const bytes = await npy(id);
  return new Float32Array(bytes, 10 + new DataView(bytes).getUint16(8, true));
}

// The fewest digits that are this float32 and no other.
function exact(value) {
  for (let digits = 1; digits < 9; digits++) {
    const text = Number(value.toPrecision(digits));
    if (Math.fround(text) === value) return String(text);
  }
  return String(Number(value.toPrecision(9)));
}

const short = (value) => String(Number(value.toPrecision(3)));

// Width and height of a map's cell in pixels of the photo.
function cellSize() {
  const [x0, y0, x1, y1] = photo().box;
  const [height, width] = map().shape.slice(-2);
  return [(x1 - x0) / width, (y1 - y0) / height];
}

async function read() {
  const { id, shape, low, high } = map();
  const values = await numbers(id);
  if (id !== map().id) return; // another was chosen meanwhile
  const [rows, columns] = shape.slice(-2), [x0, y0] = photo().box, [wide, tall] = cellSize();
  const column = pin && Math.floor((pin.x - x0) / wide), row = pin && Math.floor((pin.y - y0) / tall);
  const inPhoto = pin && pin.x >= 0 && pin.y >= 0 && pin.x < photo().width && pin.y < photo().height;
  const seen = pin && column >= 0 && row >= 0 && column < columns && row < rows;
  const channels = Array.from({ length: shape.length === 3 ? shape[0] : 1 }, (_, c) => values[(c * rows + row) * columns + column]);
  const strength = Math.max(...channels.map(Math.abs));
  const number = (value) => (seen ? exact(value) : "–");
  const lines = [
    ["photo x, y", inPhoto ? `${Math.floor(pin.x)}, ${Math.floor(pin.y)}` : "–"],
    ["map x, y", seen ? `${column}, ${row}` : inPhoto ? "not seen by the network" : "–"],
    ...(shape.length === 3 ? [["max |c|", number(strength)]] : []),
    ...channels.map((value, c) => [shape.length === 3 ? `c${c}` : "value", number(value)]),
  ];
  reading.replaceChildren(...lines.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  point(seen ? (low < 0 ? channels : [strength]) : [], low, high);
  $("cell").toggleAttribute("hidden", !seen);
  for (const rect of $("cell").children) put(rect, { x: x0 + column * wide, y: y0 + row * tall, width: wide, height: tall });
}

// Needles on the scale, at the values that are read.
function point(values, low, high) {
  const at = (value) => clamp((value - low) / (high - low || 1), 0, 1);
  $("needles").setAttribute("d", values.map((value) => `M${at(value)} -.4V1.4`).join(""));
}

// By keyboard, one cell further; from the middle if nothing is read yet.
function walk(right, down) {
  const [x0, y0, x1, y1] = photo().box, [wide, tall] = cellSize(), from = pin ?? { x: (x0 + x1) / 2, y: (y0 + y1) / 2 };
  pin = { x: clamp(from.x + right * wide, x0, x1 - wide / 2), y: clamp(from.y + down * tall, y0, y1 - tall / 2) };
  put(reading, { "aria-live": "polite" });
  read();
}

async function download() {
  const name = `${photo().name.replace(/\.\w+$/, "")}-${target().title}-${map().key}`;
  const url = URL.createObjectURL(new Blob([await npy(map().id)]));
  const link = Object.assign(make("a", ""), { href: url, download: `${name.replace(/[^\p{L}\p{N}.]+/gu, "_")}.npy` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// --- Controls -------------------------------------------------------------------------------------------------------

function slide(percent) {
  opacity.value = percent;
  $("percent").textContent = `${opacity.value} %`;
  $("layer").style.opacity = opacity.value / 100;
}

let strength = 100; // of the overlay when it comes back
function toggleOverlay() {
  if (Number(opacity.value)) strength = opacity.value;
  slide(Number(opacity.value) ? 0 : strength);
}

const greyed = () => stage.classList.toggle("grey", $("grey").checked);

const keys = {
  ArrowLeft: () => nextMap(-1), ArrowRight: () => nextMap(1),
  ArrowUp: () => nextTarget(-1), ArrowDown: () => nextTarget(1),
  "Shift+ArrowLeft": () => walk(-1, 0), "Shift+ArrowRight": () => walk(1, 0),
  "Shift+ArrowUp": () => walk(0, -1), "Shift+ArrowDown": () => walk(0, 1),
  p: () => nextPhoto(-1), n: () => nextPhoto(1),
  ",": () => slide(Number(opacity.value) - 5), ".": () => slide(Number(opacity.value) + 5), o: toggleOverlay,
  g: () => $("grey").click(), d: download, t: switchTheme, "?": () => $("keys").showModal(),
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), f: fit,
};

document.addEventListener("keydown", (event) => {
  const arrow = event.key.startsWith("Arrow");
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || (arrow && event.target === opacity)) return;
  const action = keys[arrow && event.shiftKey ? `Shift+${event.key}` : event.key] ?? (/^[1-9]$/.test(event.key) && (() => chooseMap(event.key - 1)));
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-photo], [data-map]");
  if (!button) return;
  if (button.dataset.photo) return choose(Number(button.dataset.photo));
  const [photoIndex, targetIndex, mapIndex] = button.dataset.map.split("-").map(Number);
  choose(photoIndex, targetIndex, photos[photoIndex].targets[targetIndex].maps[mapIndex].key);
  stage.scrollIntoView({ block: "nearest" });
});

opacity.addEventListener("input", () => slide(opacity.value));
$("grey").addEventListener("change", greyed);
$("download").addEventListener("click", download);
$("help").addEventListener("click", () => $("keys").showModal());
$("zoom-in").addEventListener("click", () => zoom(1.5));
$("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
$("zoom-fit").addEventListener("click", fit);

function open() {
  choose(Number(kept().get("photo") ?? 0), Number(kept().get("target") ?? 0), kept().get("method"));
}

addEventListener("hashchange", open);
slide(100);
greyed();
open();
fit();
