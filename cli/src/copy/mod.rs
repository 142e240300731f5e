//! Copies between this machine and a sandbox.
//!
//! Files are checked by their sha256 at the receiving end and appear whole or not at all.
//! Directories travel as tar; what comes out of a sandbox is unpacked as the foreign data it is.

mod download;
mod exact;
mod pack;
mod pipe;
mod spot;
mod unpack;
mod upload;

pub(crate) use download::download;
pub(crate) use spot::Spot;
pub(crate) use upload::upload;

use cofferdam_proto::PIECE_BYTES_MAX;
use cofferdam_proto::gateway::v1::{FileInfo, StatFileRequest};
use serde::Serialize;
use tonic::Code;

use crate::connect::{Client, QUERY, within};
use crate::error::CommandError;

/// One message of a file or an archive.
const CHUNK_BYTES: usize = PIECE_BYTES_MAX;
/// Messages between a disk and a stream.
const QUEUE_CHUNKS: usize = 16;

/// What was copied.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Copied {
    /// Of the file, or of all files together.
    pub(crate) bytes: u64,
    /// Files, directories and links of a directory; 1 for a file. None: a tar was passed through.
    pub(crate) entries: Option<u64>,
    /// Of a file.
    pub(crate) sha256: Option<String>,
    /// Devices, sockets and pipes, which are not copied.
    pub(crate) skipped: u64,
}

/// What is at a path in a sandbox. None: nothing.
async fn stat(
    mut client: Client,
    sandbox: &str,
    path: &str,
) -> Result<Option<FileInfo>, CommandError> {
    let request = StatFileRequest {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
        follow: true,
    };
    match client.stat_file(within(QUERY, request)).await {
        Ok(response) => Ok(response.into_inner().info),
        Err(status) => {
            let is_missing = status.code() == Code::NotFound;
            let error = CommandError::from(status);
            // A sandbox that is not there is another thing.
            let reason = error.reason.as_deref();
            if is_missing && matches!(reason, None | Some("FILE_NOT_FOUND")) {
                Ok(None)
            } else {
                Err(error)
            }
        }
    }
}
