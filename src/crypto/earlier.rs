//! The volume keys of earlier epochs, kept under the newest (`docs/FORMAT.md`, "Key epochs").

use zeroize::Zeroizing;

use super::derive::earlier_wrap_key;
use super::label::Label;
use super::siv::Siv;
use super::{Epoch, Key, OpenError, Vmk, WRAPPED_BYTES};
use crate::base::VolumeId;

/// Wraps the volume key of `epoch` under the newest one, which is of epoch `newest`.
#[must_use]
pub fn wrap_earlier(
    (newest, vmk): (Epoch, &Vmk),
    volume: VolumeId,
    (epoch, key): (Epoch, &Vmk),
) -> [u8; WRAPPED_BYTES] {
    let [of, under] = associated(epoch, newest);
    let siv = Siv::new(earlier_wrap_key(vmk, volume));
    let (tag, bytes) = siv.seal(&[Label::EarlierVmk.bytes(), &of, &under], key.expose());
    let mut out = [0; WRAPPED_BYTES];
    out.iter_mut().zip(tag.iter().chain(&bytes)).for_each(|(to, from)| *to = *from);
    out
}

/// Unwraps what [`wrap_earlier`] gave for the same epochs.
///
/// # Errors
/// [`OpenError::Damaged`].
pub fn unwrap_earlier(
    (newest, vmk): (Epoch, &Vmk),
    volume: VolumeId,
    epoch: Epoch,
    wrapped: &[u8; WRAPPED_BYTES],
) -> Result<Vmk, OpenError> {
    let (tag, bytes) = wrapped.split_first_chunk::<16>().ok_or(OpenError::Damaged)?;
    let [of, under] = associated(epoch, newest);
    let siv = Siv::new(earlier_wrap_key(vmk, volume));
    let plain = siv.open(&[Label::EarlierVmk.bytes(), &of, &under], *tag, bytes)?;
    let plain = Zeroizing::new(plain);
    let plain: &[u8; 32] = plain.as_slice().try_into().map_err(|_| OpenError::Damaged)?;
    Ok(Key::filled(|out| *out = *plain))
}

const fn associated(epoch: Epoch, newest: Epoch) -> [[u8; 4]; 2] {
    [epoch.0.to_be_bytes(), newest.0.to_be_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId([1; 16]);

    #[test]
    fn an_earlier_key_opens_under_the_newest_for_its_epochs_only() {
        let (old, new) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let wrapped = wrap_earlier((Epoch(3), &new), VOLUME, (Epoch(1), &old));
        let open = |newest: (Epoch, &Vmk), volume, epoch, wrapped: &[u8; WRAPPED_BYTES]| {
            unwrap_earlier(newest, volume, epoch, wrapped).map(|key| *key.expose())
        };
        assert_eq!(open((Epoch(3), &new), VOLUME, Epoch(1), &wrapped), Ok([1; 32]));
        assert!(open((Epoch(3), &new), VOLUME, Epoch(2), &wrapped).is_err());
        assert!(open((Epoch(4), &new), VOLUME, Epoch(1), &wrapped).is_err());
        assert!(open((Epoch(3), &old), VOLUME, Epoch(1), &wrapped).is_err());
        assert!(open((Epoch(3), &new), VolumeId([2; 16]), Epoch(1), &wrapped).is_err());
        let mut altered = wrapped;
        altered[47] ^= 1;
        assert!(open((Epoch(3), &new), VOLUME, Epoch(1), &altered).is_err());
    }
}
