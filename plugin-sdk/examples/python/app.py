"""Writes an order as a chat message, and drops the small ones."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import (
    Body_Text,
    Context,
    Description,
    Event,
    Failure_Invalid,
    Outgoing,
    Verdict,
    Verdict_Drop,
    Verdict_Forward,
)

CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "channel": {"type": "string"},
        "minimum_cents": {"type": "integer", "minimum": 0},
    },
    "additionalProperties": False,
}


class Transformer(exports.Transformer):
    """What the gateway calls."""

    def describe(self) -> Description:
        return Description(
            name="order-message",
            version="0.1.0",
            description="Writes an order as a chat message.",
            config_schema=json.dumps(CONFIG_SCHEMA),
            capabilities=[],
            extensions=[],
        )

    def transform(self, event: Event, context: Context) -> Verdict:
        order = json.loads(event.payload)
        config = json.loads(context.config)
        items = order.get("items", [])
        if not items:
            # What is raised as `Err` is the contract's `failure`; anything else ends the call as a trap.
            raise Err(Failure_Invalid("the order has no items"))
        pieces = sum(item["quantity"] for item in items)
        total = sum(item["quantity"] * item["unit_price_cents"] for item in items)
        minimum = config.get("minimum_cents", 0)
        currency = order["currency"]
        if total < minimum:
            reason = f"the order comes to {money(total)} {currency}, which is less than {money(minimum)}"
            return Verdict_Drop(reason)
        plural = "" if pieces == 1 else "s"
        name = order["customer"]["name"]
        lines = [f"{name} ordered {pieces} piece{plural} for {money(total)} {currency}:"]
        lines += [f"• {item['quantity']} × {item['name']}" for item in items]
        message = {"text": "\n".join(lines)}
        if "channel" in config:
            message["channel"] = config["channel"]
        return forward(message)


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def forward(body: object) -> Verdict:
    """One request with this body, and nothing else about it changed."""
    outgoing = Outgoing(
        body=Body_Text(json.dumps(body, ensure_ascii=False)),
        content_type=None,
        headers=[],
        method=None,
        path_suffix=None,
        query=[],
        extensions=[],
    )
    return Verdict_Forward([outgoing])
