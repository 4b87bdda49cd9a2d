//! Small real proxies: HTTP, by `CONNECT` and by forwarding, and SOCKS5 (RFC 1928, RFC 1929).

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// `hookmill:pass-w0rd`, as HTTP has it.
const BASIC: &str = "Basic aG9va21pbGw6cGFzcy13MHJk";

/// A proxy on a socket of its own, for the user `hookmill` with the password `pass-w0rd`.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// An HTTP proxy.
    pub async fn http() -> Self {
        Self::start(|stream, asked| async move { http(stream, &asked).await }).await
    }

    /// A SOCKS5 proxy.
    pub async fn socks5() -> Self {
        Self::start(|stream, asked| async move { socks5(stream, &asked).await }).await
    }

    async fn start<F>(
        serve: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::default());
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&log)));
            }
        });
        Self { address, asked }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The hosts and ports that it was asked to connect to, by those that it knows.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn http(mut stream: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let is_known = head.lines().any(|line| {
        let header = line.split_once(": ");
        header.is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("proxy-authorization") && value == BASIC
        })
    });
    if !is_known {
        return stream
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            .await;
    }
    let target = head.split(' ').nth(1).unwrap();
    let (host, first) = match target.strip_prefix("http://") {
        None => (target, None),
        Some(rest) => {
            let (host, path) = rest.split_once('/').unwrap();
            (host, Some(head.replacen(target, &format!("/{path}"), 1)))
        }
    };
    asked.lock().unwrap().push(host.to_owned());
    let Ok(mut server) = TcpStream::connect(host).await else {
        return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    };
    match first {
        Some(first) => server.write_all(first.as_bytes()).await?,
        None => stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?,
    }
    copy_bidirectional(&mut stream, &mut server).await.map(drop)
}

async fn socks5(mut stream: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let [_, methods] = read(&mut stream).await?;
    let mut offered = vec![0; methods.into()];
    stream.read_exact(&mut offered).await?;
    if !offered.contains(&2) {
        return stream.write_all(&[5, 0xff]).await;
    }
    stream.write_all(&[5, 2]).await?;
    let [_] = read(&mut stream).await?;
    let (name, password) = (field(&mut stream).await?, field(&mut stream).await?);
    let is_known = name == "hookmill" && password == "pass-w0rd";
    stream.write_all(&[1, u8::from(!is_known)]).await?;
    if !is_known {
        return Ok(());
    }
    let [_, _, _, kind] = read(&mut stream).await?;
    let host = match kind {
        1 => Ipv4Addr::from(read(&mut stream).await?).to_string(),
        _ => field(&mut stream).await?,
    };
    let target = format!("{host}:{}", u16::from_be_bytes(read(&mut stream).await?));
    asked.lock().unwrap().push(target.clone());
    let connected = TcpStream::connect(target).await;
    let reply = if connected.is_ok() { 0 } else { 5 };
    stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    let Ok(mut server) = connected else { return Ok(()) };
    copy_bidirectional(&mut stream, &mut server).await.map(drop)
}

async fn read<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map(|_| bytes)
}

/// A text behind its length.
async fn field(stream: &mut TcpStream) -> std::io::Result<String> {
    let [len] = read(stream).await?;
    let mut bytes = vec![0; len.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}
