//! Bare system calls for the code between `clone` and `execve`.
//!
//! That code shares its memory, and so the thread-local `errno`, with the supervisor. It must not go
//! through libc, which writes there: every call here is the instruction and nothing else, and errors
//! are negative return values.
#![allow(unsafe_code, reason = "system calls are instructions")]

use std::arch::asm;

/// What runs in a new process. It never returns.
pub(crate) type Entry = unsafe extern "C" fn(*mut libc::c_void) -> !;

/// One system call; a result in -4095..0 is a negated error number.
///
/// # Safety
/// As for the call itself.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller answers for the call; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// One system call; a result in -4095..0 is a negated error number.
///
/// # Safety
/// As for the call itself.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller answers for the call; the kernel clobbers x0 only.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            options(nostack),
        );
    }
    result
}

/// `clone` with a stack of its own for the child, which starts in `entry`. Returns the child's pid.
///
/// # Safety
/// `stack_top` is 16-byte aligned and the end of writable memory that nothing else uses while the
/// child shares our memory; `flags` set no thread-local storage and no thread ids.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn clone(
    flags: libc::c_int,
    stack_top: *mut u8,
    entry: Entry,
    argument: *mut libc::c_void,
) -> isize {
    let result: isize;
    // SAFETY: in the parent this is one system call. The child never passes the `call`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as usize,
            in("rsi") stack_top,
            in("rdx") 0usize,
            in("r10") 0usize,
            in("r8") 0usize,
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// `clone` with a stack of its own for the child, which starts in `entry`. Returns the child's pid.
///
/// # Safety
/// `stack_top` is 16-byte aligned and the end of writable memory that nothing else uses while the
/// child shares our memory; `flags` set no thread-local storage and no thread ids.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn clone(
    flags: libc::c_int,
    stack_top: *mut u8,
    entry: Entry,
    argument: *mut libc::c_void,
) -> isize {
    let result: isize;
    // SAFETY: in the parent this is one system call. The child never passes the `blr`.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as isize => result,
            in("x1") stack_top,
            in("x2") 0usize,
            in("x3") 0usize,
            in("x4") 0usize,
            in("x9") entry,
            in("x10") argument,
            lateout("x30") _,
        );
    }
    result
}
