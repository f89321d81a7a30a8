// The page that compares jobs: their students' quality against their size, and their curves, one over the other.

import { byMetric, Chart } from "./chart.js";
import { call, tell } from "./page.js";

const rows = [...document.querySelectorAll("[data-compared]")];

/** Those of the points [cost, score] that no other beats in both, from the cheapest on. */
function paretoFront(points) {
  let best = -Infinity;
  return [...points].sort((a, b) => a[0] - b[0] || b[1] - a[1]).filter(([, score]) => score > best && ((best = score), true));
}

for (const cost of ["parameters", "bytes"]) {
  const measured = rows.map((row, index) => ({ name: `${index + 1} ${row.dataset.name}`, points: [[Number(row.dataset[cost]), Number(row.dataset.testScore)]], alone: true }))
    .filter(({ points: [[x, y]] }) => Number.isFinite(x) && Number.isFinite(y));
  if (measured.length === 0) continue;
  const front = { name: "Pareto front", points: paretoFront(measured.map(({ points: [point] }) => point)) };
  new Chart(document.getElementById("scatters"), { title: `test score by ${cost}`, x: cost, series: [...measured, front] });
}

const grouped = new Map();
try {
  const answers = await Promise.all(rows.map((row) => call("GET", `/v1/jobs/${row.dataset.compared}/metrics?max_points=500`).then((answer) => answer.json())));
  answers.forEach(({ data }, index) => {
    const ofStudent = data.filter(({ name }) => name.startsWith("student/"));
    for (const [metric, [series]] of byMetric(ofStudent)) {
      if (!grouped.has(metric)) grouped.set(metric, []);
      grouped.get(metric).push({ name: `${index + 1} ${rows[index].dataset.name}`, points: series.points });
    }
  });
  for (const [metric, series] of grouped) new Chart(document.getElementById("charts"), { title: metric.replaceAll("_", " "), x: "step", series });
} catch (error) {
  tell(error.message);
}
