//! What the driver hands in at the start: identity, the one-time token, whom to run the workload as.
//!
//! It is read once, from a descriptor, a file that is unlinked, or the first line of standard input,
//! and wiped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::args::BootstrapSource;
use crate::token::Token;

const BOOTSTRAP_BYTES_MAX: usize = 64 * 1024;
/// A driver writes the line as soon as we run; one that was killed never does.
const STDIN_PATIENCE: Duration = Duration::from_secs(60);
/// High enough that the kernel prefers the workload over the supervisor when memory ends.
const OOM_SCORE_ADJ_DEFAULT: i32 = 500;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    pub(crate) sandbox_id: String,
    pub(crate) token: Token,
    /// 0: no deadline.
    pub(crate) expire_time_unix_ms: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) user: String,
    pub(crate) workspace: PathBuf,
    pub(crate) oom_score_adj: i32,
    /// What the image wants every program to have.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) handed: Handed,
}

/// Descriptors that a driver may hand in. Not all that are named need be there: the driver's other
/// half, which arranges them, may be an older one.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Counts kills for want of memory: `memory.events` or `memory.oom_control`.
    pub(crate) memory_events: Option<RawFd>,
    /// `cgroup.threads` or `tasks` of the group in which processes share what cpu time the sandbox
    /// may have. The supervisor stays out of it.
    pub(crate) cpu_threads: Option<RawFd>,
}

impl Handed {
    fn problem(&self) -> Option<BootstrapError> {
        let numbers = [self.memory_events, self.cpu_threads];
        let is_standard = numbers.into_iter().flatten().any(|fd| fd < 3);
        let is_same = self.memory_events.is_some() && self.memory_events == self.cpu_threads;
        (is_standard || is_same).then_some(BootstrapError::Field(
            "memory_events_fd and cpu_threads_fd are not two descriptors above 2",
        ))
    }
}

/// The bootstrap cannot be read or makes no sense. Never holds what was read.
#[derive(Debug, Error)]
pub(crate) enum BootstrapError {
    #[error("cannot read the bootstrap")]
    Read(#[source] io::Error),
    #[error("the bootstrap is longer than 64 KiB")]
    TooLong,
    #[error("the bootstrap is not the expected JSON: line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("bootstrap: {0}")]
    Field(&'static str),
}

/// The text as drivers write it. A newer driver may write more than this supervisor knows, so
/// unknown fields are passed over.
#[derive(Deserialize)]
struct Wire<'a> {
    sandbox_id: String,
    /// Borrowed, so that there is no second copy to wipe.
    token: &'a str,
    #[serde(default)]
    expire_time_unix_ms: u64,
    workload: WireWorkload,
    workspace: String,
    oom_score_adj: Option<i32>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    memory_events_fd: Option<RawFd>,
    cpu_threads_fd: Option<RawFd>,
}

#[derive(Deserialize)]
struct WireWorkload {
    uid: u32,
    gid: u32,
    home: String,
    user: String,
}

/// Reads the bootstrap and takes it from where it was.
pub(crate) fn read(source: &BootstrapSource) -> Result<Bootstrap, BootstrapError> {
    let file: File = match source {
        BootstrapSource::Fd(fd) => inherited(*fd).map_err(BootstrapError::Read)?.into(),
        BootstrapSource::File(path) => open_and_unlink(path).map_err(BootstrapError::Read)?,
        BootstrapSource::Stdin => {
            return parse(&first_line(rustix::stdio::stdin(), STDIN_PATIENCE)?);
        }
    };
    // As large as it can become from the start: growing would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(BOOTSTRAP_BYTES_MAX + 1));
    file.take(BOOTSTRAP_BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)
        .map_err(BootstrapError::Read)?;
    if text.len() > BOOTSTRAP_BYTES_MAX {
        return Err(BootstrapError::TooLong);
    }
    parse(&text)
}

/// Reads up to the first newline and not a byte further, since the stream may follow.
fn first_line(from: impl AsFd, patience: Duration) -> Result<Zeroizing<Vec<u8>>, BootstrapError> {
    let deadline = Instant::now() + patience;
    let mut line = Zeroizing::new(Vec::with_capacity(BOOTSTRAP_BYTES_MAX));
    loop {
        wait_readable(&from, deadline).map_err(BootstrapError::Read)?;
        let mut byte = [0];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut byte))
            .map_err(|errno| BootstrapError::Read(errno.into()))?;
        match byte {
            _ if count == 0 => {
                return Err(BootstrapError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            [b'\n'] => return Ok(line),
            _ if line.len() == BOOTSTRAP_BYTES_MAX => return Err(BootstrapError::TooLong),
            [byte] => line.push(byte),
        }
    }
}

fn wait_readable(from: &impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(from, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes over a descriptor that the command line or the bootstrap names.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    #[allow(unsafe_code, reason = "descriptors are inherited by number")]
    // SAFETY: the number is from whoever started us and above 2, is taken over once, and nothing has
    // been opened yet that could have it.
    unsafe {
        let borrowed = rustix::fd::BorrowedFd::borrow_raw(fd);
        rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn open_and_unlink(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn parse(text: &[u8]) -> Result<Bootstrap, BootstrapError> {
    let wire: Wire<'_> = serde_json::from_slice(text).map_err(|error| BootstrapError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    let token = Token::from_hex(wire.token)
        .ok_or(BootstrapError::Field("token is not 64 hexadecimal digits"))?;
    if wire.sandbox_id.is_empty() || wire.sandbox_id.len() > 128 {
        return Err(BootstrapError::Field("sandbox_id is empty or too long"));
    }
    let workspace = PathBuf::from(wire.workspace);
    if !workspace.is_absolute() {
        return Err(BootstrapError::Field("workspace is not an absolute path"));
    }
    let oom_score_adj = wire.oom_score_adj.unwrap_or(OOM_SCORE_ADJ_DEFAULT);
    if !(-1000..=1000).contains(&oom_score_adj) {
        return Err(BootstrapError::Field(
            "oom_score_adj is not from -1000 to 1000",
        ));
    }
    let handed = Handed {
        memory_events: wire.memory_events_fd,
        cpu_threads: wire.cpu_threads_fd,
    };
    if let Some(problem) = handed.problem() {
        return Err(problem);
    }
    Ok(Bootstrap {
        sandbox_id: wire.sandbox_id,
        token,
        expire_time_unix_ms: wire.expire_time_unix_ms,
        uid: wire.workload.uid,
        gid: wire.workload.gid,
        home: wire.workload.home,
        user: wire.workload.user,
        workspace,
        oom_score_adj,
        environment: wire.environment,
        handed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: &str, rest: &str) -> String {
        format!(
            r#"{{"sandbox_id":"sbx-1","token":"{token}","workspace":"/workspace",
                "workload":{{"uid":1000,"gid":1001,"home":"/h","user":"u"}}{rest}}}"#
        )
    }

    #[test]
    fn defaults_fill_what_may_be_missing() {
        let text = text(&"ab".repeat(32), r#","something_newer":[1]"#);
        let bootstrap = parse(text.as_bytes()).expect("parses");
        assert_eq!(bootstrap.token.bytes(), &[0xab; 32]);
        assert_eq!((bootstrap.uid, bootstrap.gid), (1000, 1001));
        assert_eq!(bootstrap.expire_time_unix_ms, 0);
        assert_eq!(bootstrap.oom_score_adj, OOM_SCORE_ADJ_DEFAULT);
    }

    #[test]
    fn descriptors_may_be_handed_in() {
        let handed = r#","memory_events_fd":5,"cpu_threads_fd":6"#;
        let bootstrap = parse(text(&"ab".repeat(32), handed).as_bytes()).expect("parses");
        let numbers = (bootstrap.handed.memory_events, bootstrap.handed.cpu_threads);
        assert_eq!(numbers, (Some(5), Some(6)));
        for bad in [
            r#","memory_events_fd":2"#,
            r#","memory_events_fd":5,"cpu_threads_fd":5"#,
        ] {
            let refused = parse(text(&"ab".repeat(32), bad).as_bytes());
            assert!(matches!(refused, Err(BootstrapError::Field(_))), "{bad}");
        }
    }

    #[test]
    fn an_error_never_holds_the_token() {
        let secret = "secretsecret";
        let error = parse(text(secret, "").as_bytes()).expect_err("no token");
        assert!(!format!("{error:?}").contains(secret));
        let broken = format!(r#"{{"token":"{secret}","#);
        let error = parse(broken.as_bytes()).expect_err("no JSON");
        assert!(!format!("{error:?}").contains(secret));
    }

    #[test]
    fn only_the_first_line_is_taken_from_the_stream() {
        use std::io::Write as _;
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        theirs.write_all(b"{\"a\":1}\nthe stream").expect("written");
        let line = first_line(&ours, Duration::from_secs(5)).expect("a line");
        assert_eq!(&**line, b"{\"a\":1}");
        let mut rest = [0; 10];
        (&ours).read_exact(&mut rest).expect("the rest");
        assert_eq!(&rest, b"the stream");
    }

    #[test]
    fn a_line_that_does_not_come_or_does_not_end_is_an_error() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let late = first_line(&ours, Duration::ZERO);
        assert!(
            matches!(&late, Err(BootstrapError::Read(error)) if error.kind() == io::ErrorKind::TimedOut)
        );
        drop(theirs);
        let ended = first_line(&ours, Duration::from_secs(5));
        assert!(matches!(ended, Err(BootstrapError::Read(_))));
    }

    #[test]
    fn a_bootstrap_file_is_gone_after_it_was_read() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("bootstrap");
        std::fs::write(&path, text(&"00".repeat(32), "")).expect("written");
        read(&BootstrapSource::File(path.clone())).expect("read");
        assert!(!path.exists());
        let gone = read(&BootstrapSource::File(path));
        assert!(matches!(gone, Err(BootstrapError::Read(_))));
    }
}
