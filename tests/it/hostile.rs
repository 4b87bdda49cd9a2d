//! Receivers that do not speak HTTP as they should: bounded in time and memory, each with its typed failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hookmill_tests::tls::{self, Authority};
use hookmill_tests::{Gateway, Receiver, Reply, Webhook};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy)]
enum Manner {
    EndlessBody,
    SlowHead,
    SlowBody,
    Garbage,
    EarlyClose,
    Reset,
    Silence,
    CloseInBody,
    LongerThanItSays,
    LargeHead,
    ManyHeaders,
    GzipBomb,
}

/// A socket that answers every request in this manner; its URL.
async fn answering(manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The gateway hanging up is what some of them are about.
            tokio::spawn(async move { drop(answer(stream, manner).await) });
        }
    });
    url
}

async fn answer(mut stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    read_request(&mut stream).await?;
    match manner {
        Manner::EarlyClose => {}
        Manner::Reset => stream.set_zero_linger()?,
        Manner::Silence => std::future::pending().await,
        Manner::CloseInBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
        }
        Manner::LongerThanItSays => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.write_all(&vec![b'x'; 1 << 20]).await?;
        }
        Manner::ManyHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for n in 0..10_000 {
                stream.write_all(format!("x-{n:04}: {}\r\n", "a".repeat(90)).as_bytes()).await?;
            }
            stream.write_all(b"\r\n").await?;
        }
        Manner::GzipBomb => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            // A gzip header, and then what would unfold a thousandfold.
            stream.write_all(b"\x1f\x8b\x08\0\0\0\0\0\0\x03").await?;
            stream.write_all(&vec![0; 4_000_000 - 10]).await?;
        }
        Manner::Garbage => stream.write_all(b"\0\xff garbage\r\n\r\n").await?,
        Manner::LargeHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await?;
            stream.write_all(&vec![b'a'; 2 << 20]).await?;
        }
        Manner::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 4_096]).await?;
            }
        }
        Manner::SlowHead => trickle(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0").await?,
        Manner::SlowBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await?;
            trickle(&mut stream, &[b'x'; 100]).await?;
        }
    }
    Ok(())
}

/// Reads all of a request, which ends with that of its body: closing on unread bytes would reset.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        request.push(stream.read_u8().await?);
    }
    Ok(())
}

async fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn whatever_a_receiver_answers_is_bounded_and_on_record() {
    let mut gateway = Gateway::new().setting("delivery.timeout = \"1s\"");
    let cases = [
        (Manner::EndlessBody, None),
        (Manner::SlowHead, Some("timeout")),
        (Manner::SlowBody, Some("timeout")),
        (Manner::Garbage, Some("protocol")),
        (Manner::EarlyClose, Some("protocol")),
        (Manner::Reset, Some("connect")),
        (Manner::Silence, Some("timeout")),
        (Manner::CloseInBody, Some("protocol")),
        (Manner::LongerThanItSays, None),
        (Manner::LargeHead, Some("protocol")),
        (Manner::ManyHeaders, Some("protocol")),
        (Manner::GzipBomb, None),
    ];
    for (manner, _) in cases {
        let url = answering(manner).await;
        let webhook = Webhook::new(&format!("{manner:?}"), &url).set("retry", &json!([]));
        gateway = gateway.webhook(webhook);
    }
    let healthy = Receiver::start().await;
    let gateway = gateway.other_webhook(healthy.webhook("healthy")).start().await;
    let before = peak_memory(gateway.id());
    let id = gateway.send("a", json!(1)).await;
    // While they misbehave, others are delivered to.
    for n in 0..20 {
        gateway.send_as_other("a", json!(n)).await;
    }
    assert_eq!(healthy.wait_for(20).await.len(), 20);
    let deliveries = gateway.settled(&id).await;
    for (manner, expected) in cases {
        let name = format!("{manner:?}");
        let delivery = deliveries.iter().find(|it| it["webhook"]["name"] == name).unwrap();
        let attempt = &delivery["attempts"][0];
        assert_eq!(attempt["failure"]["kind"].as_str(), expected, "{name}: {attempt}");
        assert!(attempt["response_excerpt"].as_str().unwrap().len() <= 4096, "{name}");
        assert!(attempt["duration_ms"].as_f64().unwrap() < 10_000.0, "{name}: {attempt}");
    }
    let grown = peak_memory(gateway.id()) - before;
    assert!(grown < 32 << 10, "{grown} KiB more than before");
}

/// The most memory that a process has had, in KiB.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_redirect_loop_is_one_request_an_attempt() {
    let receiver = Receiver::answering(|request, _| Reply {
        header: Some(("location", request.target.clone())),
        ..Reply::status(302)
    })
    .await;
    let gateway = Gateway::new().webhook(receiver.webhook("loop")).start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    assert_eq!(deliveries[0]["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up_and_the_next_request_makes_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                // One request is answered; the connection stays open, and says nothing ever after.
                read_request(&mut stream).await?;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                std::future::pending::<std::io::Result<()>>().await
            });
        }
    });
    let webhook = Webhook::new("silent", &url).set("timeout", &json!("500ms"));
    let gateway = Gateway::new().webhook(webhook).start().await;
    let first = gateway.send("a", json!(1)).await;
    assert_eq!(gateway.settled(&first).await[0]["state"], "delivered");
    let second = gateway.send("a", json!(2)).await;
    let deliveries = gateway.settled(&second).await;
    let attempts = &deliveries[0]["attempts"];
    assert_eq!(attempts[0]["failure"]["kind"], "timeout", "{attempts}");
    assert_eq!(attempts[1]["status"], 200, "{attempts}");
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_receiver_that_goes_away_in_http2_fails_the_attempt() {
    let authority = Authority::new();
    let acceptor = authority.issue().acceptor(None, &["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                // The client's preface, then empty settings, and GOAWAY for all streams, without an error.
                stream.read_exact(&mut [0; 24]).await?;
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
                stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await?;
                stream.flush().await?;
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
            });
        }
    });
    let gateway = Gateway::new();
    std::fs::write(gateway.folder().join("ca.pem"), authority.pem()).unwrap();
    let webhook = Webhook::new("leaving", &format!("https://localhost:{port}/"))
        .set("tls", &json!({ "ca_file": "ca.pem" }))
        .set("timeout", &json!("20s"))
        .set("retry", &json!([]));
    let gateway = gateway.webhook(webhook).start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    let failure = &deliveries[0]["attempts"][0]["failure"];
    assert_eq!(failure["kind"], "protocol", "{}", deliveries[0]);
    assert!(accepted.load(Ordering::Relaxed) <= 5, "bounded tries within an attempt");
}

#[tokio::test]
async fn certificates_that_nobody_vouches_for_or_that_expired_are_failures_of_tls() {
    let receiver = Receiver::start().await;
    let authority = Authority::new();
    let mut gateway = Gateway::new();
    for (name, issued) in [("unknown", authority.issue()), ("old", authority.issue_expired())] {
        let address = tls::front(issued.acceptor(None, &[]), receiver.address()).await;
        let url = format!("https://localhost:{}/", address.port());
        gateway = gateway.webhook(Webhook::new(name, &url).set("retry", &json!([])));
    }
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    for delivery in gateway.settled(&id).await {
        let failure = &delivery["attempts"][0]["failure"];
        assert_eq!(failure["kind"], "tls", "{delivery}");
        assert_eq!(failure["fault"], "receiver", "{delivery}");
    }
    assert!(receiver.received().is_empty());
}
