// Charts by uPlot, each with the same figures as a table: a canvas says nothing to those who do not see it.

const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [4, 4], [12, 6]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = (value) => (value == null ? "" : Number(value.toPrecision(4)).toString());

/** Merges series of [x, y] into uPlot's columns: all x in order, and for each series its y or null. */
export function aligned(series) {
  const xs = [...new Set(series.flatMap((each) => each.points.map(([x]) => x)))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, index) => [x, index]));
  const columns = series.map((each) => {
    const column = new Array(xs.length).fill(null);
    for (const [x, y] of each.points) column[at.get(x)] = y;
    return column;
  });
  return [xs, ...columns];
}

/** A figure with a chart and its table. `series`: [{name, points: [[x, y], …], alone}]; `alone` draws points without a line. */
export class Chart {
  constructor(parent, { title, x, series }) {
    this.title = title; this.x = x;
    this.figure = document.createElement("figure");
    this.figure.className = "chart";
    this.figure.innerHTML = '<figcaption></figcaption><div role="img"></div><details><summary>As a table</summary><div tabindex="0" role="group"><table><thead></thead><tbody></tbody></table></div></details>';
    this.figure.querySelector("figcaption").textContent = title;
    this.figure.querySelector("[role=group]").setAttribute("aria-label", `${title}, as a table`);
    parent.append(this.figure);
    this.figure.querySelector("details").addEventListener("toggle", () => this.fillTable());
    this.show(series);
    const redraw = () => this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.figure);
  }

  size() { return { width: Math.max(200, this.figure.clientWidth - 28), height: 220 }; }

  /** Shows these series; only another set of them draws the chart anew. */
  show(series) {
    const names = (list) => list?.map((each) => each.name).join("\n");
    const isSame = names(series) === names(this.series);
    this.series = series;
    if (isSame) this.plot.setData(aligned(series)); else this.draw();
    const last = series.map((each) => `${each.name} ${number(each.points.at(-1)?.[1])}`).join(", ");
    this.figure.querySelector("[role=img]").setAttribute("aria-label", `${this.title} over ${this.x}; last: ${last}`);
    if (this.figure.querySelector("details").open) this.fillTable();
  }

  draw() {
    this.plot?.destroy();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui" };
    const lines = this.series.map((each, index) => ({
      label: each.name, stroke: colour(COLOURS[index % COLOURS.length]), width: each.alone ? 0 : 2, dash: DASHES[Math.floor(index / 2) % DASHES.length],
      spanGaps: true, ...(each.alone ? { paths: () => null } : {}), points: { show: each.alone || each.points.length < 30, size: each.alone ? 12 : 6, fill: colour(COLOURS[index % COLOURS.length]) },
      value: (_, value) => number(value) || "–",
    }));
    const options = {
      ...this.size(), scales: { x: { time: false } }, axes: [{ ...axis, label: this.x, labelSize: 20, labelFont: "12px system-ui" }, { ...axis, size: 60 }],
      series: [{ label: this.x }, ...lines], cursor: { points: { size: 8 } },
    };
    this.plot = new uPlot(options, aligned(this.series), this.figure.querySelector("[role=img]"));
  }

  fillTable() {
    const [xs, ...columns] = aligned(this.series);
    const row = (tag, cells) => {
      const made = document.createElement("tr");
      for (const text of cells) made.append(Object.assign(document.createElement(tag), { textContent: text }));
      return made;
    };
    this.figure.querySelector("details thead").replaceChildren(row("th", [this.x, ...this.series.map((each) => each.name)]));
    this.figure.querySelector("details tbody").replaceChildren(...xs.map((x, index) => row("td", [number(x), ...columns.map((column) => number(column[index]))])));
  }
}

/** Groups metrics named NETWORK/METRIC by metric; `prefix` comes before each network's name. */
export function byMetric(metrics, prefix = "") {
  const found = new Map();
  for (const { name, points } of metrics) {
    const slash = name.indexOf("/");
    const [network, metric] = slash < 0 ? ["", name] : [name.slice(0, slash), name.slice(slash + 1)];
    if (!found.has(metric)) found.set(metric, []);
    found.get(metric).push({ name: prefix + (network || metric), points });
  }
  return found;
}
