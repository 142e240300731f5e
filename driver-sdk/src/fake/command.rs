//! Commands of a fake sandbox that has no supervisor: plain child processes, whose output and end
//! are kept until the sandbox is deleted.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::{self, Child};
use super::now_ms;
use crate::capabilities::termination;
use crate::driver::DriverStream;
use crate::proto::run_command_response::Event;
use crate::proto::{
    CommandExited, CommandFile, CommandOutput, RunCommandRequest, RunCommandResponse, SandboxSpec,
    Termination, TerminationReason,
};

/// A command that writes more than this is ended: nobody may miss a byte of what is kept.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// What a program's left-over children may still write after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// As shells have it.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// A command that was started. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Command {
    child: Option<Child>,
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    output: Vec<CommandOutput>,
    bytes: u64,
    ended: Option<Termination>,
}

impl Command {
    /// Places the files, and starts the program. What is wrong with the program itself is how the
    /// command ended.
    pub(super) fn start(
        request: &RunCommandRequest,
        spec: &SandboxSpec,
        workspace: &Path,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> io::Result<Self> {
        for file in &request.files {
            place(file, spec, workspace)?;
        }
        let state = Arc::new(watch::Sender::new(State::default()));
        let mut program = program(request, spec, workspace);
        let (child, pipes) = match Child::start(&mut program, tasks) {
            Ok(started) => started,
            Err(error) => {
                let ended = not_started(&error);
                state.send_modify(|state| state.ended = Some(ended));
                return Ok(Self { child: None, state });
            }
        };
        let command = Self {
            child: Some(child.clone()),
            state,
        };
        let limit = match request.timeout_ms {
            0 => None,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        };
        let (watched, shutdown) = (command.clone(), shutdown.clone());
        tasks.spawn(async move {
            let read = async {
                tokio::join!(
                    watched.read(pipes.stdout, false),
                    watched.read(pipes.stderr, true)
                )
            };
            let ended = watched.until_ended(&child, limit, &shutdown, read).await;
            watched.state.send_modify(|state| state.ended = Some(ended));
        });
        Ok(command)
    }

    /// Everything below it, too. Returns when it is gone.
    pub(super) async fn kill(&self) {
        if let Some(child) = &self.child {
            child.kill(Duration::ZERO).await;
        }
    }

    pub(super) fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Its output from an offset on, and how it ended.
    pub(super) fn attach(&self, from_offset: u64) -> DriverStream<RunCommandResponse> {
        let mut news = self.state.subscribe();
        Box::pin(async_stream::stream! {
            let mut next = 0;
            loop {
                let (output, ended) = {
                    let state = news.borrow_and_update();
                    let new = state.output.get(next..).unwrap_or_default().to_vec();
                    let ended = state.ended.clone();
                    (new, ended.map(|termination| (termination, state.bytes)))
                };
                next += output.len();
                for chunk in output.into_iter().filter_map(|chunk| after(chunk, from_offset)) {
                    yield Ok(event(Event::Output(chunk)));
                }
                if let Some((termination, output_bytes)) = ended {
                    yield Ok(event(Event::Exited(CommandExited {
                        termination: Some(termination),
                        output_bytes,
                        cost_estimate: None,
                    })));
                    return;
                }
                // Whoever has started it keeps the sender until it has ended.
                if news.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    /// Keeps what comes, in the order in which it is read.
    async fn read(&self, source: Option<impl AsyncRead + Unpin>, stderr: bool) {
        let Some(mut source) = source else { return };
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            self.state.send_modify(|state| {
                state.output.push(CommandOutput {
                    offset: state.bytes,
                    stderr,
                    data: Bytes::copy_from_slice(&buffer[..count]),
                });
                state.bytes += count as u64;
            });
            if self.state.borrow().bytes > OUTPUT_BYTES_MAX {
                return self.kill().await;
            }
        }
    }

    async fn until_ended(
        &self,
        child: &Child,
        limit: Option<Duration>,
        shutdown: &CancellationToken,
        read: impl Future<Output = ((), ())>,
    ) -> Termination {
        let mut read = std::pin::pin!(read);
        let mut is_read = false;
        let why = {
            let late = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            let mut late = std::pin::pin!(late);
            loop {
                tokio::select! {
                    _ = &mut read, if !is_read => is_read = true,
                    _ = child.wait() => break None,
                    () = &mut late => break Some("the command took longer than its timeout"),
                    () = shutdown.cancelled() => break Some("the fake driver ends"),
                }
            }
        };
        if why.is_some() {
            child.kill(Duration::ZERO).await;
        }
        if !is_read {
            // Who is still writing then is not listened to any more.
            let _ = timeout(LAST_WORDS, &mut read).await;
        }
        let too_much = self.state.borrow().bytes > OUTPUT_BYTES_MAX;
        let reason = match why {
            Some(_) => TerminationReason::Deadline,
            None if too_much => TerminationReason::PlatformError,
            None => return child.wait().await.termination(now_ms()),
        };
        let message = why.unwrap_or("the command wrote more than the fake driver keeps: 64 MiB");
        termination(reason, message, now_ms())
    }
}

fn event(event: Event) -> RunCommandResponse {
    RunCommandResponse { event: Some(event) }
}

/// What of a chunk is at `offset` or after it.
fn after(mut chunk: CommandOutput, offset: u64) -> Option<CommandOutput> {
    let skip = offset.saturating_sub(chunk.offset);
    let skip = usize::try_from(skip).ok()?;
    if skip >= chunk.data.len() {
        return None;
    }
    chunk.data = chunk.data.slice(skip..);
    chunk.offset = chunk.offset.max(offset);
    Some(chunk)
}

fn program(
    request: &RunCommandRequest,
    spec: &SandboxSpec,
    workspace: &Path,
) -> tokio::process::Command {
    let mut words = request
        .argv
        .iter()
        .map(|word| std::ffi::OsStr::from_bytes(word));
    let mut program = tokio::process::Command::new(words.next().unwrap_or_default());
    program
        .args(words)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", workspace)
        .env("USER", "sandbox")
        .envs(&request.environment)
        .envs(&request.secret_environment)
        .current_dir(workspace.join(&request.cwd))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        program.uid(spec.uid).gid(spec.gid);
    }
    program
}

fn not_started(error: &io::Error) -> Termination {
    Termination {
        exit_code: match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        ..termination(
            TerminationReason::Exited,
            format!("the program cannot be started: {error}"),
            now_ms(),
        )
    }
}

/// A relative path is below the workspace.
fn place(file: &CommandFile, spec: &SandboxSpec, workspace: &Path) -> io::Result<()> {
    let path = workspace.join(&file.path);
    std::fs::write(&path, &file.content)?;
    let mode = match file.mode {
        0 => 0o644,
        mode => mode,
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    let (uid, gid) = child::workload_ids(spec);
    std::os::unix::fs::chown(&path, Some(uid), Some(gid))
}
