"use strict";
// What all pages share: light or dark, as the reader's system says until the button is used; and choices that last.
const root = document.documentElement;
const $ = (id) => document.getElementById(id);
root.dataset.script = "";

// The fragment of the address holds what the reader chose, so that a reload or a copied link brings it back.
const kept = () => new URLSearchParams(location.hash.slice(1));

function keep(choices) {
  const all = new URLSearchParams({ ...Object.fromEntries(kept()), ...choices });
  if (location.protocol === "file:" || location.origin !== "null") history.replaceState(null, "", `#${all}`);
}

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (systemIsDark.matches ? "dark" : "light")) === "dark";
const showTheme = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; };

function switchTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  keep({ theme: root.dataset.theme });
  showTheme();
}

if (kept().has("theme")) root.dataset.theme = kept().get("theme");
$("theme").addEventListener("click", switchTheme);
systemIsDark.addEventListener("change", showTheme);
showTheme();
