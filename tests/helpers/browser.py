"""Texts that a page must show as they are, and what is measured on a page in the browser."""

HOSTILE = """</script><script>pwned=1</script><img src=x onerror=pwned=1> "'&{{ 7*7 }} $title"""


CONTRAST = """() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => rgb(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    const colour = getComputedStyle(e).backgroundColor, alpha = rgb(colour)[3] ?? 1;
    return alpha === 1 ? colour : ground(e.parentElement);
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const [a, b] = [getComputedStyle(e).color, ground(e)].map(light);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)]);
  }
  return found.sort((p, q) => p[0] - q[0]);
}"""
