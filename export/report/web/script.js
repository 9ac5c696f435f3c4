"use strict";
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
      const number = (text) => (/^[+-]?\d/.test(text) ? parseFloat(text) : NaN);
      const rows = [...body.rows].sort((one, other) => {
        const [first, second] = [value(one), value(other)];
        const [low, high] = [number(first), number(second)];
        if (Number.isNaN(low) !== Number.isNaN(high)) return Number.isNaN(low) ? 1 : -1;
        const order = Number.isNaN(low) ? first.localeCompare(second) : low - high;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}

// The images in the order of one class's IoU, those without the class hidden; or as they came.
const choice = document.getElementById("class");
if (choice) {
  const grid = document.getElementById("grid");
  const pictures = [...grid.children];
  choice.addEventListener("change", () => {
    const name = choice.value;
    const iou = (picture) => JSON.parse(picture.dataset.iou)[name];
    const shown = name ? pictures.filter((picture) => iou(picture) !== undefined) : pictures;
    for (const picture of pictures) {
      picture.hidden = !shown.includes(picture);
      picture.querySelector(".class-iou").textContent = name && !picture.hidden ? `${name} ${iou(picture).toFixed(1)} %` : "";
    }
    grid.append(...(name ? [...shown].sort((one, other) => iou(one) - iou(other)) : pictures));
    document.getElementById("class-said").textContent = name ? `${shown.length} of ${pictures.length} images show it, worst first` : "";
  });
}

// On paper everything is open, and pictures that were not in sight are there.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
