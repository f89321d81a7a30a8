// Of every page: times in the reader's zone, parts that renew themselves, sign-out, and calls of the API by the session.

const csrf = document.querySelector("meta[name=csrf]").content;

/** Calls the API with the session; throws an Error with what the service says. */
export async function call(method, address, body, headers = {}) {
  const options = { method, headers: { "X-CSRF-Token": csrf, ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = typeof body === "string" ? body : JSON.stringify(body);
  }
  const response = await fetch(address, options);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  throw Object.assign(new Error(problem.detail), { problem });
}

/** Says something to those who see and to those who listen. */
export function tell(text) {
  const news = document.getElementById("news");
  news.textContent = text;
  setTimeout(() => { if (news.textContent === text) news.textContent = ""; }, 8000);
}

export function localize(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const sameDay = at.toDateString() === new Date().toDateString();
    time.title = at.toLocaleString();
    time.textContent = sameDay ? at.toLocaleTimeString() : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

/** Reads this page again and renews the parts of it that are marked as live; what somebody is using stays as it is. */
export async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (response.redirected) location.reload();
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  localize(fresh);
  for (const part of document.querySelectorAll("[data-live]")) {
    const found = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    const inUse = part.contains(document.activeElement) && document.activeElement.matches("select, input, textarea");
    if (!found || inUse || found.innerHTML === part.innerHTML) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const selector = focused && (focused.dataset.action ? `[data-action="${focused.dataset.action}"]` : focused.href ? `a[href="${CSS.escape(focused.getAttribute("href"))}"]` : null);
    part.replaceChildren(...found.childNodes);
    if (selector) part.querySelector(selector)?.focus();
  }
}

localize();
for (const part of document.querySelectorAll("[data-every]")) {
  setInterval(() => { if (!document.hidden) refresh().catch(() => tell("The service does not answer; trying again.")); }, Number(part.dataset.every));
}
document.querySelector("[data-sign-out]")?.addEventListener("click", async () => {
  await call("DELETE", "/session").catch(() => {});
  location.href = "/sign-in";
});
// A link from another site comes without the strict cookie; a second step, from here, comes with it.
const signIn = document.querySelector("[data-sign-in]");
if (signIn && !signIn.querySelector(".fault")) {
  const answer = await fetch("/session", { redirect: "manual" });
  if (answer.status === 204) location.replace(signIn.dataset.next);
}
