//! All cases, in the order in which they run. One file per group.

mod bounds;
mod command;
mod configure;
mod console;
mod create;
mod delete;
mod ending;
mod everything;
mod exec;
mod files;
mod fingerprint;
mod future;
mod handshake;
mod images;
mod killed;
mod list;
mod load;
mod pause;
mod recover;
mod replay;
mod resources;
mod restart;
mod rpc;
mod schemas;
mod secrets;
mod signaled;
mod signals;
mod snapshot;
mod stats;
mod stdin;
mod stop;
mod streams;
mod terminal;
mod validate;
mod watch;

use crate::Case;

const GROUPS: &[&[Case]] = &[
    handshake::CASES,
    schemas::CASES,
    configure::CASES,
    fingerprint::CASES,
    validate::CASES,
    bounds::CASES,
    future::CASES,
    images::CASES,
    create::CASES,
    delete::CASES,
    stop::CASES,
    list::CASES,
    watch::CASES,
    ending::CASES,
    signaled::CASES,
    recover::CASES,
    rpc::CASES,
    secrets::CASES,
    exec::CASES,
    stdin::CASES,
    terminal::CASES,
    signals::CASES,
    files::CASES,
    replay::CASES,
    load::CASES,
    console::CASES,
    stats::CASES,
    command::CASES,
    resources::CASES,
    pause::CASES,
    snapshot::CASES,
    streams::CASES,
    restart::CASES,
    killed::CASES,
    // Last: they tell what was seen in all the others.
    everything::CASES,
];

/// All cases, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    GROUPS.iter().copied().flatten()
}

/// Whether it tells what was seen in the other cases of a run.
pub(crate) fn is_about_others(id: &str) -> bool {
    everything::CASES.iter().any(|case| case.id == id)
}

pub(crate) use everything::left_at_the_end;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::Tier;

    /// RPCs, messages and enums of the contract.
    fn names() -> HashSet<String> {
        let set = FileDescriptorSet::decode(cofferdam_proto::FILE_DESCRIPTOR_SET).unwrap();
        let files = set.file.into_iter();
        let ours = files.filter(|file| {
            ["cofferdam.compute.v1", "cofferdam.supervisor.v1"].contains(&file.package())
        });
        ours.flat_map(|file| {
            let rpcs = file.service.iter().flat_map(|service| &service.method);
            let rpcs = rpcs.map(|method| method.name().to_owned());
            let messages = file.message_type.iter().map(|one| one.name().to_owned());
            let enums = file.enum_type.iter().map(|one| one.name().to_owned());
            rpcs.chain(messages).chain(enums).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn ids_are_unique_and_begin_with_a_tier() {
        let mut seen = HashSet::new();
        for case in all() {
            assert!(seen.insert(case.id), "{} is there twice", case.id);
            let tier: Result<Tier, _> = case.id.split('.').next().unwrap().parse();
            assert!(tier.is_ok(), "{}", case.id);
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '-' || c == '.';
            assert!(case.id.chars().all(is_plain), "{}", case.id);
            assert!(case.id.matches('.').count() == 2, "{}", case.id);
        }
    }

    #[test]
    fn every_tier_has_cases() {
        for tier in Tier::ALL {
            assert!(all().any(|case| case.tier() == tier), "{tier}");
        }
    }

    #[test]
    fn a_case_names_the_text_that_says_it() {
        let names = names();
        for case in all() {
            for source in case.source.split(", ") {
                let name = source.split('.').next().unwrap();
                let is_rule = source
                    .strip_prefix("rule ")
                    .is_some_and(|number| (1..=8).contains(&number.parse::<u8>().unwrap()));
                let is_page = ["docs/supervisor", "errors", "the socket"].contains(&source);
                assert!(
                    is_rule || is_page || names.contains(name),
                    "{}: {source} is neither an RPC nor a message nor a rule",
                    case.id
                );
            }
            assert!(case.says.ends_with('.'), "{}", case.id);
            assert!(!case.fix.is_empty(), "{}", case.id);
        }
    }
}
