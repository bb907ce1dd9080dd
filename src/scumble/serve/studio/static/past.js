// What was painted in this session; a click brings it back. Down: items ([{id, title, how, thumbnail}]), current. Up: props.value = {id} with 'back'.
const root = element.querySelector('.sc-past'), strip = element.querySelector('.sc-strip');
function fill() {
  const items = props.items || [];
  root.hidden = !items.length;
  strip.replaceChildren(...items.map((item) => {
    const button = document.createElement('button'), image = document.createElement('img'), title = document.createElement('span'), how = document.createElement('span');
    button.type = 'button'; image.src = item.thumbnail; image.alt = ''; title.textContent = item.title; how.textContent = item.how;
    button.setAttribute('aria-label', 'Back to: ' + item.title + ', ' + item.how);
    button.setAttribute('aria-current', item.id === props.current);
    button.title = item.title + ' (quality · strength)';
    button.append(image, title, how);
    button.addEventListener('click', () => { props.value = { id: item.id }; trigger('back', {}); });
    return button;
  }));
}
watch(['items', 'current'], fill);
fill();
