//! Files that are refused, beside the exact lines that say so.

use super::*;

/// Checks the lines, in order, that a file gives.
fn check(text: &str, expected: &[&str]) {
    assert_eq!(refusal(text, &[]), expected, "{text}");
}

#[test]
fn syntax_errors_have_a_line_and_a_column() {
    check("listen = \"a\"\n[log\n", &["line 2, column 5: unclosed table, expected `]`"]);
    check("a = 'ü' 3", &["line 1, column 9: unexpected key or value, expected newline, `#`"]);
    check("listen = 'a'\nlisten = 'b'", &["line 2, column 1: duplicate key"]);
}

#[test]
fn syntax_errors_do_not_quote_the_line() {
    let lines = refusal("[[tenants]]\nkeys = [\"hunter2hunter2\n", &[]);
    assert!(lines[0].starts_with("line 2, column "), "{lines:?}");
    assert!(!lines.concat().contains("hunter2"), "{lines:?}");
}

/// A file of one line, and the problem it must give.
const SETTINGS: &[(&str, &str)] = &[
    ("listn = 1", "listn: is unknown; did you mean `listen`?"),
    (
        "colour = 1",
        "colour: is unknown; known here: `data_dir`, `plugins_dir`, `shutdown_grace`, `log`, `listen`, `ingest`, `delivery`, `plugins`, `retention`, `store`, `tenants`",
    ),
    ("listen = 8080", "listen: is an integer; a string is needed"),
    (
        "listen = ':8080'",
        "listen: is \":8080\"; an IP address and a port are needed, as in \"127.0.0.1:8080\", or \"0.0.0.0:8080\" to listen on every interface",
    ),
    ("data_dir = ''", "data_dir: is empty"),
    ("retention.events = '0s'", "retention.events: is 0s; it must be from 1s to 36500d"),
    (
        "retention = { events = '1d', payloads = '2d' }",
        "retention.payloads: is longer than `events` beside it, and nothing is left of an event after that; lower it, or raise that",
    ),
    (
        "retention.undelivered = 'off'",
        "retention.undelivered: is \"off\"; a whole number and a unit are needed, as in \"500ms\", \"15s\", \"5m\", \"2h\" or \"1d\", or \"never\"",
    ),
    ("log = 'debug'", "log: is a string; a table is needed"),
    ("log.format = 'xml'", "log.format: is \"xml\"; possible are `human`, `json`"),
    (
        "shutdown_grace = 20",
        "shutdown_grace: is the bare number 20; give it a unit, as in \"20s\" or \"20ms\"",
    ),
    (
        "shutdown_grace = '1.5s'",
        "shutdown_grace: is \"1.5s\"; a whole number and a unit are needed, as in \"500ms\", \"15s\", \"5m\", \"2h\" or \"1d\"",
    ),
    (
        "shutdown_grace = '99999999999999999999d'",
        "shutdown_grace: is \"99999999999999999999d\"; a whole number and a unit are needed, as in \"500ms\", \"15s\", \"5m\", \"2h\" or \"1d\"",
    ),
    ("shutdown_grace = true", "shutdown_grace: is a boolean; a string such as \"15s\" is needed"),
    ("delivery.timeout = '0s'", "delivery.timeout: is 0s; it must be from 1ms to 1h"),
    (
        "delivery.allow_http = 'yes'",
        "delivery.allow_http: is a string; `true` or `false` is needed",
    ),
    (
        "delivery.allow_networks = '10.0.0.0/8'",
        "delivery.allow_networks: is a string; a list of strings is needed",
    ),
    (
        "delivery.allow_networks = [10]",
        "delivery.allow_networks[0]: is an integer; a string is needed",
    ),
    (
        "delivery.allow_networks = ['lan']",
        "delivery.allow_networks[0]: is \"lan\"; a network or an address is needed, as in \"10.0.0.0/8\" or \"10.1.2.3\"",
    ),
    (
        "delivery.allow_networks = ['10.1.2.3/8']",
        "delivery.allow_networks[0]: is \"10.1.2.3/8\", an address inside a network; write \"10.0.0.0/8\" for all of it, or the address alone",
    ),
    (
        "delivery.allow_hosts = ['*.internal']",
        "delivery.allow_hosts[0]: is \"*.internal\"; hosts are allowed one by one, without `*`",
    ),
    (
        "delivery.allow_hosts = ['10.0.0.1']",
        "delivery.allow_hosts[0]: is the address \"10.0.0.1\"; addresses belong in `delivery.allow_networks`",
    ),
    (
        "delivery.allow_hosts = ['a:80']",
        "delivery.allow_hosts[0]: is \"a:80\", not the name of a host; write it without scheme and port",
    ),
    (
        "delivery.breaker.failures = 0",
        "delivery.breaker.failures: is 0; it must be from 1 to 1000000",
    ),
    (
        "delivery.breaker.enabled = 1",
        "delivery.breaker.enabled: is an integer; `true` or `false` is needed",
    ),
    (
        "delivery.breaker.failures = 1000001",
        "delivery.breaker.failures: is 1000001; it must be from 1 to 1000000",
    ),
    (
        "delivery.breaker.probe = '9ms'",
        "delivery.breaker.probe: is 9ms; it must be from 10ms to 1d",
    ),
    (
        "delivery.breaker.max_probe = '25h'",
        "delivery.breaker.max_probe: is 25h; it must be from 10ms to 1d",
    ),
    (
        "delivery.breaker.release_per_second = 0",
        "delivery.breaker.release_per_second: is 0; it must be from 1 to 100000",
    ),
    (
        "delivery.breaker.release_per_second = 100001",
        "delivery.breaker.release_per_second: is 100001; it must be from 1 to 100000",
    ),
    (
        "delivery.breaker.timeout = '1s'",
        "delivery.breaker.timeout: is unknown; known here: `enabled`, `failures`, `probe`, `max_probe`, `release_per_second`",
    ),
    ("delivery.concurrency = 0", "delivery.concurrency: is 0; it must be from 1 to 1000000"),
    ("delivery.concurrency = 1.0", "delivery.concurrency: is a float; an integer is needed"),
    (
        "delivery.concurrency = 99999999999999999999",
        "delivery.concurrency: is an integer of more than 64 bits",
    ),
    ("ingest.max_body_bytes = 0", "ingest.max_body_bytes: is 0 B; it must be from 1 B to 1 GiB"),
    (
        "ingest.max_body_bytes = -1",
        "ingest.max_body_bytes: is -1; a number of bytes or a string such as \"64 KiB\" or \"1 MiB\" is needed",
    ),
    (
        "ingest.max_body_bytes = '1 MB'",
        "ingest.max_body_bytes: is \"1 MB\"; a number of bytes or a string such as \"64 KiB\" or \"1 MiB\" is needed",
    ),
    ("ingest.max_depth = 2026-01-01", "ingest.max_depth: is a date or time; an integer is needed"),
    (
        "plugins.instances = 4294967297",
        "plugins.instances: is 4294967297; it must be from 1 to 100000",
    ),
    (
        "plugins.limits.memory_bytes = '65 MiB'",
        "plugins.limits.memory_bytes: is 65 MiB, more than the 64 MiB of `plugins.max_memory_bytes`; lower it, or raise that",
    ),
    (
        "plugins.limits.memory_bytes = 1",
        "plugins.limits.memory_bytes: is 1 B; it must be from 64 KiB to 4 GiB",
    ),
    (
        "plugins = { instances = 4, tenant_instances = 5 }",
        "plugins.tenant_instances: is 5; it must be from 1 to 4",
    ),
    (
        "plugins = { total_memory_bytes = '64 MiB', max_memory_bytes = '48 MiB' }",
        "plugins.max_memory_bytes: is 48 MiB, more than the 32 MiB of `plugins.tenant_memory_bytes`; lower it, or raise that",
    ),
    ("tenants = {}", "tenants: is a table; a list of tables is needed"),
    ("tenants = ['acme']", "tenants[0]: is a string; a table is needed"),
];

#[test]
fn single_values_say_what_they_need() {
    for (text, expected) in SETTINGS {
        check(text, &[&format!("line 1: {expected}")]);
    }
}

#[test]
fn bad_filters_are_refused() {
    let lines = refusal("log.filter = 'hookmill=loud'", &[]);
    assert!(lines[0].starts_with("line 1: log.filter: is not a filter ("), "{lines:?}");
}

/// A line put behind the minimal webhook, on line 8, and the problem it must give.
const OF_A_WEBHOOK: &[(&str, &str)] = &[
    ("secret = 'x'", "secret: is unknown; did you mean `secrets`?"),
    (
        "secrets = ['x']",
        "secrets[0]: does not begin with `whsec_`; a secret is `whsec_` and 24 to 64 random bytes in base64; `openssl rand -base64 32` makes such bytes",
    ),
    (
        "secrets = [{}]",
        "secrets[0]: is an empty table; put `env = \"VARIABLE\"` or `file = \"path\"` there",
    ),
    ("secrets = [{ enf = 'A' }]", "secrets[0].enf: is unknown; did you mean `env`?"),
    (
        "secrets = [{ env = 'A', file = 'a' }]",
        "secrets[0].file: stands beside `env`; keep one of the two",
    ),
    ("secrets = [{ env = 'A' }]", "secrets[0].env: the environment variable A is not set"),
    ("secrets = [{ env = 7 }]", "secrets[0].env: is an integer; a string is needed"),
    (
        "secrets = [{ file = 'no' }]",
        "secrets[0].file: /etc/hookmill/no cannot be read: No such file or directory (os error 2)",
    ),
    (
        "secrets = [7]",
        "secrets[0]: is an integer; a string, `{ env = \"VARIABLE\" }` or `{ file = \"path\" }` is needed",
    ),
    (
        "headers = { 'a b' = 'x' }",
        "headers.a b: is not the name of a header; letters, digits and `-` are usual",
    ),
    (
        "headers = { X-A = 'x', x-a = 'y' }",
        "headers.x-a: is given twice; names of headers ignore case",
    ),
    ("headers = { Host = 'x' }", "headers.Host: cannot be set: it follows from the webhook's URL"),
    (
        "headers = { Webhook-Id = 'x' }",
        "headers.Webhook-Id: cannot be set: it is part of the signature",
    ),
    (
        "headers = { TE = 'x' }",
        "headers.TE: cannot be set: it belongs to the connection, not to the request",
    ),
    (
        "headers = { a = \"hunter2\\n\" }",
        "headers.a: has a character that a header cannot carry; visible ASCII and spaces are possible",
    ),
    (
        "headers = { a = 1 }",
        "headers.a: is an integer; a string, `{ env = \"VARIABLE\" }` or `{ file = \"path\" }` is needed",
    ),
    ("body = 'xml'", "body: is \"xml\"; possible are `envelope`, `data`, `cloudevent`"),
    (
        "retry = ['5s', 5]",
        "retry[1]: is the bare number 5; give it a unit, as in \"5s\" or \"5ms\"",
    ),
    (
        "on_plugin_failure = 'ignore'",
        "on_plugin_failure: is \"ignore\"; possible are `retry`, `drop`, `dead`",
    ),
    ("ordering = 'lifo'", "ordering: is \"lifo\"; possible are `none`, `fifo`, `key`"),
    (
        "rate_limit = { burst = 3 }",
        "rate_limit.per_second: is missing; write it as in `per_second = 10`",
    ),
    (
        "rate_limit = { per_second = 0 }",
        "rate_limit.per_second: is 0; it must be from 1 to 1000000",
    ),
    ("on_dead = 'wait'", "on_dead: is \"wait\"; possible are `skip`, `block`"),
    ("retry = '5s'", "retry: is a string; a list of durations such as \"5s\" is needed"),
    ("metadata = { a = 1 }", "metadata.a: is an integer; a string is needed"),
    (
        "plugins = ['a b']",
        "plugins[0]: has the character ' '; `A-Z`, `a-z`, `0-9`, `_` and `-` are allowed",
    ),
    (
        "plugins = [{ config = {} }]",
        "plugins[0].name: is missing; write it as in `name = \"redact\"`",
    ),
    (
        "plugins = [{ name = 'a', config = nan }]",
        "plugins[0].config: holds the float NaN, which JSON cannot express",
    ),
    ("plugins = [1]", "plugins[0]: is an integer; a name or a table is needed"),
    (
        "plugins = [{ name = 'a', version = '1.2.0' }]",
        "plugins[0].version: is \"1.2.0\"; the first hexadecimal digits of a SHA-256 hash are needed, at least 8 of its 64; or write \"latest\" for the plugins folder's",
    ),
    (
        "plugins = [{ name = 'a', canary = 'latest' }]",
        "plugins[0].canary: is a string; a table is needed",
    ),
    (
        "plugins = [{ name = 'a', version = '3f2a9c41', canary = { version = 'latest' } }]",
        "plugins[0].canary.share: is missing; write it as in `share = \"5%\"`",
    ),
    (
        "plugins = [{ name = 'a', version = '3f2a9c41', canary = { version = 'latest', share = '0%' } }]",
        "plugins[0].canary.share: is \"0%\"; a share such as \"5%\" is needed, from \"0.01%\" to \"100%\"",
    ),
    (
        "plugins = [{ name = 'a', canary = { version = 'latest', share = '5%' } }]",
        "plugins[0].canary.version: is \"latest\", which all other events go to as well; pin the stable version beside `canary`, or name another one here",
    ),
];

#[test]
fn webhooks_say_what_they_need() {
    for (line, expected) in OF_A_WEBHOOK {
        check(
            &format!("{MINIMAL}{line}"),
            &[&format!("line 8: tenants[0].webhooks[0].{expected}")],
        );
    }
}

#[test]
fn what_a_webhook_has_is_checked() {
    for (good, bad, expected) in [
        (
            "'acme'",
            "'Acme'",
            "line 2: tenants[0].name: has the character 'A'; `a-z`, `0-9`, `_` and `-` are allowed",
        ),
        (
            "'orders'",
            "'a.b'",
            "line 5: tenants[0].webhooks[0].name: has the character '.'; `A-Z`, `a-z`, `0-9`, `_` and `-` are allowed",
        ),
        ("'orders'", "''", "line 5: tenants[0].webhooks[0].name: is empty"),
        (
            "https://example.com/hook",
            "example.com",
            "line 6: tenants[0].webhooks[0].url: is not a URL (relative URL without a base); write it as in \"https://example.com/hook\"",
        ),
        (
            "https://example.com/hook",
            "http://example.com/",
            "line 6: tenants[0].webhooks[0].url: uses plain HTTP; use an https:// URL, or set `delivery.allow_http = true`",
        ),
        (
            "https://example.com/hook",
            "https://10.0.0.1/",
            "line 6: tenants[0].webhooks[0].url: leads to 10.0.0.1, which is not a public address; to allow it, add its network to `delivery.allow_networks`",
        ),
        (
            "/hook",
            "/hook#x",
            "line 6: tenants[0].webhooks[0].url: has a fragment, which is never sent; leave out `#` and the rest",
        ),
        (
            "order.*",
            "ord*",
            "line 7: tenants[0].webhooks[0].event_types[0]: \"ord*\" has `*` beside other characters; `*` stands for whole names, as in `order.*`",
        ),
        (
            "['order.*']",
            "[]",
            "line 7: tenants[0].webhooks[0].event_types: is empty; write it as in `event_types = [\"order.*\"]`, or for all events `event_types = [\"*\"]`",
        ),
        (
            KEY,
            "hunter2",
            "line 3: tenants[0].keys[0]: is a key of 7 bytes; at least 22 are needed; `openssl rand -hex 24` makes a good one",
        ),
        (
            KEY,
            "hunter2 hunter2 hunter2",
            "line 3: tenants[0].keys[0]: is a key with a space or a character outside ASCII; `openssl rand -hex 24` makes a good one",
        ),
    ] {
        let text = MINIMAL.replace('"', "'").replace(good, bad);
        check(&text, &[expected]);
    }
}

#[test]
fn what_must_be_there_is_missed() {
    check(
        "[[tenants]]\n[[tenants.webhooks]]\n",
        &[
            "line 1: tenants[0].name: is missing; write it as in `name = \"acme\"`",
            "line 1: tenants[0].keys: is missing; write it as in `keys = [{ env = \"ACME_KEY\" }]`",
            "line 2: tenants[0].webhooks[0].name: is missing; write it as in `name = \"orders\"`",
            "line 2: tenants[0].webhooks[0].url: is missing; write it as in `url = \"https://example.com/hook\"`",
            "line 2: tenants[0].webhooks[0].event_types: is missing; write it as in `event_types = [\"order.*\"]`, or for all events `event_types = [\"*\"]`",
        ],
    );
}

#[test]
fn duplicates_name_both_places() {
    let webhook = MINIMAL.split("[[tenants.webhooks]]").nth(1).unwrap();
    check(
        &format!("{MINIMAL}[[tenants.webhooks]]{webhook}{MINIMAL}"),
        &[
            "line 9: tenants[0].webhooks[1].name: is \"orders\", as is tenants[0].webhooks[0].name on line 5; names are unique",
            "line 13: tenants[1].name: is \"acme\", as is tenants[0].name on line 2; names are unique",
            "line 14: tenants[1].keys[0]: is the same key as tenants[0].keys[0] on line 3; a key is given once",
        ],
    );
    let other = MINIMAL.replace("acme", "beta").replace(KEY, OTHER_KEY);
    parse(&format!("{MINIMAL}{other}"));
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_lines() {
    let text = r#"listn = "127.0.0.1:8080"
[log]
format = "xml"
[plugins.limits]
time = 50
[delivery]
timeout = "0s"
[[tenants]]
name = "acme"
keys = [
    "hunter2",
    { env = "NOT_SET" },
]
[[tenants.webhooks]]
name = "orders"
url = "http://example.com/"
event_types = ["order.*", "ord*"]
"#;
    let environment = [("HOOKMILL_INGEST__MAX_EVENTS", "0"), ("HOOKMILL_LISTN", "x")];
    let errors = parse_with(text, &environment).unwrap_err();
    let shown = errors.in_file(Path::new("hookmill.toml")).to_string();
    let expected = r#"hookmill.toml:1: listn: is unknown; did you mean `listen`?
hookmill.toml:3: log.format: is "xml"; possible are `human`, `json`
hookmill.toml:5: plugins.limits.time: is the bare number 50; give it a unit, as in "50s" or "50ms"
hookmill.toml:7: delivery.timeout: is 0s; it must be from 1ms to 1h
hookmill.toml:11: tenants[0].keys[0]: is a key of 7 bytes; at least 22 are needed; `openssl rand -hex 24` makes a good one
hookmill.toml:12: tenants[0].keys[1].env: the environment variable NOT_SET is not set
hookmill.toml:16: tenants[0].webhooks[0].url: uses plain HTTP; use an https:// URL, or set `delivery.allow_http = true`
hookmill.toml:17: tenants[0].webhooks[0].event_types[1]: "ord*" has `*` beside other characters; `*` stands for whole names, as in `order.*`
HOOKMILL_INGEST__MAX_EVENTS: ingest.max_events: is 0; it must be from 1 to 1000000
HOOKMILL_LISTN: is no setting; did you mean `HOOKMILL_LISTEN`?"#;
    assert_eq!(shown, expected);
}

#[test]
fn no_problem_repeats_a_secret() {
    let text = format!(
        r#"{}
        secrets = ["whsec_hunter2", {{ env = "SHORT" }}, {{ env = "LONG", hunter = 1 }}]
        headers = {{ authorization = {{ env = "LINES" }} }}
        "#,
        MINIMAL.replace(KEY, "hunter2")
    );
    let variables =
        [("SHORT", "hunter2"), ("LONG", "hunter2hunter2hunter2"), ("LINES", "hunter2\nhunter2")];
    let lines = refusal(&text, &variables);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(!lines.concat().contains("hunter2"), "{lines:#?}");
}
