//! One request: counted, possibly damaged, and answered.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::discovery;
use super::failure::Failure;
use super::fault::{Damage, Fault};
use super::reply::{Answer, Reply};
use super::request::{Query, Target, Verb};
use super::shared::{Request, Shared};
use super::{delete, read, watch, write};

pub(super) async fn handle(shared: Arc<Shared>, request: http::Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let (target, verb) = asked(&shared, &head, &query);
    let kind = target.as_ref().map(|target| target.kind);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let method = head.method.to_string();
    let (at, fault) = {
        let mut state = shared.state();
        state.requests.push(Request { verb, kind, method, path, code: None });
        (state.requests.len() - 1, state.faults.take(kind, verb))
    };
    let answer = async {
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Refuse(code, retry_after)) => return Err(Failure::injected(code, retry_after)),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Cut(_) | Fault::Malformed(_)) | None => {}
        }
        authorized(&shared, &head)?;
        answer(&shared, &head, target, verb, &query, &body)
    };
    let reply = answer.await.unwrap_or_else(Reply::from);
    // The test may have cleared the list in between.
    if let Some(request) = shared.state().requests.get_mut(at) {
        request.code = Some(reply.code.as_u16());
    }
    Ok(reply.response(fault.map_or(Damage::None, Fault::damage)))
}

/// The target and verb of a request. A kind that is not served is as unknown as any other path.
fn asked(shared: &Shared, head: &Parts, query: &Query) -> (Option<Target>, Verb) {
    let target = Target::of(head.uri.path());
    let target = target.filter(|target| !shared.state().settings.absent.contains(target.kind));
    let verb = target.as_ref().and_then(|target| target.verb(&head.method, query)).unwrap_or(Verb::Other);
    (target, verb)
}

fn authorized(shared: &Shared, head: &Parts) -> Result<(), Failure> {
    let state = shared.state();
    let Some(token) = &state.settings.token else {
        return Ok(());
    };
    let given = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|given| given.strip_prefix("Bearer ")) {
        Some(given) if given == token => Ok(()),
        _ => Err(Failure::injected(401, None)),
    }
}

fn answer(
    shared: &Arc<Shared>,
    head: &Parts,
    target: Option<Target>,
    verb: Verb,
    query: &Query,
    body: &Bytes,
) -> Result<Reply, Failure> {
    let Some(target) = target else {
        let found = discovery::answer(head.uri.path(), &shared.state().settings.absent);
        return match found {
            Some(Value::String(text)) => Ok(Reply::parts(StatusCode::OK, [Bytes::from(text)])),
            Some(value) => Ok(Reply::json(StatusCode::OK, &value)),
            None => Err(Failure::no_path()),
        };
    };
    if query.has("dryRun") {
        return Err(Failure::bad_request("dryRun is not served by this test server"));
    }
    let content_type =
        head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if matches!(verb, Verb::Create | Verb::Update) {
        write::expect_json(content_type)?;
    }
    match verb {
        Verb::Get => read::get(&shared.state(), &target),
        Verb::List => read::list(&shared.state(), &target, query),
        Verb::Watch => watch::watch(shared, target, query),
        Verb::Create => shared.change(|state| write::create(state, &target, body)),
        Verb::Update => shared.change(|state| write::update(state, &target, body)),
        Verb::Delete => shared.change(|state| delete::delete(state, &target, body)),
        Verb::DeleteCollection => shared.change(|state| delete::delete_collection(state, &target, query)),
        Verb::Patch => {
            let patch_type = write::PatchType::of(content_type)?;
            shared.change(|state| write::patch(state, &target, patch_type, query, body))
        }
        Verb::Other => {
            let message = "the server does not allow this method on the requested resource";
            Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
        }
    }
}
