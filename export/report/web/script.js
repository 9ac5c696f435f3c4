"use strict";
// What a cell counts: `6.20`, `3.12 M`, `1 min 9 s`; NaN where it is no number.
const UNITS = { h: 3600, min: 60, s: 1, K: 1e3, M: 1e6, G: 1e9 };
function counted(text) {
  const parts = [...text.matchAll(/([+-]?[\d.]+) (h|min|s|K|M|G)(?= |$)/g)];
  if (parts.length && parts.map(([part]) => part).join(" ") === text) {
    return parts.reduce((sum, [, value, unit]) => sum + parseFloat(value) * UNITS[unit], 0);
  }
  return /^[+-]?\d/.test(text) ? parseFloat(text) : NaN;
}

// Tables sort by the header that is pressed: numbers by value, what is no number by its text, dashes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((one, other) => {
        const [first, second] = [value(one), value(other)];
        const [low, high] = [counted(first), counted(second)];
        if (Number.isNaN(low) !== Number.isNaN(high)) return Number.isNaN(low) ? 1 : -1;
        const order = Number.isNaN(low) ? first.localeCompare(second) : low - high;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}

// The images that are worst at one class, among them some that are there for it alone; or those of the run, as they came.
const choice = document.getElementById("class");
if (choice) {
  const most = 12;
  const grid = document.getElementById("grid");
  const pictures = [...grid.children].map((element) => ({ element, classes: JSON.parse(element.dataset.classes) }));
  const images = JSON.parse(grid.dataset.images);
  const choose = () => {
    const name = choice.value;
    const showing = pictures.filter(({ classes }) => Object.hasOwn(classes, name));
    const shown = name
      ? showing.sort((one, other) => one.classes[name][1] - other.classes[name][1]).slice(0, most)
      : pictures.filter(({ element }) => !element.classList.contains("extra"));
    const others = pictures.filter((picture) => !shown.includes(picture));
    for (const { element } of others) element.hidden = true;
    for (const { element, classes } of shown) {
      element.hidden = false;
      const said = name ? `${name} ${classes[name][0]} %, place ${classes[name][1]} of ${images[name]}` : "";
      element.querySelector(".class-iou").textContent = said;
      element.querySelector(".reason").hidden = name !== "";
    }
    grid.append(...[...shown, ...others].map(({ element }) => element));
    document.getElementById("class-said").textContent = name
      ? `${images[name]} images show ${name}; below are ${shown.length} of them, the worst first.`
      : "";
  };
  choice.addEventListener("change", choose);
  choose(); // a reloaded page keeps what was chosen
}

// On paper everything is open.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
