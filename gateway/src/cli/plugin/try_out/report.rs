//! What is told of one call, to people and to programs.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cli::layout;
use crate::cli::plugin::{figures, inspect};
use crate::cli::terminal::{Paint, printable};
use crate::delivery::{Failure, Request};
use crate::transform::{Exchange, LogLevel, LogLine, Outcome, Plugin, StandIn, Trial};

/// Everything, for people.
pub(super) fn human(plugin: &Plugin, trial: &Trial, stand_in: &StandIn, paint: Paint) -> String {
    let mut text = match &trial.outcome {
        Ok(Outcome::Forward(requests)) => forwarded(requests, paint),
        Ok(Outcome::Drop(reason)) => format!("{}  {}\n", paint.strong("drop"), printable(reason)),
        Err(failure) => failed(failure, paint),
    };
    if !trial.log.is_empty() || trial.log_omitted > 0 {
        text.push_str(&format!("\n{}\n", paint.strong("log")));
        text.extend(trial.log.iter().map(|line| log_line(line, paint)));
    }
    if trial.log_omitted > 0 {
        text.push_str(&format!("  {} more are over the limit\n", trial.log_omitted));
    }
    text.push_str(&asked(stand_in, paint));
    text.push_str(&format!("\n{}\n", paint.strong("used")));
    let rows: Vec<_> = used(plugin, trial).into_iter().map(Used::row).collect();
    text.push_str(&figures::table(&rows));
    text
}

fn forwarded(requests: &[Request], paint: Paint) -> String {
    let parts = if requests.len() == 1 { "part" } else { "parts" };
    let mut text = format!("{}  {} {parts}\n", paint.good("forward"), requests.len());
    for (index, request) in requests.iter().enumerate() {
        let part = paint.strong(&format!("part {}", index + 1));
        let content_type = &request.content_type;
        text.push_str(&format!("\n{part}  {}  {content_type}\n", request.method.as_str()));
        let mut line = |what: &str, value: &str| {
            text.push_str(&format!("  {} {}\n", paint.faint(what), printable(value)));
        };
        if !request.path_suffix.is_empty() {
            line("path", &request.path_suffix);
        }
        for (name, value) in &request.query {
            line("query", &format!("{name}={value}"));
        }
        for (name, value) in &request.headers {
            line("header", &format!("{name}: {value}"));
        }
        for name in &request.removed_headers {
            line("without", name);
        }
        text.extend(body(request).lines().map(|line| format!("  {line}\n")));
    }
    text
}

/// The body: JSON laid out, other text as it is, bytes by their number.
fn body(request: &Request) -> String {
    match std::str::from_utf8(&request.body) {
        Ok(text) if serde_json::from_str::<&RawValue>(text).is_ok() => {
            printable(&layout::pretty(text)).into_owned()
        }
        Ok(text) => printable(text).into_owned(),
        Err(_) => format!("(not text: {})", figures::bytes(request.body.len())),
    }
}

fn failed(failure: &Failure, paint: Paint) -> String {
    let again = if failure.kind.is_permanent() {
        "the delivery would be dead at once"
    } else {
        "the delivery would be tried again"
    };
    let kind = paint.bad(failure.kind.as_str());
    format!("{kind}  {}\n  {}\n", printable(&failure.message), paint.faint(again))
}

fn log_line(line: &LogLine, paint: Paint) -> String {
    let level = format!("{:<5}", line.level.as_str());
    let level = match line.level {
        LogLevel::Warn | LogLevel::Error => paint.bad(&level),
        LogLevel::Info => level,
        LogLevel::Debug | LogLevel::Trace => paint.faint(&level),
    };
    format!("  {level}  {}\n", printable(&line.message))
}

/// What the plugin asked of servers, and what it changed of its keys.
fn asked(stand_in: &StandIn, paint: Paint) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let lines = lines.iter().map(|line| format!("  {}\n", printable(line)));
            text.push_str(&format!("\n{}\n{}", paint.strong(title), lines.collect::<String>()));
        }
    };
    let exchange = |Exchange { method, url, result }: Exchange| match result {
        Ok(status) => format!("{method} {url}  {status}"),
        Err(why) => format!("{method} {url}  failed: {why}"),
    };
    section("requests", stand_in.requests().into_iter().map(exchange).collect());
    let change = |(key, value): (String, Option<String>)| match value {
        Some(value) => format!("{key} = {value}"),
        None => format!("{key} is removed"),
    };
    section("changed keys", stand_in.changed_keys().into_iter().map(change).collect());
    text
}

/// What the call used of one limit.
struct Used {
    limit: &'static str,
    used: String,
    of: String,
    share: f64,
}

impl Used {
    fn row(self) -> [String; 4] {
        [
            self.limit.to_owned(),
            self.used,
            format!("of {}", self.of),
            format!("{:.1} %", self.share),
        ]
    }
}

/// Every limit of which it is known, by the name that it has in a manifest.
fn used(plugin: &Plugin, trial: &Trial) -> Vec<Used> {
    let limits = plugin.limits();
    let time = Used {
        limit: "time",
        used: figures::time(trial.usage.time),
        of: figures::time(limits.time),
        share: figures::share(trial.usage.time.as_nanos(), limits.time.as_nanos()),
    };
    let counted = |limit, used: usize, of: usize, show: fn(usize) -> String| Used {
        limit,
        used: show(used),
        of: show(of),
        share: figures::share(used as u128, of as u128),
    };
    let (usage, returned) = (trial.usage, trial.returned);
    let host_calls = usize::try_from(limits.host_calls).unwrap_or(usize::MAX);
    vec![
        time,
        counted("memory_bytes", usage.memory_bytes, limits.memory_bytes, figures::bytes),
        counted("table_elements", usage.table_elements, limits.table_elements, figures::grouped),
        counted("host_calls", usage.host_calls, host_calls, figures::grouped),
        counted("fetches", usage.fetches, limits.fetches, figures::grouped),
        counted("output_bytes", returned.bytes, limits.output_bytes, figures::bytes),
        counted("parts", returned.parts, limits.parts, figures::grouped),
        counted("headers", returned.headers, limits.headers, figures::grouped),
        counted("log_lines", trial.log.len(), limits.log_lines, figures::grouped),
        counted("log_bytes", log_bytes(trial), limits.log_bytes, figures::bytes),
    ]
}

fn log_bytes(trial: &Trial) -> usize {
    trial.log.iter().map(|line| line.message.len()).sum()
}

/// Everything, on one line for programs.
pub(super) fn json(plugin: &Plugin, trial: &Trial, stand_in: &StandIn) -> String {
    let mut report = match &trial.outcome {
        Ok(Outcome::Forward(requests)) => {
            json!({ "outcome": "forward", "parts": requests.iter().map(part).collect::<Vec<_>>() })
        }
        Ok(Outcome::Drop(reason)) => json!({ "outcome": "drop", "reason": reason }),
        Err(failure) => json!({
            "outcome": "failure",
            "kind": failure.kind.as_str(),
            "message": failure.message,
        }),
    };
    let log = |line: &LogLine| json!({ "level": line.level.as_str(), "message": line.message });
    let more = json!({
        "plugin": { "name": plugin.name(), "version": plugin.version().to_string() },
        "log": trial.log.iter().map(log).collect::<Vec<_>>(),
        "log_omitted": trial.log_omitted,
        "requests": stand_in.requests().iter().map(exchange).collect::<Vec<_>>(),
        "changed_keys": stand_in.changed_keys(),
        "used": {
            "time_us": figures::micros(trial.usage.time),
            "memory_bytes": trial.usage.memory_bytes,
            "table_elements": trial.usage.table_elements,
            "host_calls": trial.usage.host_calls,
            "fetches": trial.usage.fetches,
            "output_bytes": trial.returned.bytes,
            "parts": trial.returned.parts,
            "headers": trial.returned.headers,
            "log_lines": trial.log.len(),
            "log_bytes": log_bytes(trial),
        },
        "limits": inspect::limits(plugin.limits()),
    });
    if let (Value::Object(report), Value::Object(more)) = (&mut report, more) {
        report.extend(more);
    }
    format!("{report}\n")
}

fn exchange(Exchange { method, url, result }: &Exchange) -> Value {
    match result {
        Ok(status) => json!({ "method": method, "url": url, "status": status }),
        Err(why) => json!({ "method": method, "url": url, "error": why }),
    }
}

fn part(request: &Request) -> Value {
    let body = match std::str::from_utf8(&request.body) {
        Ok(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        Err(_) => json!({ "bytes": request.body.len() }),
    };
    json!({
        "method": request.method.as_str(),
        "path_suffix": request.path_suffix,
        "query": request.query,
        "content_type": request.content_type,
        "headers": request.headers,
        "removed_headers": request.removed_headers,
        "body": body,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::delivery::{FailureKind, Method};

    #[test]
    fn every_part_of_a_request_is_told() {
        let mut request = Request::json(Bytes::from_static(b"{\"total\":1.50}"));
        request.method = Method::Put;
        request.path_suffix = "/x".to_owned();
        request.query = vec![("q".to_owned(), "1".to_owned())];
        request.headers = vec![("x-a".to_owned(), "b".to_owned())];
        request.removed_headers = vec!["x-c".to_owned()];
        let text =
            forwarded(&[request, Request::json(Bytes::from_static(b"\xff"))], Paint::plain());
        assert_eq!(
            text,
            "forward  2 parts\n\
             \npart 1  PUT  application/json\n  path /x\n  query q=1\n  header x-a: b\n  without x-c\n  \
             {\n    \"total\": 1.50\n  }\n\
             \npart 2  POST  application/json\n  (not text: 1 byte)\n"
        );
    }

    #[test]
    fn a_failure_says_what_would_follow() {
        let told = |kind| failed(&Failure::new(kind, "a\x1bb"), Paint::plain());
        assert_eq!(
            told(FailureKind::PluginTrap),
            "plugin_trap  a\u{fffd}b\n  the delivery would be tried again\n"
        );
        assert!(told(FailureKind::PluginInvalid).contains("dead at once"));
    }
}
