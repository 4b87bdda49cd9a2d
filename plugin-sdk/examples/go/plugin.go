// Package export_hookmill_plugin_transformer is what the generated bindings call: it writes an order as a
// chat message, and drops the small ones.
package export_hookmill_plugin_transformer

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strings"

	. "wit_component/hookmill_plugin_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

const configSchema = `{
  "type": "object",
  "properties": {
    "channel": { "type": "string" },
    "minimum_cents": { "type": "integer", "minimum": 0 }
  },
  "additionalProperties": false
}`

// What the plugin reads of an order; everything else is left out.
type order struct {
	Customer struct {
		Name string `json:"name"`
	} `json:"customer"`
	Currency string `json:"currency"`
	Items    []item `json:"items"`
}

type item struct {
	Name           string `json:"name"`
	Quantity       uint64 `json:"quantity"`
	UnitPriceCents uint64 `json:"unit_price_cents"`
}

type config struct {
	Channel      string `json:"channel"`
	MinimumCents uint64 `json:"minimum_cents"`
}

type message struct {
	Channel string `json:"channel,omitempty"`
	Text    string `json:"text"`
}

// Describe says what the plugin is. It is called once, when the plugin is loaded.
func Describe() Description {
	return Description{
		Name:         "order-message",
		Version:      "0.1.0",
		Description:  "Writes an order as a chat message.",
		ConfigSchema: Some(configSchema),
	}
}

// Transform is called once for each event and webhook.
func Transform(event Event, context Context) Result[Verdict, Failure] {
	var order order
	if err := json.Unmarshal([]byte(event.Payload), &order); err != nil {
		return invalid("the payload does not fit: " + err.Error())
	}
	var config config
	if err := json.Unmarshal([]byte(context.Config), &config); err != nil {
		// A config can be corrected, so trying again later may help.
		return Err[Verdict](MakeFailureRetry("the config does not fit: " + err.Error()))
	}
	if len(order.Items) == 0 {
		return invalid("the order has no items")
	}
	var pieces, total uint64
	for _, item := range order.Items {
		high, price := bits.Mul64(item.Quantity, item.UnitPriceCents)
		var carry uint64
		total, carry = bits.Add64(total, price, 0)
		if high != 0 || carry != 0 {
			return invalid("the order's total is too large")
		}
		pieces += item.Quantity
	}
	if total < config.MinimumCents {
		reason := fmt.Sprintf("the order comes to %s %s, which is less than %s",
			money(total), order.Currency, money(config.MinimumCents))
		return Ok[Verdict, Failure](MakeVerdictDrop(reason))
	}
	plural := "s"
	if pieces == 1 {
		plural = ""
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s ordered %d piece%s for %s %s:",
		order.Customer.Name, pieces, plural, money(total), order.Currency)
	for _, item := range order.Items {
		fmt.Fprintf(&text, "\n• %d × %s", item.Quantity, item.Name)
	}
	return forward(message{Channel: config.Channel, Text: text.String()})
}

func money(cents uint64) string {
	return fmt.Sprintf("%d.%02d", cents/100, cents%100)
}

func invalid(message string) Result[Verdict, Failure] {
	return Err[Verdict](MakeFailureInvalid(message))
}

// One request with this body, and nothing else about it changed.
func forward(body message) Result[Verdict, Failure] {
	text, err := json.Marshal(body)
	if err != nil {
		return invalid(err.Error())
	}
	outgoing := Outgoing{
		Body:        MakeBodyText(string(text)),
		ContentType: None[string](),
		Method:      None[string](),
		PathSuffix:  None[string](),
	}
	return Ok[Verdict, Failure](MakeVerdictForward([]Outgoing{outgoing}))
}
