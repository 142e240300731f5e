//! Pages of an inventory. Nothing is kept between two pages but what the token says.

use super::Server;
use crate::context::Call;
use crate::driver::{ComputeDriver, Inventory};
use crate::error::DriverError;
use crate::proto::{ListSandboxesRequest, ListSandboxesResponse};

const PAGE_SIZE_DEFAULT: usize = 500;
const PAGE_SIZE_MAX: usize = 1000;

/// Where the next page begins: after `last_id`, and whether all pages so far were complete.
/// As text: `incarnation.c.id` or `incarnation.p.id`.
#[derive(Debug, PartialEq)]
struct PageToken {
    complete: bool,
    last_id: String,
}

impl PageToken {
    fn parse(text: &str, incarnation: &str) -> Result<Self, DriverError> {
        if text.is_empty() {
            return Ok(Self {
                complete: true,
                last_id: String::new(),
            });
        }
        let parsed = || {
            let (whose, rest) = text.split_once('.')?;
            let (complete, last_id) = rest.split_once('.')?;
            let complete = match complete {
                "c" => true,
                "p" => false,
                _ => return None,
            };
            let last_id = last_id.to_owned();
            (whose == incarnation).then_some(Self { complete, last_id })
        };
        parsed().ok_or_else(|| {
            DriverError::invalid_field(
                "page_token",
                "is not from this driver and incarnation; list again from the first page",
            )
        })
    }

    fn format(&self, incarnation: &str) -> String {
        let complete = if self.complete { 'c' } else { 'p' };
        format!("{incarnation}.{complete}.{}", self.last_id)
    }
}

impl<D: ComputeDriver> Server<D> {
    pub(super) async fn page(
        &self,
        call: &Call,
        request: ListSandboxesRequest,
    ) -> Result<ListSandboxesResponse, DriverError> {
        let incarnation = self.0.context.incarnation.to_string();
        let token = PageToken::parse(&request.page_token, &incarnation)?;
        let inventory = self.0.driver.list(call).await?;
        let mut response = cut(inventory, &token, request.page_size, &incarnation);
        // One that was removed while the platform was asked is left out.
        response.sandboxes = response
            .sandboxes
            .into_iter()
            .filter_map(|sandbox| self.observed(call, sandbox).ok())
            .collect();
        Ok(response)
    }
}

fn cut(
    inventory: Inventory,
    token: &PageToken,
    page_size: u32,
    incarnation: &str,
) -> ListSandboxesResponse {
    let size = match usize::try_from(page_size).unwrap_or(usize::MAX) {
        0 => PAGE_SIZE_DEFAULT,
        size => size.min(PAGE_SIZE_MAX),
    };
    let complete = token.complete && inventory.complete;
    let mut rest = inventory.sandboxes;
    rest.retain(|sandbox| sandbox.sandbox_id > token.last_id);
    rest.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    let is_last = rest.len() <= size;
    rest.truncate(size);
    let next = rest.last().filter(|_| !is_last).map(|last| {
        PageToken {
            complete,
            last_id: last.sandbox_id.clone(),
        }
        .format(incarnation)
    });
    ListSandboxesResponse {
        sandboxes: rest,
        next_page_token: next.unwrap_or_default(),
        complete: is_last && complete,
        incarnation: incarnation.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Sandbox;

    fn inventory(ids: &[&str], complete: bool) -> Inventory {
        let sandbox = |id: &&str| Sandbox {
            sandbox_id: (*id).to_owned(),
            ..Sandbox::default()
        };
        Inventory {
            sandboxes: ids.iter().map(sandbox).collect(),
            complete,
        }
    }

    fn next(page: &ListSandboxesResponse) -> PageToken {
        PageToken::parse(&page.next_page_token, "inc").unwrap()
    }

    #[test]
    fn pages_are_sorted_and_only_the_last_is_complete() {
        let first = PageToken::parse("", "inc").unwrap();
        let page = cut(inventory(&["c", "a", "b"], true), &first, 2, "inc");
        assert_eq!(page.sandboxes[1].sandbox_id, "b");
        assert!(!page.complete);
        let last = cut(inventory(&["c", "a", "b"], true), &next(&page), 2, "inc");
        assert_eq!(last.sandboxes[0].sandbox_id, "c");
        assert!(last.complete && last.next_page_token.is_empty());
    }

    #[test]
    fn one_incomplete_page_makes_the_whole_incomplete() {
        let first = PageToken::parse("", "inc").unwrap();
        let page = cut(inventory(&["a", "b"], false), &first, 1, "inc");
        let last = cut(inventory(&["a", "b"], true), &next(&page), 1, "inc");
        assert!(last.next_page_token.is_empty());
        assert!(!last.complete);
    }

    #[test]
    fn a_foreign_token_is_refused() {
        for token in ["x", "other.c.a", "inc.x.a", "inc.c"] {
            assert!(PageToken::parse(token, "inc").is_err(), "{token}");
        }
    }
}
