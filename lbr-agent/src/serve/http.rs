//! A small HTTP/1.1 server: GET and HEAD, short answers, one request for each connection.
//!
//! Slow clients cannot keep others out: a connection as a whole has a deadline, and if there are too many, the oldest
//! one gives way to the newest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// Concurrent connections: far more than there are probes and scrapers.
const CONNECTIONS: usize = 64;
/// Deadline for the request.
const REQUEST: Duration = Duration::from_secs(5);
/// Deadline for the answer: as long as Prometheus waits by default.
const CONNECTION: Duration = Duration::from_secs(10);
/// Pause after an error of `accept`: most of them (no file descriptors left) last for a while.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// kube-proxy's header, for load balancers that read it.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// How much of a request is read; hyper's minimum.
const REQUEST_BYTES: usize = 8192;

/// Value of `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Text for people.
    Text,
    /// Metrics in Prometheus' text format.
    Metrics,
    /// JSON.
    Json,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Type,
    pub(super) body: String,
    /// Number of a Service's endpoints here, for load balancers that weight nodes by it.
    pub(super) weight: Option<usize>,
}

impl Answer {
    /// 200.
    pub(super) fn new(content_type: Type, body: impl Into<String>) -> Self {
        Self { status: 200, content_type, body: body.into(), weight: None }
    }

    /// 200 with a text.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self::new(Type::Text, body)
    }

    /// 200, or 503.
    pub(super) fn json(is_ok: bool, body: impl Into<String>) -> Self {
        Self { status: if is_ok { 200 } else { 503 }, ..Self::new(Type::Json, body) }
    }

    /// An error.
    pub(super) fn error(status: u16, body: impl Into<String>) -> Self {
        Self { status, ..Self::text(body) }
    }
}

/// Answers a GET for a path; `None`: there is no such page.
pub(super) type Pages = Arc<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

/// Accepts connections forever.
pub(super) async fn serve(listener: TcpListener, pages: Pages) {
    let mut connections = VecDeque::with_capacity(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|task: &tokio::task::AbortHandle| !task.is_finished());
                if connections.len() >= CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections.push_back(tokio::spawn(connection(stream, pages.clone())).abort_handle());
                // Its request may be here already, and must be read before the connection gives way.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::debug!("accept: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &pages);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // Mistakes of clients are not worth more than a trace.
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, connection).await {
        tracing::trace!("connection: {error}");
    }
}

fn respond(method: &Method, path: &str, pages: &Pages) -> Response<Full<Bytes>> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let answer = if is_read {
        pages(path).unwrap_or_else(|| Answer::error(404, "404 page not found\n"))
    } else {
        Answer::error(405, "Method Not Allowed\n")
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(weight) = answer.weight {
        response.headers_mut().insert(WEIGHT, HeaderValue::from(weight));
    }
    let mut header = |name: HeaderName, value| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    header(CONTENT_TYPE, answer.content_type.name());
    header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if !is_read {
        header(ALLOW, "GET, HEAD");
    }
    response
}
