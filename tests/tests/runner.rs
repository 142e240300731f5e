//! The one integration test binary: what the product promises, tried on the product.

mod bad_input;
mod bulk;
mod conformance;
mod containers;
mod cut;
mod driver_death;
mod exec;
mod faults;
mod files;
mod full_disk;
mod gateway_death;
mod new_driver;
mod odd_driver;
mod own_gateway;
mod ports;
mod python_driver;
mod queue;
mod readme;
mod sealed;
mod stalled;
mod stdin;
mod terminal;
mod third_party;
mod trees;
mod unstored;
