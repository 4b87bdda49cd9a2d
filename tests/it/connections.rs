//! Certificates and proxies of webhooks: whom they trust, who they are, and which way they go.

use std::net::SocketAddr;

use hookmill_tests::proxy::Proxy;
use hookmill_tests::tls::{self, Authority, Issued};
use hookmill_tests::{Gateway, Receiver, Webhook, binary, eventually};
use serde_json::{Value, json};

/// A webhook that is tried once, at a port of this machine that speaks TLS.
fn secure(name: &str, address: SocketAddr) -> Webhook {
    let url = format!("https://localhost:{}/{name}", address.port());
    Webhook::new(name, &url).set("retry", &json!([]))
}

fn write(gateway: &Gateway, name: &str, text: &str) {
    std::fs::write(gateway.folder().join(name), text).unwrap();
}

fn write_identity(gateway: &Gateway, name: &str, issued: &Issued) {
    write(gateway, &format!("{name}.pem"), &issued.pem);
    write(gateway, &format!("{name}.key"), &issued.key_pem());
}

/// What became of each webhook's delivery: its state, and the kind and fault of a failure.
async fn outcomes(gateway: Gateway) -> Vec<(String, String, Option<String>, Option<String>)> {
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let deliveries = gateway.settled(&id).await;
    let mut outcomes: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            let failure = &delivery["attempts"][0]["failure"];
            let name = text(&delivery["webhook"]["name"]).unwrap();
            let state = text(&delivery["state"]).unwrap();
            assert!(!delivery.to_string().contains("pass-w0rd"), "{delivery}");
            (name, state, text(&failure["kind"]), text(&failure["fault"]))
        })
        .collect();
    outcomes.sort();
    assert!(!gateway.log().contains("pass-w0rd"), "{}", gateway.log());
    outcomes
}

fn outcome(
    name: &str,
    failure: Option<(&str, &str)>,
) -> (String, String, Option<String>, Option<String>) {
    let state = if failure.is_none() { "delivered" } else { "dead" };
    let kind = failure.map(|(kind, _)| kind.to_owned());
    (name.to_owned(), state.to_owned(), kind, failure.map(|(_, fault)| fault.to_owned()))
}

#[tokio::test]
async fn a_webhook_trusts_its_authority_and_shows_its_certificate() {
    let (authority, others) = (Authority::new(), Authority::new());
    let receiver = Receiver::start().await;
    let open = authority.issue().acceptor(None, &[]);
    let open = tls::front(open, receiver.address()).await;
    let closed = authority.issue().acceptor(Some(&authority), &[]);
    let closed = tls::front(closed, receiver.address()).await;
    let gateway = Gateway::new();
    write(&gateway, "ca.pem", &authority.pem());
    write(&gateway, "others.pem", &others.pem());
    write_identity(&gateway, "client", &authority.issue());
    write_identity(&gateway, "stranger", &others.issue());
    let identity = |name: &str| {
        json!({
            "ca_file": "ca.pem",
            "client_cert_file": format!("{name}.pem"),
            "client_key_file": format!("{name}.key"),
        })
    };
    let gateway = gateway
        .webhook(secure("a-trusted", open).set("tls", &json!({ "ca_file": "ca.pem" })))
        .webhook(secure("b-untrusted", open).set("tls", &json!({ "ca_file": "others.pem" })))
        .webhook(secure("c-without", open))
        .webhook(secure("d-known", closed).set("tls", &identity("client")))
        .webhook(secure("e-nobody", closed).set("tls", &json!({ "ca_file": "ca.pem" })))
        .webhook(secure("f-stranger", closed).set("tls", &identity("stranger")));
    let refused = Some(("tls", "receiver"));
    assert_eq!(
        outcomes(gateway).await,
        [
            outcome("a-trusted", None),
            outcome("b-untrusted", refused),
            outcome("c-without", refused),
            outcome("d-known", None),
            outcome("e-nobody", refused),
            outcome("f-stranger", refused),
        ]
    );
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn files_of_certificates_are_checked_before_they_are_used() {
    let authority = Authority::new();
    let gateway = Gateway::new();
    write_identity(&gateway, "one", &authority.issue());
    write_identity(&gateway, "two", &authority.issue());
    write(&gateway, "text.pem", "hello");
    let address: SocketAddr = ([127, 0, 0, 1], 443).into();
    let mismatched = json!({ "client_cert_file": "one.pem", "client_key_file": "two.key" });
    let swapped = json!({ "client_cert_file": "one.key", "client_key_file": "one.pem" });
    let gateway = gateway
        .webhook(secure("a", address).set("tls", &json!({ "ca_file": "missing.pem" })))
        .webhook(secure("b", address).set("tls", &json!({ "ca_file": "text.pem" })))
        .webhook(secure("c", address).set("tls", &json!({ "client_cert_file": "one.pem" })))
        .webhook(secure("d", address).set("tls", &mismatched))
        .webhook(secure("e", address).set("tls", &swapped))
        .webhook(secure("f", address).set("proxy", &json!({ "url": "socks4://proxy" })))
        .webhook(secure("g", address).set("auth", &json!({ "type": "basic", "username": "a:b" })));
    let file = gateway.folder().join("hookmill.toml");
    gateway.write_configuration();
    let output = tokio::process::Command::new(binary())
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    for (place, what) in [
        ("tenants[0].webhooks[0].tls.ca_file", "missing.pem cannot be read"),
        ("tenants[0].webhooks[1].tls.ca_file", "text.pem holds no certificate"),
        ("tenants[0].webhooks[2].tls.client_key_file", "is missing beside `client_cert_file`"),
        ("tenants[0].webhooks[3].tls.client_key_file", "does not hold the key of the certificate"),
        ("tenants[0].webhooks[4].tls.client_cert_file", "one.key holds no certificate"),
        ("tenants[0].webhooks[5].proxy.url", "\"socks4\""),
        ("tenants[0].webhooks[6].auth.username", "has a colon"),
        ("tenants[0].webhooks[6].auth.password", "is missing"),
    ] {
        let found = said.lines().any(|line| line.contains(place) && line.contains(what));
        assert!(found, "{place} … {what} is not in:\n{said}");
    }
}

#[tokio::test]
async fn a_certificate_that_changes_takes_effect_and_a_bad_one_changes_nothing() {
    let (authority, others) = (Authority::new(), Authority::new());
    let receiver = Receiver::start().await;
    let acceptor = authority.issue().acceptor(None, &[]);
    let address = tls::front(acceptor, receiver.address()).await;
    let gateway = Gateway::new();
    let certificates = gateway.folder().join("tls");
    // A folder of its own, as certificates have where something renews them.
    std::fs::create_dir(&certificates).unwrap();
    write(&gateway, "tls/ca.pem", &others.pem());
    let webhook = secure("hook", address).set("tls", &json!({ "ca_file": "tls/ca.pem" }));
    let gateway = gateway.webhook(webhook).start().await;
    let state = async || {
        let id = gateway.send("a", json!(1)).await;
        gateway.settled(&id).await[0]["state"].clone()
    };
    assert_eq!(state().await, "dead");

    let replace = |text: &str| {
        std::fs::write(certificates.join("new"), text).unwrap();
        std::fs::rename(certificates.join("new"), certificates.join("ca.pem")).unwrap();
    };
    replace(&authority.pem());
    eventually("the new authority", || async { state().await == "delivered" }).await;

    // What is wrong, and where, is said; what worked before goes on.
    replace("hello");
    let why = "tenants[0].webhooks[0].tls.ca_file";
    eventually(why, || async { gateway.log().contains(why) }).await;
    let said = gateway.log();
    assert!(said.contains("tls/ca.pem holds no certificate"), "{said}");
    assert_eq!(state().await, "delivered");

    // And the file alone mends it, though the configuration has never changed.
    replace(&others.pem());
    eventually("the other authority", || async { state().await == "dead" }).await;
}

/// A setting of a proxy on this machine.
fn through(scheme: &str, address: SocketAddr, password: &str) -> Value {
    json!({ "url": format!("{scheme}://{address}"), "username": "hookmill", "password": password })
}

/// A port of this machine that nobody listens on.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn webhooks_go_through_their_http_proxy_and_its_faults_are_its_own() {
    let authority = Authority::new();
    let receiver = Receiver::start().await;
    let address = tls::front(authority.issue().acceptor(None, &[]), receiver.address()).await;
    let proxy = Proxy::http().await;
    let gateway = Gateway::new();
    write(&gateway, "ca.pem", &authority.pem());
    let to = |name: &str, address: SocketAddr, proxy: &Value| {
        let webhook = secure(name, address).set("tls", &json!({ "ca_file": "ca.pem" }));
        webhook.set("proxy", proxy)
    };
    let good = through("http", proxy.address(), "pass-w0rd");
    let bad = through("http", proxy.address(), "another-pass-w0rd");
    let plain = |name: &str, setting: &Value| {
        receiver.webhook(name).set("retry", &json!([])).set("proxy", setting)
    };
    let gateway = gateway
        .webhook(to("a-tunnel", address, &good))
        .webhook(plain("b-forwarded", &good))
        .webhook(to("c-refused", address, &bad))
        .webhook(plain("d-refused", &bad))
        .webhook(to("e-absent", address, &through("http", nobody(), "pass-w0rd")))
        .webhook(to("f-dead-end", nobody(), &good))
        .webhook(secure("g-untrusted", address).set("proxy", &good));
    let of_proxy = Some(("proxy", "proxy"));
    assert_eq!(
        outcomes(gateway).await,
        [
            outcome("a-tunnel", None),
            outcome("b-forwarded", None),
            outcome("c-refused", of_proxy),
            outcome("d-refused", of_proxy),
            outcome("e-absent", of_proxy),
            outcome("f-dead-end", of_proxy),
            outcome("g-untrusted", Some(("tls", "receiver"))),
        ]
    );
    let asked = proxy.asked();
    assert!(asked.contains(&format!("localhost:{}", address.port())), "{asked:?}");
    assert!(asked.contains(&receiver.address().to_string()), "{asked:?}");
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn webhooks_go_through_their_socks_proxy_to_the_address_that_was_vetted() {
    let authority = Authority::new();
    let receiver = Receiver::start().await;
    let address = tls::front(authority.issue().acceptor(None, &[]), receiver.address()).await;
    let proxy = Proxy::socks5().await;
    let gateway = Gateway::new();
    write(&gateway, "ca.pem", &authority.pem());
    let to = |name: &str, address: SocketAddr, proxy: &Value| {
        let webhook = secure(name, address).set("tls", &json!({ "ca_file": "ca.pem" }));
        webhook.set("proxy", proxy)
    };
    let good = through("socks5", proxy.address(), "pass-w0rd");
    let bad = through("socks5", proxy.address(), "another-pass-w0rd");
    let gateway = gateway
        .webhook(to("a-tunnel", address, &good))
        .webhook(receiver.webhook("b-plain").set("proxy", &good))
        .webhook(to("c-refused", address, &bad))
        .webhook(to("d-absent", address, &through("socks5", nobody(), "pass-w0rd")))
        .webhook(to("e-dead-end", nobody(), &good));
    let of_proxy = Some(("proxy", "proxy"));
    assert_eq!(
        outcomes(gateway).await,
        [
            outcome("a-tunnel", None),
            outcome("b-plain", None),
            outcome("c-refused", of_proxy),
            outcome("d-absent", of_proxy),
            outcome("e-dead-end", Some(("connect", "network"))),
        ]
    );
    let asked = proxy.asked();
    assert!(asked.contains(&format!("127.0.0.1:{}", address.port())), "{asked:?}");
    assert!(!asked.iter().any(|target| target.starts_with("localhost")), "{asked:?}");
}

#[tokio::test]
async fn a_proxy_is_no_way_round_the_guard_of_addresses() {
    let receiver = Receiver::start().await;
    let (http, socks5) = (Proxy::http().await, Proxy::socks5().await);
    let by_name = receiver.url("/").replace("127.0.0.1", "localhost");
    let mut gateway = Gateway::new().setting("delivery.allow_networks = [\"192.0.2.0/24\"]");
    for (name, scheme, proxy) in [("http", "http", &http), ("socks", "socks5", &socks5)] {
        let setting = through(scheme, proxy.address(), "pass-w0rd");
        let webhook = Webhook::new(name, &by_name).set("retry", &json!([]));
        gateway = gateway.webhook(webhook.set("proxy", &setting));
    }
    let blocked = Some(("blocked_address", "configuration"));
    assert_eq!(outcomes(gateway).await, [outcome("http", blocked), outcome("socks", blocked)]);
    assert_eq!((http.asked(), socks5.asked()), (Vec::new(), Vec::new()));
}
