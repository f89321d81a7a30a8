// The page that compares jobs: the curves of their students, one over the other.

import { byMetric, Chart } from "./chart.js";
import { call, tell } from "./page.js";

const rows = [...document.querySelectorAll("[data-compared]")];
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
