//! Rules about words: what a folder must not say.

use super::{Finding, numbered};

/// Platforms, their clients and their parts. `namespace` alone is a word of Linux, so only the
/// company's name counts.
const BACKENDS: &[&str] = &[
    "bollard",
    "bubblewrap",
    "bwrap",
    "cloud-hypervisor",
    "containerd",
    "docker",
    "dockerd",
    "firecracker",
    "gvisor",
    "k8s",
    "kube",
    "kubernetes",
    "libvirt",
    "namespace.so",
    "podman",
    "qemu",
    "runc",
    "runsc",
];

/// Paths of one person's machine. Concatenated so that this file does not name them itself.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("/tmp/", "notes"),
    concat!("/tmp/", "target-"),
    concat!("/ro", "ot/."),
    concat!("/Us", "ers/"),
];

pub(super) fn findings(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, content) in numbered(text) {
        if path.starts_with("gateway/") {
            found.extend(
                BACKENDS
                    .iter()
                    .filter(|word| has_word(content, word))
                    .map(|word| Finding {
                        path: path.to_owned(),
                        line,
                        rule: "gateway-names-no-backend",
                        message: format!("the gateway names a backend: {word:?}"),
                        mend: "say it with a capability, or move it into the driver",
                    }),
            );
        }
        found.extend(
            MACHINE_PATHS
                .iter()
                .filter(|part| has_path(content, part))
                .map(|part| Finding {
                    path: path.to_owned(),
                    line,
                    rule: "no-machine-paths",
                    message: format!("a path of one machine: {part:?}"),
                    mend: "take it from the environment, or from a temporary directory",
                }),
        );
    }
    found
}

/// Case-insensitive, as a whole word. `docker_socket` and `DockerClient` hold the word `docker`,
/// `dockerless` and `kubelet` hold neither `docker` nor `kube`.
fn has_word(line: &str, word: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    lower.match_indices(word).any(|(start, _)| {
        let end = start + word.len();
        let first_is_upper = line[start..].starts_with(|c: char| c.is_ascii_uppercase());
        let all_upper = line[start..end].chars().all(|c| !c.is_ascii_lowercase());
        let before = line[..start].chars().next_back();
        let after = line[end..].chars().next();
        let starts = before.is_none_or(|c| {
            !c.is_ascii_alphanumeric() || (first_is_upper && !c.is_ascii_uppercase())
        });
        let ends = after
            .is_none_or(|c| !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && !all_upper));
        starts && ends
    })
}

/// The path starts here: the tail of a longer path does not count.
fn has_path(line: &str, part: &str) -> bool {
    line.match_indices(part).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-/}*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_word_is_found_however_it_is_written() {
        for line in [
            "use bollard::Docker;",
            "struct DockerClient;",
            "fn to_docker_name()",
            "const DOCKER_HOST: &str",
            "// Kubernetes does it.",
            "MyKubeConfig",
            "https://namespace.so/",
        ] {
            assert!(!findings("gateway/src/x.rs", line).is_empty(), "{line}");
        }
    }

    #[test]
    fn words_that_merely_contain_a_backend_are_left_alone() {
        for line in [
            "a pid namespace",
            "kubelets",
            "truncated",
            "prune",
            "RunCommand",
            "func",
        ] {
            assert_eq!(findings("gateway/src/x.rs", line), [], "{line}");
        }
    }

    #[test]
    fn other_folders_may_name_backends() {
        assert_eq!(
            findings("drivers/docker/src/x.rs", "use bollard::Docker;"),
            []
        );
    }

    #[test]
    fn a_machine_path_is_found_with_its_line() {
        let text = format!("fine\nlet x = \"{}/x\";", MACHINE_PATHS[0]);
        let found = findings("docs/x.md", &text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line, found[0].rule), (2, "no-machine-paths"));
        assert_eq!(
            findings(
                "docs/x.md",
                &format!("/workspace/a and /overlay{}/b", MACHINE_PATHS[0])
            ),
            []
        );
    }
}
