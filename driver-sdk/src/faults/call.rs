//! One call, between the socket and the server: counted, written down, and broken by its rule.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service as _;

use super::journal::{Entry, Outcome};
use super::platform::Shared;
use super::script::{Fault, Rule};
use super::variant::Variant;
use super::{answers, subject};

const PREFIX: &str = "/cofferdam.compute.v1.ComputeDriver/";

/// What is larger is nobody's request.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The HTTP/2 stream is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the call is reset")]
pub(super) struct Reset;

/// A call on one connection.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) live: Shared,
    pub(super) routes: Routes,
    /// Closes the connection.
    pub(super) cut: CancellationToken,
}

impl Call {
    pub(super) async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Reset> {
        let rpc = request.uri().path().strip_prefix(PREFIX).map(str::to_owned);
        let Some(rpc) = rpc else {
            // Health and reflection are served as they are.
            return Ok(pass(self.routes, request.map(Body::new)).await);
        };
        let (mut parts, body) = request.into_parts();
        let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
        let bytes = body.map_err(|_| Reset)?.to_bytes();
        if self.live.breaks(Variant::IgnoredRpcDeadline) {
            parts.headers.remove("grpc-timeout");
        }
        let sandbox = subject::of(&rpc, &bytes);
        let rule = self.live.pick(&rpc, &sandbox);
        let fault = rule.as_ref().map(|rule| name(&rule.fault));
        let entry = self.live.book().begin(&rpc, &sandbox, fault);
        let work = Work {
            routes: self.routes.clone(),
            request: Request::from_parts(parts, bytes),
        };
        match rule {
            Some(rule) => self.broken(rule, work, entry).await,
            None => Ok(ended(entry, work.run().await)),
        }
    }

    async fn broken(self, rule: Rule, work: Work, entry: Entry) -> Result<Response<Body>, Reset> {
        let response = match rule.fault.clone() {
            Fault::Hang { after, for_good } => {
                let work = match after {
                    true => Err(work.run().await),
                    false => Ok(work),
                };
                if for_good {
                    pending::<()>().await;
                }
                self.live.taken_away(&rule).await;
                match work {
                    Ok(work) => work.run().await,
                    Err(response) => response,
                }
            }
            Fault::Delay { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                work.run().await
            }
            Fault::Cut { after } => {
                if after {
                    drop(work.run().await);
                }
                entry.end(Outcome::Broken);
                self.cut.cancel();
                // Nothing is answered before the connection is closed.
                return pending().await;
            }
            Fault::Fail {
                code,
                message,
                fix,
                after,
            } => {
                if after {
                    drop(work.run().await);
                }
                status(code.into(), message, fix).into_http()
            }
            Fault::Reset {} => {
                entry.end(Outcome::Broken);
                return Err(Reset);
            }
            Fault::Http { status } => answers::http(status),
            Fault::Abort {} => {
                tracing::error!(rpc = rule.rpc, "the process ends");
                std::process::abort()
            }
            Fault::Empty {} => instead(work, answers::empty()).await,
            Fault::Garbage {} => instead(work, answers::garbage()).await,
            Fault::Huge { bytes } => instead(work, answers::huge(bytes)).await,
        };
        Ok(ended(entry, response))
    }
}

/// What the right driver would do with the call.
struct Work {
    routes: Routes,
    request: Request<Bytes>,
}

impl Work {
    async fn run(self) -> Response<Body> {
        let request = self.request.map(|bytes| Body::new(Full::new(bytes)));
        pass(self.routes, request).await
    }
}

async fn pass(mut routes: Routes, request: Request<Body>) -> Response<Body> {
    match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn instead(work: Work, answer: Response<Body>) -> Response<Body> {
    drop(work.run().await);
    answer
}

fn ended(entry: Entry, response: Response<Body>) -> Response<Body> {
    entry.end(outcome(&response));
    response
}

/// A unary call that went well, and a stream, have their status at the end of the body.
fn outcome(response: &Response<Body>) -> Outcome {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return match response.status().is_success() {
            true => Outcome::Code(code_name(Code::Ok)),
            false => Outcome::Broken,
        };
    };
    Outcome::Code(code_name(status.code()))
}

fn code_name(code: Code) -> String {
    format!("{code:?}")
}

fn status(code: Code, message: String, fix: String) -> Status {
    let mut details = ErrorDetails::new();
    if !fix.is_empty() {
        details.add_help_link(fix, "");
    }
    Status::with_error_details(code, message, details)
}

fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Hang { .. } => "hang",
        Fault::Delay { .. } => "delay",
        Fault::Cut { .. } => "cut",
        Fault::Fail { .. } => "fail",
        Fault::Reset {} => "reset",
        Fault::Empty {} => "empty",
        Fault::Garbage {} => "garbage",
        Fault::Huge { .. } => "huge",
        Fault::Http { .. } => "http",
        Fault::Abort {} => "abort",
    }
}
