"use strict";
// The table of scans is sorted by the buttons that its headings become.
const table = document.getElementById("cases");
const body = table.tBodies[0];
const worstFirst = [...body.rows];

function sortBy(heading, order) {
  const column = heading.cellIndex;
  const numeric = heading.classList.contains("right");
  const value = (row) => {
    const text = row.cells[column].textContent.trim();
    return numeric ? parseFloat(text) : text;
  };
  const isEmpty = (of) => of === "" || Number.isNaN(of);
  const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const sorted = order === "none" ? worstFirst : [...worstFirst].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    // what has no value stays below, whatever the direction
    if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
    return order === "ascending" ? compare(a, b) : compare(b, a);
  });
  body.append(...sorted);
}

for (const heading of table.tHead.rows[0].cells) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => {
    const next = { ascending: "descending", descending: "none" };
    const order = next[heading.getAttribute("aria-sort")] ?? "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    if (order !== "none") heading.setAttribute("aria-sort", order);
    sortBy(heading, order);
    const name = button.textContent.trim();
    document.getElementById("sorted").textContent =
      order === "none" ? "Sorted worst first" : `Sorted by ${name}, ${order}`;
  });
}

// The viewer shows one slice of a sheet of all slices. A scan's sheets are loaded when it is opened.
const viewer = document.getElementById("viewer");
const part = (selector) => viewer.querySelector(selector);
const frame = part(".frame");
const [scanSheet, maskSheet] = frame.querySelectorAll("img");
const slider = part("input[type=range]");
const shown = part("input[type=checkbox]");
const failure = part("[role=alert]");
let opened = null; // the section of the scan that is shown

const sectionOf = (row) => document.getElementById("scan-" + row.id.slice("row-".length));
const nameOf = (section) => section.querySelector("h3").textContent;
// in the order in which the table stands
const scans = () => [...body.rows].map(sectionOf).filter((section) => section?.dataset.slices);

function showSlice() {
  const depth = Number(opened.dataset.slices);
  const count = Number(slider.max);
  const columns = Math.min(Number(viewer.dataset.columns), count);
  const index = slider.value - 1;
  for (const sheet of [scanSheet, maskSheet]) {
    sheet.style.width = `${100 * columns}%`;
    sheet.style.left = `${-100 * (index % columns)}%`;
    sheet.style.top = `${-100 * Math.floor(index / columns)}%`;
  }
  maskSheet.style.visibility = shown.checked ? "" : "hidden";
  const number = 1 + Math.floor((index * (depth - 1)) / Math.max(count - 1, 1));
  const text = `slice ${number} of ${depth}`;
  slider.setAttribute("aria-valuetext", text);
  part("output").textContent = text;
  const masks = shown.checked ? "with masks" : "without masks";
  frame.setAttribute("aria-label", `${nameOf(opened)}, ${text}, ${masks}`);
}

async function show(section) {
  opened = section;
  const depth = Number(section.dataset.slices);
  const count = Math.min(depth, Number(viewer.dataset.most));
  part("h2").textContent = nameOf(section);
  part(".hint").textContent = section.querySelector(".hint")?.textContent ?? "";
  part("a").href = "#" + section.id;
  slider.max = count;
  slider.value = Math.ceil(count / 2);
  const order = scans();
  const place = order.indexOf(section);
  part("[name=previous]").disabled = place === 0;
  part("[name=next]").disabled = place === order.length - 1;
  failure.hidden = true;
  showSlice();
  if (!viewer.open) viewer.showModal();
  // "Next" is no place to stay once it can no longer be pressed
  if (!viewer.contains(document.activeElement)) slider.focus();
  frame.style.visibility = "hidden"; // the sheets of another scan would be cut at wrong places
  scanSheet.src = section.dataset.scan;
  maskSheet.src = section.dataset.masks;
  try {
    await Promise.all([scanSheet.decode(), maskSheet.decode()]);
  } catch {
    if (opened !== section) return; // another scan was opened meanwhile
    failure.textContent =
      `${section.dataset.scan} or ${section.dataset.masks} cannot be shown; ` +
      "keep the folder overlays beside this page.";
    failure.hidden = false;
    return;
  }
  if (opened !== section) return;
  const columns = Math.min(Number(viewer.dataset.columns), count);
  const width = scanSheet.naturalWidth / columns;
  const height = scanSheet.naturalHeight / Math.ceil(count / columns);
  viewer.style.setProperty("--aspect", width / height);
  frame.style.visibility = "";
}

function step(by) {
  const order = scans();
  const next = order[order.indexOf(opened) + by];
  if (next) show(next);
}

for (const section of scans()) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `Scroll through ${section.dataset.slices} slices`;
  button.setAttribute("aria-label", `${button.textContent} of ${nameOf(section)}`);
  button.setAttribute("aria-haspopup", "dialog");
  button.addEventListener("click", () => show(section));
  section.querySelector("h3").after(button);
}
for (const link of body.querySelectorAll("a")) {
  const section = document.getElementById(link.hash.slice(1));
  if (!section.dataset.slices) continue;
  link.setAttribute("aria-haspopup", "dialog");
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(section);
  });
}
slider.addEventListener("input", showSlice);
shown.addEventListener("change", showSlice);
part("[name=close]").addEventListener("click", () => viewer.close());
part("[name=previous]").addEventListener("click", () => step(-1));
part("[name=next]").addEventListener("click", () => step(1));
part("a").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "m") shown.click();
  if (key === "n") step(1);
  if (key === "p") step(-1);
});
frame.addEventListener("wheel", (event) => {
  event.preventDefault();
  slider.value = Number(slider.value) + Math.sign(event.deltaY);
  showSlice();
});
