//! The receiver: notes the `webhook-id` of each request and answers 200.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use crate::board::Board;
use crate::connection::Connection;
use crate::order::number_of;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

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
