//! The only place where types of `compute.v1` and of the model meet.
//!
//! Towards the gateway: what is unknown becomes `Unknown` or `None`, what cannot be is an error.
//! Towards the wire: every default is written out.

use cofferdam_proto::compute::v1 as wire;

use super::{Capabilities, Fingerprint};
use crate::model::{Observation, SandboxSpec};

/// A message that no driver or store may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: {problem}")]
pub struct ConvertError {
    pub what: &'static str,
    pub problem: String,
}

pub fn spec_to_wire(spec: &SandboxSpec) -> wire::SandboxSpec {
    let _ = spec;
    todo!()
}

pub fn spec_from_wire(spec: wire::SandboxSpec) -> Result<SandboxSpec, ConvertError> {
    let _ = spec;
    todo!()
}

pub fn observation_to_wire(observation: &Observation) -> wire::Sandbox {
    let _ = observation;
    todo!()
}

pub fn observation_from_wire(sandbox: wire::Sandbox) -> Result<Observation, ConvertError> {
    let _ = sandbox;
    todo!()
}

pub fn capabilities_to_wire(capabilities: &Capabilities) -> wire::Capabilities {
    let _ = capabilities;
    todo!()
}

pub fn fingerprint_to_wire(fingerprint: &Fingerprint) -> wire::FingerprintResponse {
    let _ = fingerprint;
    todo!()
}

pub fn struct_to_wire(map: &serde_json::Map<String, serde_json::Value>) -> prost_types::Struct {
    let _ = map;
    todo!()
}

pub fn struct_from_wire(value: prost_types::Struct) -> serde_json::Map<String, serde_json::Value> {
    let _ = value;
    todo!()
}
