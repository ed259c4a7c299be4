// Keys, countdowns and live updates. Everything on the page works without this file.
const live = document.querySelector("#live");

function tick() {
  for (const time of document.querySelectorAll("time[data-until]")) {
    const seconds = Math.max(0, Math.round((Number(time.dataset.until) - Date.now()) / 1000));
    const text =
      seconds < 90
        ? `${seconds} s`
        : seconds < 5400
          ? `${Math.round(seconds / 60)} min`
          : seconds < 129600
            ? `${Math.round(seconds / 3600)} h`
            : `${Math.round(seconds / 86400)} days`;
    time.textContent = seconds === 0 ? "time is over" : `${text} left`;
  }
}
setInterval(tick, 1000);

// Someone who is writing keeps what they wrote: the page says that it is old, and is not changed under their hands.
function isWriting() {
  if (document.querySelector(".answer details[open], [role=alert]") !== null) return true;
  return [...document.querySelectorAll("#live input:not([type=hidden]), #live textarea")].some(
    (field) => field.value !== field.defaultValue,
  );
}

async function refresh() {
  if (live === null || isWriting()) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok || answer.redirected) return location.reload();
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [fresh, nav] = [next.querySelector("#live"), next.querySelector(".top nav")];
  const here = document.querySelector("#live");
  if (fresh === null || here === null) return;
  if (fresh.dataset.version !== undefined && fresh.dataset.version === here.dataset.version) return;
  const focused = document.activeElement?.closest("a.row")?.getAttribute("href");
  here.replaceWith(fresh);
  if (nav !== null) document.querySelector(".top nav")?.replaceWith(nav);
  if (focused !== undefined) document.querySelector(`a.row[href="${CSS.escape(focused)}"]`)?.focus();
}

if (live !== null) {
  const events = new EventSource("/events");
  let waiting;
  // What happened between the page and this, or while the line was down, was not heard.
  events.addEventListener("open", refresh);
  events.addEventListener("changed", (event) => {
    if (live.dataset.live === "approval" && event.data !== live.dataset.id) return;
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 150);
  });
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  u: () => location.assign("/"),
  a: () => press("a"),
  r: () => press("r"),
  e: () => open("e"),
  q: () => open("q"),
};

function step(by) {
  const rows = [...document.querySelectorAll("a.row")];
  const at = rows.indexOf(document.activeElement);
  rows[Math.min(rows.length - 1, Math.max(0, at === -1 ? 0 : at + by))]?.focus();
}

// A key only brings the button under the finger: it takes Enter to press it, so that no slip of a key decides.
function press(key) {
  document.querySelector(`button[data-key="${key}"]`)?.focus();
}

function open(key) {
  const details = document.querySelector(`summary[data-key="${key}"]`)?.parentElement;
  if (!details) return;
  details.open = true;
  details.querySelector("textarea, input:not([type=hidden])")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = KEYS[event.key];
  if (act === undefined) return;
  event.preventDefault();
  act();
});
