//! Writes an event as a message for Slack's incoming webhooks.
//!
//! ```json
//! {
//!   "title": "Order {/id}",
//!   "template": "*{/customer/name}* ordered for {/total} {/currency} in {attributes.region}",
//!   "missing": "unknown"
//! }
//! ```

mod markup;
mod template;

use hookmill_plugin::{Context, Event, Result, Verdict, config, transform};
use serde::Serialize;
use serde_json::value::RawValue;

use markup::shorten;
use template::Template;

/// Slack refuses a message with a longer text in a section, in characters.
const SECTION_LIMIT: usize = 3000;

/// Slack refuses a message with a longer header, in characters.
const HEADER_LIMIT: usize = 150;

/// The plugin's config.
#[config]
#[derive(Debug)]
#[serde(default)]
struct Config {
    /// A headline above the text: none when absent. Plain text, without Slack's markup.
    title: Option<Template>,
    /// The text, in Slack's markup: the type and the whole payload when absent.
    template: Template,
    /// What is written in place of a value that is absent or null.
    missing: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { title: None, template: Template::type_and_payload(), missing: String::new() }
    }
}

/// The body of a request to an incoming webhook.
#[derive(Debug, Serialize)]
struct Message<'a> {
    /// What notifications show, and clients that know no blocks.
    text: &'a str,
    blocks: Vec<Block<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Header { text: Text<'a> },
    Section { text: Text<'a> },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", content = "text", rename_all = "snake_case")]
enum Text<'a> {
    PlainText(&'a str),
    Mrkdwn(&'a str),
}

/// Writes the event as a message for a Slack channel, from a template with placeholders.
#[transform]
fn slack_message(event: Event<&RawValue>, context: Context<Config>) -> Result<Verdict> {
    let config = &context.config;
    let render = |template: &Template, limit| {
        let text = template.render(&event, &config.missing);
        shorten(text, limit)
    };
    let text = render(&config.template, SECTION_LIMIT);
    let title = config.title.as_ref().map(|title| render(title, HEADER_LIMIT));

    let mut blocks = Vec::with_capacity(2);
    // Slack refuses empty texts, which a template of absent values can give.
    if let Some(title) = title.as_deref().filter(|title| !title.is_empty()) {
        let text = Text::PlainText(title);
        blocks.push(Block::Header { text });
    }
    if text.is_empty() {
        return Ok(Verdict::drop("the message has no text"));
    }
    blocks.push(Block::Section { text: Text::Mrkdwn(&text) });
    Verdict::forward(&Message { text: &text, blocks })
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing;

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(slack_message, "fixtures");
    }

    #[test]
    fn texts_keep_to_the_limits() {
        let payload = format!("\"{}\"", "&".repeat(5000));
        let config = r#"{"title":"{payload}","template":"{payload}"}"#;
        let verdict = testing::run(slack_message, &payload, config).unwrap();
        let Verdict::Forward(parts) = verdict else {
            panic!("the message is forwarded");
        };
        let hookmill_plugin::Body::Text(body) = &parts[0].body else {
            panic!("the body is text");
        };
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let length = |pointer| body.pointer(pointer).unwrap().as_str().unwrap().chars().count();
        assert!(length("/text") <= SECTION_LIMIT);
        assert!(length("/blocks/0/text/text") <= HEADER_LIMIT);
        assert!(length("/blocks/1/text/text") <= SECTION_LIMIT);
    }
}
