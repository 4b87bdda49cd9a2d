// Writes an order as a chat message, and drops the small ones.

const CONFIG_SCHEMA = {
  type: "object",
  properties: {
    channel: { type: "string" },
    minimum_cents: { type: "integer", minimum: 0 },
  },
  additionalProperties: false,
};

export const transformer = {
  describe() {
    return {
      name: "order-message",
      version: "0.1.0",
      description: "Writes an order as a chat message.",
      configSchema: JSON.stringify(CONFIG_SCHEMA),
      capabilities: [],
      extensions: [],
    };
  },

  transform(event, context) {
    const order = JSON.parse(event.payload);
    const { channel, minimum_cents: minimum = 0 } = JSON.parse(context.config);
    const items = order.items ?? [];
    if (items.length === 0) {
      // What is thrown is the `failure` of the contract; anything else ends the call as a trap.
      throw { tag: "invalid", val: "the order has no items" };
    }
    let pieces = 0;
    let total = 0;
    for (const { quantity, unit_price_cents } of items) {
      pieces += quantity;
      total += quantity * unit_price_cents;
    }
    if (!Number.isSafeInteger(total)) {
      throw { tag: "invalid", val: "the order's total is too large" };
    }
    const { currency } = order;
    if (total < minimum) {
      const reason = `the order comes to ${money(total)} ${currency}, which is less than ${money(minimum)}`;
      return { tag: "drop", val: reason };
    }
    const plural = pieces === 1 ? "" : "s";
    const title = `${order.customer.name} ordered ${pieces} piece${plural} for ${money(total)} ${currency}:`;
    const lines = items.map(({ quantity, name }) => `• ${quantity} × ${name}`);
    // A channel that is not configured is undefined, which `stringify` leaves out.
    return forward({ channel, text: [title, ...lines].join("\n") });
  },
};

function money(cents) {
  return (cents / 100).toFixed(2);
}

// One request with this body, and nothing else about it changed.
function forward(body) {
  const outgoing = {
    body: { tag: "text", val: JSON.stringify(body) },
    contentType: undefined,
    headers: [],
    method: undefined,
    pathSuffix: undefined,
    query: [],
    extensions: [],
  };
  return { tag: "forward", val: [outgoing] };
}
