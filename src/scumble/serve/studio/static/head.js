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
