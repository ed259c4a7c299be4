/*
tries: "a clock finer than 10 ms: Date, performance and formatters"
ends: [exited]
result: 0
*/
let odd = 0;
for (let i = 0; i < 200; i++) {
  const seen = [Date.now(), new Date().getTime(), performance.now(), Number(new Intl.DateTimeFormat("en", { fractionalSecondDigits: 3 }).format())];
  odd += seen.filter((ms) => ms % 10 !== 0).length;
}
return odd;
