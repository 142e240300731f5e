//! Calls about many sandboxes: listing what is there, and giving handles back after a restart.

use std::collections::HashMap;
use std::path::PathBuf;

use cofferdam_proto::compute::v1 as wire;
use wire::recover_sandboxes_request::Item;
use wire::recover_sandboxes_response::Outcome;

use super::call::Client;
use super::handle::path_text;
use super::{CallError, Driver, convert};
use crate::model::{Handle, Observation, SandboxId};

/// More sandboxes than any host has.
const LISTED_MAX: usize = 100_000;
/// Pages in a row with nothing on them: the last one never comes.
const EMPTY_PAGES_MAX: usize = 100;
/// By the contract a list holds at most 1,024 items and a message 4 MiB.
const ITEMS_MAX: usize = 500;
const ITEMS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// All sandboxes of this gateway that a driver could find.
#[derive(Debug, Clone)]
pub struct Inventory {
    pub observations: Vec<Observation>,
    /// Only then is what is not listed gone.
    pub complete: bool,
    pub incarnation: String,
}

/// A sandbox that is to be found again.
#[derive(Debug, Clone)]
pub struct RecoverItem {
    pub sandbox_id: SandboxId,
    /// `None`: the answer to the create was lost.
    pub handle: Option<Handle>,
    pub callback_directory: PathBuf,
}

/// The answer to one `RecoverItem`.
#[derive(Debug, Clone)]
pub struct Recovered {
    pub sandbox_id: SandboxId,
    pub outcome: RecoverOutcome,
    pub observation: Option<Observation>,
    pub message: String,
    /// A new handle to store, if it changed.
    pub handle: Option<Handle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverOutcome {
    Recovered,
    /// The platform says for certain that it is not there any more.
    Gone,
    /// Ask again later; delete nothing.
    Unknown,
}

impl Driver {
    /// Lists all sandboxes, page by page. Never `complete` if the driver restarted in between.
    pub async fn list(&self) -> Result<Inventory, CallError> {
        let mut inventory = Inventory {
            observations: Vec::new(),
            complete: false,
            incarnation: String::new(),
        };
        let mut page_token = String::new();
        let mut is_first = true;
        let mut empty_pages = 0;
        while empty_pages <= EMPTY_PAGES_MAX {
            let request = wire::ListSandboxesRequest {
                page_size: 0,
                page_token: page_token.clone(),
            };
            let prepared = self.call("list".to_owned(), self.deadlines().list);
            let rpc =
                |mut client: Client, request| async move { client.list_sandboxes(request).await };
            let response = prepared.run(request, rpc).await?;
            if !is_first && response.incarnation != inventory.incarnation {
                inventory.complete = false;
                return Ok(inventory);
            }
            is_first = false;
            empty_pages = match response.sandboxes.is_empty() {
                true => empty_pages + 1,
                false => 0,
            };
            inventory.incarnation = response.incarnation;
            let mut readable = true;
            for sandbox in response.sandboxes {
                match convert::observation_from_wire(sandbox) {
                    Ok(observation) => inventory.observations.push(observation),
                    Err(error) => {
                        tracing::warn!(driver.name = %self.name(), %error, "sandbox not listed");
                        readable = false;
                    }
                }
            }
            if response.next_page_token.is_empty() {
                inventory.complete = response.complete && readable;
                return Ok(inventory);
            }
            if response.next_page_token == page_token {
                return Err(self.broken("list", "a page comes after itself"));
            }
            if inventory.observations.len() > LISTED_MAX {
                let problem = format!("there are more than {LISTED_MAX} sandboxes on it");
                return Err(self.broken("list", &problem));
            }
            page_token = response.next_page_token;
        }
        Err(self.broken("list", "the last page never comes"))
    }

    /// One answer for each item, in the same order. What the driver does not answer is `Unknown`.
    pub async fn recover(&self, items: Vec<RecoverItem>) -> Result<Vec<Recovered>, CallError> {
        let mut answers: HashMap<SandboxId, Recovered> = HashMap::new();
        for batch in batches(&items)? {
            let request = wire::RecoverSandboxesRequest { items: batch };
            let prepared = self.call("recover".to_owned(), self.deadlines().recover);
            let rpc = |mut client: Client, request| async move {
                client.recover_sandboxes(request).await
            };
            let response = prepared.run(request, rpc).await?;
            for result in response.results {
                match recovered(result) {
                    Ok(answer) => drop(answers.insert(answer.sandbox_id.clone(), answer)),
                    Err(error) => {
                        tracing::warn!(driver.name = %self.name(), %error, "answer ignored");
                    }
                }
            }
        }
        let answer = |item: RecoverItem| {
            let known = answers.remove(&item.sandbox_id);
            known.unwrap_or_else(|| Recovered {
                sandbox_id: item.sandbox_id,
                outcome: RecoverOutcome::Unknown,
                observation: None,
                message: "the driver did not answer for it".to_owned(),
                handle: None,
            })
        };
        Ok(items.into_iter().map(answer).collect())
    }
}

/// The items as requests that stay within the contract's bounds.
fn batches(items: &[RecoverItem]) -> Result<Vec<Vec<Item>>, CallError> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let size = item.handle.as_ref().map_or(0, |handle| handle.data.len());
        let fits = |batch: &Vec<Item>| batch.len() < ITEMS_MAX && bytes + size <= ITEMS_BYTES_MAX;
        if !batches.last().is_some_and(fits) {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        let item = Item {
            sandbox_id: item.sandbox_id.as_str().to_owned(),
            handle: item.handle.as_ref().map(convert::handle_to_wire),
            callback_directory: path_text("callback directory", &item.callback_directory)?,
        };
        if let Some(batch) = batches.last_mut() {
            batch.push(item);
        }
    }
    Ok(batches)
}

fn recovered(
    result: wire::recover_sandboxes_response::Result,
) -> Result<Recovered, convert::ConvertError> {
    let outcome = match Outcome::try_from(result.outcome) {
        Ok(Outcome::Recovered) => RecoverOutcome::Recovered,
        Ok(Outcome::Gone) => RecoverOutcome::Gone,
        Ok(Outcome::Unknown | Outcome::Unspecified) | Err(_) => RecoverOutcome::Unknown,
    };
    let observation = result.sandbox.map(convert::observation_from_wire);
    Ok(Recovered {
        sandbox_id: convert::sandbox_id(&result.sandbox_id)?,
        outcome,
        observation: observation.transpose()?,
        message: convert::plain(result.message),
        handle: result.handle.map(convert::handle_from_wire),
    })
}
