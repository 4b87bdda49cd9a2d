//! Tests of the configuration as a whole: files and variables, beside what must come of them.

mod example;
mod refusals;
mod variables;

use proptest::prelude::*;

use super::*;
use crate::deliver::Schedule;
use crate::snapshot::{
    BodyForm, KeyHash, OnDead, OnPluginFailure, Ordering, RateLimit, Version, WebhookDefinition,
};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A tenant with a webhook, and nothing that can be left out.
const MINIMAL: &str = r#"[[tenants]]
name = "acme"
keys = ["0123456789abcdef0123456789abcdef"]
[[tenants.webhooks]]
name = "orders"
url = "https://example.com/hook"
event_types = ["order.*"]
"#;

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Errors> {
    let environment = variables.iter().copied().collect();
    Config::parse(text, Path::new("/etc/hookmill"), &environment)
}

fn parse(text: &str) -> Config {
    parse_with(text, &[]).unwrap()
}

fn only_webhook(config: &Config) -> &WebhookDefinition {
    &config.tenants[0].webhooks[0]
}

/// The lines that a refused configuration gives.
fn refusal(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let errors = parse_with(text, variables).err();
    let errors = errors.unwrap_or_else(|| panic!("accepted:\n{text}\n{variables:?}"));
    errors.lines().collect()
}

#[test]
fn an_empty_file_is_the_defaults_and_no_tenants() {
    let config = parse("");
    assert_eq!(config.ingest.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.record.data_dir, Path::new("/etc/hookmill/data"));
    assert_eq!(config.transform.cache_dir, Path::new("/etc/hookmill/data/plugin-cache"));
    assert_eq!(config.reload.keep_versions, 5);
    assert_eq!(config.reload.archive_dir, config.record.data_dir.join("plugins"));
    assert_eq!(config.reload.plugins_dir, Path::new("/etc/hookmill/plugins"));
    assert!(config.tenants.is_empty());
}

#[test]
fn a_minimal_webhook_takes_its_defaults_from_around_it() {
    let text = format!("[delivery]\ntimeout = \"3s\"\nwebhook_concurrency = 7\n{MINIMAL}");
    let config = parse(&text);
    let webhook = only_webhook(&config);
    assert_eq!(webhook.timeout, Duration::from_secs(3));
    assert_eq!(webhook.concurrency, 7);
    assert_eq!(webhook.retry, Schedule::default());
    assert_eq!(webhook.body, BodyForm::Envelope);
    assert!(webhook.active && webhook.secrets.is_empty() && webhook.headers.is_empty());
    assert_eq!(config.tenants[0].keys, [KeyHash::of(KEY)]);
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let config = parse(
        r#"
        listen = "[::1]:0"
        data_dir = "/var/lib/hookmill"
        shutdown_grace = "0s"
        log = { format = "json", filter = "warn,hookmill=debug" }
        ingest = { max_body_bytes = 5, max_events = 6, max_depth = 7 }
        [delivery]
        connect_timeout = "250ms"
        max_response_bytes = "2 KiB"
        allow_http = true
        allow_networks = ["10.0.0.0/8", "::1"]
        allow_hosts = ["Receiver.Internal."]
        concurrency = 8
        max_ready = 9
        max_ready_bytes = "1 MiB"
        "#,
    );
    assert_eq!(config.ingest.listen.to_string(), "[::1]:0");
    assert_eq!(config.record.data_dir, Path::new("/var/lib/hookmill"));
    assert_eq!(config.shutdown.grace, Duration::ZERO);
    assert_eq!(config.telemetry.format, telemetry::Format::Json);
    assert_eq!(config.telemetry.filter, "warn,hookmill=debug");
    assert_eq!(config.ingest.max_body_bytes, 5);
    assert_eq!(config.ingest.max_events, 6);
    assert_eq!(config.ingest.max_depth, 7);
    assert_eq!(config.deliver.connect_timeout, Duration::from_millis(250));
    assert_eq!(config.deliver.max_response_bytes, 2048);
    let addresses = &config.deliver.addresses;
    assert!(addresses.allow_http);
    assert!(addresses.allows_address("10.1.2.3".parse().unwrap()));
    assert!(addresses.allows_address("::1".parse().unwrap()));
    assert_eq!(addresses.allow_hosts, ["receiver.internal"]);
    assert_eq!(config.pipeline.concurrency, 8);
    assert_eq!(config.pipeline.max_ready, 9);
    assert_eq!(config.pipeline.max_ready_bytes, 1 << 20);
    assert_eq!(config.pipeline.tenant_concurrency, 6, "three quarters of 8");
}

#[test]
fn a_tenant_keeps_for_as_long_as_all_unless_it_says_otherwise() {
    let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
    let tenant = |name: &str, retention: &str| {
        format!(
            "[[tenants]]\nname = \"{name}\"\nkeys = [\"{name}-0123456789abcdef0123456789\"]\n{retention}\n"
        )
    };
    let text = [
        "[retention]\nevents = \"9h\"\npayloads = \"2h\"\nundelivered = \"12h\"\nidempotency = \"1h\"\nmax_bytes = \"1 GiB\"\n",
        &tenant("a", ""),
        &tenant(
            "b",
            "retention = { events = \"1h\", undelivered = \"never\", max_bytes = \"1 MiB\" }",
        ),
        &tenant("c", "retention = { events = \"20h\", payloads = \"20h\" }"),
    ];
    let config = parse(&text.concat());
    let all = &config.pipeline.retention;
    assert_eq!((all.idempotency, all.max_bytes), (hours(1), Some(1 << 30)));
    assert_eq!(config.ingest.idempotency, hours(1));
    let [a, b, c] = &config.tenants[..] else { panic!("three tenants") };
    assert_eq!(a.retention, all.tenants);
    assert_eq!((a.retention.events, a.retention.payloads), (hours(9), hours(2)));
    assert_eq!((a.retention.attempts, a.retention.undelivered), (hours(9), Some(hours(12))));
    assert_eq!((b.retention.events, b.retention.payloads), (hours(1), hours(1)));
    assert_eq!((b.retention.undelivered, b.retention.max_bytes), (None, Some(1 << 20)));
    assert_eq!((c.retention.payloads, c.retention.attempts), (hours(20), hours(20)));
}

#[test]
fn every_setting_of_the_receivers_breaker_arrives_and_the_others_keep_their_defaults() {
    let settings = |text: &str| {
        let breaker = parse(text).pipeline.receiver_breaker;
        let waits = (breaker.probe, breaker.max_probe);
        (breaker.enabled, breaker.failures, waits, breaker.release_per_second)
    };
    let waits = (Duration::from_secs(5), 5 * MINUTE);
    assert_eq!(settings(""), (true, 20, waits, 10));
    assert_eq!(settings("[delivery.breaker]\nenabled = false"), (false, 20, waits, 10));
    let all = r#"
        [delivery.breaker]
        enabled = true
        failures = 1
        probe = "10ms"
        max_probe = "24h"
        release_per_second = 100000
        "#;
    let waits = (Duration::from_millis(10), 24 * 60 * MINUTE);
    assert_eq!(settings(all), (true, 1, waits, 100_000));
    // The plugins' breaker is another one.
    assert_eq!(parse(all).pipeline.breaker.failures, parse("").pipeline.breaker.failures);
}

#[test]
fn every_setting_of_plugins_arrives() {
    let config = parse(
        r#"
        [plugins]
        instances = 10
        total_memory_bytes = "64 MiB"
        max_stack_bytes = "1 MiB"
        max_file_bytes = "1GiB"
        max_memory_bytes = "8 MiB"
        settle = "0ms"
        poll = "1m"
        keep_versions = 0
        breaker = { failures = 14, probe = "3m", release_per_second = 15 }
        [plugins.limits]
        time = "2s"
        describe_time = "3s"
        table_elements = 21
        host_calls = 22
        output_bytes = 11
        parts = 12
        headers = 0
        header_bytes = 23
        query_parameters = 24
        url_bytes = 25
        message_bytes = 26
        log_lines = 13
        log_bytes = "0 B"
        "#,
    );
    assert_eq!(config.transform.instances, 10);
    assert_eq!(config.transform.tenant_instances, 5);
    assert_eq!(config.transform.total_memory_bytes, 64 << 20);
    assert_eq!(config.transform.tenant_memory_bytes, 32 << 20);
    assert_eq!(config.transform.max_stack_bytes, 1 << 20);
    assert_eq!(config.transform.max_file_bytes, GIB);
    assert_eq!(config.transform.max_memory_bytes, 8 << 20);
    assert_eq!(config.reload.settle, Duration::ZERO);
    let breaker = &config.pipeline.breaker;
    assert_eq!((breaker.failures, breaker.release_per_second), (14, 15));
    assert_eq!(breaker.probe, 3 * MINUTE);
    assert_eq!((config.reload.poll, config.reload.keep_versions), (MINUTE, 0));
    let limits = transform::Limits {
        time: Duration::from_secs(2),
        describe_time: Duration::from_secs(3),
        memory_bytes: 8 << 20, // what is allowed, which is less than the default
        table_elements: 21,
        host_calls: 22,
        output_bytes: 11,
        parts: 12,
        headers: 0,
        header_bytes: 23,
        query_parameters: 24,
        url_bytes: 25,
        message_bytes: 26,
        log_lines: 13,
        log_bytes: 0,
        ..transform::Limits::default()
    };
    assert_eq!(config.transform.limits, limits);
}

#[test]
fn every_limit_of_what_is_granted_arrives() {
    let config = parse(
        "[plugins.limits]\nhost_calls = 14\nfetches = 15\nfetch_bytes = \"16 KiB\"\n\
         kv_keys = 17\nkv_bytes = \"18 KiB\"",
    );
    let limits = transform::Limits {
        host_calls: 14,
        fetches: 15,
        fetch_bytes: 16 << 10,
        kv_keys: 17,
        kv_bytes: 18 << 10,
        ..transform::Limits::default()
    };
    assert_eq!(config.transform.limits, limits);
}

#[test]
fn every_setting_of_a_webhook_arrives() {
    let config = parse(&format!(
        r#"{MINIMAL}
        plugins = [
            "redact",
            {{ name = "redact", config = {{ z = 1, a = [2026-01-02] }} }},
            {{ name = "redact", version = "latest", canary = {{ version = "3F2A9C41", share = "0.5%" }} }},
        ]
        secrets = ["{SECRET}"]
        headers = {{ X-Team = "a b" }}
        body = "cloudevent"
        timeout = "1ms"
        retry = ["5s", "1d"]
        on_plugin_failure = "dead"
        ordering = "key"
        on_dead = "block"
        concurrency = 3
        rate_limit = {{ per_second = 7, burst = 21 }}
        active = false
        metadata = {{ Region = "eu", tier = "1" }}
        "#
    ));
    let webhook = only_webhook(&config);
    let plugins: Vec<_> =
        webhook.plugins.iter().map(|plugin| (&*plugin.name, &*plugin.config)).collect();
    let first_two = [("redact", "{}"), ("redact", r#"{"z":1,"a":["2026-01-02"]}"#)];
    assert_eq!(plugins, [&first_two[..], &[("redact", "{}")]].concat());
    let tried = webhook.plugins[2].canary.as_ref().unwrap();
    assert_eq!(
        (tried.version.to_string(), tried.share.to_string()),
        ("3f2a9c41".to_owned(), "0.5%".to_owned())
    );
    assert!(webhook.plugins.iter().all(|plugin| plugin.version == Version::Latest));
    assert_eq!(webhook.secrets.len(), 1);
    assert_eq!(webhook.headers, [("x-team".to_owned(), "a b".to_owned())]);
    assert_eq!(webhook.body, BodyForm::CloudEvent);
    assert_eq!(webhook.timeout, MILLISECOND);
    assert_eq!(webhook.retry, Schedule::new(vec![Duration::from_secs(5), DAY]));
    assert_eq!(webhook.on_plugin_failure, OnPluginFailure::Dead);
    assert_eq!((webhook.ordering, webhook.on_dead), (Ordering::Key, OnDead::Block));
    assert_eq!(webhook.concurrency, 3);
    assert_eq!(webhook.rate_limit, Some(RateLimit { per_second: 7, burst: 21 }));
    assert!(!webhook.active);
    let metadata: Vec<_> = webhook.metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(metadata, [("Region", "eu"), ("tier", "1")]);
}

#[test]
fn secrets_come_from_variables_and_files_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), format!("{KEY}\r\n")).unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    let text = format!(
        r#"{}
        secrets = [{{ file = "secret" }}]
        headers = {{ authorization = {{ env = "TOKEN" }} }}
        "#,
        MINIMAL.replace(&format!("{KEY:?}"), r#"{ file = "key" }, { env = "HOOKMILL_OWN" }"#)
    );
    let environment = [("TOKEN", "Bearer x"), ("HOOKMILL_OWN", OTHER_KEY)].into_iter().collect();
    let config = Config::parse(&text, folder.path(), &environment).unwrap();
    assert_eq!(config.tenants[0].keys, [KeyHash::of(KEY), KeyHash::of(OTHER_KEY)]);
    let webhook = only_webhook(&config);
    assert_eq!(webhook.secrets.len(), 1);
    assert_eq!(webhook.headers, [("authorization".to_owned(), "Bearer x".to_owned())]);
}

#[test]
fn secrets_are_not_printed() {
    let text = format!(
        r#"{MINIMAL}
        secrets = ["{SECRET}"]
        headers = {{ authorization = "hunter2" }}
        plugins = [{{ name = "a", config = {{ token = "hunter3" }} }}]
        "#
    )
    .replace("/hook", "/hunter4");
    let shown = format!("{:?}", parse(&text));
    for secret in [KEY, SECRET, "hunter"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_missing_file_is_answered_with_a_first_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookmill.toml");
    let errors = Config::load(&path, &Environment::default()).unwrap_err();
    let expected = format!("{}: there is no such file; write one that begins", path.display());
    assert!(errors.to_string().starts_with(&expected), "{errors}");

    std::fs::write(&path, STARTER).unwrap();
    let environment: Environment = [("ACME_KEY", KEY)].into_iter().collect();
    let config = Config::load(&path, &environment).unwrap();
    assert_eq!(config.record.data_dir, folder.path().join("data"));

    std::fs::write(&path, b"listen = \"\xff\"").unwrap();
    let errors = Config::load(&path, &environment).unwrap_err();
    let expected =
        format!("{}: is not UTF-8 text: byte 10 is not part of any character", path.display());
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn a_manifest_changes_the_limits_it_names() {
    let defaults = transform::Limits::default();
    let max = 32 << 20;
    assert_eq!(parse_manifest("", &defaults, max), Ok(defaults.clone().into()));
    let manifest =
        parse_manifest("[limits]\ntime = \"1s\"\nmemory_bytes = \"32 MiB\"", &defaults, max);
    let expected =
        transform::Limits { time: Duration::from_secs(1), memory_bytes: max, ..defaults.clone() };
    assert_eq!(manifest, Ok(expected.into()));

    let bad = "[limits]\ntimes = \"1s\"\nmemory_bytes = \"33 MiB\"\n[grant]";
    let errors = parse_manifest(bad, &defaults, max).unwrap_err();
    assert_eq!(
        errors.in_file(Path::new("redact.toml")).to_string(),
        "redact.toml:2: limits.times: is unknown; did you mean `time`?\n\
         redact.toml:3: limits.memory_bytes: is 33 MiB, more than the 32 MiB of \
         `plugins.max_memory_bytes`; lower it, or raise that\n\
         redact.toml:4: grant: is unknown; did you mean `grants`?"
    );
}

#[test]
fn a_manifest_grants_what_it_names() {
    let grants = |text: &str| {
        let manifest = parse_manifest(text, &transform::Limits::default(), 1 << 20);
        manifest.map(|manifest| manifest.grants).map_err(|errors| errors.to_string())
    };
    let all = "[grants]\nclock = true\nrandom = true\nsecrets = [\"crm_token\"]\nkv = true\n\
               http = [\"https://*.example.com/v1/\"]";
    let granted = grants(all).unwrap();
    assert_eq!(granted.capabilities().collect::<Vec<_>>(), transform::Capability::ALL);
    assert_eq!(granted.secrets, ["crm_token"]);
    assert_eq!(granted.http[0].to_string(), "https://*.example.com/v1/");
    assert!(grants("[grants]\nkv = false\nsecrets = []").unwrap().is_empty());
    let wrong = "[grants]\nkv = 1\nsecrets = [\"CRM\"]\nhttp = [\"example.com\"]\nfiles = true";
    assert_eq!(
        grants(wrong).unwrap_err(),
        "line 2: grants.kv: is an integer; `true` or `false` is needed\n\
         line 3: grants.secrets[0]: has the character 'C' in its name; `a-z`, `0-9` and `_` are allowed\n\
         line 4: grants.http[0]: is no URL (relative URL without a base); write it as in \
         \"https://api.example.com/v1/\" or \"https://*.example.com/\"\n\
         line 5: grants.files: is unknown; known here: `clock`, `random`, `secrets`, `kv`, `http`"
    );
}

#[test]
fn a_tenants_secrets_are_read_and_never_shown() {
    let text = MINIMAL.replacen(
        "[[tenants.webhooks]]",
        "secrets = { crm_token = { env = \"CRM_TOKEN\" }, other = \"written out\" }\n[[tenants.webhooks]]",
        1,
    );
    let config = parse_with(&text, &[("CRM_TOKEN", "the token")]).unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("crm_token") && shown.contains("other"), "{shown}");
    assert!(!shown.contains("the token") && !shown.contains("written out"), "{shown}");
    let lines = refusal(&text.replacen("other", "Other", 1), &[("CRM_TOKEN", "the token")]);
    assert!(lines[0].contains("tenants[0].secrets.Other: has the character 'O'"), "{lines:?}");
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for text in [
        format!("{}1", "a.".repeat(200_000)),
        format!("{}a = 1", "a.".repeat(200_000)),
        format!("[{}a]", "a.".repeat(200_000)),
        format!("a = {}", "[".repeat(200_000)),
        format!("a = {}", "{ a = ".repeat(200_000)),
    ] {
        drop(parse_with(&text, &[("HOOKMILL_LOG", &text)]));
    }
}

/// Pieces of files, so that random text reaches past the parser.
fn fragments() -> impl Strategy<Value = String> {
    let pieces = proptest::sample::select(vec![
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        "\"",
        "'",
        "\n",
        ".",
        " ",
        "é",
        "\0",
        "\"\"\"",
        "tenants",
        "webhooks",
        "name",
        "keys",
        "url",
        "plugins",
        "config",
        "version",
        "canary",
        "share",
        "\"5%\"",
        "retry",
        "limits",
        "time",
        "delivery",
        "env",
        "file",
        "headers",
        "\"1 MiB\"",
        "\"5s\"",
        "1",
        "-1",
        "nan",
        "true",
        "2026-01-01",
        "[[tenants]]\n",
        "[[tenants.webhooks]]\n",
        "name = \"a\"\n",
        "a = 99999999999999999999\n",
    ]);
    proptest::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", value in "\\PC*") {
        drop(parse_with(&text, &[("HOOKMILL_TENANTS", &value), ("HOOKMILL_DELIVERY", &text)]));
    }

    #[test]
    fn no_file_makes_it_panic(text in fragments(), value in fragments()) {
        drop(parse_with(&text, &[("HOOKMILL_TENANTS", &value), ("HOOKMILL_TENANTS__0__KEYS__0", &value)]));
        drop(parse_manifest(&text, &transform::Limits::default(), 1 << 20));
    }
}
