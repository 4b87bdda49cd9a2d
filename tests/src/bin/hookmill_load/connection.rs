//! HTTP/1.1 on a TCP connection, as little of it as both sides need.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A message's head may be no longer.
const MAX_HEAD: usize = 16 << 10;

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the message that was read last ends in the buffer.
    end: usize,
}

/// A message without its body, which nobody looks at.
pub(crate) struct Head<'a>(&'a [u8]);

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10), end: 0 })
    }

    pub(crate) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await
    }

    /// Reads a whole message; nothing when the other side has closed the connection before one began.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Head<'_>>> {
        self.buffer.drain(..self.end);
        self.end = 0;
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::Error::other("the message's head is too long"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        let body = self.head(head).content_length()?;
        while self.buffer.len() < head + body {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.end = head + body;
        Ok(Some(self.head(head)))
    }

    fn head(&self, end: usize) -> Head<'_> {
        Head(self.buffer.get(..end).unwrap_or_default())
    }
}

impl Head<'_> {
    /// The status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        let status = self.0.split(|byte| *byte == b' ').nth(1)?;
        std::str::from_utf8(status).ok()?.parse().ok()
    }

    /// The value of a header; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
            let (before, after) = line.split_at_checked(name.len())?;
            let value = after.strip_prefix(b":")?;
            before.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }

    fn content_length(&self) -> io::Result<usize> {
        let value = self.header("content-length").unwrap_or(b"0");
        std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::Error::other("the content-length is not a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_status_and_headers() {
        let head = Head(b"HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\nwebhook-id:evt_1\r\n\r\n");
        assert_eq!(head.status(), Some(202));
        assert_eq!(head.content_length().unwrap(), 12);
        assert_eq!(head.header("webhook-id"), Some(b"evt_1".as_slice()));
        assert_eq!(head.header("webhook"), None);
    }
}
