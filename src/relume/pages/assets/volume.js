// The planes through one voxel of a volume, or one frame of a video, with the map over them. Arrays are (slice, row, column).
const planes = [...document.querySelectorAll(".plane")];
const AXES = { volume: ["slice", "row", "column"], video: ["frame", "row", "column"] };
const INKS = ["#f0ad5c", "#7fd19c", "#74b3e8"]; // of the planes of one slice, one row, one column
let place = [0, 0, 0]; // the voxel in which all planes cross
let pin = null; // the voxel that is read; that of the planes if none
let active = 0; // the plane that was pointed at last
const loaded = new Map(); // unpacked arrays by their id

function array(id, Type) {
  if (!loaded.has(id)) unpacked(id).then((bytes) => { loaded.set(id, new Type(bytes)); draw(); });
  return loaded.get(id);
}

const scan = () => array(`scan-${chosen.photo}`, Uint8Array);
const levels = () => array(`map-${mapId()}`, Int8Array);

// The levels that are interpolated: magnitudes where signs make no difference, or between two of them would lie zero.
function drawnLevels() {
  const id = `drawn-${mapId()}`, values = levels();
  if (!map().unsigned || !values) return values;
  if (!loaded.has(id)) loaded.set(id, values.map(Math.abs));
  return loaded.get(id);
}

const size = () => photo().shape.slice(-3);
// The number of a slice in the recording: the page may have fewer than that.
const numbered = (axis, index) => Math.floor(((index + 0.5) * photo().size[axis]) / size()[axis]);
// Slices rise, rows fall.
const spanned = (axis) => [0, 1, 2].filter((other) => other !== axis);
const rises = (axis) => photo().kind === "volume" && axis > 0;

function showStage() {
  planes.forEach((plane, axis) => {
    plane.querySelector("label").textContent = AXES[photo().kind][axis];
    plane.querySelector("input").max = size()[axis] - 1;
  });
}

function fit() {
  place = map().at.map((i, axis) => clamp(i, 0, size()[axis] - 1));
  pin = null;
  resize();
}

// All planes at one scale, as large as there is room: below each other on a phone, else side by side or two beside the first.
function resize() {
  const [deep, tall, wide] = size().map((count, axis) => count * photo().spacing[axis]);
  const room = stage.clientWidth, high = Math.max(innerHeight - 230, 260);
  const abreast = Math.min((room - 40) / (2 * wide + tall), high / Math.max(tall, deep));
  const stacked = Math.min((room - 20) / (wide + Math.max(wide, tall)), high / tall, (high - 70) / (2 * deep));
  const scale = planes.length === 1 ? Math.min(room / wide, high / tall)
    : matchMedia("(max-width: 60rem)").matches ? room / Math.max(wide, tall) : Math.max(abreast, stacked);
  stage.classList.toggle("abreast", abreast >= stacked);
  planes.forEach((plane, axis) => {
    const [down, across] = spanned(axis).map((other) => [deep, tall, wide][other] * scale);
    const canvas = plane.querySelector("canvas"), dots = Math.min(devicePixelRatio, 2);
    plane.style.width = `${across}px`;
    Object.assign(canvas.style, { width: `${across}px`, height: `${down}px` });
    Object.assign(canvas, { width: Math.max(1, Math.round(across * dots)), height: Math.max(1, Math.round(down * dots)) });
  });
  draw();
}

function draw() {
  planes.forEach(drawPlane);
  read();
}

// The scan alone, a pixel for each voxel; what the network never saw is dimmed.
function scanPlane(values, axis) {
  const shape = size(), [down, across] = spanned(axis), channels = photo().shape.length > 3 ? photo().shape[0] : 1;
  const steps = [shape[1] * shape[2], shape[2], 1], count = shape[0] * steps[0];
  const image = new ImageData(shape[across], shape[down]);
  const inside = (other, i) => i + 1 > photo().box[other][0] && i < photo().box[other][1];
  const seen = inside(axis, place[axis]);
  for (let y = 0, o = 0; y < shape[down]; y++) {
    const row = rises(axis) ? shape[down] - 1 - y : y, rowSeen = seen && inside(down, row);
    for (let x = 0; x < shape[across]; x++, o += 4) {
      const v = place[axis] * steps[axis] + row * steps[down] + x * steps[across];
      const part = rowSeen && inside(across, x);
      for (let c = 0; c < 3; c++) {
        const level = values[v + (channels > 1 ? c * count : 0)];
        image.data[o + c] = part ? level : 26 + 0.3 * level;
      }
      image.data[o + 3] = 255;
    }
  }
  return image;
}

// Between which two cells of a map, and how far from the first, each of count places along an axis lies; -1 outside the box.
function between(axis, count, at) {
  const [low, high] = photo().box[axis], cells = map().shape[axis];
  return Array.from({ length: count }, (_, i) => {
    const where = ((at(i) - low) / (high - low)) * cells;
    if (where < 0 || where > cells) return [-1, -1, 0];
    const first = clamp(where - 0.5, 0, cells - 1), cell = Math.min(Math.floor(first), Math.max(cells - 2, 0));
    return [cell, Math.min(cell + 1, cells - 1), first - cell];
  });
}

// The map in a plane, interpolated from its own cells to every pixel of the canvas, in the colours of its kind.
function mapPlane(values, axis, width, height) {
  const shape = size(), [down, across] = spanned(axis), cells = map().shape;
  const steps = [cells[1] * cells[2], cells[2], 1], colours = map().colours;
  const image = new ImageData(width, height);
  const [near, far, part] = between(axis, 1, () => place[axis] + 0.5)[0];
  if (near < 0) return image;
  const columns = between(across, width, (i) => ((i + 0.5) / width) * shape[across]);
  const rows = between(down, height, (i) => shape[down] * (rises(axis) ? 1 - (i + 0.5) / height : (i + 0.5) / height));
  // the one or two layers of cells around the plane: where their rows begin, and their weights
  const starts = (n, which) => rows.map((row) => n * steps[axis] + row[which] * steps[down]);
  const layers = [[near, 1 - part], [far, part]].filter(([, weight]) => weight).map(([n, weight]) => [starts(n, 0), starts(n, 1), weight]);
  for (let y = 0, o = 0; y < height; y++) {
    const [r0, , rw] = rows[y];
    for (let x = 0; x < width; x++, o += 4) {
      const [c0, c1, cw] = columns[x];
      if (r0 < 0 || c0 < 0) continue;
      const one = c0 * steps[across], other = c1 * steps[across];
      let value = 0;
      for (const [first, second, weight] of layers) {
        const upper = values[first[y] + one] * (1 - cw) + values[first[y] + other] * cw;
        const lower = values[second[y] + one] * (1 - cw) + values[second[y] + other] * cw;
        value += weight * (upper * (1 - rw) + lower * rw);
      }
      const level = 4 * (127 + Math.round(value));
      for (let c = 0; c < 4; c++) image.data[o + c] = colours[level + c];
    }
  }
  return image;
}

function drawn(image) {
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function drawPlane(plane, axis) {
  const canvas = plane.querySelector("canvas"), context = canvas.getContext("2d"), { width, height } = canvas;
  const slider = plane.querySelector("input"), [down, across] = spanned(axis);
  slider.value = place[axis];
  const moment = axis === 0 && photo().kind === "video" && photo().unit ? ` · ${length(axis, place[axis])}` : "";
  plane.querySelector("output").textContent = `${numbered(axis, place[axis])} of ${photo().size[axis]}${moment}`;
  plane.classList.toggle("active", planes.length > 1 && axis === active);
  const ground = scan(), values = drawnLevels();
  if (ground) context.drawImage(drawn(scanPlane(ground, axis)), 0, 0, width, height);
  if (values && Number(opacity.value)) {
    context.globalAlpha = opacity.value / 100;
    context.drawImage(drawn(mapPlane(values, axis, width, height)), 0, 0);
    context.globalAlpha = 1;
  }
  if (planes.length > 1 && $("lines").checked) {
    const part = (other) => (place[other] + 0.5) / size()[other];
    const x = part(across) * width, y = (rises(axis) ? 1 - part(down) : part(down)) * height;
    rule(context, across, [[x, 0, x, y], [x, height, x, y]]);
    rule(context, down, [[0, y, x, y], [width, y, x, y]]);
  }
}

// Lines to a point, open about it, which is what a reader looks at.
function rule(context, axis, lines) {
  context.strokeStyle = INKS[axis];
  context.globalAlpha = 0.8;
  context.lineWidth = Math.max(1, devicePixelRatio);
  context.beginPath();
  for (const [x0, y0, x1, y1] of lines) {
    const far = Math.hypot(x1 - x0, y1 - y0), gap = 0.06 * Math.max(context.canvas.width, context.canvas.height);
    if (far <= gap) continue;
    context.moveTo(x0, y0);
    context.lineTo(x1 - ((x1 - x0) * gap) / far, y1 - ((y1 - y0) * gap) / far);
  }
  context.stroke();
  context.globalAlpha = 1;
}

// --- Values ---------------------------------------------------------------------------------------------------------

const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
const length = (axis, index) => `${short((index * photo().size[axis] * photo().step[axis]) / size()[axis])} ${photo().unit}`;

function read() {
  const at = pin ?? place, shape = size(), ground = scan(), values = levels();
  const { shape: cells, ends: [low, high], full } = map(), [black, white] = photo().limits;
  const cell = at.map((i, axis) => {
    const [start, end] = photo().box[axis];
    return Math.floor(((i + 0.5 - start) / (end - start)) * cells[axis]);
  });
  const seen = cell.every((i, axis) => i >= 0 && i < cells[axis]);
  const level = seen && values ? values[(cell[0] * cells[1] + cell[1]) * cells[2] + cell[2]] : 0;
  const count = shape[0] * shape[1] * shape[2], voxel = (at[0] * shape[1] + at[1]) * shape[2] + at[2];
  const grey = (c) => (ground ? short(black + (ground[voxel + c * count] / 255) * (white - black)) : "–");
  const beyond = Math.abs(level) === 127 ? (level < 0 ? "≤ " : "≥ ") : "";
  const lines = [
    ...AXES[photo().kind].map((name, axis) => [name, String(numbered(axis, at[axis]))]),
    ...(photo().unit ? [["place", at.map((i, axis) => length(axis, i)).slice(0, photo().kind === "video" ? 1 : 3).join(", ")]] : []),
    [photo().kind, photo().shape.length > 3 ? [0, 1, 2].map(grey).join(", ") : grey(0)],
    ["map", seen ? `${beyond}${short((level / 127) * full)}` : "not seen by the network"],
  ];
  reading.replaceChildren(...lines.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  const value = (level / 127) * full, mark = clamp(((low < 0 ? value : Math.abs(value)) - low) / (high - low || 1), 0, 1);
  put($("needle"), { d: seen ? `M${mark} -.4V1.4` : "" });
}

// --- Walking --------------------------------------------------------------------------------------------------------

function move(axis, by) {
  place[axis] = clamp(place[axis] + by, 0, size()[axis] - 1);
  pin = null;
  draw();
}

function walk(right, down) {
  const [rows, columns] = spanned(active);
  put(reading, { "aria-live": "polite" });
  move(columns, right);
  move(rows, rises(active) ? -down : down);
}

function voxel(event, axis) {
  const { left, top, width, height } = event.currentTarget.getBoundingClientRect(), [down, across] = spanned(axis);
  const x = (event.clientX - left) / width, y = (event.clientY - top) / height, at = [...place];
  at[across] = clamp(Math.floor(x * size()[across]), 0, size()[across] - 1);
  at[down] = clamp(Math.floor((rises(axis) ? 1 - y : y) * size()[down]), 0, size()[down] - 1);
  return at;
}

function pointed(event, axis) {
  active = axis;
  put(reading, { "aria-live": "off" });
  pin = voxel(event, axis);
  if (!event.buttons) return read();
  place = pin;
  draw();
}

planes.forEach((plane, axis) => {
  const canvas = plane.querySelector("canvas");
  plane.querySelector("input").addEventListener("input", (event) => {
    active = axis;
    move(axis, Number(event.target.value) - place[axis]);
  });
  canvas.addEventListener("pointermove", (event) => pointed(event, axis));
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointed(event, axis);
  });
  canvas.addEventListener("pointerleave", () => { pin = null; read(); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.shiftKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    move(axis, Math.sign(event.deltaY || event.deltaX));
  }, { passive: false });
});

function showOpacity() {
  draw();
}

Object.assign(keys, {
  PageUp: () => move(active, 1), PageDown: () => move(active, -1), c: fit, l: () => $("lines")?.click(),
});
$("lines")?.addEventListener("change", draw);
new ResizeObserver(resize).observe(stage);
start();
