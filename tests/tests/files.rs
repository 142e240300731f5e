//! `cofferdam cp`: files and directories, both ways.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use cofferdam_tests::TestGateway;

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum")
        .arg(path)
        .output()
        .expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().next().expect("a digest").to_owned()
}

/// Bytes that are no text, and no multiple of any buffer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_file_goes_in_and_comes_out_the_same() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "files"]);
    let mine = gateway.home().private(gateway.user(), "mine");
    for length in [0, 1, 18_000, 33 << 20 | 7] {
        let there = mine.join(format!("{length}"));
        let back = mine.join(format!("{length}-back"));
        fs::write(&there, noise(length)).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o750)).unwrap();
        gateway.ok(["cp", &there.to_string_lossy(), "files:copy"]);
        let inside = gateway.ok(["exec", "files", "sha256sum", "copy"]);
        assert!(inside.starts_with(&sha256(&there)), "{length}: {inside}");
        assert_eq!(
            gateway.ok(["exec", "files", "stat", "-c", "%a", "copy"]),
            "750"
        );
        gateway.ok(["cp", "files:/workspace/copy", &back.to_string_lossy()]);
        assert_eq!(sha256(&back), sha256(&there), "{length}");
    }
}

#[test]
fn a_directory_goes_in_and_comes_out_the_same() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "trees"]);
    let mine = gateway.home().private(gateway.user(), "mine");
    let tree = mine.join("tree");
    fs::create_dir_all(tree.join("a/b c/ü")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(tree.join("a/script"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(tree.join("a/script"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("a/b c/ü/deep"), noise(300_001)).unwrap();
    std::os::unix::fs::symlink("a/script", tree.join("link")).unwrap();
    for number in 0..500 {
        fs::write(tree.join(format!("a/{number}")), noise(number)).unwrap();
    }
    gateway.ok(["cp", &tree.to_string_lossy(), "trees:tree"]);
    assert_eq!(gateway.ok(["exec", "trees", "./tree/link"]), "ran");
    gateway.ok(["cp", "trees:tree", &mine.join("back").to_string_lossy()]);
    let listing = |dir: &str| {
        let script = "find . | sort | while read -r f; do \
                      stat -c '%N %F' \"$f\"; [ -f \"$f\" ] && sha256sum \"$f\" && stat -c %a \"$f\"; done";
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(mine.join(dir))
            .output()
            .expect("sh");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(listing("back"), listing("tree"));
}

#[test]
fn what_cannot_be_copied_leaves_nothing_half_done() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "refused", "--disk", "16M"]);
    let mine = gateway.home().private(gateway.user(), "mine");
    let large = mine.join("large");
    fs::write(&large, noise(32 << 20)).unwrap();
    gateway.ok(["exec", "refused", "sh", "-c", "echo old > target"]);
    let large = large.to_string_lossy().into_owned();
    gateway.run(["cp", &large, "refused:target"]).exited(125);
    assert_eq!(gateway.ok(["exec", "refused", "cat", "target"]), "old");
    assert_eq!(gateway.ok(["exec", "refused", "ls", "-A"]), "target");
    gateway
        .run(["cp", &large, "refused:/etc/target"])
        .exited(125);
    gateway.run(["cp", "refused:missing", &large]).exited(125);
    gateway
        .run(["cp", "refused:/etc/shadow", &large])
        .exited(125);
    gateway.run(["cp", "no-such-sandbox:x", &large]).exited(125);
    assert_eq!(fs::metadata(&large).unwrap().len(), 32 << 20);
}

#[test]
fn what_cannot_be_copied_out_is_counted() {
    let gateway = TestGateway::start();
    let sandbox = gateway.create([""; 0]);
    let script = "mkdir d; echo text > d/file; mkfifo d/pipe";
    gateway.ok(["exec", &sandbox, "sh", "-c", script]);
    let out = gateway.home().private(gateway.user(), "mine").join("out");
    let ran = gateway.run(["cp", &format!("{sandbox}:d"), &out.to_string_lossy()]);
    ran.exited(0);
    let told = &ran.stderr;
    assert!(told.contains("1 devices, sockets or pipes"), "{told}");
    assert_eq!(fs::read(out.join("file")).expect("copied"), b"text\n");
    assert!(!out.join("pipe").exists());
}
