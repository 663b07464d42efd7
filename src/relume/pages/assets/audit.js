// A table or strip that is wider than the page scrolls with the keys once it has the focus; one that is not, takes none.
const settle = () => { for (const e of document.querySelectorAll(".scroll")) e.tabIndex = e.scrollWidth > e.clientWidth ? 0 : -1; };
addEventListener("resize", settle);
settle();
