//! Drivers that break the contract in every way we could think of, each beside others and beside one
//! that is right. Whatever they do, the gateway knows how their sandboxes are, says what is wrong
//! and what helps, and the driver that is right does not notice.

mod calls;
mod doors;
mod each;
mod health;
mod inventory;
mod places;
mod scene;
mod variants;
mod watch;
