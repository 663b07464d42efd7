// One map of one target of one photo is chosen. choose() changes that, and show() brings the page in line with it. What is on
// the stage belongs to the page: its script has showStage(), fit(), draw(), walk() and its own keys.
const photos = JSON.parse($("data").textContent);
const stage = $("stage"), opacity = $("opacity"), reading = $("reading");
const chosen = { photo: 0, target: 0, map: 0 };
const photo = () => photos[chosen.photo];
const target = () => photo().targets[chosen.target];
const map = () => target().maps[chosen.map];
const mapId = () => `${chosen.photo}-${chosen.target}-${chosen.map}`;
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

function put(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

// --- Choosing: photo, target, method --------------------------------------------------------------------------------

// Target and method stay, as far as the photo and the target chosen have them; else the first target and the last map.
function choose(photoIndex, targetIndex = chosen.target, key = map().key) {
  const before = chosen.photo;
  chosen.photo = photos[photoIndex] ? photoIndex : 0;
  chosen.target = photo().targets[targetIndex] ? targetIndex : 0;
  const found = target().maps.findIndex((other) => other.key === key);
  chosen.map = found < 0 ? target().maps.length - 1 : found;
  keep({ photo: chosen.photo, target: chosen.target, method: map().key });
  show();
  if (chosen.photo === before) return;
  fit();
  revealTab();
}

const chooseTarget = (i) => choose(chosen.photo, i);
const chooseMap = (i) => i < target().maps.length && choose(chosen.photo, chosen.target, target().maps[i].key);
const around = (i, count) => (i + count) % count;
const nextPhoto = (by) => choose(around(chosen.photo + by, photos.length));
const nextTarget = (by) => chooseTarget(around(chosen.target + by, photo().targets.length));
const nextMap = (by) => chooseMap(around(chosen.map + by, target().maps.length));

// Sideways only: a reader further down the page stays there.
function revealTab() {
  const tab = document.querySelector(".photos [aria-pressed=true]"), strip = tab.parentElement;
  strip.scrollLeft = clamp(strip.scrollLeft, tab.offsetLeft + tab.offsetWidth + 8 - strip.clientWidth, tab.offsetLeft - 8);
}

function restore() {
  choose(Number(kept().get("photo")), Number(kept().get("target")), kept().get("method"));
}

function show() {
  const { name, ends: [low, high], legend } = map();
  put($("bar"), { href: `#bar-${mapId()}` });
  put(stage, { "aria-label": `${photo().name} under ${name} for ${target().title}` });
  $("caption").textContent = `${photos.length > 1 ? `${photo().name} · ` : ""}${name}: ${target().title}`;
  $("scale").hidden = low === high;
  const short = (value) => make("span", Number(value.toPrecision(3)));
  $("ends").replaceChildren(...(low < 0 ? [low, 0, high] : [low, high]).map(short));
  $("legend").textContent = legend;
  showChoices($("targets"), photo().targets.map((other) => other.title), chosen.target, chooseTarget);
  showChoices($("methods"), target().maps.map((other) => other.name), chosen.map, chooseMap);
  press(document.querySelectorAll("[data-photo]"), (button) => Number(button.dataset.photo) === chosen.photo);
  press(document.querySelectorAll("[data-map]"), (button) => button.dataset.map === mapId());
  document.querySelectorAll(".sheet").forEach((sheet, i) => { sheet.hidden = i !== chosen.photo; });
  showStage();
  draw();
}

function press(buttons, isPressed) {
  [...buttons].forEach((button, i) => put(button, { "aria-pressed": isPressed(button, i) }));
}

// Buttons are made again only if their names change: the one that has the focus keeps it.
function showChoices(group, names, pressed, pick) {
  if (group.dataset.names !== JSON.stringify(names)) {
    group.dataset.names = JSON.stringify(names);
    group.replaceChildren(...names.map((name, i) => {
      const button = Object.assign(make("button", name), { type: "button" });
      if (group.id === "methods" && i < 9) button.append(make("small", i + 1));
      button.addEventListener("click", () => pick(i));
      return button;
    }));
  }
  press(group.children, (_, i) => i === pressed);
}

// --- What is packed in the page ---------------------------------------------------------------------------------------

const files = new Map();

// The bytes of a packed file: unpacked when first asked for.
function unpacked(id) {
  if (!files.has(id)) {
    const packed = Uint8Array.from(atob($(id).textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    files.set(id, new Response(stream).arrayBuffer());
  }
  return files.get(id);
}

// The fewest digits that are this float32 and no other; nine always are enough.
function exact(value) {
  let digits = 1;
  while (digits < 9 && Math.fround(value.toPrecision(digits)) !== value) digits++;
  return String(Number(value.toPrecision(digits)));
}

// --- Controls -------------------------------------------------------------------------------------------------------

function slide(percent) {
  opacity.value = percent;
  $("percent").textContent = `${opacity.value}%`;
  showOpacity(opacity.value / 100);
}

let shown = 80; // how much of the overlay, when it comes back
function toggleOverlay() {
  const now = Number(opacity.value);
  if (now) shown = now;
  slide(now ? 0 : shown);
}

const help = () => $("keys").showModal();
const keys = {
  ArrowLeft: () => nextMap(-1), ArrowRight: () => nextMap(1), ArrowUp: () => nextTarget(-1), ArrowDown: () => nextTarget(1),
  ShiftArrowLeft: () => walk(-1, 0), ShiftArrowRight: () => walk(1, 0),
  ShiftArrowUp: () => walk(0, -1), ShiftArrowDown: () => walk(0, 1),
  p: () => nextPhoto(-1), n: () => nextPhoto(1),
  ",": () => slide(Number(opacity.value) - 5), ".": () => slide(Number(opacity.value) + 5), o: toggleOverlay,
  t: switchTheme, "?": help,
};
for (let digit = 1; digit <= 9; digit++) keys[digit] = () => chooseMap(digit - 1);

document.addEventListener("keydown", (event) => {
  const arrow = event.key.startsWith("Arrow"), shift = arrow && event.shiftKey;
  const elsewhere = event.ctrlKey || event.metaKey || event.altKey || $("keys").open;
  const action = keys[(shift ? "Shift" : "") + event.key];
  if (elsewhere || (arrow && event.target.type === "range") || !action) return;
  event.preventDefault();
  action();
});

document.querySelectorAll("[data-photo]").forEach((tab, i) => tab.addEventListener("click", () => choose(i)));
for (const button of document.querySelectorAll("[data-map]")) {
  const [i, j, k] = button.dataset.map.split("-").map(Number);
  button.addEventListener("click", () => {
    choose(i, j, photos[i].targets[j].maps[k].key);
    stage.scrollIntoView({ block: "nearest" });
  });
}
opacity.addEventListener("input", () => slide(opacity.value));
$("help").addEventListener("click", help);
addEventListener("hashchange", restore);

// Called once, when the page's own script is there.
function start() {
  slide(opacity.value);
  restore();
  fit();
}
