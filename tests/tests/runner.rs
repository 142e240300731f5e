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
mod frozen;
mod full_disk;
mod gateway_death;
mod killed_run;
