//! GetSandbox and ListSandboxes: what exists, a page at a time.

use cofferdam_proto::compute::v1 as wire;
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Driver;
use crate::suite::Suite;
use crate::watcher::{Watcher, describe};

const PAGES: &str = "sort by id; a page token says after which id the next page begins";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.get.unknown",
        source: "GetSandbox",
        says: "NOT_FOUND only when the platform says so: for an id that never was.",
        fix: "answer NOT_FOUND for a sandbox that is not there",
        needs: &[],
        run: run!(unknown),
    },
    Case {
        id: "core.get.agrees",
        source: "GetSandbox",
        says: "Observes one sandbox on the platform itself: what it says, a list says too.",
        fix: "make both observations in the same way",
        needs: &[],
        run: run!(agrees),
    },
    Case {
        id: "core.list.page-size",
        source: "ListSandboxesRequest.page_size",
        says: "A page has at most `page_size` sandboxes; 0 means 500, and more than 1,000 is taken \
               as 1,000.",
        fix: PAGES,
        needs: &[],
        run: run!(page_size),
    },
    Case {
        id: "core.list.whole",
        source: "ListSandboxes",
        says: "The pages together have every sandbox exactly once, sorted by id.",
        fix: PAGES,
        needs: &[],
        run: run!(whole),
    },
    Case {
        id: "core.list.complete",
        source: "ListSandboxesResponse",
        says: "Only the last page is `complete` and has no next token; every page has the \
               incarnation.",
        fix: "set `complete` on the last page alone, if everything could be asked for",
        needs: &[],
        run: run!(complete),
    },
    Case {
        id: "core.list.while-changing",
        source: "ListSandboxes",
        says: "Sandboxes that are there all the time are listed exactly once, whatever comes and \
               goes between two pages.",
        fix: "let the token name an id, not a position",
        needs: &[],
        run: run!(while_changing),
    },
    Case {
        id: "core.list.bad-token",
        source: "ListSandboxes",
        says: "A page token that is not from this driver and incarnation is INVALID_ARGUMENT.",
        fix: "put the incarnation into the token, and check it",
        needs: &[],
        run: run!(bad_token),
    },
    Case {
        id: "core.gateways.apart",
        source: "HandshakeRequest.gateway_id",
        says: "A driver shows, lists and touches only this gateway's sandboxes.",
        fix: "store the gateway's id with every sandbox, and look only at those of the caller's",
        needs: &[],
        run: run!(apart),
    },
];

async fn unknown(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let id = format!("conf-{}", crate::random::word());
    refused_with(driver.get(&id).await, Code::NotFound)?;
    Ok(())
}

async fn agrees(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let got = driver.get(&subject.id).await?;
    let (listed, _) = driver.list(0).await?;
    let Some(listed) = listed.into_iter().find(|one| one.sandbox_id == subject.id) else {
        fail!("GetSandbox has the sandbox, and ListSandboxes has not");
    };
    let facts = |sandbox: &wire::Sandbox| {
        let state = sandbox.state().as_str_name();
        (
            state,
            sandbox.boots,
            sandbox.platform_id.clone(),
            sandbox.create_time_unix_ms,
        )
    };
    ensure!(
        facts(&got) == facts(&listed),
        "GetSandbox says {:?}, ListSandboxes {:?}",
        facts(&got),
        facts(&listed)
    );
    Ok(())
}

/// All pages as they came.
async fn pages(driver: &Driver, page_size: u32) -> Result<Vec<wire::ListSandboxesResponse>, Stop> {
    const PAGES_MAX: usize = 50;
    let mut pages: Vec<wire::ListSandboxesResponse> = Vec::new();
    while pages.len() < PAGES_MAX {
        let page_token = match pages.last() {
            None => String::new(),
            Some(last) if last.next_page_token.is_empty() => return Ok(pages),
            Some(last) => last.next_page_token.clone(),
        };
        let request = wire::ListSandboxesRequest {
            page_size,
            page_token,
        };
        pages.push(driver.list_with(request).await?);
    }
    fail!("there is no last page: {PAGES_MAX} pages were read")
}

fn ids(pages: &[wire::ListSandboxesResponse]) -> Vec<String> {
    let all = pages.iter().flat_map(|page| &page.sandboxes);
    all.map(|sandbox| sandbox.sandbox_id.clone()).collect()
}

async fn page_size(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    suite.several(&driver, 5).await?;
    for page_size in [1, 2, 4] {
        for page in pages(&driver, page_size).await? {
            let count = page.sandboxes.len();
            ensure!(
                count <= page_size as usize,
                "a page of {page_size} has {count} sandboxes"
            );
        }
    }
    for page_size in [0, 1001, u32::MAX] {
        let pages = pages(&driver, page_size).await?;
        ensure!(
            pages.len() == 1,
            "with a page_size of {page_size}, five sandboxes are on {} pages",
            pages.len()
        );
    }
    Ok(())
}

async fn whole(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 5).await?;
    let mut expected: Vec<String> = subjects.iter().map(|one| one.id.clone()).collect();
    expected.sort();
    for page_size in [1, 2, 3, 100] {
        let seen = ids(&pages(&driver, page_size).await?);
        ensure!(
            seen == expected,
            "in pages of {page_size} came {seen:?}; there are {expected:?}"
        );
    }
    Ok(())
}

async fn complete(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    suite.several(&driver, 3).await?;
    let pages = pages(&driver, 2).await?;
    let count = pages.len();
    for (index, page) in pages.iter().enumerate() {
        let is_last = index + 1 == count;
        ensure!(
            page.complete == is_last,
            "page {} of {count} has complete = {}",
            index + 1,
            page.complete
        );
        ensure!(
            page.incarnation == driver.incarnation(),
            "a page's incarnation is {:?}, and the handshake's {:?}",
            page.incarnation,
            driver.incarnation()
        );
    }
    Ok(())
}

async fn while_changing(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 4).await?;
    let mut sorted: Vec<&str> = subjects.iter().map(|one| one.id.as_str()).collect();
    sorted.sort_unstable();
    let (first, stay) = (sorted[0], &sorted[1..]);
    let request = |page_token| wire::ListSandboxesRequest {
        page_size: 2,
        page_token,
    };
    let mut seen = driver.list_with(request(String::new())).await?;
    let mut pages = vec![seen.clone()];
    driver.delete(first).await?;
    suite.several(&driver, 1).await?;
    while !seen.next_page_token.is_empty() && pages.len() < 10 {
        seen = driver.list_with(request(seen.next_page_token)).await?;
        pages.push(seen.clone());
    }
    let listed = ids(&pages);
    for id in stay {
        let count = listed.iter().filter(|one| one == id).count();
        ensure!(
            count == 1,
            "{id} was there all the time and is on the pages {count} times: {listed:?}"
        );
    }
    Ok(())
}

async fn bad_token(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    suite.several(&driver, 2).await?;
    for page_token in ["conformance", "0", "x.y.z"] {
        let request = wire::ListSandboxesRequest {
            page_size: 1,
            page_token: page_token.to_owned(),
        };
        refused_with(driver.list_with(request).await, Code::InvalidArgument)?;
    }
    Ok(())
}

async fn apart(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let other = suite
        .driver_of(&format!("{}-other", suite.gateway_id()))
        .await?;
    let ids = other.list_ids().await?;
    ensure!(ids.is_empty(), "another gateway is shown {ids:?}");
    refused_with(other.get(&subject.id).await, Code::NotFound)?;
    let mut watcher = Watcher::synced(&suite, &other).await?;
    // To them it is unknown, so this is OK, and does nothing.
    other.delete(&subject.id).await?;
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await?;
    driver.delete(&subject.id).await?;
    watcher.fence(&other).await?;
    if let Some(told) = watcher.about(&subject.id).first() {
        fail!("another gateway was told of it: {}", describe(told));
    }
    Ok(())
}
