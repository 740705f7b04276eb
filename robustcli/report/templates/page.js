"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const figures = JSON.parse(document.getElementById("figures").textContent);
const choiceOf = (figure) => figures[figure.dataset.kind].choices[figure.querySelector("select")?.value ?? 0];

const pointsOf = ({ keys, rows }) => rows.map((row) => Object.fromEntries(keys.map((key, i) => [key, row[i]])));

// As wide as there is room: on a phone a panel stands under the other.
function fitted(spec, points, room) {
  const { margin, panel } = spec.usermeta;
  if (spec.facet) {
    const panels = new Set(points.map((point) => point[spec.facet.field])).size;
    spec.columns = Math.max(1, Math.min(spec.columns, panels, Math.floor(room / (panel + margin))));
    const width = Math.min(Math.floor(room / spec.columns) - margin, 2 * spec.spec.width);
    if (spec.spec.width === spec.spec.height) spec.spec.height = Math.min(width, 340);
    spec.spec.width = spec.spec.height === 340 ? 340 : width;
  } else {
    spec.width = Math.min(room - margin, 2 * spec.width);
  }
  spec.config.legend.labelLimit = room - 60;
  return { ...spec, datasets: { points } };
}

async function draw(figure) {
  const box = figure.querySelector(".chart");
  const points = pointsOf(choiceOf(figure));
  const spec = fitted(structuredClone(figures[figure.dataset.kind].spec), points, box.clientWidth);
  figure.dataset.room = box.clientWidth;
  figure.querySelector(".again code").textContent = choiceOf(figure).command;
  await vegaEmbed(box, spec, { actions: false, renderer: "svg", ast: true });
  box.querySelector("svg").setAttribute("aria-hidden", "true"); // the box has the text
}

function tabulate(figure) {
  const { keys, rows } = choiceOf(figure);
  const table = document.createElement("table");
  const [head, body] = [table.createTHead(), table.createTBody()];
  for (const values of [keys, ...rows]) {
    const row = (values === keys ? head : body).insertRow();
    for (const value of values) {
      const cell = row.appendChild(document.createElement(values === keys ? "th" : "td"));
      cell.textContent = value ?? "";
      cell.className = typeof (values === keys ? rows[0][keys.indexOf(value)] : value) === "number" ? "number" : "";
    }
  }
  figure.querySelector(".numbers .scroll").replaceChildren(table);
}

for (const figure of all("figure[data-kind]")) {
  const numbers = figure.querySelector(".numbers");
  numbers.addEventListener("toggle", () => numbers.open && tabulate(figure));
  figure.querySelector("select")?.addEventListener("change", () => {
    draw(figure);
    if (numbers.open) tabulate(figure);
  });
}

const table = document.getElementById("rows");
const form = document.querySelector(".filters");

function show() {
  const wanted = all("select", form).filter((select) => select.value);
  const members = form.elements.members?.checked;
  for (const row of table.tBodies[0].rows) {
    const fits = wanted.every((select) => row.dataset[select.name] === select.value);
    row.hidden = !fits || ("member" in row.dataset && !members);
  }
  const shown = all("tbody tr:not([hidden])", table).length;
  form.querySelector("[role=status]").textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
}

function sortBy(heading) {
  const up = heading.getAttribute("aria-sort") !== "ascending";
  all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[heading.cellIndex].dataset.v ?? row.cells[heading.cellIndex].textContent;
  const order = new Intl.Collator("en", { numeric: true }).compare;
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? order(a, b) : a - b);
  const keyed = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  keyed.sort(([a], [b]) => (up ? compare(a, b) : compare(b, a)));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

if (table) {
  all("th button", table).forEach((button) => button.addEventListener("click", () => sortBy(button.parentElement)));
  form.addEventListener("change", show);
  show();
}

for (const button of all(".copy")) {
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code); // so that it can be copied by hand, too
    const copied = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
    button.textContent = copied ? "Copied" : "Selected";
  });
}

const drawAll = (which) => Promise.all(all("figure[data-kind]").filter(which).map(draw));
const changed = (figure) => +figure.dataset.room !== figure.querySelector(".chart").clientWidth;
addEventListener("resize", () => setTimeout(() => drawAll(changed), 200));
addEventListener("beforeprint", () => all("details").forEach((one) => (one.open = true)));
drawAll(() => true).then(() => (document.documentElement.dataset.drawn = "yes"));
