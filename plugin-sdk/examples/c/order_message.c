// Writes an order as a chat message, and drops the small ones.

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "plugin.h"

typedef exports_hookmill_plugin_transformer_description_t description_t;
typedef exports_hookmill_plugin_transformer_event_t event_t;
typedef exports_hookmill_plugin_transformer_context_t context_t;
typedef exports_hookmill_plugin_transformer_verdict_t verdict_t;
typedef exports_hookmill_plugin_transformer_failure_t failure_t;

static const char CONFIG_SCHEMA[] =
    "{\"type\":\"object\",\"properties\":{\"channel\":{\"type\":\"string\"},"
    "\"minimum_cents\":{\"type\":\"integer\",\"minimum\":0}},\"additionalProperties\":false}";

// Everything is read from the event's own text, and an instance lives for one call, so nothing is freed.

static span_t span(plugin_string_t string) { return (span_t){(const char *)string.ptr, string.len}; }

static plugin_string_t string(text_t text) {
  return (plugin_string_t){(uint8_t *)text.at, text.len};
}

static bool invalid(failure_t *failure, const char *message) {
  failure->tag = HOOKMILL_PLUGIN_TYPES_FAILURE_INVALID;
  plugin_string_dup(&failure->val.invalid, message);
  return false;
}

static void add_money(text_t *text, uint64_t cents) {
  char hundredths[3] = {'.', (char)('0' + cents / 10 % 10), (char)('0' + cents % 10)};
  text_add_whole(text, cents / 100);
  text_add(text, hundredths, sizeof hundredths);
}

// One request with this body, and nothing else about it changed.
static bool forward(verdict_t *verdict, text_t body) {
  hookmill_plugin_types_outgoing_t *outgoing = calloc(1, sizeof *outgoing);
  if (outgoing == NULL)
    abort();
  outgoing->body.tag = HOOKMILL_PLUGIN_TYPES_BODY_TEXT;
  outgoing->body.val.text = string(body);
  verdict->tag = HOOKMILL_PLUGIN_TYPES_VERDICT_FORWARD;
  verdict->val.forward.ptr = outgoing;
  verdict->val.forward.len = 1;
  return true;
}

static bool drop(verdict_t *verdict, uint64_t total, uint64_t minimum, span_t currency) {
  text_t reason = {0};
  text_add_string(&reason, "the order comes to ");
  add_money(&reason, total);
  text_add_string(&reason, " ");
  text_add_escaped(&reason, currency);
  text_add_string(&reason, ", which is less than ");
  add_money(&reason, minimum);
  verdict->tag = HOOKMILL_PLUGIN_TYPES_VERDICT_DROP;
  verdict->val.drop = string(reason);
  return true;
}

void exports_hookmill_plugin_transformer_describe(description_t *description) {
  memset(description, 0, sizeof *description);
  plugin_string_dup(&description->name, "order-message");
  plugin_string_dup(&description->version, "0.1.0");
  plugin_string_dup(&description->description, "Writes an order as a chat message.");
  description->config_schema.is_some = true;
  plugin_string_dup(&description->config_schema.val, CONFIG_SCHEMA);
}

bool exports_hookmill_plugin_transformer_transform(event_t *event, context_t *context,
                                                   verdict_t *verdict, failure_t *failure) {
  span_t order = span(event->payload);
  span_t config = span(context->config);
  span_t currency = json_member(order, "currency");

  uint64_t pieces = 0, total = 0, minimum = 0;
  text_t lines = {0};
  span_t items = json_member(order, "items"), item;
  while (json_next(&items, &item)) {
    uint64_t quantity, price;
    if (!json_whole(json_member(item, "quantity"), &quantity) ||
        !json_whole(json_member(item, "unit_price_cents"), &price))
      return invalid(failure, "an item has no quantity or no price");
    if (__builtin_mul_overflow(quantity, price, &price) ||
        __builtin_add_overflow(total, price, &total) ||
        __builtin_add_overflow(pieces, quantity, &pieces))
      return invalid(failure, "the order's total is too large");
    text_add_string(&lines, "\\n• ");
    text_add_whole(&lines, quantity);
    text_add_string(&lines, " × ");
    text_add_escaped(&lines, json_member(item, "name"));
  }
  if (lines.len == 0)
    return invalid(failure, "the order has no items");

  json_whole(json_member(config, "minimum_cents"), &minimum);
  if (total < minimum)
    return drop(verdict, total, minimum, currency);

  text_t body = {0};
  span_t channel = json_member(config, "channel");
  text_add_string(&body, "{");
  if (channel.len > 0) {
    text_add_string(&body, "\"channel\":");
    text_add(&body, channel.at, channel.len);
    text_add_string(&body, ",");
  }
  text_add_string(&body, "\"text\":\"");
  text_add_escaped(&body, json_member(json_member(order, "customer"), "name"));
  text_add_string(&body, " ordered ");
  text_add_whole(&body, pieces);
  text_add_string(&body, pieces == 1 ? " piece for " : " pieces for ");
  add_money(&body, total);
  text_add_string(&body, " ");
  text_add_escaped(&body, currency);
  text_add_string(&body, ":");
  text_add(&body, lines.at, lines.len);
  text_add_string(&body, "\"}");
  return forward(verdict, body);
}
