//! What the supervisor may still do inside its own user namespace, and nobody else there.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::sandbox::plan::IdMapping;

/// To become the workload, signal it, own its files and terminals, and drop the rest for it.
pub(crate) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP);

/// Reduces every set to [`KEPT`]. A supervisor that is not inner root keeps them across the exec
/// as ambient capabilities; it must clear those in what it starts.
pub(crate) fn reduce(ids: &IdMapping) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    let ambient = matches!(ids, IdMapping::Single { .. });
    let inheritable = if ambient {
        KEPT
    } else {
        CapabilitySet::empty()
    };
    set_capabilities(
        None,
        CapabilitySets {
            effective: KEPT,
            permitted: KEPT,
            inheritable,
        },
    )?;
    if ambient {
        for capability in KEPT.iter() {
            configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}
