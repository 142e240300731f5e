//! Rules about Rust files: their map, their size, and calls we do without.

use super::{Finding, numbered};

const LINES_MAX: usize = 600;

/// A text that must not occur, and where.
struct Ban {
    text: &'static str,
    /// Path prefixes; none for everywhere.
    below: &'static [&'static str],
    rule: &'static str,
    mend: &'static str,
}

const ORPHANS: &str = "no-orphan-tasks";
/// Where every task has a parent that joins it.
const WITH_PARENTS: &[&str] = &[
    "gateway/src/",
    "driver-sdk/src/",
    "drivers/",
    "supervisor/src/",
];

// Concatenated, so that this file passes its own rules.
const BANS: &[Ban] = &[
    Ban {
        text: concat!("todo", "!("),
        below: &[],
        rule: "no-todo",
        mend: "write it, or return an error that says it is missing",
    },
    Ban {
        text: concat!("#[ig", "nore"),
        below: &[],
        rule: "no-ignored-tests",
        mend: "make the test skip itself with a printed reason",
    },
    Ban {
        text: concat!("unbounded_", "channel("),
        below: &[],
        rule: "no-unbounded-queue",
        mend: "use mpsc::channel with a named bound and its reason",
    },
    Ban {
        text: concat!("tokio::", "spawn("),
        below: WITH_PARENTS,
        rule: ORPHANS,
        mend: "spawn through a JoinSet or TaskTracker that somebody joins",
    },
    Ban {
        text: concat!("task::", "spawn("),
        below: WITH_PARENTS,
        rule: ORPHANS,
        mend: "spawn through a JoinSet or TaskTracker that somebody joins",
    },
];

pub(super) fn findings(path: &str, text: &str) -> Vec<Finding> {
    if !path.ends_with(".rs") {
        return Vec::new();
    }
    let finding = |line, rule, message, mend| Finding {
        path: path.to_owned(),
        line,
        rule,
        message,
        mend,
    };
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(finding(
            1,
            "module-header",
            "the file does not open with a `//!` header".to_owned(),
            "say in a sentence what the module owns and what it refuses to know",
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(finding(
            LINES_MAX + 1,
            "file-size",
            format!("{lines} lines, more than {LINES_MAX}"),
            "ask which second job moved in, and give it a file",
        ));
    }
    let tests_from = numbered(text)
        .find(|(_, content)| content.trim() == "#[cfg(test)]")
        .map_or(usize::MAX, |(line, _)| line);
    for (line, content) in numbered(text) {
        let code = content.trim_start();
        if code.starts_with("//") {
            continue;
        }
        let bans = BANS
            .iter()
            .filter(|ban| ban.holds_for(path) && contains_call(code, ban.text))
            // The task of a test ends with the test's own runtime.
            .filter(|ban| ban.rule != ORPHANS || !(is_test_module(path) || line > tests_from));
        found.extend(bans.map(|ban| finding(line, ban.rule, format!("`{}`", ban.text), ban.mend)));
    }
    found
}

impl Ban {
    fn holds_for(&self, path: &str) -> bool {
        self.below.is_empty() || self.below.iter().any(|below| path.starts_with(below))
    }
}

fn is_test_module(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The text, not as the tail of a longer name or path.
fn contains_call(code: &str, text: &str) -> bool {
    code.match_indices(text).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        before.is_none_or(|c| c != '_' && !c.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        findings(path, text)
            .into_iter()
            .map(|finding| finding.rule)
            .collect()
    }

    #[test]
    fn a_file_needs_a_header() {
        assert_eq!(rules("cli/src/a.rs", "use std::fs;\n"), ["module-header"]);
        assert_eq!(
            rules("cli/src/a.rs", "//! Owns nothing.\n"),
            Vec::<&str>::new()
        );
        assert_eq!(rules("README.md", "# Cofferdam\n"), Vec::<&str>::new());
    }

    #[test]
    fn a_long_file_is_found() {
        let text = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
        assert_eq!(rules("cli/src/a.rs", &text), ["file-size"]);
    }

    #[test]
    fn bans_hold_where_they_apply() {
        for ban in BANS {
            let everywhere = ["cli/src/"];
            let below = match ban.below {
                [] => &everywhere,
                some => some,
            };
            for below in below {
                let text = format!("//! A.\n    {}x);\n", ban.text);
                let found = rules(&format!("{below}a.rs"), &text);
                assert!(found.contains(&ban.rule), "{} in {below}", ban.text);
            }
        }
        let orphan = concat!("tokio::", "spawn(");
        let text = format!("//! A.\n{orphan}x);\n");
        assert_eq!(rules("cli/src/a.rs", &text), Vec::<&str>::new());
        let text = format!("//! A.\n#[cfg(test)]\nmod tests {{ {orphan}x); }}\n");
        assert_eq!(rules("driver-sdk/src/a.rs", &text), Vec::<&str>::new());
    }

    #[test]
    fn comments_may_speak_of_what_is_banned() {
        let text = format!("//! A.\n// Not {}\n", BANS[0].text);
        assert_eq!(rules("cli/src/a.rs", &text), Vec::<&str>::new());
    }
}
