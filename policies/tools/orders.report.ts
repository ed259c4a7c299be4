/** What the given orders come to, each looked up by a call of its own. */
type Order = { order_id: string; customer: string; paid_usd_micros: number; status: string };
type Input = { order_ids: string[] };
declare const tools: { orders: { lookup(args: { order_id: string }): Promise<Order> } };

async function main(input: Input) {
  const found = await Promise.all(
    input.order_ids.map((order_id) =>
      tools.orders.lookup({ order_id }).catch((error: Error) => ({ order_id, missing: error.message })),
    ),
  );
  const orders = found.filter((each): each is Order => "paid_usd_micros" in each);
  return {
    orders: orders.length,
    paid_usd_micros: orders.reduce((sum, { paid_usd_micros }) => sum + paid_usd_micros, 0),
    missing: found.flatMap((each) => ("missing" in each ? [each.order_id] : [])),
  };
}
