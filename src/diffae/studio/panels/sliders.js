// Runs once, when the list is there; `element`, `trigger`, `props` and `watch` are Gradio's.
const FEW = 12, MOST = 40, END = 0.6, STEP = 0.02;
const make = (tag, settings, ...children) => {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...children);
  return made;
};
let names = [], strengths = {}, told = 0, rows = new Map(), moved = false, keyed = false;
const search = make('input', {type: 'search', id: 'attribute-search', autocomplete: 'off', placeholder: 'part of a name'});
const find = make('label', {className: 'find'}, 'Search attributes', search);
const list = make('div', {className: 'list'}), said = make('p', {className: 'said'});
said.setAttribute('role', 'status');
element.append(make('div', {className: 'attributes'}, find, list, said));

const paint = (range, strength) => {
  const at = 50 + 50 * strength / END;
  range.style.setProperty('--low', `${Math.min(50, at)}%`);
  range.style.setProperty('--high', `${Math.max(50, at)}%`);
};
const value = () => ({strengths: {...strengths}, told});
const tell = event => { props.value = value(); trigger(event); };
const settle = () => { if (moved) { moved = false; tell('release'); } };

const row = i => {
  const {name, label} = names[i];
  if (rows.has(name)) return rows.get(name);
  const bounds = {min: -END, max: END, step: STEP, value: strengths[name] || 0};
  const range = make('input', {type: 'range', ...bounds, id: `range-${i}`}), number = make('input', {type: 'number', ...bounds});
  const reset = make('button', {type: 'button', textContent: '\u21ba', title: `Reset ${label}`});
  paint(range, bounds.value);
  number.setAttribute('aria-label', `${label}, as a number`);
  reset.setAttribute('aria-label', `Reset ${label}`);
  const set = value => {
    const strength = Math.max(-END, Math.min(END, +value || 0));
    if (strength) strengths[name] = strength; else delete strengths[name];
    range.value = strength; number.value = +strength.toFixed(2);
    paint(range, strength);
    moved = true;
  };
  range.addEventListener('input', () => { set(range.value); tell('input'); });
  range.addEventListener('keydown', () => { keyed = true; });
  // A slider that is moved by keys is let go when the key is, as one that is dragged.
  range.addEventListener('keyup', () => { keyed = false; settle(); });
  range.addEventListener('blur', () => { keyed = false; settle(); });
  range.addEventListener('change', () => { if (!keyed) settle(); });
  number.addEventListener('change', () => { set(number.value); settle(); });
  reset.addEventListener('click', () => { set(0); settle(); });
  const made = make('div', {className: 'attribute', id: `slider-${i}`},
    make('label', {htmlFor: range.id, textContent: label}), number, reset, range);
  rows.set(name, made);
  return made;
};

const show = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), all = names.map((_, i) => i);
  const own = new Set(all.filter(i => names[i].own).slice(-FEW));
  const found = words.length
    ? all.filter(i => words.every(word => names[i].label.toLowerCase().includes(word)))
    : all.filter(i => i < FEW || own.has(i) || strengths[names[i].name]);
  list.replaceChildren(...found.slice(0, MOST).map(row));
  find.style.display = names.length > FEW ? '' : 'none';
  const shown = Math.min(MOST, found.length);
  said.textContent = !names.length ? 'There is no attribute to move yet.'
    : words.length && !found.length ? `None of ${names.length} is called so.`
    : shown === names.length ? ''
    : `${shown} of ${words.length ? `${found.length} found among ` : ''}${names.length} shown` +
      (words.length ? '.' : ': the best known and those that are moved. Search for the others.');
};

const take = () => {
  // What comes from the studio says which attributes there are; what goes to it is strengths, and what they are an answer to.
  if (!props.value || !Array.isArray(props.value.names)) return;
  const before = props.value.strengths ?? strengths, stays = moved && !props.value.strengths;
  names = props.value.names; told = props.value.told; rows = new Map(); moved = false;
  strengths = Object.fromEntries(names.filter(({name}) => before[name]).map(({name}) => [name, before[name]]));
  props.value = value();
  show();
  if (stays) tell('release');  // The slider that was held is not there any more.
};
search.addEventListener('input', show);
watch('value', take);
take();
