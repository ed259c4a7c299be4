import type { Absence, Approval, Grant } from "../approval.ts";
import { currentHash } from "../approval.ts";
import type { Card, CardLine } from "../card.ts";
import { durationText } from "../card.ts";
import type { Entry } from "../people.ts";
import { type Html, html } from "./html.ts";

/** The pages, as HTML. They work without scripts; page.js adds keys and live updates. */

export type Frame = { readonly person: Entry; readonly token: string; readonly waiting: number; readonly at: string };

function layout(title: string, body: Html, frame?: Frame): Html {
  const link = (href: string, name: string) =>
    html`<a href="${href}"${frame?.at === href ? html` aria-current="page"` : false}>${name}</a>`;
  return html`<html lang="en"><head><meta charset="utf-8"><title>${title} · Interlock</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/page.css"><script src="/static/page.js" defer></script></head>
<body><a class="skip" href="#main">Skip to content</a>
<header class="top"><a class="brand" href="/"><img src="/static/icon.svg" alt="" width="24" height="24">Interlock</a>${
    frame === undefined
      ? false
      : html`<nav aria-label="Pages">${link("/", frame.waiting === 0 ? "Inbox" : `Inbox (${frame.waiting})`)}${link("/history", "History")}${link("/grants", "Grants")}${link("/away", "Away")}</nav>
<form class="who" method="post" action="/logout"><input type="hidden" name="token" value="${frame.token}"><span>${frame.person.name}</span><button class="quiet">Log out</button></form>`
  }</header><main id="main" tabindex="-1">${body}</main></body></html>`;
}

export function loginView(options: { readonly oidc: boolean; readonly to: string; readonly problem?: string }): Html {
  const { oidc, to, problem } = options;
  return layout(
    "Log in",
    html`<section class="sheet narrow"><h1>Log in</h1>${problem === undefined ? false : alert(problem)}
${oidc ? html`<p><a class="button primary" href="/login/oidc?to=${to}">Log in with your identity provider</a></p>` : false}
<p>Have a terminal with your key? It makes a link for you that works once:</p><pre>interlock approvals open</pre></section>`,
  );
}

export function confirmLoginView({ token, name }: { readonly token: string; readonly name: string }): Html {
  return layout(
    "Log in",
    html`<section class="sheet narrow"><h1>Log in as ${name}</h1><p>This link works once.</p>
<form method="post" action="/login/link"><input type="hidden" name="t" value="${token}"><button class="primary" autofocus>Log in</button></form></section>`,
  );
}

export function problemView(title: string, problem: string, frame?: Frame): Html {
  return layout(
    title,
    html`<section class="sheet narrow"><h1>${title}</h1><p>${problem}</p><p><a href="/">To the inbox</a></p></section>`,
    frame,
  );
}

export type Item = { readonly approval: Approval; readonly card: Card; readonly mine: boolean };

export function inboxView(items: readonly Item[], nowMs: number, frame: Frame): Html {
  const mine = items.filter((item) => item.mine);
  const others = items.filter((item) => !item.mine);
  const low = mine.filter((item) => item.card.risk === "low");
  const rest = mine.filter((item) => item.card.risk !== "low");
  return layout(
    "Inbox",
    html`<div id="live" data-live="inbox"><h1>${mine.length === 0 ? "Nothing waits for you" : "Waiting for you"}</h1>
${mine.length === 0 ? html`<p class="empty">When an agent wants to do something that needs a person, it shows up here by itself.</p>` : false}
${list(rest, nowMs)}
${low.length === 0 ? false : html`<h2>Low risk, together</h2>${list(low, nowMs)}`}
${others.length === 0 ? false : html`<details class="others"><summary>${others.length} more wait for other people</summary>${list(others, nowMs)}</details>`}</div>
<p class="keys" aria-hidden="true"><kbd>j</kbd> <kbd>k</kbd> move · <kbd>Enter</kbd> open</p>`,
    frame,
  );
}

function list(items: readonly Item[], nowMs: number): Html {
  if (items.length === 0) return html``;
  return html`<ul class="list">${items.map(({ approval, card }) => {
    const { principal } = approval.binding;
    const count = approval.joined.length + 1;
    return html`<li class="risk-${card.risk}"><a class="row" href="/a/${card.approvalId}"><span class="sentence">${card.sentence}</span>
<span class="meta"><span class="chip ${card.risk}">${card.risk} risk</span>${count > 1 ? html`<span class="chip">×${count}</span>` : false}${card.warnings.length > 0 ? html`<span class="chip warn">look twice</span>` : false}<span>${principal.agent}${principal.user === "" ? "" : ` for ${principal.user}`}</span><span>${card.state}</span>${timer(approval, nowMs)}</span></a></li>`;
  })}</ul>`;
}

function timer({ expiresAtMs }: Approval, nowMs: number): Html {
  const iso = new Date(expiresAtMs).toISOString();
  return html`<time class="left" datetime="${iso}" data-until="${expiresAtMs}" title="until ${iso}">${durationText(expiresAtMs - nowMs)} left</time>`;
}

export type Draft = { readonly problem?: string; readonly form?: URLSearchParams };

export function approvalView(
  { approval, card, mine }: Item,
  nowMs: number,
  frame: Frame,
  { problem, form }: Draft = {},
): Html {
  const { ending } = approval;
  return layout(
    card.sentence,
    html`<article class="sheet card risk-${card.risk}" id="live" data-live="approval" data-id="${card.approvalId}" data-version="${approval.version}">
<p class="meta"><span class="chip ${card.risk}">${card.risk} risk</span><span class="chip state-${ending?.end ?? "pending"}">${card.state}</span>${ending === undefined ? timer(approval, nowMs) : false}</p>
<h1>${card.sentence}</h1><p class="tool"><code>${card.tool}</code></p>
${problem === undefined ? false : alert(problem)}
${card.warnings.map((warning) => html`<p class="warning" role="note">${warning}</p>`)}
<section aria-labelledby="args"><h2 id="args">What it would be given <small>written by the agent</small></h2><dl class="args">${card.args.map(lineView)}</dl></section>
${ending === undefined && mine ? answerForms(approval, frame, form) : html`<p class="answered">${ending === undefined ? "This one waits for other people." : `This is over: ${card.state}.`}</p>`}
<section aria-labelledby="about"><h2 id="about">About it</h2><dl class="about">${card.lines.map(lineView)}</dl></section>
<p class="id"><code>${card.approvalId}</code></p></article>
<p class="keys" aria-hidden="true"><kbd>a</kbd> to approve · <kbd>r</kbd> to reject · <kbd>e</kbd> change · <kbd>q</kbd> ask · <kbd>u</kbd> inbox</p>`,
    frame,
  );
}

function lineView({ label, text, rest, quoted }: CardLine): Html {
  const shown = quoted ? html`<q>${text}</q>` : html`${text}`;
  const folded =
    rest === "" ? false : html`<details><summary>${rest.length} more characters</summary><div>${rest}</div></details>`;
  return html`<div><dt>${label}</dt><dd>${shown}${folded}</dd></div>`;
}

function answerForms(approval: Approval, { token }: Frame, form: URLSearchParams | undefined): Html {
  const { binding, shown, edit, joined } = approval;
  const hidden = html`<input type="hidden" name="token" value="${token}"><input type="hidden" name="hash" value="${currentHash(approval)}"><input type="hidden" name="calls" value="${joined.length + 1}">`;
  const was = (name: string): string => form?.get(name) ?? "";
  const json = JSON.stringify(JSON.parse(edit?.argumentsJson ?? shown.argumentsJson), null, 2);
  const args = JSON.parse(edit?.argumentsJson ?? shown.argumentsJson) as Record<string, unknown>;
  const numbers = Object.entries(args).filter(([, value]) => typeof value === "number");
  const action = `/a/${binding.approvalId}`;
  const seats = Math.max(1, binding.need.groups.length) * binding.need.quorum;
  return html`<section class="answer" aria-label="Your answer">
<form method="post" action="${action}" class="main">${hidden}
<label for="comment">Comment <small>on record; the agent reads why you reject</small></label><input id="comment" name="comment" maxlength="2000" value="${was("comment")}" autocomplete="off">
<div class="buttons"><button class="primary" name="do" value="approve" data-key="a">Approve${joined.length > 0 ? ` all ${joined.length + 1}` : ""}</button><button class="danger" name="do" value="reject" data-key="r">Reject</button></div></form>
<details${was("do") === "edit" ? html` open` : false}><summary data-key="e">Change it, then approve</summary><form method="post" action="${action}">${hidden}<label for="edited">Arguments <small>what is [masked] stays as it is</small></label>
<textarea id="edited" name="edited" rows="${Math.min(18, json.split("\n").length + 1)}" spellcheck="false">${was("edited") === "" ? json : was("edited")}</textarea><div class="buttons"><button name="do" value="edit">Approve as changed</button></div></form></details>
${
  seats > 1
    ? false
    : html`<details${was("do") === "grant" ? html` open` : false}><summary>Approve the next ones like it, too</summary><form method="post" action="${action}" class="grid">${hidden}
<label>How many more calls <input name="uses" type="number" min="1" max="100" value="${was("uses") || "3"}"></label><label>For how many minutes <input name="minutes" type="number" min="1" max="480" value="${was("minutes") || "15"}"></label>
${numbers.map(([name, value]) => html`<label>${name} up to <input name="max-${name}" type="number" step="any" placeholder="${String(value)}, as now"></label>`)}
<p class="hint">Of this session only, and everything else the same. You can revoke it under Grants.</p><div class="buttons"><button name="do" value="grant">Approve this one and those</button></div></form></details>`
}
<details${was("do") === "ask" ? html` open` : false}><summary data-key="q">Ask the agent something first</summary><form method="post" action="${action}">${hidden}<label for="question">Question</label><input id="question" name="question" maxlength="2000" value="${was("question")}" autocomplete="off"><div class="buttons"><button name="do" value="ask">Ask</button></div></form></details></section>`;
}

export function historyView(items: readonly Item[], nowMs: number, frame: Frame): Html {
  return layout(
    "History",
    html`<div id="live" data-live="history"><h1>History</h1>${items.length === 0 ? html`<p class="empty">Nothing has been answered yet.</p>` : false}<ul class="list">${items.map(
      ({ approval, card }) =>
        html`<li><a class="row" href="/a/${card.approvalId}"><span class="sentence">${card.sentence}</span><span class="meta"><span class="chip state-${approval.ending?.end ?? ""}">${card.state}</span><span>${approval.binding.principal.agent}</span><time datetime="${new Date(approval.ending?.timeMs ?? 0).toISOString()}">${durationText(nowMs - (approval.ending?.timeMs ?? 0))} ago</time></span></a></li>`,
    )}</ul></div>`,
    frame,
  );
}

export function grantsView(grants: readonly (Grant & { readonly live: boolean })[], nowMs: number, frame: Frame): Html {
  return layout(
    "Grants",
    html`<div id="live" data-live="grants"><h1>Grants</h1><p class="empty">Yeses given beforehand. Revoke one, and the next call asks again.</p><ul class="list">${grants.map(
      ({ grantId, by, binding, used, uses, untilMs, live, revokedBy, bounds, argumentsJson }) =>
        html`<li><div class="row"><span class="sentence"><code>${binding.tool}</code> for ${binding.principal.agent}, session ${binding.principal.session}</span><span class="meta"><span class="chip${live ? " low" : ""}">${live ? "live" : revokedBy === "" ? "over" : `revoked by ${revokedBy}`}</span><span>${used} of ${uses} used</span><span>by ${by}</span>${live ? html`<span>${durationText(untilMs - nowMs)} left</span>` : false}</span>
<details><summary>Which calls</summary><pre>${JSON.stringify(JSON.parse(argumentsJson), null, 2)}</pre>${bounds.map(({ argument, max }) => html`<p>${argument} up to ${String(max)}</p>`)}</details>${
          live
            ? html`<form method="post" action="/grants"><input type="hidden" name="token" value="${frame.token}"><input type="hidden" name="grant" value="${grantId}"><button class="danger">Revoke</button></form>`
            : false
        }</div></li>`,
    )}</ul></div>`,
    frame,
  );
}

export function awayView(absences: readonly Absence[], nowMs: number, frame: Frame, problem?: string): Html {
  const own = absences.find((one) => one.reviewer === frame.person.name);
  return layout(
    "Away",
    html`<section class="sheet narrow"><h1>Away</h1>${problem === undefined ? false : alert(problem)}${own === undefined ? html`<p>While you are away, a stand-in answers in your place, to the date you give.</p>` : html`<p>You are away for ${durationText(own.untilMs - nowMs)}${own.standIn === "" ? "" : `; ${own.standIn} stands in for you`}.</p>`}
<form method="post" action="/away"><input type="hidden" name="token" value="${frame.token}"><label for="days">For how many days</label><input id="days" name="days" type="number" min="0" max="90" step="any" value="7"><label for="standin">Who stands in <small>empty: nobody</small></label><input id="standin" name="standIn" maxlength="64" autocomplete="off"><div class="buttons"><button class="primary" name="do" value="away">I am away</button>${own === undefined ? false : html`<button name="do" value="back">I am back</button>`}</div></form>
${absences.length === 0 ? false : html`<h2>Who is away</h2><ul>${absences.map((one) => html`<li>${one.reviewer}: ${durationText(one.untilMs - nowMs)}${one.standIn === "" ? "" : `, ${one.standIn} stands in`}</li>`)}</ul>`}</section>`,
    frame,
  );
}

function alert(problem: string): Html {
  return html`<p class="problem" role="alert">${problem}</p>`;
}
