// Light or dark: as the system has it, until somebody says otherwise.
const KEY = 'scumble-theme';
function wear(theme) { document.body.classList.toggle('dark', theme === 'dark'); document.documentElement.style.colorScheme = theme; }
let kept = null;
try { kept = localStorage.getItem(KEY); } catch (error) { /* no storage: the choice lasts as long as the page */ }
if (kept) wear(kept);
element.querySelector('[data-do=theme]').addEventListener('click', () => {
  const next = document.body.classList.contains('dark') ? 'light' : 'dark';
  wear(next);
  try { localStorage.setItem(KEY, next); } catch (error) { /* as above */ }
});

// A button that goes away while it has the focus hands it on: else the keyboard would begin at the top of the page again.
const HEIRS = [['#sc-stop', '#sc-download', '#sc-paint'], ['#sc-film-stop', '#sc-film-download', '#sc-film-paint']];
let heirs = null;
function mark(e) { heirs = HEIRS.find((group) => e.target.closest && group.some((id) => e.target.closest(id))) || null; }
document.addEventListener('focusin', mark);
document.addEventListener('pointerdown', mark); // who clicks beside it has left it
new MutationObserver(() => {
  if (!heirs || (document.activeElement && document.activeElement !== document.body)) return;
  for (const id of heirs) {
    const heir = document.querySelector(id);
    if (heir && heir.offsetParent) { heir.focus({ preventScroll: true }); break; }
  }
}).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ['class', 'style', 'hidden'] });
