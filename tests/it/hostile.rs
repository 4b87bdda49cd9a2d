//! Receivers that do not speak HTTP as they should: bounded in time and memory, each with its typed failure.

use std::time::Duration;

use hookmill_tests::{Gateway, Webhook};
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
    LargeHead,
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
    // All of the request, which ends with that of its body: closing on unread bytes would reset.
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        request.push(stream.read_u8().await?);
    }
    match manner {
        Manner::EarlyClose => {}
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
        (Manner::LargeHead, Some("protocol")),
    ];
    for (manner, _) in cases {
        let url = answering(manner).await;
        let webhook = Webhook::new(&format!("{manner:?}"), &url).set("retry", &json!([]));
        gateway = gateway.webhook(webhook);
    }
    let gateway = gateway.start().await;
    let id = gateway.send("a", json!(1)).await;
    let deliveries = gateway.settled(&id).await;
    for (manner, expected) in cases {
        let name = format!("{manner:?}");
        let delivery = deliveries.iter().find(|it| it["webhook"]["name"] == name).unwrap();
        let attempt = &delivery["attempts"][0];
        assert_eq!(attempt["failure"]["kind"].as_str(), expected, "{name}: {attempt}");
        assert!(attempt["response_excerpt"].as_str().unwrap().len() <= 4096, "{name}");
        assert!(attempt["duration_ms"].as_f64().unwrap() < 10_000.0, "{name}: {attempt}");
    }
}
