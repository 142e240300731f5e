//! `exec -it` in a pseudo-terminal, with somebody typing.

use cofferdam_tests::TestGateway;
use cofferdam_tests::pty::Terminal;

fn shell(gateway: &TestGateway) -> Terminal {
    gateway.create(["--name", "tty"]);
    let mut terminal = gateway
        .cli(["exec", "-it", "--env", "PS1=ready> ", "tty", "sh"])
        .terminal(24, 80);
    terminal.expect("ready> ");
    terminal
}

#[test]
fn the_command_has_a_terminal_of_the_callers_size_that_follows_resizing() {
    let gateway = TestGateway::start();
    let mut terminal = shell(&gateway);
    terminal.send("test -t 0 && test -t 1 && test -t 2 && echo all-$((1 + 1))-terminals\r");
    terminal.expect("all-2-terminals");
    terminal.send("stty size\r");
    terminal.expect("24 80");
    // The shell is told by a signal; it may come a moment after the resize.
    terminal.send("while [ \"$(stty size)\" != '33 99' ]; do sleep 0.05; done; echo resized-$?\r");
    terminal.resize(33, 99);
    terminal.expect("resized-0");
    terminal.send("exit 4\r");
    assert_eq!(terminal.wait(), 4);
}

#[test]
fn ctrl_c_interrupts_what_runs_and_not_the_shell() {
    let gateway = TestGateway::start();
    let mut terminal = shell(&gateway);
    terminal.send("echo sleep-$((2 + 2)); sleep 600\r");
    terminal.expect("sleep-4");
    terminal.send("\x03");
    terminal.expect("ready> ");
    terminal.send("echo code-$?\r");
    terminal.expect("code-130");
    // The call itself was not interrupted.
    terminal.send("exit 6\r");
    assert_eq!(terminal.wait(), 6);
}

#[test]
fn ctrl_d_ends_the_input_and_with_it_the_shell() {
    let gateway = TestGateway::start();
    let mut terminal = shell(&gateway);
    terminal.send("cat\r");
    terminal.send("typed\r");
    terminal.expect("typed\r\ntyped\r\n");
    terminal.send("\x04");
    terminal.expect("ready> ");
    terminal.send("\x04");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn one_can_leave_a_session_and_come_back() {
    let gateway = TestGateway::start();
    let mut terminal = shell(&gateway);
    terminal.send("stays=here\r");
    terminal.expect("ready> ");
    terminal.send("\x1dd");
    terminal.expect("attach");
    assert_eq!(terminal.wait(), 0);
    let id = gateway.ok(["ps", "-q"]);
    let mut again = gateway.cli(["attach", &id]).terminal(24, 80);
    again.send("echo $stays-again\r");
    again.expect("here-again");
    again.send("exit 9\r");
    assert_eq!(again.wait(), 9);
}

#[test]
fn the_terminal_is_left_as_it_was_found() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "tty"]);
    let script = "stty raw -echo; kill -KILL $$";
    let terminal = gateway
        .cli(["exec", "-it", "tty", "sh", "-c", script])
        .terminal(24, 80);
    let before = terminal.modes();
    let (code, after) = terminal.wait_with_modes();
    assert_eq!(code, 128 + 9);
    assert_eq!(before, after);
}
