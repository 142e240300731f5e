//! `cofferdam ls`: the sandboxes.

use cofferdam_proto::gateway::v1::{ListSandboxesRequest, Sandbox, SandboxState};

use super::DONE;
use crate::cli::Global;
use crate::connect::{self, QUERY, within};
use crate::environment::parse_pair;
use crate::error::CommandError;
use crate::render::{Cell, shorten, table};
use crate::ui::Ui;
use crate::units::show_age_s;
use crate::view::sandbox::{SandboxView, image, state, state_tone};

const IMAGE_WIDTH: usize = 32;

/// List sandboxes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that are stopped or have failed.
    #[arg(long, short)]
    all: bool,
    /// Only those with this label; can be repeated.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Only those of this driver.
    #[arg(long, value_name = "NAME")]
    driver: Option<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    let mut client = connect::client(global)?;
    let mut request = ListSandboxesRequest {
        labels: args.label.into_iter().collect(),
        driver: args.driver.unwrap_or_default(),
        ..Default::default()
    };
    let mut rows = Vec::new();
    let mut hidden = Hidden::default();
    loop {
        let page = client
            .list_sandboxes(within(QUERY, request.clone()))
            .await?
            .into_inner();
        for sandbox in &page.sandboxes {
            if !args.all && hidden.takes(sandbox) {
                continue;
            }
            if ui.json {
                ui.object(&SandboxView::from(sandbox))?;
            } else if ui.quiet {
                ui.line(&sandbox.sandbox_id)?;
            } else {
                rows.push(row(sandbox));
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if !ui.json && !ui.quiet {
        let titles = [
            "ID", "NAME", "DRIVER", "IMAGE", "STATE", "AGE", "EXPIRES", "RUNNING",
        ];
        ui.out(&table(ui, titles, &rows))?;
    }
    if let Some(text) = hidden.text().filter(|_| !ui.json) {
        ui.note(&text);
    }
    Ok(DONE)
}

/// What is listed only on request.
#[derive(Debug, Default)]
struct Hidden {
    stopped: u32,
    failed: u32,
}

impl Hidden {
    /// Counts a sandbox, if it is one of them.
    fn takes(&mut self, sandbox: &Sandbox) -> bool {
        match sandbox.state() {
            SandboxState::Stopped => self.stopped += 1,
            SandboxState::Failed => self.failed += 1,
            SandboxState::Deleted => {}
            _ => return false,
        }
        true
    }

    fn text(&self) -> Option<String> {
        let counts = [(self.stopped, "stopped"), (self.failed, "failed")];
        let texts: Vec<String> = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!texts.is_empty()).then(|| {
            format!(
                "not listed: {}; `cofferdam ls -a` shows all",
                texts.join(", ")
            )
        })
    }
}

fn row(sandbox: &Sandbox) -> [Cell; 8] {
    let now_ms = now_ms();
    let image = sandbox.spec.as_ref().and_then(image).unwrap_or_default();
    let expires = match sandbox.expire_time_unix_ms {
        0 => String::new(),
        time => format!("in {}", show_age_s(time.saturating_sub(now_ms) / 1000)),
    };
    [
        sandbox.sandbox_id.as_str().into(),
        sandbox.name.as_str().into(),
        sandbox.driver.as_str().into(),
        shorten(&image, IMAGE_WIDTH).into(),
        Cell::toned(state(sandbox), state_tone(sandbox)),
        age(sandbox.create_time_unix_ms, now_ms).into(),
        expires.into(),
        sandbox.running_executions.to_string().into(),
    ]
}

pub(super) fn age(then_ms: u64, now_ms: u64) -> String {
    match then_ms {
        0 => String::new(),
        then => show_age_s(now_ms.saturating_sub(then) / 1000),
    }
}

pub(super) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        })
}
