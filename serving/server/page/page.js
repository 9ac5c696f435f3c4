// One image at a time: it goes to /v1/segment, and its classes come back as a grey PNG whose values are the classes.
"use strict";

const at = (id) => document.getElementById(id);
const state = { engines: [], image: null, classes: null, name: "image", latest: 0, token: sessionStorage.getItem("token") };

const headers = () => (state.token ? { Authorization: `Bearer ${state.token}` } : {});

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", isError);
}

async function reasonOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answered ${response.status}`;
  }
}

async function loadEngines() {
  let response;
  try {
    response = await fetch("v1/engines", { headers: headers() });
  } catch {
    say("The server cannot be reached.", true);
    return;
  }
  at("token-form").hidden = response.status !== 401;
  if (!response.ok) {
    const first = response.status === 401 && !state.token;
    say(first ? "This server asks for a token." : await reasonOf(response), !first);
    if (response.status === 401) at("token").focus();
    return;
  }
  state.engines = await response.json();
  at("engine").replaceChildren(...state.engines.map((each) => new Option(each.name, each.name)));
  say("");
}

const engine = () => state.engines.find((each) => each.name === at("engine").value);

async function segment(file) {
  if (!engine()) return;
  const number = ++state.latest;
  const name = (file.name || "image").replace(/\.[^.]*$/, "");
  say("Segmenting…");
  const asked = engine();
  const start = performance.now();
  let response;
  try {
    const query = new URLSearchParams({ engine: asked.name, output: "classes" });
    response = await fetch(`v1/segment?${query}`, {
      method: "POST",
      body: file,
      headers: { "Content-Type": file.type || "application/octet-stream", ...headers() },
    });
  } catch {
    say("The server cannot be reached.", true);
    return;
  }
  if (!response.ok) {
    const reason = (await reasonOf(response)).replace(/^image: /, "");
    const still = state.classes ? `. Below is still ${state.shown}.` : "";
    if (number === state.latest) say(`${file.name || "Image"}: ${reason}${still}`, true);
    return;
  }
  const answer = await response.blob();
  const took = performance.now() - start;
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    picture = null; // a TIFF or PPM: the server reads more than browsers do
  }
  const grey = await createImageBitmap(answer, { colorSpaceConversion: "none" });
  if (number !== state.latest) return; // another image came meanwhile
  const { width, height } = grey;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(grey, 0, 0);
  const pixels = canvas.getImageData(0, 0, width, height).data;
  const classes = new Uint8Array(width * height);
  for (let index = 0; index < classes.length; index++) classes[index] = pixels[4 * index];
  Object.assign(state, { classes, width, height, picture, asked, name, source: file, shown: file.name || "the image before" });
  draw();
  list();
  at("latency").textContent = latency(response.headers.get("Server-Timing"), took);
  at("result").hidden = false;
  say(`${file.name || "Image"}: ${width} × ${height}, ${asked.name}.`);
}

function latency(timing, took) {
  const parts = Object.fromEntries((timing || "").split(", ").map((part) => part.split(";dur=")));
  const said = ["decode", "queue", "engine", "encode"].filter((part) => part in parts).map((part) => `${part} ${parts[part]}`);
  return `${took.toFixed(0)} ms in all; on the server, ms: ${said.join(", ")}.`;
}

function draw() {
  const { width, height, classes, asked, picture } = state;
  for (const id of ["image", "mask"]) Object.assign(at(id), { width, height });
  const under = at("image").getContext("2d");
  if (picture) under.drawImage(picture, 0, 0, width, height);
  const colors = new ImageData(width, height);
  classes.forEach((value, index) => {
    const [red, green, blue] = asked.palette[value] || [0, 0, 0];
    colors.data.set([red, green, blue, 255], 4 * index);
  });
  at("mask").getContext("2d").putImageData(colors, 0, 0);
  setOpacity();
}

function setOpacity() {
  const value = Number(at("opacity").value);
  at("mask").style.opacity = value / 100;
  at("opacity-value").textContent = `${value} %`;
  at("opacity").setAttribute("aria-valuetext", `${value} %`);
}

function list() {
  const { classes, asked } = state;
  const counts = new Array(asked.class_names.length).fill(0);
  for (const value of classes) counts[value] += 1;
  const order = counts.map((_, index) => index).sort((one, other) => counts[other] - counts[one] || one - other);
  at("classes").replaceChildren(...order.map((index) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = `rgb(${asked.palette[index].join(" ")})`;
    name.append(swatch, asked.class_names[index]);
    const share = document.createElement("td");
    share.className = "number";
    const percent = (100 * counts[index]) / classes.length;
    share.textContent = counts[index] && percent < 0.05 ? "< 0.1 %" : `${percent.toFixed(1)} %`; // there, however little
    row.dataset.index = index;
    row.classList.toggle("absent", counts[index] === 0);
    row.append(name, share);
    return row;
  }));
}

function hover(event) {
  const box = at("image").getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * state.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * state.height);
  if (!(x >= 0 && y >= 0 && x < state.width && y < state.height)) return leave();
  const value = state.classes[y * state.width + x];
  const under = at("under");
  under.textContent = state.asked.class_names[value] ?? "none";
  under.hidden = false;
  under.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 12, box.width - under.offsetWidth))}px`;
  under.style.top = `${Math.max(0, event.clientY - box.top - 36)}px`;
  for (const row of at("classes").rows) row.classList.toggle("here", Number(row.dataset.index) === value);
}

function leave() {
  at("under").hidden = true;
  for (const row of at("classes").rows) row.classList.remove("here");
}

async function save(event, make, ending) {
  event.preventDefault();
  const { name } = state; // of the image whose mask it is: another may have come before the answer
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await make());
  link.download = name + ending;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function fetchMask() {
  const query = new URLSearchParams({ engine: state.asked.name, output: "mask" });
  const response = await fetch(`v1/segment?${query}`, { method: "POST", body: state.source, headers: headers() });
  if (!response.ok) throw new Error(await reasonOf(response));
  return response.blob();
}

function drawOverlay() {
  const canvas = new OffscreenCanvas(state.width, state.height);
  const drawing = canvas.getContext("2d");
  drawing.drawImage(at("image"), 0, 0);
  drawing.globalAlpha = Number(at("opacity").value) / 100;
  drawing.drawImage(at("mask"), 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function take(files) {
  const file = [...files].find((each) => each.type.startsWith("image/")) || files[0];
  if (file) segment(file);
}

at("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
at("engine").addEventListener("change", () => { if (state.source) segment(state.source); });
at("opacity").addEventListener("input", setOpacity);
at("stage").addEventListener("pointermove", hover);
at("stage").addEventListener("pointerdown", hover);
at("stage").addEventListener("pointerleave", leave);
at("download-mask").href = at("download-overlay").href = "#";
at("download-mask").addEventListener("click", (event) => save(event, fetchMask, ".png").catch((error) => say(error.message, true)));
at("download-overlay").addEventListener("click", (event) => save(event, drawOverlay, ".overlay.png"));
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = at("token").value.trim();
  sessionStorage.setItem("token", state.token);
  loadEngines();
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
loadEngines();
