/*
tries: a comparator that never returns
ends: [cpu]
*/
return [3, 2, 1].sort(() => { for (;;); });
