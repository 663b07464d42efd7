// Channels below each other as lines, whose colour and width are the relevance; read and zoomed along the axis.
const view = { start: 0, end: 1 }; // the part that is shown, of the whole
let pin = null; // the sample that is read
const loaded = new Map();
const HEAD = 8, FOOT = 26, LEFT = 56, RIGHT = 12;
const probe = stage.parentElement.appendChild(make("i", "")); // by which colours of the page become those of the canvas

function colour(role) {
  probe.style.color = `var(--${role})`;
  return getComputedStyle(probe).color;
}

function array(id) {
  if (!loaded.has(id)) unpacked(id).then((bytes) => { loaded.set(id, new Float32Array(bytes)); draw(); });
  return loaded.get(id);
}

const signal = () => array(`scan-${chosen.photo}`);
const relevance = () => array(`map-${mapId()}`);
const count = () => photo().shape[1];
const channels = () => photo().channels;
const inFile = (channel) => photo().bands[channel] ?? channel;

function showStage() {}
function fit() { Object.assign(view, { start: 0, end: 1 }); draw(); }

const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
const across = () => stage.clientWidth - LEFT - RIGHT;
const place = (sample) => LEFT + ((sample / Math.max(count() - 1, 1) - view.start) / (view.end - view.start)) * across();
const sampleAt = (x) => clamp(Math.round((view.start + ((x - LEFT) / across()) * (view.end - view.start)) * (count() - 1)), 0, count() - 1);

// The relevance of a sample of one channel; NaN where the network never saw it. Coarse maps are interpolated.
function relevanceAt(values, channel, sample) {
  const [low, high] = photo().box[0], shape = map().shape, cells = shape.at(-1);
  const where = ((sample + 0.5 - low) / (high - low)) * cells;
  if (where < 0 || where > cells) return NaN;
  const start = shape.length > 1 ? Math.min(channel, shape[0] - 1) * cells : 0, first = clamp(where - 0.5, 0, cells - 1);
  const cell = Math.floor(first), part = first - cell;
  return values[start + cell] * (1 - part) + (part ? values[start + cell + 1] * part : 0);
}

const levelOf = (value) => 4 * (127 + (map().full ? clamp(Math.round((value / map().full) * 127), -127, 127) : 0));

function draw() {
  const dots = devicePixelRatio, tall = channels().length > 1 ? 110 : 220, height = HEAD + FOOT + tall * channels().length;
  stage.style.height = `${height}px`;
  Object.assign(stage, { width: Math.round(stage.clientWidth * dots), height: Math.round(height * dots) });
  const context = stage.getContext("2d");
  context.scale(dots, dots);
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const values = signal(), maps = relevance();
  if (!values) return;
  channels().forEach((channel, row) => drawChannel(context, values, maps, channel, HEAD + row * tall, tall));
  drawAxis(context, height - FOOT);
  if (pin !== null) {
    context.fillStyle = colour("accent");
    context.fillRect(place(pin) - 0.5, HEAD, 1, height - HEAD - FOOT);
  }
  read();
}

function drawChannel(context, values, maps, channel, top, tall) {
  const line = values.subarray(channel * count(), (channel + 1) * count()), known = line.filter(Number.isFinite);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const room = tall - 22, at = (v) => top + 8 + room * (high > low ? (high - v) / (high - low) : 0.5);
  context.fillStyle = colour("soft");
  context.textAlign = "right";
  for (const value of high > low ? [low, high] : [low]) context.fillText(short(value), LEFT - 8, at(value) + 4);
  if (photo().shape[0] > 1) context.fillText(`ch. ${inFile(channel)}`, LEFT - 8, top + tall / 2 + 2);
  context.save();
  context.beginPath();
  context.rect(LEFT, top, across(), tall);
  context.clip();
  const idle = { ink: colour(maps ? "edge" : "ink"), wide: 1 }, unseen = { ink: colour("lead"), wide: 1 };
  stroke(context, line, at, () => idle);
  if (maps && Number(opacity.value)) {
    // apart from it first: where pieces of a line meet it would be less transparent
    const { width, height } = stage, apart = Object.assign(document.createElement("canvas"), { width, height }), over = apart.getContext("2d");
    over.setTransform(context.getTransform());
    stroke(over, line, at, (sample) => {
      const value = relevanceAt(maps, channel, sample), level = levelOf(value), colours = map().colours;
      if (Number.isNaN(value)) return unseen;
      const weight = colours[level + 3] / 255;
      return { ink: `rgb(${colours.slice(level, level + 3)})`, wide: 1.4 + 2.4 * weight, weight };
    });
    context.globalAlpha = opacity.value / 100;
    context.drawImage(apart, 0, 0, width / devicePixelRatio, height / devicePixelRatio);
  }
  context.restore();
}

// Pieces of a line, the strongest on top; of many samples in one pixel the lowest, the highest and the strongest count.
function stroke(context, line, at, style) {
  const first = Math.max(0, sampleAt(LEFT) - 1), last = Math.min(count() - 1, sampleAt(LEFT + across()) + 1);
  const each = Math.max(1, Math.floor((last - first) / (2 * across()))), pieces = [];
  for (let i = first; i <= last; i += each) {
    let low = i, high = i, best = style(i);
    for (let j = i + 1; j < Math.min(i + each, last + 1); j++) {
      if (line[j] < line[low]) low = j;
      if (line[j] > line[high]) high = j;
      const other = style(j);
      if ((other.weight ?? 0) > (best.weight ?? 0)) best = other;
    }
    const points = each === 1 ? [i] : [Math.min(low, high), Math.max(low, high)];
    pieces.push({ points, ...best });
  }
  pieces.forEach((piece, n) => {
    const before = pieces[n - 1]?.points.at(-1), after = pieces[n + 1]?.points[0];
    const half = (one, other) => [(place(one) + place(other)) / 2, (at(line[one]) + at(line[other])) / 2];
    piece.path = [...(before === undefined ? [] : [half(before, piece.points[0])]),
      ...piece.points.map((i) => [place(i), at(line[i])]), ...(after === undefined ? [] : [half(piece.points.at(-1), after)])];
  });
  context.lineCap = context.lineJoin = "round";
  for (const { path, ink, wide } of pieces.sort((a, b) => (a.weight ?? 0) - (b.weight ?? 0))) {
    context.strokeStyle = ink;
    context.lineWidth = wide;
    context.beginPath();
    path.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }
}

function drawAxis(context, y) {
  const step = photo().step[0], start = view.start * (count() - 1) * step, end = view.end * (count() - 1) * step;
  const rough = (end - start) / 8 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const tick = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  context.fillStyle = colour("line");
  context.fillRect(LEFT, y, across(), 1);
  context.fillStyle = colour("soft");
  context.textAlign = "center";
  for (let n = Math.ceil(start / tick); n * tick <= end + 1e-9; n++) {
    const x = place((n * tick) / step);
    context.fillRect(x, y, 1, 4);
    context.fillText(`${short(n * tick)}${n === Math.ceil(start / tick) ? ` ${photo().unit || "samples"}` : ""}`, x, y + 17);
  }
}

// --- Values ---------------------------------------------------------------------------------------------------------

function read() {
  const values = signal(), maps = relevance(), seen = pin !== null && values && maps;
  const unit = photo().unit, where = seen ? `${pin}${unit ? ` · ${Number((pin * photo().step[0]).toPrecision(6))} ${unit}` : ""}` : "–";
  const several = photo().shape[0] > 1, lines = [["sample", where]];
  let strongest = NaN;
  for (const channel of channels()) {
    const value = seen ? relevanceAt(maps, channel, pin) : NaN, name = several ? `channel ${inFile(channel)}` : "signal";
    if (!(Math.abs(value) <= Math.abs(strongest))) strongest = value;
    lines.push([name, seen ? exact(values[channel * count() + pin]) : "–"]);
    if (map().shape.length > 1) lines.push([several ? `map ${inFile(channel)}` : "map", told(seen, value)]);
  }
  if (map().shape.length < 2) lines.push(["map", told(seen, strongest)]);
  reading.replaceChildren(...lines.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  const [low, high] = map().ends, mark = clamp(((low < 0 ? strongest : Math.abs(strongest)) - low) / (high - low || 1), 0, 1);
  put($("needle"), { d: seen && !Number.isNaN(strongest) ? `M${mark} -.4V1.4` : "" });
}

const told = (seen, value) => (!seen ? "–" : Number.isNaN(value) ? "not seen by the network" : short(value));

function readAt(sample, live) {
  pin = sample;
  put(reading, { "aria-live": live });
  draw();
}

function walk(right) {
  readAt(clamp((pin ?? sampleAt(LEFT + across() / 2)) + right, 0, count() - 1), "polite");
}

function zoom(factor, x = LEFT + across() / 2) {
  const part = (x - LEFT) / across(), middle = view.start + part * (view.end - view.start);
  const long = clamp((view.end - view.start) / factor, Math.min(1, 16 / count()), 1);
  view.start = clamp(middle - part * long, 0, 1 - long);
  view.end = view.start + long;
  draw();
}

function pan(by) {
  const long = view.end - view.start;
  view.start = clamp(view.start - (by / across()) * long, 0, 1 - long);
  view.end = view.start + long;
}

stage.addEventListener("pointermove", (event) => {
  if (event.buttons && view.end - view.start < 1) pan(event.movementX);
  readAt(sampleAt(event.offsetX), "off");
});
stage.addEventListener("pointerdown", (event) => readAt(sampleAt(event.offsetX), "off"));
stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && readAt(null, "off"));
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
  event.preventDefault();
  zoom(2 ** (-event.deltaY / 240), event.offsetX);
}, { passive: false });

function showOpacity() { draw(); }

Object.assign(keys, { "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), f: fit });
$("theme").addEventListener("click", draw);
systemIsDark.addEventListener("change", draw);
new ResizeObserver(draw).observe(stage);
start();
