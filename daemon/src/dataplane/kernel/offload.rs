//! Devices that seal and open for the kernel, where a child asks for it.

use obol_ike::config::Path;
use obol_ike::event::{Limits, MovedSa};

use super::core::Core;
use crate::dataplane::HwOffload;
use crate::host::xfrm::{Copied, Device, Move, NewState, Offload, Refusal, State, StateId, Xfrm};

impl<K: Xfrm> Core<K> {
    /// Adds a state, to the device that its packets take as well if that is wished for.
    ///
    /// # Errors
    /// The kernel refuses it, or the device does where it must have it; then there is none.
    pub(super) fn add_state(
        &self,
        new: &mut NewState<'_>,
        path: Path,
        wish: HwOffload,
    ) -> Result<(), Refusal> {
        let inbound = new.window > 0;
        new.offload = None;
        let device = match wish {
            HwOffload::No => return self.kernel.carry_out(new.add()),
            HwOffload::Crypto => self.device(path)?,
            HwOffload::Auto => match self.device(path) {
                Ok(device) => device,
                Err(_) => return self.kernel.carry_out(new.add()),
            },
        };
        let index = device.index;
        new.offload = Some(Offload { index, inbound });
        let added = self.kernel.carry_out(new.add());
        match added {
            // A device that can do nothing of the kind is passed over in silence.
            Ok(()) if wish == HwOffload::Crypto => self.must_be_taken(new.id, &device),
            Err(refusal) if !refusal.is(libc::EEXIST) && wish == HwOffload::Auto => {
                tracing::debug!(device = device.name, %refusal, "an SA stays with the processor");
                new.offload = None;
                self.kernel.carry_out(new.add())
            }
            Err(refusal) if !refusal.is(libc::EEXIST) => Err(not_taken(&device, refusal)),
            added => added,
        }
    }

    /// Adds a state that has moved. A device on the new way that does not take it is no reason to
    /// be without.
    pub(super) fn add_moved(
        &self,
        copied: &Copied<'_>,
        to: &Move,
        limits: Option<&Limits>,
        moved: MovedSa,
    ) -> Result<(), Refusal> {
        let sa = self.sas.get(&moved.id);
        let wish = sa.map_or(HwOffload::No, |sa| sa.options.hw_offload);
        if wish != HwOffload::No
            && let Ok(Device { index, name }) = self.device(moved.path)
        {
            let inbound = to.destination == moved.path.local.ip();
            let offload = Offload { index, inbound };
            match self.kernel.carry_out(copied.add(to, limits, Some(offload))) {
                Err(refusal) if !refusal.is(libc::EEXIST) => {
                    tracing::warn!(device = name, %refusal, "a device does not take an SA that has moved: it stays with the processor");
                }
                done => return done,
            }
        }
        self.kernel.carry_out(copied.add(to, limits, None))
    }

    fn device(&self, path: Path) -> Result<Device, Refusal> {
        let (local, remote) = (path.local.ip(), path.remote.ip());
        self.kernel.device(local, remote, self.settings.fwmark)
    }

    fn must_be_taken(&self, id: StateId, device: &Device) -> Result<(), Refusal> {
        let body = self.kernel.state(id)?;
        if State::read(&body).is_some_and(|state| state.offloaded) {
            return Ok(());
        }
        self.delete_state(id);
        let source = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        Err(not_taken(device, source.into()))
    }
}

fn not_taken(device: &Device, refusal: Refusal) -> Refusal {
    let why = refusal.words.map(|words| format!(": {words}"));
    let words = format!(
        "hw_offload = \"crypto\", and the device {} does not take it{}; write \"auto\" or \"no\"",
        device.name,
        why.unwrap_or_default()
    );
    Refusal {
        words: Some(words),
        ..refusal
    }
}
