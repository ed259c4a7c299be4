/**
 * Runs first in every isolate, as the body of a function of `$0`, the log callback, and returns what starts a program.
 * It lives in the program's own world, which can change everything it relies on: it serves honest programs, and the
 * worker and the runner believe nothing it says. Only strings leave: "u" for no value, "r" and the JSON of one, or
 * "e" and what went wrong.
 */
export const GUEST = `"use strict";
const log = $0;
const { parse, stringify } = JSON;
const text = (value) => {
  if (typeof value === "string") return value;
  if (value instanceof Error) return value.stack || value.name + ": " + value.message;
  if (typeof value === "object" && value !== null) {
    try { return stringify(value) ?? String(value); } catch { return String(value); }
  }
  return String(value);
};
const print = (stream) => (...items) => log(stream, items.map(text).join(" ") + "\\n");
const out = print("stdout"), err = print("stderr");
const console = Object.freeze({ log: out, info: out, debug: out, warn: err, error: err });
const place = (stack) => {
  const line = String(stack).split("\\n").find((line) => line.includes("program.js:"));
  return line === undefined ? "" : " (" + line.slice(line.indexOf("program.js:")).replace(")", "") + ")";
};
const describe = (thrown) => {
  if (thrown instanceof Error) return thrown.name + ": " + thrown.message + place(thrown.stack);
  return "The program threw something that is no Error: " + text(thrown);
};
return async (program, input, outputBytes) => {
  let value;
  try {
    value = await program(parse(input), console);
  } catch (thrown) {
    return "e" + describe(thrown);
  }
  if (value === undefined) return "u";
  let json;
  try {
    json = stringify(value);
  } catch (thrown) {
    return "eThe result cannot be written as JSON: " + describe(thrown);
  }
  if (json === undefined) return "eThe result cannot be written as JSON: it is a " + typeof value + ".";
  if (json.length > outputBytes) return "eThe result is " + json.length + " bytes; " + outputBytes + " are allowed. Return less.";
  return "r" + json;
};`;
