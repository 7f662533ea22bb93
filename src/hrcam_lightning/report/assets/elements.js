// Short words for the page's elements. Text is always put in as text, never as markup.

function byId(id) {
  return document.getElementById(id);
}

function textIn(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}

function fillSelect(id, entries) {
  byId(id).replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
}

// The address of a case within this page.
function fragmentOf(name) {
  return `#case=${encodeURIComponent(name)}`;
}

function caseInAddress() {
  const [, coded] = location.hash.match(/^#case=(.*)$/) ?? [];
  if (coded === undefined) return null;
  try {
    return decodeURIComponent(coded);
  } catch {
    return coded; // somebody's own %
  }
}
