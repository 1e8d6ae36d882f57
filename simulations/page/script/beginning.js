// Used by everything else: making elements, and reporting errors on the page.

const root = document.documentElement;
const $ = (id) => document.getElementById(id);

const problems = [];
function complain(text) {
  problems.push(text);
  root.dataset.errors = problems.join("\n");
  $("trouble").textContent = `This page could not be drawn as it should be.\n${problems.join("\n")}`;
  $("trouble").hidden = false;
}
window.addEventListener("error", (e) => complain(`${e.message} (line ${e.lineno})`));
window.addEventListener("unhandledrejection", (e) => complain(String(e.reason)));

/** A new element with properties, data attributes and children; strings become text nodes. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { data, ...rest } = properties;
  Object.assign(element, rest);
  Object.assign(element.dataset, data);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A lookup table without a prototype, since a kind of event may be named "constructor". */
const known = (entries) => Object.assign(Object.create(null), entries);
