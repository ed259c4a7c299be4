/*
tries: "frames of the host by Error.prepareStackTrace: getThis and getFunction"
ends: [exited]
result: []
*/
Error.prepareStackTrace = (_, frames) => frames;
const frames = new Error().stack;
const functions = frames.flatMap((frame) => [frame.getThis?.(), frame.getFunction?.()]).filter((found) => typeof found === "function");
const types = await Promise.all(functions.map((found) => found.constructor("return typeof process")()));
return types.filter((type) => type !== "undefined");
