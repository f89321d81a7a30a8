// The page of a job: curves, log and state as they come, by the job's event streams; and what its owner may do.

import { byMetric, Chart } from "./chart.js";
import { call, refresh, tell } from "./page.js";

const article = document.querySelector("[data-job]");
const address = `/v1/jobs/${article.dataset.job}`;
const hasEnded = () => document.getElementById("job-state").dataset.terminal === "true";
const MAX_LOG_CHARACTERS = 200_000;

const metrics = new Map();
const charts = new Map();
const place = document.getElementById("charts");

const ROLES = ["teacher", "generation", "assistant", "student", "control"];
const rank = ({ name }) => ROLES.indexOf(name.split(/[-@]/)[0]);

function draw() {
  const grouped = byMetric([...metrics].map(([name, points]) => ({ name, points })));
  if (grouped.size && !charts.size) place.replaceChildren();
  for (const [metric, found] of grouped) {
    const series = [...found].sort((one, other) => rank(one) - rank(other)); // whichever came first
    const known = charts.get(metric);
    if (known) known.show(series);
    else charts.set(metric, new Chart(place, { title: metric.replaceAll("_", " "), x: "step", series }));
  }
}

async function readMetrics() {
  const { data } = await (await call("GET", `${address}/metrics?max_points=1000`)).json();
  for (const { name, points } of data) metrics.set(name, points);
  draw();
}

/** At most one refresh at a time and a second: events of a fast job come faster. */
let refreshing = null;
let again = false;
function refreshSoon() {
  if (refreshing) { again = true; return; }
  refreshing = refresh().catch(() => tell("The service does not answer; trying again."))
    .then(() => new Promise((resolve) => setTimeout(resolve, 1000)))
    .finally(() => { refreshing = null; if (again) { again = false; refreshSoon(); } });
}

let drawing = 0;
function add(event) {
  for (const [name, points] of Object.entries(event.data.points ?? {})) {
    const known = metrics.get(name) ?? [];
    const last = known.at(-1)?.[0] ?? -Infinity;
    // A resumed attempt begins at an earlier step: what it repeats takes the place of what was lost.
    const kept = points[0][0] <= last ? known.filter(([step]) => step < points[0][0]) : known;
    metrics.set(name, [...kept, ...points]);
  }
  drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); });
}

let streams = [];
const position = { events: article.dataset.lastSeq, log: null };

function open() {
  const events = new EventSource(`${address}/events?after=${position.events}`);
  const seen = (message) => {
    position.events = message.lastEventId;
    const event = JSON.parse(message.data);
    if (event.type === "metrics") add(event); else refreshSoon();
  };
  for (const type of article.dataset.types.split(" ")) events.addEventListener(type, seen);
  const log = new EventSource(`${address}/logs?tail=200`);
  const pre = document.getElementById("log-tail");
  if (position.log === null) pre.textContent = "";
  log.addEventListener("log", (message) => {
    if (position.log !== null && Number(message.lastEventId) <= position.log) return;
    position.log = Number(message.lastEventId);
    const isAtEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
    pre.append(`${message.data}\n`);
    if (pre.textContent.length > MAX_LOG_CHARACTERS) pre.textContent = pre.textContent.slice(-MAX_LOG_CHARACTERS / 2);
    if (isAtEnd) pre.scrollTop = pre.scrollHeight;
  });
  // The service ends a stream with its job; a browser would open it again for ever.
  for (const stream of [events, log]) stream.addEventListener("error", () => { if (hasEnded()) stream.close(); else refreshSoon(); });
  streams = [events, log];
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && streams.length === 0 && !hasEnded()) { refreshSoon(); open(); }
  else if (document.hidden) { streams.forEach((stream) => stream.close()); streams = []; }
});

article.addEventListener("click", async ({ target }) => {
  const action = target.dataset?.action;
  if (!action || (action === "cancel" && !confirm("Cancel this job? What it has learned so far is kept as a student."))) return;
  target.disabled = true;
  await call("POST", `${address}/${action}`).then(() => tell(`${action}: done, or under way`), (error) => tell(error.message));
  target.disabled = false;
  await refresh();
});
article.addEventListener("change", async ({ target }) => {
  if (!target.matches("[data-priority]")) return;
  await call("PATCH", address, { priority: target.value }).then(() => tell(`priority: ${target.value}`), (error) => tell(error.message));
  target.blur();
  await refresh();
});

readMetrics().catch((error) => tell(error.message));
open();
