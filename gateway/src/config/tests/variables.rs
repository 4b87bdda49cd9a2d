//! Variables of the environment override the file.

use super::*;

const WEBHOOK: &str = "HOOKMILL_TENANTS__ACME__WEBHOOKS__ORDERS";

#[test]
fn variables_override_the_file_and_the_defaults() {
    let text = format!("data_dir = \"here\"\n[delivery]\ntimeout = \"3s\"\n{MINIMAL}");
    let config = parse_with(
        &text,
        &[
            ("HOOKMILL_LISTEN", "0.0.0.0:80"),
            ("HOOKMILL_DATA_DIR", "0123"),
            ("HOOKMILL_DELIVERY__TIMEOUT", "4s"),
            ("HOOKMILL_DELIVERY__ALLOW_HTTP", "true"),
            ("HOOKMILL_DELIVERY__ALLOW_NETWORKS", "[\"10.0.0.0/8\"]"),
            ("HOOKMILL_INGEST__MAX_BODY_BYTES", "2 MiB"),
            ("HOOKMILL_INGEST__MAX_EVENTS", "5"),
            ("HOOKMILL_LOG", "{ format = \"json\" }"),
            ("HOOKMILL_PLUGINS__LIMITS__MEMORY_BYTES", "65536"),
        ],
    )
    .unwrap();
    assert_eq!(config.ingest.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.record.data_dir, Path::new("/etc/hookmill/0123"));
    assert_eq!(config.deliver.timeout, Duration::from_secs(4));
    assert!(config.deliver.addresses.allow_http);
    assert_eq!(config.deliver.addresses.allow_networks.len(), 1);
    assert_eq!(config.ingest.max_body_bytes, 2 << 20);
    assert_eq!(config.ingest.max_events, 5);
    assert_eq!(config.telemetry.format, telemetry::Format::Json);
    assert_eq!(config.transform.limits.memory_bytes, 65_536);
}

#[test]
fn elements_go_by_name_or_index() {
    let text = MINIMAL.replace("\"acme\"", "\"acme-2\"");
    for tenant in ["ACME_2", "0"] {
        for webhook in ["ORDERS", "0"] {
            let name = format!("HOOKMILL_TENANTS__{tenant}__WEBHOOKS__{webhook}__URL");
            let config = parse_with(&text, &[(&name, "https://other.example/")]).unwrap();
            assert_eq!(
                only_webhook(&config).url.as_ref().unwrap().as_str(),
                "https://other.example/"
            );
        }
    }
}

#[test]
fn strings_stay_strings_and_the_rest_is_toml() {
    let set = |name: &str, value: &str| {
        let config = parse_with(MINIMAL, &[(&format!("{WEBHOOK}__{name}"), value)]).unwrap();
        only_webhook(&config).clone()
    };
    let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())];
    assert_eq!(set("METADATA__N", "123").metadata, pair("n", "123"));
    assert_eq!(set("METADATA__N", "true").metadata, pair("n", "true"));
    assert_eq!(set("METADATA", "{ N = 'x' }").metadata, pair("N", "x"));
    assert_eq!(set("HEADERS__X_TEAM", "[1]").headers, pair("x-team", "[1]"));
    assert_eq!(set("RETRY", "[]").retry, Schedule::new(Vec::new()));
    assert_eq!(set("RETRY__0", "7s").retry, Schedule::new(vec![Duration::from_secs(7)]));
    assert_eq!(set("PLUGINS", "['a', { name = 'b', config = 1 }]").plugins[1].config, "1");
    assert_eq!(set("PLUGINS__0__NAME", "a").plugins[0].name, "a");
    assert_eq!(set("SECRETS__0", SECRET).secrets.len(), 1);
    assert_eq!(set("EVENT_TYPES__1", "*").event_types.len(), 2);
    assert!(!set("ACTIVE", "false").active);
}

#[test]
fn tenants_can_come_from_variables_alone() {
    let webhook = "[{ name = 'b', url = 'https://example.com', event_types = ['*'] }]";
    for variables in [
        vec![(
            "HOOKMILL_TENANTS",
            format!("[{{ name = 'a', keys = ['{KEY}'], webhooks = {webhook} }}]"),
        )],
        vec![
            ("HOOKMILL_TENANTS__0__NAME", "a".to_owned()),
            ("HOOKMILL_TENANTS__0__KEYS__0__ENV", "MY_KEY".to_owned()),
            ("HOOKMILL_TENANTS__0__WEBHOOKS", webhook.to_owned()),
            ("MY_KEY", KEY.to_owned()),
        ],
    ] {
        let environment = variables.into_iter().collect();
        let config = Config::parse("", Path::new(""), &environment).unwrap();
        assert_eq!(config.tenants[0].name, "a");
        assert_eq!(config.tenants[0].keys, [KeyHash::of(KEY)]);
        assert_eq!(only_webhook(&config).name, "b");
    }
}

#[test]
fn keys_of_the_file_are_found_whatever_their_case() {
    let text =
        format!("{MINIMAL}metadata = {{ Some-Label = 'old' }}\nheaders = {{ X-Team = 'old' }}\n");
    let config = parse_with(
        &text,
        &[
            (&format!("{WEBHOOK}__METADATA__SOME_LABEL"), "new"),
            (&format!("{WEBHOOK}__HEADERS__X_TEAM"), "new"),
        ],
    )
    .unwrap();
    let webhook = only_webhook(&config);
    assert_eq!(webhook.metadata, [("Some-Label".to_owned(), "new".to_owned())]);
    assert_eq!(webhook.headers, [("x-team".to_owned(), "new".to_owned())]);
}

#[test]
fn variables_of_others_are_left_alone() {
    parse_with(
        "",
        &[
            ("HOOKMILL_CONFIG", "x"),
            ("HOOKMILL_KEY", "x"),
            ("HOOKMILL_PORT", "tcp://10.0.0.1:80"),
            ("HOOKMILL_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "x"),
        ],
    )
    .unwrap();
}

#[test]
fn problems_name_the_variable() {
    let url = format!("{WEBHOOK}__URL");
    let shown = |path: &str, problem: &str| format!("{WEBHOOK}__{path}: {problem}");
    for (variable, value, expected) in [
        (
            "HOOKMILL_DELIVERY__TIMEOUT",
            "15",
            "HOOKMILL_DELIVERY__TIMEOUT: delivery.timeout: is the bare number 15; give it a unit, as in \"15s\" or \"15ms\"",
        ),
        (
            "HOOKMILL_INGEST__MAX_EVENTS",
            "many",
            "HOOKMILL_INGEST__MAX_EVENTS: ingest.max_events: is a string; an integer is needed",
        ),
        (
            "HOOKMILL_DELIVERY",
            "{ timeouts = 1 }",
            "HOOKMILL_DELIVERY: delivery.timeouts: is unknown; did you mean `timeout`?",
        ),
        ("HOOKMILL_LISTN", "x", "HOOKMILL_LISTN: is no setting; did you mean `HOOKMILL_LISTEN`?"),
        (
            "HOOKMILL_TENANTS__ACNE__KEYS",
            "[]",
            "HOOKMILL_TENANTS__ACNE__KEYS: is no setting; did you mean `HOOKMILL_TENANTS__ACME__KEYS`?",
        ),
        (
            "HOOKMILL_DELIVERY_TIMEOUT",
            "1s",
            "HOOKMILL_DELIVERY_TIMEOUT: is no setting; did you mean `HOOKMILL_DELIVERY__TIMEOUT`?",
        ),
        (
            url.as_str(),
            "ftp://example.com",
            &shown(
                "URL",
                "tenants[0].webhooks[0].url: has the scheme \"ftp\"; only https:// is possible",
            ),
        ),
    ] {
        assert_eq!(refusal(MINIMAL, &[(variable, value)]), [expected]);
    }
}

#[test]
fn two_variables_for_one_setting_are_refused() {
    let lines = refusal(
        MINIMAL,
        &[("HOOKMILL_TENANTS__ACME__NAME", "a"), ("HOOKMILL_TENANTS__0__NAME", "b")],
    );
    assert_eq!(
        lines,
        [
            "HOOKMILL_TENANTS__0__NAME: tenants[0].name: is set by HOOKMILL_TENANTS__ACME__NAME as well; keep one of the two variables"
        ]
    );
}

#[test]
#[cfg(unix)]
fn values_that_are_not_utf8_are_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    let environment = [
        ("HOOKMILL_LISTEN", OsString::from_vec(vec![0xff])),
        ("OTHER", OsString::from_vec(vec![0xff])),
    ];
    let errors = Config::parse("", Path::new(""), &environment.into_iter().collect()).unwrap_err();
    assert_eq!(errors.to_string(), "HOOKMILL_LISTEN: listen: is not UTF-8 text");
}
