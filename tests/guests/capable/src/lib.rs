//! A guest that uses its capabilities as the payload says, `{"steps": [{"add": {"key": "n"}}, "now"]}`, and
//! forwards what each step came to, as `{"results": [1, "2026-…"]}`.

use std::time::Duration;

use hookmill_plugin::{
    Event, Failure, Result, Verdict, clock, http, kv, log, random, secrets, transform,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The secret that stands for `$SECRET` in what is said.
const SECRET: &str = "crm_token";

#[derive(Debug, Deserialize)]
struct Order {
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// The time, as text and as a number.
    Now,
    /// So many random bytes, and a random number.
    Random(u32),
    /// Whether there is a secret of this name.
    Secret(String),
    Get(String),
    Set(Entry),
    SetIfAbsent(Entry),
    Delete(String),
    Add(Entry),
    /// The status and the body of what a server answers.
    Fetch(Fetch),
    /// Posts the results so far, and fails for now unless the server takes them.
    Report(String),
    /// The same step so many times; the last result counts.
    Repeat(usize, Box<Self>),
    /// Fails for now unless the step's result is this.
    Expect(Box<Self>, Value),
    Log(String),
    Retry(String),
    Drop(String),
    Panic(String),
}

#[derive(Debug, Deserialize)]
struct Entry {
    key: String,
    /// What `set` and `set_if_absent` set.
    #[serde(default)]
    value: String,
    /// So many bytes instead.
    bytes: Option<usize>,
    ttl: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Fetch {
    url: String,
    method: Option<String>,
    header: Option<(String, String)>,
    body: Option<String>,
    timeout_ms: Option<u64>,
}

/// Does as the payload says, step by step.
#[transform]
fn capable(event: Event<Order>) -> Result<Verdict> {
    let mut results = Vec::new();
    for step in &event.payload.steps {
        match step {
            Step::Drop(reason) => return Ok(Verdict::drop(said(reason))),
            Step::Report(url) => {
                http::Request::post(url).json(&results)?.send()?.success()?;
            }
            step => results.push(perform(step)?),
        }
    }
    Verdict::forward(&json!({ "results": results }))
}

fn perform(step: &Step) -> Result<Value> {
    Ok(match step {
        Step::Now => json!([clock::now(), clock::now_ms()]),
        Step::Random(len) => json!([random::bytes(*len), random::number()]),
        Step::Secret(name) => json!(secrets::get(name).is_some()),
        Step::Get(key) => shown(kv::get(key)),
        Step::Set(entry) => shown(kv::set(&entry.key, &entry.value(), entry.ttl())),
        Step::SetIfAbsent(entry) => {
            shown(kv::set_if_absent(&entry.key, &entry.value(), entry.ttl()))
        }
        Step::Delete(key) => shown(kv::delete(key)),
        Step::Add(entry) => shown(kv::add(&entry.key, 1, entry.ttl())),
        Step::Fetch(fetch) => fetched(fetch),
        Step::Repeat(count, step) => {
            let mut last = Value::Null;
            for _ in 0..*count {
                last = perform(step)?;
            }
            last
        }
        Step::Expect(step, expected) => match perform(step)? {
            result if result == *expected => result,
            result => return Err(Failure::retry(format!("expected {expected}, got {result}"))),
        },
        Step::Log(message) => {
            log::info(&said(message));
            Value::Null
        }
        Step::Report(_) | Step::Drop(_) => {
            return Err(Failure::retry("stands inside another step"));
        }
        Step::Retry(message) => return Err(Failure::retry(said(message))),
        Step::Panic(message) => panic!("{}", said(message)),
    })
}

/// What is said, with the secret in it.
fn said(message: &str) -> String {
    match message.contains("$SECRET") {
        true => message.replace("$SECRET", &secrets::get(SECRET).unwrap_or_default()),
        false => message.to_owned(),
    }
}

fn shown<T: serde::Serialize>(result: Result<T, kv::Error>) -> Value {
    match result {
        Ok(value) => json!(value),
        Err(error) => json!({ "error": format!("{error:?}") }),
    }
}

fn fetched(fetch: &Fetch) -> Value {
    let mut request = http::Request::new(fetch.method.as_deref().unwrap_or("GET"), &fetch.url);
    if let Some((name, value)) = &fetch.header {
        request = request.header(name, said(value));
    }
    if let Some(body) = &fetch.body {
        request = request.body(body.as_str());
    }
    if let Some(millis) = fetch.timeout_ms {
        request = request.timeout(Duration::from_millis(millis));
    }
    match request.send() {
        Ok(response) => {
            json!({ "status": response.status, "body": response.text().unwrap_or("not text") })
        }
        Err(error) => json!({ "error": format!("{error:?}") }),
    }
}

impl Entry {
    fn value(&self) -> String {
        self.bytes.map_or_else(|| self.value.clone(), |bytes| "x".repeat(bytes))
    }

    fn ttl(&self) -> Option<Duration> {
        self.ttl.map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use hookmill_plugin::testing::{self, Host};

    use super::*;

    #[test]
    fn fixtures() {
        testing::fixtures(capable, "fixtures");
    }

    #[test]
    fn each_step_gives_its_result() {
        let host = Host::new().with_secret(SECRET, "hunter2").with_http(|request| {
            assert_eq!(request.headers, [("x-key".to_owned(), "hunter2".to_owned())]);
            Ok(http::Response::new(201, "made"))
        });
        let payload = r#"{"steps": [
            {"repeat": [3, {"add": {"key": "n"}}]},
            {"get": "n"},
            {"set_if_absent": {"key": "n"}},
            {"delete": "n"},
            {"fetch": {"url": "https://a.example/", "header": ["x-key", "$SECRET"]}},
            {"expect": [{"secret": "crm_token"}, true]},
            {"set": {"key": "", "bytes": 3}}
        ]}"#;
        let expected = json!([
            3, "3", false, true, { "status": 201, "body": "made" }, true,
            { "error": "TooLarge(\"the key is empty\")" }
        ]);
        let verdict = host.run(capable, payload, "{}");
        assert_eq!(verdict, Verdict::forward(&json!({ "results": expected })));
    }

    #[test]
    fn what_is_told_to_fail_fails() {
        let run = |payload| Host::new().with_secret(SECRET, "s").run(capable, payload, "{}");
        assert_eq!(run(r#"{"steps":[{"drop":"a $SECRET"}]}"#), Ok(Verdict::drop("a s")));
        assert_eq!(run(r#"{"steps":[{"retry":"no"}]}"#), Err(Failure::retry("no")));
        assert!(run(r#"{"steps":[{"expect":[{"get":"k"},"v"]}]}"#).is_err());
        assert!(run(r#"{"steps":["now",{"random":4},{"log":"x"}]}"#).is_ok());
    }
}
