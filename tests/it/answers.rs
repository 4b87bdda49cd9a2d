//! What receivers answer, and what follows from it: the status table, `Retry-After`, and what goes on record.

use std::time::Duration;

use hookmill_tests::{Gateway, Received, Receiver, Reply, Running, Webhook, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

#[tokio::test]
async fn each_status_has_its_failure() {
    let receiver = Receiver::answering(|request, _| {
        Reply::status(request.target.trim_start_matches('/').parse().unwrap())
    })
    .await;
    let cases = [
        ("200", "delivered", None),
        ("204", "delivered", None),
        ("301", "dead", Some("status")),
        ("400", "dead", Some("status")),
        ("408", "dead", Some("status")),
        ("410", "dead", Some("gone")),
        ("425", "dead", Some("status")),
        ("429", "dead", Some("status")),
        ("500", "dead", Some("status")),
        ("503", "dead", Some("status")),
        ("599", "dead", Some("status")),
        ("999", "dead", Some("status")),
    ];
    let mut gateway = Gateway::new();
    for (status, _, _) in cases {
        gateway = gateway.webhook(receiver.webhook(status).set("retry", &json!([])));
    }
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    for (status, state, kind) in cases {
        let delivery = deliveries.iter().find(|it| it["webhook"]["name"] == status).unwrap();
        assert_eq!(delivery["state"], state, "{delivery}");
        let failure = &delivery["attempts"][0]["failure"];
        assert_eq!(failure["kind"].as_str(), kind, "{status}: {delivery}");
        assert_eq!(failure["fault"].as_str(), kind.map(|_| "receiver"), "{status}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_not_tried_again() {
    let receiver = Receiver::answering(|_, _| Reply::status(410)).await;
    let webhook = receiver.webhook("gone").set("retry", &json!(["10ms", "10ms"]));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["state"], "dead");
    assert_eq!(deliveries[0]["attempts"].as_array().unwrap().len(), 1, "{}", deliveries[0]);
    let message = deliveries[0]["attempts"][0]["failure"]["message"].as_str().unwrap();
    assert!(message.contains("asked to stop"), "{message}");
    assert!(gateway.log().contains("fault=\"receiver\""), "{}", gateway.log());
}

#[tokio::test]
async fn retry_after_lengthens_the_wait_and_never_shortens_it() {
    const DAY: f64 = 86_400_000.0;
    let date = |date: Timestamp| date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let in_two_hours = date(Timestamp::now() + SignedDuration::from_hours(2));
    // The header, the least and the most that is on record in milliseconds, the least wait in seconds.
    let cases = [
        ("century", "3155760000".to_owned(), Some((DAY, DAY)), 86_400),
        ("beyond", "9".repeat(40), Some((DAY, DAY)), 86_400),
        ("date", in_two_hours, Some((7_100_000.0, 7_200_000.0)), 7_100),
        ("past", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), Some((0.0, 0.0)), 3_600),
        ("sooner", "1".to_owned(), Some((1_000.0, 1_000.0)), 3_600),
        ("garbage", "when it suits you".to_owned(), None, 3_600),
    ];
    let answers = cases.clone();
    let receiver = Receiver::answering(move |request, _| {
        let case = answers.iter().find(|case| request.target == format!("/{}", case.0)).unwrap();
        Reply { header: Some(("retry-after", case.1.clone())), ..Reply::status(503) }
    })
    .await;
    let mut gateway = Gateway::new();
    for (name, ..) in &cases {
        gateway = gateway.webhook(receiver.webhook(name).set("retry", &json!(["1h"])));
    }
    let begun = Timestamp::now();
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = failed_once(&gateway, &id, cases.len()).await;
    for (name, _, on_record, least) in cases {
        let delivery = deliveries.iter().find(|it| it["webhook"]["name"] == name).unwrap();
        let asked = delivery["attempts"][0]["retry_after_ms"].as_f64();
        let fits = match (asked, on_record) {
            (Some(asked), Some((least, most))) => (least..=most).contains(&asked),
            (asked, on_record) => asked.is_none() && on_record.is_none(),
        };
        assert!(fits, "{name}: {delivery}");
        let due: Timestamp = delivery["next_attempt_at"].as_str().unwrap().parse().unwrap();
        let waits = due.duration_since(begun);
        assert!(waits >= SignedDuration::from_secs(least), "{name}: {waits:#}");
        // No longer than the cap, or than the schedule with its jitter; and the test may take its time.
        let most = if least == 86_400 { least } else { 7_200 };
        assert!(waits <= SignedDuration::from_secs(most + 300), "{name}: {waits:#}");
    }
}

#[tokio::test]
async fn retry_after_adds_no_attempt_and_its_cap_can_be_set() {
    let receiver = Receiver::answering(|_, _| Reply {
        header: Some(("retry-after", "3600".to_owned())),
        ..Reply::status(429)
    })
    .await;
    let webhook = receiver.webhook("busy").set("retry", &json!(["10ms"]));
    let gateway = Gateway::new().setting("delivery.max_retry_after = \"50ms\"").webhook(webhook);
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    let attempts = deliveries[0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    let started =
        |n: usize| attempts[n]["started_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(started(1).duration_since(started(0)) >= SignedDuration::from_millis(50));
    assert_eq!(attempts[0]["retry_after_ms"], 50.0);
}

#[tokio::test]
async fn what_a_receiver_repeats_of_a_request_goes_on_record_without_credentials() {
    let receiver = Receiver::answering(|request: &Received, _| Reply {
        body: format!(
            "\u{1b}[2J{} {} {} whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            request.header("authorization"),
            request.header("x-api-key"),
            request.target
        ),
        ..Reply::status(if request.target.contains("fails") { 500 } else { 200 })
    })
    .await;
    let webhook = |name: &str| {
        let url = receiver.url(&format!("/{name}/T0123456789ABCDEF0?token=abcdefghijklmnopqrst"));
        let headers = json!({ "authorization": "Bearer s3cr3t-t0ken", "x-api-key": "k3y-k3y-k3y" });
        Webhook::new(name, &url).set("headers", &headers).set("retry", &json!([]))
    };
    let gateway = Gateway::new().webhook(webhook("fails")).webhook(webhook("works")).start().await;
    let id = gateway.send("a", json!(1)).await;
    for delivery in gateway.settled(&id).await {
        let name = delivery["webhook"]["name"].as_str().unwrap();
        let excerpt = delivery["attempts"][0]["response_excerpt"].as_str().unwrap();
        let expected = format!(
            "\u{fffd}[2J[header authorization] [header x-api-key] \
             /{name}/[part of the URL]?token=[part of the URL] [signing key]"
        );
        assert_eq!(excerpt, expected);
    }
    assert!(!gateway.log().contains("t0ken"), "{}", gateway.log());
    let database = std::fs::read(gateway.folder().join("data/hookmill.db-wal")).unwrap();
    let written = database.windows(12).any(|bytes| bytes == b"s3cr3t-t0ken");
    assert!(!written, "the store holds the credential");
}

#[tokio::test]
async fn attempts_say_how_long_their_phases_took() {
    let delay = Duration::from_millis(100);
    let receiver = Receiver::answering(move |_, _| Reply::after(delay)).await;
    // A name, so that there is something to resolve.
    let url = receiver.url("/").replace("127.0.0.1", "localhost");
    let gateway = Gateway::new().webhook(Webhook::new("named", &url)).start().await;
    let timings = async |n: u32| {
        let id = gateway.send("a", json!(n)).await;
        gateway.settled(&id).await[0]["attempts"][0]["timings"].clone()
    };
    let first = timings(1).await;
    let [dns, connect, first_byte, total] = ["dns_ms", "connect_ms", "first_byte_ms", "total_ms"]
        .map(|phase| first[phase].as_f64().unwrap_or_else(|| panic!("{phase} in {first}")));
    assert!(first_byte >= 100.0 && dns + connect + first_byte <= total, "{first}");
    // The connection is kept open.
    let second = timings(2).await;
    assert_eq!(
        (&second["dns_ms"], &second["connect_ms"]),
        (&Value::Null, &Value::Null),
        "{second}"
    );
    assert!(second["first_byte_ms"].as_f64().unwrap() >= 100.0, "{second}");
}

#[tokio::test]
async fn timings_belong_to_the_attempt_that_they_were_measured_for() {
    let slow = Receiver::answering(|_, _| Reply::after(Duration::from_millis(300))).await;
    let quick = Receiver::start().await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let absent = Webhook::new("absent", &format!("http://{nobody}/")).set("retry", &json!([]));
    let gateway = Gateway::new()
        .webhook(slow.webhook("slow"))
        .webhook(quick.webhook("quick"))
        .webhook(absent)
        .start()
        .await;
    let id = gateway.send("a", json!(1)).await;
    for delivery in gateway.settled(&id).await {
        let timings = &delivery["attempts"][0]["timings"];
        let name = delivery["webhook"]["name"].as_str().unwrap();
        let first_byte = timings["first_byte_ms"].as_f64();
        assert_eq!(timings["dns_ms"], Value::Null, "{name}: the address is literal: {timings}");
        assert!(timings["connect_ms"].is_f64(), "{name}: {timings}");
        assert_eq!(first_byte.is_some(), name != "absent", "{name}: {timings}");
        assert!(name != "slow" || first_byte >= Some(300.0), "{name}: {timings}");
    }
}

/// The event's deliveries once each has failed once and waits for its next attempt.
async fn failed_once(gateway: &Running, id: &str, count: usize) -> Vec<Value> {
    let path = format!("/v1/events/{id}");
    let get = async || gateway.get(&path).await.body["deliveries"].as_array().unwrap().clone();
    eventually("each delivery to be tried", || async {
        get().await.iter().filter(|delivery| delivery["state"] == "retrying").count() == count
    })
    .await;
    get().await
}
