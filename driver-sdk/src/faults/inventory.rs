//! Lies about what there is.

use super::script::InventoryFaults;
use crate::proto::recover_sandboxes_response::{Outcome, Result as Recovered};
use crate::proto::{ListSandboxesResponse, Sandbox, SandboxState};

/// Begins the tokens of pages that are only made to have another one after them.
const ENDLESS: &str = "endless-";

/// Falsifies one page.
pub(super) fn page(faults: &InventoryFaults, page: &mut ListSandboxesResponse) {
    page.sandboxes
        .retain(|sandbox| !faults.omits(&sandbox.sandbox_id));
    let is_last = page.next_page_token.is_empty();
    if is_last {
        let invented = faults.invent.iter().map(|id| invented(id));
        page.sandboxes.extend(invented);
        page.sandboxes
            .sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    }
    page.complete &= !faults.incomplete;
    if faults.endless && is_last {
        page.complete = false;
        page.next_page_token = format!("{ENDLESS}0");
    }
}

/// The page for a token that was made here: nothing, and one more after it.
pub(super) fn endless(token: &str, incarnation: String) -> Option<ListSandboxesResponse> {
    let number: u64 = token.strip_prefix(ENDLESS)?.parse().ok()?;
    Some(ListSandboxesResponse {
        next_page_token: format!("{ENDLESS}{}", number + 1),
        incarnation,
        ..ListSandboxesResponse::default()
    })
}

/// What is denied is gone for a recovery as well.
pub(super) fn recovered(faults: &InventoryFaults, result: &mut Recovered) {
    if faults.deny && faults.omits(&result.sandbox_id) {
        *result = Recovered {
            sandbox_id: std::mem::take(&mut result.sandbox_id),
            outcome: Outcome::Gone.into(),
            message: "there is no such sandbox".to_owned(),
            ..Recovered::default()
        };
    }
}

fn invented(id: &str) -> Sandbox {
    Sandbox {
        sandbox_id: id.to_owned(),
        state: SandboxState::Running.into(),
        revision: 1,
        boots: 1,
        ..Sandbox::default()
    }
}
