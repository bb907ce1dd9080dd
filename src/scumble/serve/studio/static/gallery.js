// The styles, painted on the picture at hand; one is picked, or several blended.
// Up: props.value = {terms: [[weight, source], …]} with 'pick'; {files: [{path, name}, …]} with 'own'.
// Down: seated (the session; events before it wait), content (the key of the picture to paint small), own (the user's styles), chosen (one of them, just brought), restored (terms from
// the history), error, limit (bytes), beat (a number for each answer).
const $ = (selector) => element.querySelector(selector);
const root = $('.sc-gallery'), grid = $('.sc-grid'), search = $('input[type=search]'), files = $('input[type=file]'), blend = $('.sc-blend');
const BATCH = 12, MOST = 4;
let terms = [], period = '', round = 0;

const cards = () => Array.from(grid.querySelectorAll('.sc-card'));
const cardOf = (source) => cards().find((c) => c.dataset.source === source);
const shown = () => cards().filter((c) => !c.hidden);
function fail(sentence) { $('.sc-error').textContent = sentence || ''; $('.sc-error').hidden = !sentence; }

// ---- picking
let held = '';
function send(event) { if (props.seated) trigger(event, {}); else held = event; }
watch('seated', () => { if (props.seated && held) trigger(held, {}); held = ''; });
function tell() { props.value = { terms }; send('pick'); }
function pick(source) { terms = [[1, source]]; mark(); tell(); }
function add(source) {
  if (terms.some((t) => t[1] === source)) { if (terms.length > 1) { terms = terms.filter((t) => t[1] !== source); mark(); tell(); } return; }
  if (terms.length === MOST) { fail('At most ' + MOST + ' styles can be blended; take one out first'); return; }
  terms = terms.concat([[1, source]]);
  mark(); tell();
}
function mark() {
  fail('');
  for (const card of cards()) {
    const chosen = terms.some((t) => t[1] === card.dataset.source);
    card.classList.toggle('sc-chosen', chosen);
    card.querySelector('.sc-pick').setAttribute('aria-pressed', chosen);
    card.querySelector('.sc-plus').setAttribute('aria-label', (chosen ? 'Take out of the blend: ' : 'Add to the blend: ') + card.dataset.title);
  }
  rows();
}
function shares() { const sum = terms.reduce((s, t) => s + t[0], 0) || 1; return terms.map((t) => Math.round(100 * t[0] / sum)); }
function rows() {
  blend.replaceChildren();
  if (terms.length < 2) return;
  terms.forEach((term, i) => {
    const title = (cardOf(term[1]) || { dataset: { title: term[1] } }).dataset.title;
    const row = document.createElement('div');
    row.className = 'sc-term';
    row.innerHTML = '<span class="sc-title"></span><input type="range" min="0" max="100"><output></output><button type="button">×</button>';
    const [name, range, share, out] = row.children;
    name.textContent = title;
    range.value = Math.round(100 * term[0]);
    range.setAttribute('aria-label', 'Weight of ' + title);
    share.textContent = shares()[i] + ' %';
    out.setAttribute('aria-label', 'Take out of the blend: ' + title);
    range.addEventListener('input', () => {
      terms[i] = [Number(range.value) / 100, term[1]];
      if (!terms.some((t) => t[0] > 0)) { terms[i] = [0.01, term[1]]; } // weights that are all 0 mean nothing
      shares().forEach((s, k) => { blend.children[k].querySelector('output').textContent = s + ' %'; });
      tell();
    });
    out.addEventListener('click', () => { add(term[1]); const next = blend.querySelector('button') || grid.querySelector('.sc-chosen .sc-pick'); if (next) next.focus(); });
    blend.append(row);
  });
}

grid.addEventListener('click', (e) => {
  const card = e.target.closest('.sc-card');
  if (!card) return;
  rove(card);
  if (e.target.closest('.sc-plus') || e.shiftKey || e.ctrlKey || e.metaKey) add(card.dataset.source); else pick(card.dataset.source);
});

// ---- the keyboard: one stop for Tab, arrows within
function rove(card) { for (const c of cards()) c.querySelector('.sc-pick').tabIndex = c === card ? 0 : -1; }
grid.addEventListener('keydown', (e) => {
  const card = e.target.closest('.sc-card'), all = shown(), i = all.indexOf(card);
  if (i < 0) return;
  if (e.key === '+') { add(card.dataset.source); e.preventDefault(); return; }
  const columns = Math.max(1, getComputedStyle(grid).gridTemplateColumns.split(' ').length);
  const to = { ArrowLeft: i - 1, ArrowRight: i + 1, ArrowUp: i - columns, ArrowDown: i + columns, Home: 0, End: all.length - 1 }[e.key];
  if (to === undefined) return;
  e.preventDefault();
  const next = all[Math.min(all.length - 1, Math.max(0, to))];
  rove(next);
  next.querySelector('.sc-pick').focus();
});

// ---- finding
function plain(text) { return text.toLowerCase().normalize('NFD').replace(/\p{M}/gu, ''); } // who types Dürer may have no ü
function filter() {
  const words = plain(search.value).split(/\s+/).filter(Boolean);
  for (const card of cards()) {
    const text = card.dataset.words;
    card.hidden = (period && card.dataset.period !== period) || !words.every((w) => text.includes(w));
  }
  const all = shown();
  $('.sc-none').hidden = all.length > 0;
  if (all.length && !all.some((c) => c.querySelector('.sc-pick').tabIndex === 0)) rove(all[0]);
}
search.addEventListener('input', filter);
$('.sc-chips').addEventListener('click', (e) => {
  const chip = e.target.closest('button');
  if (!chip) return;
  period = chip.dataset.period;
  for (const c of chip.parentElement.children) c.setAttribute('aria-pressed', c === chip);
  filter();
  $('.sc-scroll').scrollTop = 0;
});

// ---- thumbnails: what is in view comes first, a few at a time, so that the sliders don't have to wait for all of them
function worth(card) { const box = $('.sc-scroll').getBoundingClientRect(), at = card.getBoundingClientRect(); return card.hidden ? 1e6 : Math.abs(at.top - box.top); }
function put(source, address) { const card = cardOf(source); if (card) { const image = card.querySelector('img'); image.src = address; card.classList.add('sc-painted'); } }
async function paint() {
  const mine = ++round, key = props.content || '';
  let left = cards().filter((c) => !c.dataset.source.startsWith('own:')); // the user's own show themselves: the library doesn't know them
  for (const card of left) card.classList.remove('sc-painted');
  root.setAttribute('aria-busy', 'true');
  while (left.length && mine === round && root.isConnected) {
    left.sort((a, b) => worth(a) - worth(b));
    const batch = left.slice(0, BATCH);
    let answer;
    try { answer = await server.answer([key, batch.map((c) => c.dataset.source)]); } catch (error) { break; }
    if (mine !== round) return;
    if (answer.wait) { await new Promise((go) => setTimeout(go, answer.wait * 1000)); continue; }
    if (!answer.painted) break;
    for (const [source, address] of Object.entries(answer.painted)) put(source, address);
    left = left.slice(BATCH);
  }
  if (mine === round) root.removeAttribute('aria-busy');
}
watch('content', paint);

// ---- the user's own
$('[data-do=own]').addEventListener('click', () => files.click());
files.addEventListener('change', () => { give(files.files); files.value = ''; });
async function give(list) {
  fail('');
  const sent = [];
  root.setAttribute('aria-busy', 'true');
  for (const file of Array.from(list)) {
    if (file.size > props.limit) { fail(file.name + ' is larger than ' + Math.floor(props.limit / 1e6) + ' MB; give a smaller file'); continue; }
    try { sent.push({ path: (await upload(file)).path, name: file.name }); } catch (error) { fail(file.name + ' could not be sent (' + error.message + '); try once more'); }
  }
  root.removeAttribute('aria-busy');
  if (sent.length) { props.value = { files: sent }; send('own'); }
}
root.addEventListener('dragover', (e) => { e.preventDefault(); root.classList.add('sc-over'); });
root.addEventListener('dragleave', (e) => { if (!root.contains(e.relatedTarget)) root.classList.remove('sc-over'); });
root.addEventListener('drop', (e) => { e.preventDefault(); root.classList.remove('sc-over'); if (e.dataTransfer.files.length) give(e.dataTransfer.files); });
watch('beat', () => {
  fail(props.error);
  const fresh = (props.own || []).filter((style) => !cardOf(style.source));
  for (const style of fresh) {
    const card = cards()[0].cloneNode(true);
    Object.assign(card.dataset, { source: style.source, title: style.title, period: 'yours', words: plain(style.title) + ' yours own' });
    card.querySelector('.sc-title').textContent = style.title;
    card.querySelector('.sc-artist').textContent = 'Yours';
    card.querySelector('.sc-pick').setAttribute('aria-label', style.title + ', yours');
    card.classList.remove('sc-painted');
    card.querySelector('img').src = style.thumbnail;
    card.classList.add('sc-painted');
    grid.prepend(card);
  }
  if (!props.chosen) return;
  search.value = ''; period = '';
  for (const chip of $('.sc-chips').children) chip.setAttribute('aria-pressed', chip.dataset.period === '');
  filter();
  pick(props.chosen); rove(cardOf(props.chosen));
  $('.sc-scroll').scrollTop = 0;
});
watch('restored', () => { if (props.restored) { terms = props.restored.terms; mark(); } });

terms = [[1, cards()[0].dataset.source]];
rove(cards()[0]);
mark();
paint();
