// The settings as a command and as Python. Down: shell, python.
const text = (name) => element.querySelector('[data-text=' + name + ']');
function fill() { for (const name of ['shell', 'python']) text(name).textContent = props[name] || ''; }
watch(['shell', 'python'], fill);
fill();
async function copy(name) {
  try {
    await navigator.clipboard.writeText(props[name]);
  } catch (error) { // without https the clipboard is closed to the page, but not to a selection
    const range = document.createRange(), selection = getSelection();
    range.selectNodeContents(text(name));
    selection.removeAllRanges(); selection.addRange(range);
    if (!document.execCommand('copy')) return false;
  }
  return true;
}
for (const button of element.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', async () => {
    button.textContent = await copy(button.dataset.copy) ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => { button.textContent = 'Copy'; }, 1600);
  });
}
