/*
tries: the raw bindings, by replacing Function.prototype.call, apply and bind
ends: [exited]
result: 0
*/
const stolen = [];
for (const name of ["call", "apply", "bind"]) {
  const real = Function.prototype[name];
  Function.prototype[name] = function (...args) { if (/native/.test(this + "") && !/class|=>/.test(this + "")) stolen.push(this.name); return Reflect.apply(real, this, args); };
}
console.log("x"); setTimeout(() => {}, 1); crypto.randomUUID(); new URL("https://a.b/");
return stolen.filter((name) => /log|ask|wake|now/.test(name)).length;
