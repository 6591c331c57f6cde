'use strict';
// Keys, copying and what is new. Everything on the page works without it.
const find = (selector) => document.querySelector(selector);
const live = find('#live');

// --- keys
let here = -1;
const rows = () => [...document.querySelectorAll('a.row')];
function move(step) {
  const all = rows();
  if (!all.length) return;
  here = Math.max(0, Math.min(all.length - 1, here + step));
  all[here].focus();
  document.querySelectorAll('tr.here').forEach((row) => row.classList.remove('here'));
  all[here].closest('tr')?.classList.add('here');
}
const go = (selector) => find(selector)?.click();
const keys = {
  j: () => move(1),
  k: () => move(-1),
  n: () => go('#next'),
  p: () => (find('#previous') ? go('#previous') : history.back()),
  g: () => go('.logo'),
  '/': () => find('input[type=search]')?.focus(),
  '?': () => find('#keys').showModal(),
};
document.addEventListener('keydown', (event) => {
  const isTyping = event.target.matches('input, select, textarea');
  if (event.key === 'Escape' && isTyping) event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

// --- copying
document.addEventListener('click', async (event) => {
  const code = event.target.closest('code.copy');
  if (!code || String(getSelection())) return;
  await navigator.clipboard?.writeText(code.textContent);
  code.classList.add('done');
  setTimeout(() => code.classList.remove('done'), 1200);
});

// --- what is new
async function refresh() {
  if (document.hidden || document.activeElement?.matches('input, select')) return;
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  for (const section of page.querySelectorAll('main > section[id]')) {
    const old = document.getElementById(section.id);
    if (old && old.innerHTML !== section.innerHTML && !old.contains(document.activeElement)) old.replaceWith(section);
  }
}
let events;
let since = document.body.dataset.live;
const { collection, ident } = document.body.dataset;
if (ident) {
  const places = ['stdout', 'stderr'].map((log) => document.getElementById(log)?.dataset ?? {});
  since = places.map(({ end, mark }) => `${end ?? 0},${mark ?? 0}`).join(',');
}
function listen() {
  const params = new URLSearchParams(ident ? { since, collection, ident } : { since });
  events = new EventSource(`/events?${params}`);
  live.hidden = false;
  events.onopen = () => live.classList.add('on');
  events.onerror = () => live.classList.remove('on');
  events.addEventListener('changed', (event) => {
    since = event.lastEventId;
    refresh();
  });
  events.addEventListener('log', (event) => {
    since = event.lastEventId;
    const { log, html, is_anew } = JSON.parse(event.data);
    const pre = document.getElementById(log);
    if (!pre) return;
    const isAtEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
    if (is_anew) pre.innerHTML = html;
    else pre.insertAdjacentHTML('beforeend', html);
    if (isAtEnd) pre.scrollTop = pre.scrollHeight;
  });
  events.addEventListener('ended', () => {
    events.close();
    location.reload();
  });
}
// Browsers open six connections to a host: a page that nobody sees keeps none.
function mind() {
  events?.close();
  if (!document.hidden) listen();
}
if (since !== undefined) {
  document.addEventListener('visibilitychange', mind);
  mind();
}
for (const pre of document.querySelectorAll('.log pre')) pre.scrollTop = pre.scrollHeight;
