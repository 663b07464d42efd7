// A filter for the whole page, tables that sort by their headings, cards a few at a time, and all pictures a page at a time.
const { columns } = JSON.parse($("data").textContent);
const values = Object.fromEntries(columns.map((column) => [column.key, column.values]));
const ROWS = 50, CARDS = 12;
const chosen = { class: "", text: "", only: "", sort: "", down: false, page: 0 };
const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
const isChosen = (name, id) => (!chosen.class || name === chosen.class) && (!chosen.text || id.toLowerCase().includes(chosen.text));

function choose(changes) {
  Object.assign(chosen, { page: 0 }, changes);
  keep({ class: chosen.class, text: chosen.text, only: chosen.only, sort: chosen.sort, down: chosen.down || "" });
  if (["class", "text"].some((name) => name in changes)) filterSections();
  showTable();
}

// --- Cards and tables of classes --------------------------------------------------------------------------------------

function showCards(list) {
  const cards = [...list.children].filter((card) => isChosen(card.dataset.class, card.dataset.id));
  const most = list.dataset.open ? Infinity : CARDS;
  for (const card of list.children) card.hidden = true;
  for (const card of cards.slice(0, most)) card.hidden = false;
  const more = list.nextElementSibling.querySelector("[data-more]");
  more.hidden = cards.length <= CARDS;
  more.textContent = list.dataset.open ? "Show fewer" : `Show all ${cards.length}`;
  list.nextElementSibling.querySelector("[data-none]").hidden = cards.length > 0;
}

function filterSections() {
  document.querySelectorAll(".cards").forEach(showCards);
  for (const e of document.querySelectorAll("tr[data-class], .suspect")) e.hidden = !!chosen.class && e.dataset.class !== chosen.class;
}

for (const list of document.querySelectorAll(".cards")) {
  list.nextElementSibling.querySelector("[data-more]").addEventListener("click", () => {
    if (list.dataset.open) delete list.dataset.open; else list.dataset.open = "1";
    showCards(list);
  });
}

// Numbers by size, others as words; what is missing comes last, whichever way it is sorted.
function compare(a, b, down) {
  const missing = (value) => value === null || value === "" || Number.isNaN(value);
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const order = typeof a === "string" ? collator.compare(a, b) : a - b;
  return down ? -order : order;
}
const collator = new Intl.Collator(undefined, { numeric: true });

function heading(th, title, sort) {
  const button = make("button", { type: "button", textContent: title });
  button.addEventListener("click", sort);
  th.replaceChildren(button);
}

function sortRows(table, index, th) {
  const down = th.ariaSort ? th.ariaSort === "ascending" : index > 0;
  const value = (row) => {
    const cell = row.cells[index];
    return index ? Number((cell.dataset.v ?? cell.textContent).replace("–", "") || NaN) : cell.textContent;
  };
  const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => compare(a, b, down));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
  th.ariaSort = down ? "descending" : "ascending";
}

for (const table of document.querySelectorAll("[data-sortable]")) {
  [...table.tHead.rows[0].cells].forEach((th, index) => {
    if (!("fixed" in th.dataset)) heading(th, th.textContent, () => sortRows(table, index, th));
  });
}

// --- All pictures -----------------------------------------------------------------------------------------------------

const pictures = new Map([...document.querySelectorAll(".card")].map((card) => [card.dataset.id, card.querySelector("img")?.src]));
const words = { true: "yes", false: "no", null: "" };

function rows() {
  const numbers = [];
  for (let i = 0; i < values.id.length; i++) {
    if (!isChosen(values.explained?.[i] ?? "", values.id[i])) continue;
    if (chosen.only === "wrong" && values.right?.[i] !== false) continue;
    if (chosen.only === "error" && !values.error?.[i]) continue;
    numbers.push(i);
  }
  const by = values[chosen.sort];
  return by ? numbers.sort((a, b) => compare(by[a], by[b], chosen.down)) : numbers;
}

function cell(column, value) {
  const text = typeof value === "number" ? value.toFixed(2).replace(/^-(?=.*[1-9])/, "−").replace("-", "") : value === true || value === false ? words[value] : value ?? "";
  const td = make("td", { textContent: text, title: typeof value === "string" ? value : "" });
  if (typeof value === "number") td.className = "number";
  if (column.key === "error" || (column.key === "right" && value === false)) td.classList.add("bad");
  return td;
}

function showTable() {
  const numbers = rows(), pages = Math.max(1, Math.ceil(numbers.length / ROWS));
  chosen.page = Math.min(chosen.page, pages - 1);
  $("table").tBodies[0].replaceChildren(...numbers.slice(chosen.page * ROWS, (chosen.page + 1) * ROWS).map((i) => {
    const row = make("tr"), picture = make("td"), src = pictures.get(values.id[i]);
    if (src) picture.append(make("img", { src, alt: "", loading: "lazy" }));
    row.append(picture, ...columns.map((column) => cell(column, column.values[i])));
    return row;
  }));
  [...$("table").tHead.rows[0].cells].slice(1).forEach((th, i) => {
    th.ariaSort = columns[i].key === chosen.sort ? (chosen.down ? "descending" : "ascending") : null;
  });
  $("count").textContent = `${numbers.length.toLocaleString("en")} of ${values.id.length.toLocaleString("en")} rows`;
  $("page").textContent = `${chosen.page + 1} of ${pages}`;
  $("previous").disabled = chosen.page === 0;
  $("next").disabled = chosen.page === pages - 1;
  for (const button of document.querySelectorAll("[data-only]")) button.ariaPressed = button.dataset.only === chosen.only;
}

function turn(by) {
  chosen.page += by;
  showTable();
}

function download() {
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const line = (cells) => `${cells.map((value) => quoted(String(value ?? ""))).join(",")}\n`;
  const lines = [line(columns.map((column) => column.key)), ...rows().map((i) => line(columns.map((column) => column.values[i])))];
  const url = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  make("a", { href: url, download: "pictures.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function makeHeadings() {
  const head = $("table").tHead.rows[0];
  head.append(make("th"), ...columns.map((column) => {
    const th = make("th", { scope: "col", title: column.meaning });
    heading(th, column.title, () => choose({ sort: column.key, down: chosen.sort === column.key && !chosen.down }));
    return th;
  }));
}

// --- Controls ---------------------------------------------------------------------------------------------------------

function restore() {
  const was = kept();
  for (const name of ["class", "text", "only", "sort"]) chosen[name] = was.get(name) ?? "";
  chosen.down = was.get("down") === "true";
  $("class").value = chosen.class;
  $("text").value = chosen.text;
  if ($("class").value !== chosen.class) chosen.class = $("class").value = "";
  filterSections();
  showTable();
}

let waiting;
$("class").addEventListener("change", () => choose({ class: $("class").value }));
$("text").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => choose({ text: $("text").value.trim().toLowerCase() }), 120);
});
for (const button of document.querySelectorAll("[data-only]")) button.addEventListener("click", () => choose({ only: button.dataset.only }));
for (const link of document.querySelectorAll(".filter nav a")) {
  link.addEventListener("click", (event) => { // the fragment of the address is for what was chosen
    event.preventDefault();
    $(link.hash.slice(1)).scrollIntoView({ behavior: "smooth" });
  });
}
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
$("download").addEventListener("click", download);
makeHeadings();
restore();
