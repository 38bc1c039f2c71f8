//! The answer to a request, before it is bytes on a connection.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use super::failure::Failure;
use super::fault::Damage;
use super::watch::Watch;

/// A body. Its error breaks the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// hyper sends what it holds while a body has nothing more to send.
const FLUSH: Duration = Duration::from_millis(10);

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: StatusCode,
    retry_after: Option<u64>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A JSON text in parts.
    Parts(Vec<Bytes>),
    /// A list: the text before the items, the items, the text after them.
    List(Bytes, Vec<Bytes>, Bytes),
    Watch(Box<Watch>),
}

impl Reply {
    pub(super) fn json(code: StatusCode, value: &Value) -> Self {
        Self::parts(code, [Bytes::from(value.to_string())])
    }

    pub(super) fn parts(code: StatusCode, parts: impl IntoIterator<Item = Bytes>) -> Self {
        Self { code, retry_after: None, content: Content::Parts(parts.into_iter().collect()) }
    }

    pub(super) fn list(head: Bytes, items: Vec<Bytes>, tail: Bytes) -> Self {
        Self { code: StatusCode::OK, retry_after: None, content: Content::List(head, items, tail) }
    }

    pub(super) fn watch(watch: Watch) -> Self {
        Self { code: StatusCode::OK, retry_after: None, content: Content::Watch(Box::new(watch)) }
    }

    /// The response, damaged if a test injected that.
    pub(super) fn response(self, damage: Damage) -> Response<Body> {
        let (length, body) = match self.content {
            Content::Parts(parts) => whole(Bytes::new(), vec![joined(parts)], Bytes::new(), damage),
            Content::List(head, items, tail) => whole(head, items, tail, damage),
            Content::Watch(watch) => (None, streamed(damaged_events(watch.events(), damage))),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self { retry_after: failure.retry_after, ..Self::json(failure.code, &failure.status()) }
    }
}

/// A body of known length, with commas between the items. A cut body keeps the length of the whole.
fn whole(head: Bytes, mut items: Vec<Bytes>, tail: Bytes, damage: Damage) -> (Option<u64>, Body) {
    if let Damage::Malformed { at } = damage
        && let Some(item) = items.get_mut(at)
    {
        *item = malformed(item);
    }
    let commas = items.len().saturating_sub(1);
    let length = head.len() + commas + tail.len() + items.iter().map(Bytes::len).sum::<usize>();
    let cut = match damage {
        Damage::Cut { after } => Some(after.min(items.len().saturating_sub(1))),
        _ => None,
    };
    if let Some(after) = cut {
        items.truncate(after + 1);
        if let Some(item) = items.get_mut(after) {
            *item = half(item);
        }
    }
    let items = items.into_iter().enumerate().flat_map(|(at, item)| {
        let comma = (at > 0).then(|| Ok(Bytes::from_static(b",")));
        comma.into_iter().chain([Ok(item)])
    });
    let frames = stream::iter([Ok(head)].into_iter().chain(items));
    let body = match cut {
        Some(_) => streamed(frames.chain(broken())),
        None => streamed(frames.chain(stream::iter([Ok(tail)]))),
    };
    (Some(length as u64), body)
}

/// The events of a watch, one of them damaged.
fn damaged_events(
    events: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    damage: Damage,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    events.enumerate().flat_map(move |(at, event)| {
        let (event, cut) = match (damage, event) {
            (Damage::Malformed { at: bad }, Ok(event)) if bad == at => (Ok(malformed(&event)), false),
            (Damage::Cut { after }, Ok(event)) if after == at => (Ok(half(&event)), true),
            (_, event) => (event, false),
        };
        stream::iter([event]).chain(if cut { broken().left_stream() } else { stream::empty().right_stream() })
    })
}

/// Breaks the connection after the written bytes have been sent.
pub(super) fn broken() -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::once(async {
        tokio::time::sleep(FLUSH).await;
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the test"))
    })
}

fn half(item: &Bytes) -> Bytes {
    item.slice(..item.len() / 2)
}

/// No longer JSON, but of the same length, and each line still ends as a line.
fn malformed(item: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&item[..]);
    if let Some(brace) = bytes.iter().rposition(|byte| *byte == b'}') {
        bytes[brace] = b']';
    }
    bytes.freeze()
}

fn joined(parts: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(parts) {
        Ok([part]) => part,
        Err(parts) => Bytes::from(parts.concat()),
    }
}

fn streamed(frames: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(|frame| frame.map(Frame::data))).boxed_unsync()
}

/// The result of hyper's service.
pub(super) type Answer = Result<Response<Body>, Infallible>;
