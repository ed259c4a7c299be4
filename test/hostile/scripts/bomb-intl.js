/*
tries: locale data of every kind, again and again
ends: [oom, cpu, exited]
*/
const all = [];
for (let i = 0; ; i++) all.push(new Intl.DateTimeFormat("en-u-ca-chinese", { timeZone: "Asia/Tokyo", dateStyle: "full" }), new Intl.Collator("de"));
