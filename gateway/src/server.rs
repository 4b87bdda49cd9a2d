//! The HTTP server: connections, their limits, and their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::problem::Problem;
use crate::shutdown::Drain;

/// How long the head of a request may take to arrive; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that are served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 8_192;

/// The most headers in one request.
const MAX_HEADERS: usize = 64;

/// How long to wait when no connection can be accepted, as without free file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves these routes until the drain begins; then lets requests under way finish.
pub async fn run(listener: TcpListener, routes: Router, drain: Drain) {
    let routes = routes
        .fallback(|uri: Uri| async move {
            Problem::not_found(format!("there is no {:?}; see the README for the API", uri.path()))
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            Problem::method_not_allowed(format!("{:?} does not take {method}", uri.path()))
        });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.begun() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (routes, drain) = (routes.clone(), drain.clone());
                tokio::spawn(async move {
                    connection(stream, routes, &drain).await;
                    drop((place, drain));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, routes: Router, drain: &Drain) {
    // Without it, small answers wait for acknowledgements; a socket that refuses is still served.
    drop(stream.set_nodelay(true));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = drain.begun() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
