//! `cofferdam logs`: the output of an execution, also of one that ended long ago.

use std::io;

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::{ExecuteEvent, ReadOutputRequest};
use data_encoding::BASE64;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{DONE, missing};
use crate::cli::Global;
use crate::connect::{self, Client, QUERY, within};
use crate::error::{CommandError, Kind};
use crate::name;
use crate::session::{
    Backoff, Chunk, Cursor, ReconnectFlags, Stream, Writer, is_cut, missing_output,
};
use crate::status::Cause;
use crate::ui::Ui;
use crate::view::execution::{self, ExecutionView};

/// Write the output of an execution: its stdout to stdout, its stderr to stderr.
///
/// With --json each line is {"offset", "stream", "text"} or, for bytes that are not UTF-8,
/// {"offset", "stream", "base64"}; what is not kept any more is {"offset", "missing_bytes"}; the
/// last line of an execution that has ended is {"finished"}.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on until the execution ends.
    #[arg(long, short)]
    follow: bool,
    /// Begin at this offset in the whole output.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    from_offset: u64,
    #[command(flatten)]
    reconnect: ReconnectFlags,
    /// Id of the execution.
    execution: String,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check([&args.execution])?;
    let client = connect::client(global)?;
    let mut reader = Reader {
        client,
        cursor: Cursor::at(args.from_offset),
        sink: if ui.json {
            Sink::Json
        } else {
            Sink::Bytes(Writer::new())
        },
        ui,
    };
    let mut backoff = Backoff::new(args.reconnect.limit());
    let read = read_all(&mut reader, &args, &mut backoff).await;
    // What came gets out, also when no more does.
    if let Sink::Bytes(writer) = reader.sink {
        writer.finish().await.map_err(CommandError::output)?;
    }
    read.map(|()| DONE)
}

/// Reads to the end, across cuts.
async fn read_all(
    reader: &mut Reader<'_>,
    args: &Args,
    backoff: &mut Backoff,
) -> Result<(), CommandError> {
    while let Some(status) = reader.read(args, backoff).await? {
        if !is_cut(&status, true) {
            return Err(missing::execution(reader.client.clone(), &args.execution, status).await);
        }
        let first = !backoff.is_trying();
        let Some(pause) = backoff.next(Instant::now()) else {
            return Err(cut_for_good(reader, args, status));
        };
        if first {
            let text = "the connection to the gateway was cut; reconnecting";
            reader.ui.note_again("connection", text);
        }
        sleep(pause).await;
    }
    Ok(())
}

fn cut_for_good(reader: &Reader<'_>, args: &Args, status: Status) -> CommandError {
    let id = &args.execution;
    CommandError::new(
        Kind::Lost,
        format!("the connection was cut, and the output of {id} is incomplete"),
    )
    .hint(format!(
        "`cofferdam logs --from-offset {} {id}` goes on from here",
        reader.cursor.next_offset()
    ))
    .caused_by(Cause(status))
}

#[derive(Debug)]
struct Reader<'a> {
    client: Client,
    cursor: Cursor,
    sink: Sink,
    ui: &'a Ui,
}

#[derive(Debug)]
enum Sink {
    Bytes(Writer),
    Json,
}

impl Reader<'_> {
    /// Reads one stream to its end. A status: it was cut.
    async fn read(
        &mut self,
        args: &Args,
        backoff: &mut Backoff,
    ) -> Result<Option<Status>, CommandError> {
        let request = ReadOutputRequest {
            execution_id: args.execution.clone(),
            from_offset: self.cursor.next_offset(),
            follow: args.follow,
        };
        let mut events = match self.client.read_output(within(QUERY, request)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Some(status)),
        };
        loop {
            match events.message().await {
                Ok(Some(ExecuteEvent { event: Some(event) })) => {
                    backoff.reset();
                    if self.event(event).await? {
                        return Ok(None);
                    }
                }
                Ok(Some(ExecuteEvent { event: None })) => {}
                // Without --follow this is all there is so far.
                Ok(None) if !args.follow => return Ok(None),
                Ok(None) => return Ok(Some(Status::unknown("the stream ended early"))),
                Err(status) => return Ok(Some(status)),
            }
        }
    }

    /// True after the last one.
    async fn event(&mut self, event: Event) -> Result<bool, CommandError> {
        let before = self.cursor.next_offset();
        let (chunk, finished) = match event {
            Event::Output(output) => (self.cursor.output(output), None),
            Event::Gap(gap) => {
                self.cursor.gap(&gap);
                (None, None)
            }
            Event::Finished(execution) => (None, Some(execution)),
            Event::Notice(notice) => {
                self.ui.remark(&execution::notice(&notice));
                (None, None)
            }
            Event::Accepted(_) | Event::State(_) | Event::StdinOffset(_) => (None, None),
        };
        let missing = self.cursor.take_missing();
        if missing > 0 {
            self.missing(before, missing)?;
        }
        if let Some(chunk) = chunk {
            self.write(chunk).await?;
        }
        match (finished, &self.sink) {
            (Some(execution), Sink::Json) => {
                self.ui
                    .object(&json!({ "finished": ExecutionView::from(&execution) }))?;
                Ok(true)
            }
            (finished, _) => Ok(finished.is_some()),
        }
    }

    fn missing(&self, offset: u64, bytes: u64) -> Result<(), CommandError> {
        match self.sink {
            Sink::Json => self
                .ui
                .object(&json!({ "offset": offset, "missing_bytes": bytes })),
            Sink::Bytes(_) => {
                missing_output(self.ui, bytes);
                Ok(())
            }
        }
    }

    async fn write(&mut self, chunk: Chunk) -> Result<(), CommandError> {
        match &mut self.sink {
            Sink::Json => self.ui.object(&chunk_object(&chunk)),
            Sink::Bytes(writer) => writer
                .write(chunk)
                .await
                .map_err(|error: io::Error| CommandError::output(error)),
        }
    }
}

fn chunk_object(chunk: &Chunk) -> serde_json::Value {
    let stream = match chunk.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    match std::str::from_utf8(&chunk.data) {
        Ok(text) => json!({ "offset": chunk.offset, "stream": stream, "text": text }),
        Err(_) => json!({
            "offset": chunk.offset,
            "stream": stream,
            "base64": BASE64.encode(&chunk.data),
        }),
    }
}
