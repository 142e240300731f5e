//! From a failed stage to what an operator can do about it.

use std::fs;

use crate::sandbox::report::{Failure, Stage};

/// The switches of this host that can forbid what a sandbox is made of. `None`: the host has no
/// such switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSwitches {
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu 23.10 and later).
    pub apparmor_restricts_user_namespaces: Option<bool>,
    /// `kernel.unprivileged_userns_clone` (Debian and Arch kernels).
    pub unprivileged_user_namespaces: Option<bool>,
    /// `user.max_user_namespaces`.
    pub user_namespaces_max: Option<u64>,
    /// Running inside a container, by the usual marks.
    pub in_container: bool,
    /// Major and minor version of the kernel.
    pub kernel: Option<(u32, u32)>,
}

impl HostSwitches {
    /// Reads this host's.
    pub fn read() -> Self {
        let number =
            |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
        let flag = |path: &str| number(path).map(|value| value != 0);
        HostSwitches {
            apparmor_restricts_user_namespaces: flag(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            ),
            unprivileged_user_namespaces: flag("/proc/sys/kernel/unprivileged_userns_clone"),
            user_namespaces_max: number("/proc/sys/user/max_user_namespaces"),
            in_container: ["/.dockerenv", "/run/.containerenv"]
                .iter()
                .any(|mark| fs::metadata(mark).is_ok()),
            kernel: kernel_version(),
        }
    }

    /// What to do about a failure, if it is one of the known ones.
    pub fn hint(&self, failure: &Failure) -> Option<String> {
        let refused = matches!(failure.errno, libc::EPERM | libc::EACCES);
        match failure.stage {
            // AppArmor lets the namespace be made and then takes its capabilities away, so the
            // refusal may come at any of these.
            Stage::CreateNamespaces
            | Stage::WriteIdMap
            | Stage::PrivateMounts
            | Stage::SetIdentity
            | Stage::LoopbackUp
            | Stage::SetHostname
            | Stage::MountRoot
                if refused || failure.errno == libc::ENOSPC || failure.errno == libc::EUSERS =>
            {
                self.namespace_hint()
            }
            Stage::CreateNamespaces if failure.errno == libc::ENOSYS => Some(kernel_hint("5.12")),
            Stage::ProtectBind if failure.errno == libc::ENOSYS => Some(kernel_hint("5.12")),
            Stage::CreateNamespaces if failure.errno == libc::EINVAL => Some(
                "the kernel lacks user, mount, pid, ipc, uts or network namespaces: use a \
                 distribution kernel"
                    .to_owned(),
            ),
            Stage::MountProc if refused => Some(
                "the host's own /proc is partly masked, as in a container: start that container \
                 with --security-opt systempaths=unconfined (Docker, Podman), or run the driver \
                 outside"
                    .to_owned(),
            ),
            Stage::OpenBindSource => Some(format!(
                "make {} readable to everyone on the path to it, or do not grant it",
                failure.detail
            )),
            Stage::ExecSupervisor if refused => Some(
                "check that vm.memfd_noexec is below 2 and that no security module forbids \
                 executing memory files"
                    .to_owned(),
            ),
            Stage::ExecSupervisor if failure.errno == libc::ENOENT => Some(
                "the supervisor is not static, and its loader is not below /usr or /lib*: install \
                 the static one"
                    .to_owned(),
            ),
            Stage::JoinCgroup | Stage::OpenCgroup => Some(
                "check that the driver's user may write cgroup.procs both in the sandbox's cgroup \
                 and in the nearest cgroup above it that is also above the driver's own"
                    .to_owned(),
            ),
            Stage::ReadPlan => Some("install driver and shim from one release".to_owned()),
            _ => None,
        }
    }

    /// Why user namespaces may be refused here, most likely reason first.
    pub fn namespace_hint(&self) -> Option<String> {
        if self.apparmor_restricts_user_namespaces == Some(true) {
            return Some(
                "on Ubuntu 23.10 and later set kernel.apparmor_restrict_unprivileged_userns=0 \
                 (sysctl), or install packaging/apparmor/cofferdam-process-shim in \
                 /etc/apparmor.d and reload AppArmor"
                    .to_owned(),
            );
        }
        if self.unprivileged_user_namespaces == Some(false) {
            return Some("set kernel.unprivileged_userns_clone=1 (sysctl)".to_owned());
        }
        if self.user_namespaces_max.is_some_and(|max| max < 2) {
            return Some("set user.max_user_namespaces=15000 (sysctl)".to_owned());
        }
        self.in_container.then(|| {
            "this is a container whose own seccomp filter or capabilities forbid new namespaces: \
             start it with --security-opt seccomp=unconfined --cap-add SYS_ADMIN, or run the \
             driver outside"
                .to_owned()
        })
    }
}

fn kernel_hint(least: &str) -> String {
    format!("Linux {least} or newer is needed")
}

fn kernel_version() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ubuntus_restriction_is_named_wherever_it_bites() {
        let host = HostSwitches {
            apparmor_restricts_user_namespaces: Some(true),
            ..HostSwitches::default()
        };
        for stage in [
            Stage::CreateNamespaces,
            Stage::WriteIdMap,
            Stage::PrivateMounts,
        ] {
            for errno in [libc::EPERM, libc::EACCES] {
                let hint = host.hint(&Failure::os(stage, errno, "")).unwrap();
                assert!(
                    hint.contains("kernel.apparmor_restrict_unprivileged_userns=0"),
                    "{hint}"
                );
            }
        }
    }

    #[test]
    fn a_limit_of_zero_namespaces_is_named() {
        let host = HostSwitches {
            user_namespaces_max: Some(0),
            ..HostSwitches::default()
        };
        let failure = Failure::os(Stage::CreateNamespaces, libc::ENOSPC, "");
        assert!(
            host.hint(&failure)
                .unwrap()
                .contains("user.max_user_namespaces")
        );
    }

    #[test]
    fn an_unknown_failure_gets_no_invented_advice() {
        let failure = Failure::os(Stage::FillRoot, libc::ENOSPC, "etc/passwd");
        assert_eq!(HostSwitches::default().hint(&failure), None);
    }
}
