//! The receivers: a good one notes the `webhook-id` of each request and answers 200; bad ones do neither.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::board::Board;
use crate::connection::Connection;
use crate::order::number_of;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// How long the slow one takes.
const SLOWLY: Duration = Duration::from_secs(10);

/// What is wrong with a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing listens at its port.
    Refuses,
    /// It takes connections and requests, and never answers.
    Silent,
    /// It answers 200 after [`SLOWLY`].
    Slow,
    /// It answers 500 at once.
    Fails,
}

impl Fault {
    /// Each kind.
    pub(crate) const ALL: [Self; 4] = [Self::Refuses, Self::Silent, Self::Slow, Self::Fails];

    /// Its name in what is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refuses => "refuses",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Fails => "fails",
        }
    }
}

/// Begins to receive in this bad way, and returns the address.
pub(crate) async fn start_bad(fault: Fault) -> io::Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = socket.local_addr()?;
    if fault == Fault::Refuses {
        // Kept, so that nobody else gets the port and listens at it.
        tokio::spawn(async move {
            let _socket = socket;
            std::future::pending::<()>().await;
        });
        return Ok(address);
    }
    let listener = socket.listen(1_024)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(receive_badly(stream, fault).await) });
        }
    });
    Ok(address)
}

async fn receive_badly(stream: TcpStream, fault: Fault) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while connection.read().await?.is_some() {
        match fault {
            Fault::Refuses | Fault::Silent => {}
            Fault::Slow => {
                tokio::time::sleep(SLOWLY).await;
                connection.write(OK).await?;
            }
            Fault::Fails => connection.write(FAILED).await?,
        }
    }
    Ok(())
}

/// Begins to receive, and returns the address.
pub(crate) async fn start(board: Arc<Board>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let board = Arc::clone(&board);
            // A connection that breaks is the sender's to notice; what it carried is sent again.
            tokio::spawn(async move { drop(receive(stream, &board).await) });
        }
    });
    Ok(address)
}

async fn receive(stream: TcpStream, board: &Board) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(head) = connection.read().await? {
        board.arrive(head.header("webhook-id").map_or(0, number_of));
        connection.write(OK).await?;
    }
    Ok(())
}
