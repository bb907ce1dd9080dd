// The stage: one picture comes in, and is looked at before and after; a mask is brushed onto it.
// Up: props.value = {path, name} with 'picture'; {mask, feather, invert} with 'mask'; nothing with 'example'.
// Down: seated (the session; events before it wait), before, after (addresses of pictures), note, error, restored (a mask from the history), limit (bytes), beat (a number for each answer).
const $ = (selector) => element.querySelector(selector);
const root = $('.sc-stage'), frame = $('.sc-frame'), canvas = $('.sc-canvas'), split = $('.sc-split'), ring = $('.sc-ring');
const before = $('.sc-before'), after = $('.sc-after'), dialog = $('dialog'), video = $('video');
const pen = canvas.getContext('2d', { willReadFrequently: true });
const MOST = 1024, STEPS_BACK = 12;

let held = '';
function send(event) { if (props.seated) trigger(event, {}); else held = event; }
watch('seated', () => {
  if (props.seated && held) trigger(held, {});
  held = '';
  if (props.seated) setInterval(() => fetch(location.pathname.replace(/\/?$/, '/gradio_api/heartbeat/') + props.seated).catch(() => {}), 60000);
});

function fail(sentence) {
  $('.sc-error').textContent = sentence || '';
  $('.sc-error').hidden = !sentence;
}
function working(on) { $('.sc-working').hidden = !on; root.toggleAttribute('data-busy', on); root.setAttribute('aria-busy', on); }

// ---- a picture comes in
async function take(file) {
  if (!file) return;
  fail('');
  if (file.size > props.limit) {
    fail(file.name + ' has ' + Math.ceil(file.size / 1e6) + ' MB; at most ' + Math.floor(props.limit / 1e6) + ' MB can be sent, so give a smaller file');
    return;
  }
  working(true);
  try {
    const sent = await upload(file);
    props.value = { path: sent.path, name: file.name || 'picture.png' };
    send('picture');
  } catch (error) {
    working(false);
    fail('The picture could not be sent (' + error.message + '); try once more');
  }
}
function pictureIn(list) { return Array.from(list || []).find((f) => f.type.startsWith('image/') || /\.(heic|heif|avif|tiff?)$/i.test(f.name)); }

for (const input of element.querySelectorAll('input[type=file]')) {
  input.addEventListener('change', () => { take(input.files[0]); input.value = ''; });
}
let depth = 0; // dragenter and dragleave come for every child that is crossed
root.addEventListener('dragenter', (e) => { e.preventDefault(); depth++; root.classList.add('sc-over'); $('.sc-hint').hidden = false; });
root.addEventListener('dragover', (e) => e.preventDefault());
root.addEventListener('dragleave', () => { if (--depth <= 0) over(); });
root.addEventListener('drop', (e) => {
  e.preventDefault();
  over();
  const file = pictureIn(e.dataTransfer.files);
  if (file) take(file); else fail('What was dropped is not a picture file; drop a JPEG, PNG, WebP, TIFF, AVIF or HEIC file');
});
function over() { depth = 0; root.classList.remove('sc-over'); $('.sc-hint').hidden = true; }
document.addEventListener('paste', (e) => {
  if (!root.isConnected || !root.offsetParent) return;
  const file = pictureIn(e.clipboardData && e.clipboardData.files);
  if (file) { e.preventDefault(); take(file); }
});

// ---- the camera: the browser's own on telephones, a window here where the page may see one
async function camera() {
  if (matchMedia('(pointer: coarse)').matches || !navigator.mediaDevices) { $('[data-file=camera]').click(); return; }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 4096 } } });
  } catch (error) {
    fail('There is no camera, or it may not be used; allow it in the browser, or choose a picture');
    return;
  }
  dialog.showModal();
  video.play();
}
function leave() { (video.srcObject ? video.srcObject.getTracks() : []).forEach((t) => t.stop()); video.srcObject = null; if (dialog.open) dialog.close(); }
dialog.addEventListener('close', leave);
function shoot() {
  if (!video.videoWidth) return;  // the camera has not sent anything yet
  const shot = document.createElement('canvas');
  shot.width = video.videoWidth; shot.height = video.videoHeight;
  shot.getContext('2d').drawImage(video, 0, 0);
  leave();
  shot.toBlob((blob) => take(new File([blob], 'photo.jpg', { type: 'image/jpeg' })), 'image/jpeg', 0.95);
}

// ---- before and after
function show(percent) {
  split.value = percent;
  frame.style.setProperty('--split', percent + '%');
  split.setAttribute('aria-valuetext', percent + ' % original, ' + (100 - percent) + ' % painted');
  for (const b of element.querySelectorAll('[data-show]')) b.setAttribute('aria-pressed', b.dataset.show === String(percent));
}
split.addEventListener('input', () => show(Number(split.value)));
for (const b of element.querySelectorAll('[data-show]')) b.addEventListener('click', () => show(Number(b.dataset.show)));
function arrived() {
  const here = Boolean(props.before);
  root.dataset.state = here ? 'open' : 'empty';
  $('.sc-drop').hidden = here; $('.sc-view').hidden = !here;
  if (here) before.src = props.before;
  after.src = props.after || props.before || '';
  working(false);
}
before.addEventListener('load', () => {
  frame.style.setProperty('--aspect', before.naturalWidth + ' / ' + before.naturalHeight);
  frame.style.setProperty('--ratio', before.naturalWidth / before.naturalHeight);
  const factor = Math.min(1, MOST / Math.max(before.naturalWidth, before.naturalHeight));
  const width = Math.max(1, Math.round(before.naturalWidth * factor)), height = Math.max(1, Math.round(before.naturalHeight * factor));
  if (canvas.width !== width || canvas.height !== height || fresh) { canvas.width = width; canvas.height = height; past = []; fresh = false; masking(false); restore(); }
});
let fresh = true;
watch('before', () => { fresh = true; arrived(); });
watch('beat', () => { // every answer has another beat, also one that says the same as the last
  after.src = props.after || props.before || '';
  $('.sc-note').textContent = props.note || '';
  canvas.classList.remove('sc-inked');
  working(false);
  fail(props.error);
});

// ---- the mask
let tool = 'brush', past = [], last = null, spot = null;
const setting = (name) => $('[data-mask=' + name + ']');
function empty() { const { data } = pen.getImageData(0, 0, canvas.width, canvas.height); for (let i = 3; i < data.length; i += 4) if (data[i]) return false; return true; }
function picture() { // white on black, whatever the colour that is shown
  const out = document.createElement('canvas');
  out.width = canvas.width; out.height = canvas.height;
  const ink = out.getContext('2d');
  ink.drawImage(canvas, 0, 0);
  ink.globalCompositeOperation = 'source-in'; ink.fillStyle = '#fff'; ink.fillRect(0, 0, out.width, out.height);
  ink.globalCompositeOperation = 'destination-over'; ink.fillStyle = '#000'; ink.fillRect(0, 0, out.width, out.height);
  return out;
}
function tell() {
  props.value = { mask: empty() ? '' : picture().toDataURL('image/png'), feather: Number(setting('feather').value) / 1000, invert: setting('invert').checked };
  working(true);
  send('mask');
}
function restore() {
  const kept = props.restored;
  if (!kept || !kept.mask) return;
  const image = new Image();
  image.onload = () => {
    const scratch = document.createElement('canvas');
    scratch.width = canvas.width; scratch.height = canvas.height;
    const ink = scratch.getContext('2d');
    ink.drawImage(image, 0, 0, canvas.width, canvas.height);
    const pixels = ink.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
    ink.putImageData(pixels, 0, 0);
    ink.globalCompositeOperation = 'source-in'; ink.fillStyle = colour(); ink.fillRect(0, 0, canvas.width, canvas.height);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(scratch, 0, 0);
  };
  image.src = kept.mask;
  setting('feather').value = Math.round(kept.feather * 1000);
  setting('invert').checked = kept.invert;
}
watch('restored', () => { pen.clearRect(0, 0, canvas.width, canvas.height); past = []; restore(); });
function colour() { return getComputedStyle(root).getPropertyValue('--sc-accent').trim() || '#c2410c'; }
function masking(on) {
  root.classList.toggle('sc-masks', on);
  $('.sc-masking').hidden = !on; canvas.hidden = !on; split.hidden = on;
  $('[data-do=mask]').setAttribute('aria-pressed', on);
  ring.hidden = true;
  if (on) { show(0); canvas.focus({ preventScroll: true }); }
}
function width() { return Number(setting('width').value) * Math.max(canvas.width, canvas.height) / 1024; }
function at(e) { const box = canvas.getBoundingClientRect(); return { x: (e.clientX - box.left) / box.width * canvas.width, y: (e.clientY - box.top) / box.height * canvas.height }; }
function remember() { past.push(pen.getImageData(0, 0, canvas.width, canvas.height)); if (past.length > STEPS_BACK) past.shift(); }
function dab(from, to) {
  pen.globalCompositeOperation = tool === 'eraser' ? 'destination-out' : 'source-over';
  pen.strokeStyle = colour(); pen.lineWidth = width(); pen.lineCap = pen.lineJoin = 'round';
  pen.beginPath(); pen.moveTo(from.x, from.y); pen.lineTo(to.x + 0.01, to.y); pen.stroke();
  canvas.classList.add('sc-inked');
}
function halo(point) {
  const box = canvas.getBoundingClientRect(), scale = box.width / canvas.width, size = width() * scale;
  ring.hidden = false;
  ring.style.cssText = 'width:' + size + 'px;height:' + size + 'px;left:' + (point.x * scale - size / 2) + 'px;top:' + (point.y * scale - size / 2) + 'px';
}
canvas.addEventListener('pointerdown', (e) => {
  if (e.button) return;
  e.preventDefault(); canvas.focus({ preventScroll: true }); canvas.setPointerCapture(e.pointerId);
  remember(); last = at(e); dab(last, last);
});
canvas.addEventListener('pointermove', (e) => { const point = at(e); halo(point); if (last) { dab(last, point); last = point; } });
for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, () => { if (last) { last = null; tell(); } });
canvas.addEventListener('pointerleave', () => { if (!spot) ring.hidden = true; });
canvas.addEventListener('blur', () => { spot = null; ring.hidden = true; });
canvas.addEventListener('keydown', (e) => {
  const step = (e.shiftKey ? 0.1 : 0.02) * Math.max(canvas.width, canvas.height);
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if ((e.ctrlKey || e.metaKey) && e.key === 'z') { undo(); e.preventDefault(); return; }
  if (e.key === 'Escape') { masking(false); $('[data-do=mask]').focus(); return; }
  if (e.key === 'e' || e.key === 'E') { choose(tool === 'brush' ? 'eraser' : 'brush'); return; }
  spot = spot || { x: canvas.width / 2, y: canvas.height / 2 };
  if (moves[e.key]) {
    spot = { x: Math.min(canvas.width, Math.max(0, spot.x + moves[e.key][0] * step)), y: Math.min(canvas.height, Math.max(0, spot.y + moves[e.key][1] * step)) };
  } else if (e.key === ' ' || e.key === 'Enter') {
    remember(); dab(spot, spot); tell();
  } else return;
  e.preventDefault(); halo(spot);
});
function choose(name) { tool = name; for (const b of element.querySelectorAll('[data-tool]')) b.setAttribute('aria-pressed', b.dataset.tool === name); }
for (const b of element.querySelectorAll('[data-tool]')) b.addEventListener('click', () => choose(b.dataset.tool));
for (const name of ['feather', 'invert']) setting(name).addEventListener('change', tell);
function undo() { const then = past.pop(); if (then) { pen.putImageData(then, 0, 0); tell(); } }
function clear() { remember(); pen.clearRect(0, 0, canvas.width, canvas.height); tell(); }
function saveMask() {
  const link = document.createElement('a');
  link.href = picture().toDataURL('image/png'); link.download = 'mask.png'; link.click();
}

const actions = {
  choose: () => $('[data-file=any]').click(), camera, shoot, leave, undo, clear, 'save-mask': saveMask,
  mask: () => masking(canvas.hidden), example: () => { fail(''); working(true); send('example'); },
};
for (const b of element.querySelectorAll('[data-do]')) b.addEventListener('click', () => actions[b.dataset.do]());
arrived();
show(50);
