/*
tries: finding a global that is not a language intrinsic or a documented binding
ends: [exited]
result: []
*/
const known = new Set(["console", "performance", "setTimeout", "setInterval", "clearTimeout", "clearInterval", "queueMicrotask", "TextEncoder", "TextDecoder", "btoa", "atob", "crypto", "URL", "URLSearchParams", "structuredClone", "ToolError"]);
const intrinsic = /^(Object|Function|Array|Number|parseFloat|parseInt|Infinity|NaN|undefined|Boolean|String|Symbol|Date|Promise|RegExp|.*Error|globalThis|JSON|Math|Intl|.*Array|.*ArrayBuffer|DataView|Map|BigInt|Set|Iterator|WeakMap|WeakSet|WeakRef|Proxy|Reflect|FinalizationRegistry|decodeURI(Component)?|encodeURI(Component)?|escape|unescape|eval|isFinite|isNaN|Float16Array|DisposableStack|AsyncDisposableStack|SuppressedError)$/;
return Object.getOwnPropertyNames(globalThis).filter((name) => !known.has(name) && !intrinsic.test(name));
