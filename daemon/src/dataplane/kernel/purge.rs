//! Removing every trace of this data plane.

use super::leftovers::ours;
use super::reqids;
use crate::dataplane::DataPlaneError;
use crate::host::HostSettings;
use crate::host::xfrm::{Refusal, Socket, Xfrm};
use crate::host::xfrm_link;

/// What [`purge`] found and removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Removed {
    /// SAs.
    pub(crate) states: usize,
    /// Policies.
    pub(crate) policies: usize,
    /// xfrm interfaces.
    pub(crate) interfaces: usize,
}

/// Removes the states, policies and xfrm interfaces of this instance: flows that were protected pass in clear from
/// then on.
///
/// # Errors
/// The kernel refuses; what was removed until then is gone. That it has no XFRM at all is none.
pub(crate) async fn purge(settings: &HostSettings) -> Result<Removed, DataPlaneError> {
    let interfaces = xfrm_link::remove_all_but(settings, &[]).await?;
    let removed = match Socket::open() {
        Ok(kernel) => remove_all(&kernel, settings).map_err(|refusal| {
            DataPlaneError::system(
                "cannot remove SAs and policies of the kernel",
                refusal.source,
            )
        }),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(Removed::default()),
        Err(error) => Err(DataPlaneError::system(
            "cannot open a netlink socket for XFRM",
            error,
        )),
    }?;
    Ok(Removed {
        interfaces,
        ..removed
    })
}

/// Whether an earlier run left policies in place.
///
/// # Errors
/// The kernel does not tell. That it has no XFRM at all is none.
pub(crate) fn protects(settings: &HostSettings) -> Result<bool, DataPlaneError> {
    let Ok(kernel) = Socket::open() else {
        return Ok(false);
    };
    let range = reqids::range(settings);
    let policies = kernel.policies().map_err(|refusal| {
        DataPlaneError::system("the kernel does not tell its policies", refusal.source)
    })?;
    Ok(policies.iter().any(|policy| {
        let template = policy.rule.template;
        template.is_some_and(|template| range.contains(&template.reqid))
    }))
}

pub(super) fn remove_all(kernel: &impl Xfrm, settings: &HostSettings) -> Result<Removed, Refusal> {
    let range = reqids::range(settings);
    let (policies, states) = ours(kernel.policies()?, kernel.states()?, |reqid| {
        range.contains(&reqid)
    });
    let mut removed = Removed::default();
    // States that ask for an SA have no SPI to name them by, and go by themselves.
    let named = states.iter().filter(|state| state.id.spi != 0);
    let states = named.map(|state| state.id.delete());
    for message in states {
        removed.states += usize::from(done(kernel.carry_out(message))?);
    }
    for policy in &policies {
        removed.policies += usize::from(done(kernel.carry_out(policy.key.delete()))?);
    }
    Ok(removed)
}

fn done(result: Result<(), Refusal>) -> Result<bool, Refusal> {
    match result {
        Err(refusal) if refusal.gone() => Ok(false),
        result => result.map(|()| true),
    }
}
