// The photo with the map over it: zoomed, dragged, read value by value.

function showStage() {
  put($("photo"), { href: `#photo-${chosen.photo}` });
  put($("layer"), { href: `#map-${mapId()}` });
  $("download").textContent = `Download .npy, ${map().shape.join(" × ")} float32`;
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

// Width and height of a map's cell in pixels of the photo.
function cellSize() {
  const [x0, y0, x1, y1] = photo().box;
  const [height, width] = map().shape.slice(-2);
  return [(x1 - x0) / width, (y1 - y0) / height];
}

// The whole of a photo, which may be another than before.
function fit() {
  const { width, height } = photo();
  const [x0, y0, x1, y1] = photo().box;
  const [left, top, right, bottom] = [Math.max(x0, 0), Math.max(y0, 0), Math.min(x1, width), Math.min(y1, height)];
  for (const id of ["ground", "box"]) put($(id), { x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
  put($("outside"), { d: `M0 0H${width}V${height}H0ZM${left} ${top}H${right}V${bottom}H${left}Z` });
  $("box").toggleAttribute("hidden", x0 === 0 && y0 === 0 && x1 === width && y1 === height);
  stage.style.aspectRatio = extent().width / extent().height;
  view.zoom = 1;
  pin = null;
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

// --- Pointers: mouse, pen, fingers ----------------------------------------------------------------------------------

const down = new Map(); // those that are down, by their id: one drags, two zoom

function pointerMoved(event) {
  const before = down.get(event.pointerId);
  if (before) down.set(event.pointerId, event);
  if (down.size === 2 && before) {
    const other = [...down.values()].find((pointer) => pointer !== event);
    const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY) || 1;
    const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
    zoom(apart(event) / apart(before), middle);
  } else if (before && view.zoom > 1) {
    view.x += (before.clientX - event.clientX) * scale();
    view.y += (before.clientY - event.clientY) * scale();
    stage.classList.add("dragged");
    draw();
  } else readAt(place(event), "off"); // a moving pointer is no news to announce
}

stage.addEventListener("pointerdown", (event) => {
  down.set(event.pointerId, event);
  stage.setPointerCapture(event.pointerId);
  readAt(place(event), "off");
});
stage.addEventListener("pointermove", pointerMoved);
stage.addEventListener("lostpointercapture", (event) => { // it is up, or the browser took it to scroll
  down.delete(event.pointerId);
  stage.classList.remove("dragged");
});
stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && readAt(null, "off"));
stage.addEventListener("dblclick", (event) => zoom(2, event));
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
  event.preventDefault();
  zoom(2 ** (-event.deltaY / 240), event);
}, { passive: false });
new ResizeObserver(draw).observe(stage);

// --- Raw values -----------------------------------------------------------------------------------------------------

let pin = null; // the photo's point that is read

// Its numbers come after a header, whose length is in the file's bytes 8 and 9.
async function numbers(id) {
  const bytes = await unpacked(`npy-${id}`);
  return new Float32Array(bytes, 10 + new DataView(bytes).getUint16(8, true));
}

function readAt(point, live) {
  pin = point;
  put(reading, { "aria-live": live });
  read();
}

async function read() {
  const id = mapId(), values = await numbers(id);
  if (id !== mapId()) return; // another was chosen meanwhile
  const { shape, ends: [low, high] } = map(), coarse = shape.length === 2, [rows, columns] = shape.slice(-2);
  const [x0, y0] = photo().box, [wide, tall] = cellSize(), { x, y } = pin ?? { x: NaN, y: NaN };
  const column = Math.floor((x - x0) / wide), row = Math.floor((y - y0) / tall);
  const inPhoto = x >= 0 && y >= 0 && x < photo().width && y < photo().height;
  const seen = column >= 0 && row >= 0 && column < columns && row < rows;
  const cell = Array.from({ length: coarse ? 1 : shape[0] }, (_, c) => values[(c * rows + row) * columns + column]);
  const strongest = cell.reduce((one, other) => (Math.abs(other) > Math.abs(one) ? other : one)); // with its sign
  const channels = { 1: ["value"], 3: ["R", "G", "B"] }[cell.length] ?? cell.map((_, c) => `channel ${c}`);
  const number = (value) => (seen ? exact(value) : "–");
  const lines = [
    ["photo x, y", inPhoto ? `${Math.floor(x)}, ${Math.floor(y)}` : "–"],
    ["map x, y", seen ? `${column}, ${row}` : inPhoto ? "not seen by the network" : "–"],
    ...cell.map((value, c) => [channels[c], number(value)]),
    ...(cell.length > 1 ? [["strongest", number(strongest)]] : []),
  ];
  reading.replaceChildren(...lines.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  const at = clamp(((low < 0 ? strongest : Math.abs(strongest)) - low) / (high - low || 1), 0, 1);
  put($("needle"), { d: seen ? `M${at} -.4V1.4` : "" });
  $("cell").toggleAttribute("hidden", !seen);
  if (!seen) return;
  for (const rect of $("cell").children) put(rect, { x: x0 + column * wide, y: y0 + row * tall, width: wide, height: tall });
}

// By keyboard, cell by cell; from the middle if nothing is read yet.
function walk(right, down) {
  const [x0, y0, x1, y1] = photo().box, [wide, tall] = cellSize(), { x, y } = pin ?? { x: (x0 + x1) / 2, y: (y0 + y1) / 2 };
  const point = { x: clamp(x + right * wide, x0, x1 - wide / 2), y: clamp(y + down * tall, y0, y1 - tall / 2) };
  readAt(point, "polite");
}

async function download() {
  const name = `${photo().name.replace(/\.\w+$/, "")}-${target().title}-${map().key}`.replace(/[^\p{L}\p{N}.]+/gu, "_");
  const url = URL.createObjectURL(new Blob([await unpacked(`npy-${mapId()}`)]));
  Object.assign(make("a", ""), { href: url, download: `${name}.npy` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// --- Controls -------------------------------------------------------------------------------------------------------

function showOpacity(part) {
  $("layer").style.opacity = part;
}

Object.assign(keys, {
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), f: fit, g: () => $("grey").click(), d: download,
});
$("grey").addEventListener("change", () => stage.classList.toggle("grey", $("grey").checked));
const clicks = { download, "zoom-in": () => zoom(1.5), "zoom-out": () => zoom(1 / 1.5), "zoom-fit": fit };
for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
start();
