// Numbers and times as text.

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const number = (n) => grouped.format(n);
const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** A number with three significant digits. */
function digits(value) {
  const size = Math.abs(value);
  if (size >= 99.95 || size === 0) return number(value);
  if (size >= 9.995) return value.toFixed(1);
  if (size >= 0.9995) return value.toFixed(2);
  return String(Number(value.toPrecision(3)));
}

/** A duration as text. */
function lasting(s) {
  if (s === null || s === undefined) return "–";
  if (s === 0) return "0 s";
  if (s < 0.9995e-3) return `${digits(s * 1e6)} µs`;
  if (s < 0.9995) return `${digits(s * 1e3)} ms`;
  if (s < 120) return `${digits(s)} s`;
  if (s < 7200) return `${digits(s / 60)} min`;
  return s < 172800 ? `${digits(s / 3600)} h` : `${digits(s / 86400)} d`;
}

/** An axis label, a power of ten in as few characters as possible. */
function onAxis(s) {
  if (s >= 0.9995) return `${number(s)} s`;
  return s >= 0.9995e-3 ? `${number(s * 1e3)} ms` : `${number(s * 1e6)} µs`;
}

/** A moment of the run as text, to a precision of `step` seconds. */
function moment(at, step) {
  const places = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)));
  if (run.ended < 180) return `${at.toFixed(places)} s`;
  let rest = Number(at.toFixed(places));
  const days = Math.floor(rest / 86400);
  rest -= days * 86400;
  const hours = Math.floor(rest / 3600);
  const minutes = Math.floor((rest % 3600) / 60);
  const seconds = (rest % 60).toFixed(places).padStart(places ? places + 3 : 2, "0");
  const padded = String(minutes).padStart(2, "0");
  const clock = hours || days ? `${hours}:${padded}:${seconds}` : `${minutes}:${seconds}`;
  return days ? `${days} d ${clock}` : clock;
}

const exactly = (at) => moment(at, run.ended < 180 ? 1e-3 : run.ended < 7200 ? 0.01 : 0.1);

/** A figure's name, value and unit, which is how its name ends. */
function figure(name, value) {
  const at = name.lastIndexOf("_");
  const unit = at < 0 ? "" : name.slice(at + 1);
  const what = (at < 0 ? name : name.slice(0, at)).replaceAll("_", " ");
  if (value === null) return { what, value: "–", unit };
  if (unit === "s") {
    const [amount, of = ""] = lasting(value).split(" ");
    return { what, value: amount, unit: of };
  }
  return { what, value: Number.isInteger(value) ? number(value) : digits(value), unit };
}
