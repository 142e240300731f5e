//! Compiles [`Rules`] into a classic BPF program.
//!
//! Calls with equal rules that follow each other become one run; the runs are found by binary
//! search, so a call costs about seven comparisons, and for those that always pass the kernel
//! remembers the answer and runs nothing.

use libc::sock_filter;

use super::table::{Case, Check, ENOSYS, EPERM, Rule, Rules, Verdict};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// On x86-64, calls with this bit are the x32 ABI's.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

// Instruction classes, from `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_OF: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7FFF_0000;
const FAIL: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// The program. A call of a foreign architecture (32-bit code on a 64-bit kernel) ends the
/// process: its numbers mean other calls.
pub(super) fn compile(rules: &Rules) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCH),
        jump_if(JUMP_IF_EQUAL, ARCHITECTURE, 1, 0),
        ret(KILL_PROCESS),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(jump_if(JUMP_IF_AT_LEAST, X32_BIT, 0, 1));
        program.push(ret(FAIL | u32::from(ENOSYS)));
    }
    program.extend(search(&runs(rules)));
    program
}

/// A rule, and the first number it holds for; it holds until the next run.
type Run = (u32, Rule);

fn runs(rules: &Rules) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for number in 0..=rules.known_max {
        let rule = rules
            .by_number
            .get(&number)
            .copied()
            .unwrap_or(Rule::Errno(EPERM));
        if runs.last().is_none_or(|&(_, last)| last != rule) {
            runs.push((number, rule));
        }
    }
    runs.push((rules.known_max + 1, Rule::Errno(ENOSYS)));
    runs
}

fn search(runs: &[Run]) -> Vec<sock_filter> {
    if let [(_, rule)] = runs {
        return leaf(*rule);
    }
    let (left, right) = runs.split_at(runs.len() / 2);
    let left = search(left);
    // Conditional jumps reach 255 instructions only, so the far one is unconditional.
    let mut code = vec![
        jump_if(JUMP_IF_AT_LEAST, right[0].0, 0, 1),
        statement(JUMP, left.len() as u32),
    ];
    code.extend(left);
    code.extend(search(right));
    code
}

fn leaf(rule: Rule) -> Vec<sock_filter> {
    match rule {
        Rule::Allow => vec![ret(ALLOW)],
        Rule::Errno(errno) => vec![ret(FAIL | u32::from(errno))],
        Rule::Check(check) => checked(&check),
    }
}

fn checked(check: &Check) -> Vec<sock_filter> {
    let mut code = vec![load(argument(check.argument))];
    for case in check.cases {
        match *case {
            Case::Equals(value, verdict) => {
                code.extend([jump_if(JUMP_IF_EQUAL, value, 0, 1), end(verdict)]);
            }
            Case::HasAnyOf(bits, verdict) => {
                code.extend([jump_if(JUMP_IF_ANY_OF, bits, 0, 1), end(verdict)]);
            }
            Case::EqualsAnd {
                value,
                argument: other,
                must_be,
                otherwise,
            } => code.extend([
                jump_if(JUMP_IF_EQUAL, value, 0, 4),
                load(argument(other)),
                jump_if(JUMP_IF_EQUAL, must_be, 0, 1),
                end(Verdict::Pass),
                end(otherwise),
            ]),
        }
    }
    code.push(end(check.otherwise));
    code
}

fn end(verdict: Verdict) -> sock_filter {
    match verdict {
        Verdict::Pass => ret(ALLOW),
        Verdict::Fail(errno) => ret(FAIL | u32::from(errno)),
    }
}

/// The low word of an argument; both architectures are little-endian.
fn argument(index: u32) -> u32 {
    ARGUMENTS + 8 * index
}

fn load(offset: u32) -> sock_filter {
    statement(LOAD_WORD, offset)
}

fn ret(action: u32) -> sock_filter {
    statement(RETURN, action)
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump_if(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::seccomp::table::rules;

    /// What the kernel would do, for the instructions used here.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCH => arch,
            low => arguments[((low - ARGUMENTS) / 8) as usize] as u32,
        };
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let taken = match step.code {
                LOAD_WORD => {
                    accumulator = word(step.k);
                    continue;
                }
                JUMP => {
                    at += step.k as usize;
                    continue;
                }
                RETURN => return step.k,
                JUMP_IF_EQUAL => accumulator == step.k,
                JUMP_IF_AT_LEAST => accumulator >= step.k,
                JUMP_IF_ANY_OF => accumulator & step.k != 0,
                other => panic!("unknown instruction {other:#x}"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    fn call(number: i64, arguments: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        run(&compile(&rules()), ARCHITECTURE, number as u32, all)
    }

    const NO: u32 = FAIL | EPERM as u32;
    const ABSENT: u32 = FAIL | ENOSYS as u32;

    #[test]
    fn every_number_gets_its_rule() {
        let (rules, program) = (rules(), compile(&rules()));
        for number in 0..600 {
            let expected = match rules.by_number.get(&number) {
                Some(Rule::Check(_)) => continue,
                Some(Rule::Allow) => ALLOW,
                Some(Rule::Errno(errno)) => FAIL | u32::from(*errno),
                None if number > rules.known_max => ABSENT,
                None => NO,
            };
            assert_eq!(
                run(&program, ARCHITECTURE, number, [0; 6]),
                expected,
                "call {number}"
            );
        }
    }

    #[test]
    fn the_dangerous_calls_are_refused() {
        for number in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_fsconfig,
            libc::SYS_mount_setattr,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_userfaultfd,
            libc::SYS_open_by_handle_at,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_syslog,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_sethostname,
            libc::SYS_fanotify_init,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
            libc::SYS_mbind,
            libc::SYS_vhangup,
        ] {
            assert_eq!(call(number, &[]), NO, "call {number}");
        }
        for number in [
            libc::SYS_clone3,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
        ] {
            assert_eq!(call(number, &[]), ABSENT, "call {number}");
        }
    }

    #[test]
    fn clone_makes_threads_and_processes_but_no_namespaces() {
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD;
        assert_eq!(call(libc::SYS_clone, &[thread as u64]), ALLOW);
        assert_eq!(call(libc::SYS_clone, &[libc::SIGCHLD as u64]), ALLOW);
        for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID] {
            let flags = (namespace | libc::SIGCHLD) as u64;
            assert_eq!(call(libc::SYS_clone, &[flags]), NO);
            assert_eq!(call(libc::SYS_clone, &[flags | 1 << 40]), NO);
        }
    }

    #[test]
    fn sockets_are_unix_and_ip_and_routing_netlink() {
        let socket =
            |family: i32, protocol: u64| call(libc::SYS_socket, &[family as u64, 2, protocol]);
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, 0), ALLOW);
        }
        assert_eq!(socket(libc::AF_NETLINK, 0), ALLOW);
        assert_eq!(
            socket(libc::AF_NETLINK, 12),
            FAIL | libc::EPROTONOSUPPORT as u32
        );
        for family in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG] {
            assert_eq!(socket(family, 0), FAIL | libc::EAFNOSUPPORT as u32);
        }
    }

    #[test]
    fn a_debugger_may_run_its_child_but_not_attach() {
        assert_eq!(
            call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME as u64]),
            ALLOW
        );
        assert_eq!(call(libc::SYS_ptrace, &[libc::PTRACE_CONT as u64]), ALLOW);
        assert_eq!(call(libc::SYS_ptrace, &[libc::PTRACE_ATTACH as u64]), NO);
        assert_eq!(call(libc::SYS_ptrace, &[0x4206]), NO);
    }

    #[test]
    fn limits_are_set_on_oneself_only() {
        assert_eq!(call(libc::SYS_prlimit64, &[0, 7]), ALLOW);
        for somebody in [1, 2, 1 << 32 | 1] {
            assert_eq!(call(libc::SYS_prlimit64, &[somebody, 7]), NO);
        }
    }

    #[test]
    fn terminals_cannot_be_typed_into() {
        assert_eq!(call(libc::SYS_ioctl, &[0, libc::TIOCSTI]), NO);
        assert_eq!(call(libc::SYS_ioctl, &[0, libc::TIOCSTI | 1 << 32]), NO);
        assert_eq!(call(libc::SYS_ioctl, &[0, libc::TIOCGWINSZ]), ALLOW);
    }

    #[test]
    fn foreign_architectures_are_killed_and_x32_is_absent() {
        let program = compile(&rules());
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), KILL_PROCESS);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(&program, ARCHITECTURE, X32_BIT | 1, [0; 6]), ABSENT);
    }
}
